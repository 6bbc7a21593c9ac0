//! Ends the VM safely while the model thread, or threads that work for it, compute.
//!
//! When a process ends, it runs the destructors of its C++ libraries (PyTorch's, ONNX Runtime's). A thread
//! that still computes at that moment crashes the process. With glibc, a handler ends the process here
//! without destructors, because `on_exit` gives it the exit status. Elsewhere there is no such function, so
//! the handler asks the threads to rest and waits for them.
//!
//! The handler registered last runs first, and C++ registers a destructor whenever it creates one of its
//! static objects, often on first use. So the handler is removed and registered again as long as there is
//! work.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::state::{Control, Phase, SHARED, deadline};

/// How long the end of the VM waits for a step to end, if it has to.
const PATIENCE: Duration = Duration::from_secs(5);

struct Thread {
    controls: Sender<Control>,
    id: ThreadId,
}

static THREAD: OnceLock<Thread> = OnceLock::new();
/// Remembers the model thread, which is created once.
pub fn prepare(controls: Sender<Control>, id: ThreadId) {
    let _ = THREAD.set(Thread { controls, id });
}

/// How often the handler is registered again while there is work.
const PERIOD: Duration = Duration::from_millis(50);

unsafe extern "C" {
    fn __cxa_atexit(
        handler: extern "C" fn(*mut c_void),
        argument: *mut c_void,
        library: *mut c_void,
    ) -> c_int;
    fn __cxa_finalize(library: *mut c_void);
}

const CAN_TAKE_BACK: bool = cfg!(any(target_env = "gnu", target_os = "macos"));

/// If a handler cannot be removed, as with musl, it is registered at most this many times.
const MOST: u32 = 1_000;

/// The address identifies our handler among all others; the value counts how often it was registered.
static OURS: Mutex<u32> = Mutex::new(0);
static WATCHER: OnceLock<thread::Thread> = OnceLock::new();
static WORKING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static TAKING_BACK: Cell<bool> = const { Cell::new(false) };
}

/// Makes our handler the first one to run.
pub fn arm() {
    // Another thread is doing this already.
    let Ok(mut count) = OURS.try_lock() else {
        return;
    };
    *count = count.saturating_add(1);
    if *count > MOST && !CAN_TAKE_BACK {
        return;
    }
    let name = (&raw const OURS).cast_mut().cast();

    // SAFETY: the first calls our handler, if it is registered, and forgets it; no other handler has this
    // address. The library stays mapped until the process ends.
    unsafe {
        TAKING_BACK.set(true);
        __cxa_finalize(name);
        TAKING_BACK.set(false);
        __cxa_atexit(handler, std::ptr::null_mut(), name);
    }
}

/// Keeps our handler first while `working`. Call it around each stretch of work.
pub fn working(working: bool) {
    WORKING.store(working, Ordering::Relaxed);
    arm();

    if working && CAN_TAKE_BACK {
        WATCHER.get_or_init(watcher).unpark();
    }
}

fn watcher() -> thread::Thread {
    let body = || {
        loop {
            while WORKING.load(Ordering::Relaxed) {
                arm();
                thread::sleep(PERIOD);
            }
            thread::park();
        }
    };
    match thread::Builder::new()
        .name("chatterbex-exit".into())
        .spawn(body)
    {
        Ok(handle) => handle.thread().clone(),
        // Without that thread, the handler is made first only between two steps.
        Err(_) => thread::current(),
    }
}

extern "C" fn handler(_: *mut c_void) {
    if !TAKING_BACK.get() && !end_with_status() && !rest(PATIENCE) {
        // Report a failure rather than risk a crash.
        end(libc::EXIT_FAILURE);
    }
}

/// Makes the process end with its own exit status, before any other handler runs. Returns false if that is
/// impossible: a handler registered by a handler runs next (exit(3)), but only glibc gives it the status.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn end_with_status() -> bool {
    unsafe extern "C" {
        fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }

    extern "C" fn end_with(status: c_int, _: *mut c_void) {
        end(status);
    }

    // SAFETY: the handler is called during this exit, while the library is mapped.
    unsafe { on_exit(end_with, std::ptr::null_mut()) == 0 }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn end_with_status() -> bool {
    false
}

/// Ends the process without destructors.
fn end(status: c_int) {
    // SAFETY: neither takes a pointer to our data.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status);
    }
}

/// Stops the model thread, and the threads that work for it, for the rest of the process. Returns false if
/// they did not stop in time.
fn rest(timeout: Duration) -> bool {
    let Some(thread) = THREAD.get() else {
        return true;
    };
    // Python code on the model thread ended the process, so there is nothing to wait for.
    if thread.id == std::thread::current().id() {
        return false;
    }

    SHARED.close_gate();
    let _ = thread.controls.send(Control::Halt);
    SHARED
        .wait(deadline(timeout), |phase| *phase == Phase::Halted)
        .is_some()
}
