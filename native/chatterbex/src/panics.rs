//! Panics, kept off the terminal: the model thread reports them as errors.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use chatterbex_nif::panic_message;

use crate::error::BridgeError;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does work in which a panic is an error like any other.
///
/// What the work was changing must not be relied on after an error.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, BridgeError>) -> Result<T, BridgeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let place = LAST.with_borrow_mut(Option::take);
        let message = panic_message(&*panic);
        Err(BridgeError::Panic(match place {
            Some(place) => format!("{message} at {place}"),
            None => message,
        }))
    })
}

/// Remembers where a panic of this library happened instead of printing it.
///
/// The hook is this library's own: each Rust library has its own copy of the standard library.
pub fn silence() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        LAST.with_borrow_mut(|last| *last = place);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let what = |panic: fn() -> u8| guarded(|| Ok(panic())).unwrap_err().to_string();

        assert!(what(|| panic!("plain")).contains("plain"));
        assert!(what(|| panic!("with {}", 1)).contains("with 1"));
        assert!(what(|| std::panic::panic_any(7)).contains("without a message"));
        assert_eq!(guarded(|| Ok(1)), Ok(1));
    }
}
