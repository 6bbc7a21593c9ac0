//! The end of the VM while the model thread is at work.
//!
//! A process that ends runs the destructors of its C++ libraries (PyTorch's, ONNX Runtime's); a
//! thread that still computes then crashes it. So the model thread is told to stop between two
//! steps first, and gets a bounded time for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lifecycle;

/// How long the end of the VM waits for a step to end.
const PATIENCE: Duration = Duration::from_secs(2);

static ARMED_FOR: AtomicU64 = AtomicU64::new(0);

/// Registers the handler when libraries were loaded since the last time.
///
/// Handlers run in reverse order: to run before the destructors of a library, one must have been
/// registered after it was loaded. Cheap enough to be called after each step.
pub fn arm() {
    let libraries = libraries_loaded();

    if ARMED_FOR.swap(libraries, Ordering::Relaxed) != libraries {
        register();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn register() {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }

    extern "C" fn handler(status: c_int, _: *mut c_void) {
        if !lifecycle::halt(PATIENCE) {
            // The step goes on: end without destructors rather than crash in them.
            // SAFETY: both take no pointer to anything of ours.
            unsafe {
                libc::fflush(std::ptr::null_mut());
                libc::_exit(status);
            }
        }
    }

    // SAFETY: the library stays mapped until the process is gone.
    unsafe { on_exit(handler, std::ptr::null_mut()) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn register() {
    extern "C" fn handler() {
        lifecycle::halt(PATIENCE);
    }

    // SAFETY: the library stays mapped until the process is gone.
    unsafe { libc::atexit(handler) };
}

/// A number that changes when a library is loaded.
#[cfg(target_os = "linux")]
fn libraries_loaded() -> u64 {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        loaded: *mut c_void,
    ) -> c_int {
        // SAFETY: the linker's struct and our number, both alive for the call.
        unsafe { *loaded.cast::<u64>() = (*info).dlpi_adds };
        1
    }

    let mut loaded = 0u64;
    // SAFETY: the callback writes to `loaded` and ends the walk at its first call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut loaded).cast()) };
    loaded
}

/// A number that changes when a library is loaded.
#[cfg(target_os = "macos")]
fn libraries_loaded() -> u64 {
    unsafe extern "C" {
        fn _dyld_image_count() -> u32;
    }

    // SAFETY: it takes and returns plain numbers.
    u64::from(unsafe { _dyld_image_count() })
}

/// Elsewhere there is one registration.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn libraries_loaded() -> u64 {
    1
}
