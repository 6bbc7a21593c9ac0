//! Starts and stops the engine, and reports its state.
//!
//! The model thread is created once and lives as long as the VM: PyTorch, ONNX Runtime and Python itself
//! remember the thread on which they started. `stop` removes the engine and its models, and leaves the thread
//! waiting for the next `start`.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use rustler::{LocalPid, Term};

use crate::error::BridgeError;
use crate::halt;
use crate::kept::Kept;
use crate::settings::Settings;
use crate::state::{Command, Control, Phase, SHARED, deadline, lock};
use crate::thread;

struct Thread {
    controls: Sender<Control>,
    cancels: Sender<i64>,
}

static THREAD: OnceLock<Thread> = OnceLock::new();
/// The configuration of this run. It is locked while a run starts or stops.
static CURRENT: Mutex<Option<Kept>> = Mutex::new(None);

/// Starts the engine, or waits for it if it is already starting. See `Chatterbex.Native.start/2`.
///
/// # Errors
/// Anything that keeps Python or the engine from starting; `Timeout`, after which it continues to start;
/// `OtherConfiguration` if it runs with another configuration.
pub fn start(config: Term, log: LocalPid) -> Result<(), BridgeError> {
    let settings = Settings::read(config)?;
    let timeout = settings.timeout;
    let deadline = deadline(timeout);
    let late = |what| BridgeError::Timeout {
        what,
        milliseconds: timeout.as_millis() as u64,
    };

    // The last step of the previous run may take a while. Wait without the lock, which `stop` needs.
    let phase = SHARED.wait(deadline, |phase| *phase != Phase::Stopping);
    phase.ok_or_else(|| late("stopping the engine"))?;

    let mut current = lock(&CURRENT);
    let thread = model_thread()?;

    match SHARED.phase() {
        Phase::Stopping => return Err(BridgeError::NotRunning("stopping")),
        Phase::Running | Phase::Starting => {
            if !current.as_ref().is_some_and(|kept| kept.equals(config)) {
                return Err(BridgeError::OtherConfiguration);
            }
            SHARED.log_to(log);
        }
        Phase::Halted => return Err(BridgeError::NotRunning("halted")),
        _ => {
            SHARED.log_to(log);
            *current = Some(Kept::new(config));
            SHARED.set(Phase::Starting);

            let (sender, commands) = bounded(settings.queue);
            let control = Control::Start {
                settings,
                config: Kept::new(config),
                commands,
                sender,
            };
            if thread.controls.send(control).is_err() {
                return Err(BridgeError::Thread("it has ended".into()));
            }
        }
    }

    drop(current);
    let phase = SHARED.wait(deadline, |phase| *phase != Phase::Starting);
    match phase.ok_or_else(|| late("starting the engine"))? {
        Phase::Running => Ok(()),
        Phase::Crashed(error) => Err(error),
        other => Err(BridgeError::NotRunning(other.name())),
    }
}

fn model_thread() -> Result<&'static Thread, BridgeError> {
    if let Some(thread) = THREAD.get() {
        return Ok(thread);
    }

    let (controls, control_inbox) = unbounded();
    let (cancels, cancel_inbox) = unbounded();
    let id = thread::spawn(&SHARED, control_inbox, cancel_inbox)
        .map_err(|error| BridgeError::Thread(error.to_string()))?;
    halt::prepare(controls.clone(), id);

    // Only one caller gets here at a time: CURRENT is locked.
    Ok(THREAD.get_or_init(|| Thread { controls, cancels }))
}

/// Submits a command without waiting.
///
/// # Errors
/// See [`Shared::submit`](crate::state::Shared::submit).
pub fn submit(command: Command) -> Result<(), BridgeError> {
    SHARED.submit(command)
}

/// Cancels a request between two steps. This is never refused, and an unknown id is not an error.
pub fn cancel(id: i64) {
    // Without an engine there is nothing to cancel, and nothing would read the channel.
    if let (Some(thread), Some(_)) = (THREAD.get(), SHARED.waiting()) {
        let _ = thread.cancels.send(id);
    }
}

/// Returns the phase, the number of waiting commands and the number of live requests.
pub fn status() -> (&'static str, usize, usize) {
    let queued = SHARED.waiting().unwrap_or(0);
    (SHARED.phase().name(), queued, SHARED.live())
}

/// Stops the engine between two steps. Every waiting or running request gets a final `failed`.
///
/// # Errors
/// `Timeout` if the current step takes longer; the engine stops when the step ends.
pub fn stop(timeout: Duration) -> Result<(), BridgeError> {
    let Some(thread) = THREAD.get() else {
        return Ok(());
    };
    // The step may have loaded libraries that were not noticed yet, and the VM may be about to end.
    halt::arm();

    {
        let _current = lock(&CURRENT);
        if matches!(SHARED.phase(), Phase::Starting | Phase::Running) {
            SHARED.set(Phase::Stopping);
            SHARED.close_gate();
            let _ = thread.controls.send(Control::Stop);
        }
    }

    let deadline = deadline(timeout);
    match SHARED.wait(deadline, |phase| *phase != Phase::Stopping) {
        Some(_) => Ok(()),
        None => Err(BridgeError::Timeout {
            what: "the step that the engine is in",
            milliseconds: timeout.as_millis() as u64,
        }),
    }
}
