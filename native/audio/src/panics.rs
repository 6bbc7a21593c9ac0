//! Panics of the libraries that do the work, kept from the VM and off the terminal.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chatterbex_nif::panic_message;

/// Does work that may panic; the error is the panic's message.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    silence();
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(&*panic))
}

/// The hook is this library's own: each Rust library has its own copy of the standard library.
#[cfg(not(test))]
fn silence() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// Tests fail by panics that should be seen.
#[cfg(test)]
fn silence() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(guarded(|| 1), Ok(1));
        assert_eq!(guarded(|| -> u8 { panic!("at {}", 1) }), Err("at 1".into()));
    }
}
