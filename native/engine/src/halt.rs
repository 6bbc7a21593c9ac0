//! The end of the VM while the model thread, or threads that work for it, compute.
//!
//! A process that ends runs the destructors of its C++ libraries (PyTorch's, ONNX Runtime's), and a
//! thread that still computes then crashes it. With glibc the process ends here without them: its
//! `on_exit` tells a handler the exit status. Elsewhere there is no such function, so the threads are
//! asked to rest and waited for.
//!
//! The last handler to be registered runs first, and C++ registers a destructor whenever it makes one of
//! its objects, which it often does on first use. So the handler is taken back and registered again all
//! the while there is work.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::state::{Control, Phase, SHARED, deadline};

/// How long the end of the VM waits for a step to end, where it has to.
const PATIENCE: Duration = Duration::from_secs(5);

struct Thread {
    controls: Sender<Control>,
    id: ThreadId,
}

static THREAD: OnceLock<Thread> = OnceLock::new();
/// Names the model thread, which is made once.
pub fn prepare(controls: Sender<Control>, id: ThreadId) {
    let _ = THREAD.set(Thread { controls, id });
}

/// How long the handler may be behind while there is work.
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

/// Where a handler cannot be taken back, as with musl, it is registered only so often.
const MOST: u32 = 1_000;

/// Its address names our handler among all others; inside is how often it was registered.
static OURS: Mutex<u32> = Mutex::new(0);
static WATCHER: OnceLock<thread::Thread> = OnceLock::new();
static WORKING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static TAKING_BACK: Cell<bool> = const { Cell::new(false) };
}

/// Makes the handler the first one to run.
pub fn arm() {
    // Another thread is at it.
    let Ok(mut count) = OURS.try_lock() else {
        return;
    };
    *count = count.saturating_add(1);
    if *count > MOST && !CAN_TAKE_BACK {
        return;
    }
    let name = (&raw const OURS).cast_mut().cast();

    // SAFETY: the first calls our handler, if it is registered, and forgets it; no other has this name.
    // The library stays mapped until the process is gone.
    unsafe {
        TAKING_BACK.set(true);
        __cxa_finalize(name);
        TAKING_BACK.set(false);
        __cxa_atexit(handler, std::ptr::null_mut(), name);
    }
}

/// Keeps the handler the first one while `working`. Called around each stretch of work.
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
        // Without it, the handler is the first one between two steps.
        Err(_) => thread::current(),
    }
}

extern "C" fn handler(_: *mut c_void) {
    if !TAKING_BACK.get() && !end_with_status() && !rest(PATIENCE) {
        // A failure is said rather than a crash risked.
        end(libc::EXIT_FAILURE);
    }
}

/// Has the process end with its own exit status, before any other handler runs. False where that cannot
/// be: a handler that a handler registers is the next to run (exit(3)), but only glibc tells it the status.
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
    // SAFETY: both take no pointer to anything of ours.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status);
    }
}

/// Keeps the model thread and those that work for it from computing for the rest of the process.
/// False where they did not come to rest in time.
fn rest(timeout: Duration) -> bool {
    let Some(thread) = THREAD.get() else {
        return true;
    };
    // Something in Python's own code ended the process: there is nobody to wait for.
    if thread.id == std::thread::current().id() {
        return false;
    }

    SHARED.close_gate();
    let _ = thread.controls.send(Control::Halt);
    SHARED
        .wait(deadline(timeout), |phase| *phase == Phase::Halted)
        .is_some()
}
