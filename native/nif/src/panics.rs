use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// How many guards this thread is in, and where its last panic within one happened.
    static GUARDS: Cell<u32> = const { Cell::new(0) };
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Runs `work`, and turns a panic into an error with the panic's message and place. Nothing is printed.
///
/// After an error, do not rely on anything that the work was changing.
///
/// # Errors
/// The panic's message, followed by the file and line it came from.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Each Rust library has its own copy of the standard library, and so its own hook.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| note(info, &before)));
    });

    GUARDS.set(GUARDS.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDS.set(GUARDS.get() - 1);

    result.map_err(|panic| {
        let message = message(&*panic);
        match PLACE.take() {
            Some(place) => format!("{message} at {place}"),
            None => message,
        }
    })
}

fn note(info: &PanicHookInfo, outside: &dyn Fn(&PanicHookInfo)) {
    if GUARDS.get() > 0 {
        PLACE.set(info.location().map(ToString::to_string));
    } else {
        outside(info);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_place() {
        let what = |panic: fn() -> u8| guarded(panic).unwrap_err();

        assert_eq!(guarded(|| 1), Ok(1));
        assert!(what(|| panic!("plain")).starts_with("plain at nif/src/panics.rs:"));
        assert!(what(|| panic!("with {}", 1)).starts_with("with 1 at "));
        assert!(what(|| std::panic::panic_any(7)).starts_with("a panic without a message at "));
    }

    #[test]
    fn a_guard_within_a_guard() {
        let inner = guarded(|| guarded(|| panic!("inner")).map(|()| 1).unwrap_or(2));
        assert_eq!(inner, Ok(2));
        assert_eq!(GUARDS.get(), 0);
    }
}
