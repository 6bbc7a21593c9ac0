//! What the model thread and its callers share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustler::LocalPid;

use crate::error::BridgeError;
use crate::kept::Kept;
use crate::settings::Settings;

/// A command on its way to Python.
pub struct Command {
    /// Its `"id"`.
    pub id: i64,
    /// The process that receives its events.
    pub reply_to: LocalPid,
    /// The command, still a term.
    pub command: Kept,
}

/// The state of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Never started.
    NotStarted,
    /// Python is starting, or the engine is being created.
    Starting,
    /// It accepts commands.
    Running,
    /// It was told to stop, and is finishing its step.
    Stopping,
    /// Stopped; it may be started again.
    Stopped,
    /// It could not be started, or not started again after a crash.
    Crashed(BridgeError),
    /// The process is ending.
    Halted,
}

impl Phase {
    /// Its name on the Elixir side.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::NotStarted => "not_started",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
            Phase::Crashed(_) => "crashed",
            Phase::Halted => "halted",
        }
    }
}

/// An instruction to the model thread, other than a command.
pub enum Control {
    /// Create the engine and take commands from this channel.
    Start {
        /// The parts of the configuration that this library reads.
        settings: Settings,
        /// The whole configuration, for the Python engine.
        config: Kept,
        /// The bounded channel of this run.
        commands: Receiver<Command>,
        /// Its sending end, with which the gate opens when the engine is ready.
        sender: Sender<Command>,
    },
    /// End this run.
    Stop,
    /// Never run Python again.
    Halt,
}

/// What the model thread and its callers share.
pub struct Shared {
    phase: Mutex<Phase>,
    changed: Condvar,
    /// Open while the engine accepts commands.
    gate: RwLock<Option<Sender<Command>>>,
    live: AtomicUsize,
    log: Mutex<Option<LocalPid>>,
}

/// The only instance, because there is one Python per process.
pub static SHARED: Shared = Shared {
    phase: Mutex::new(Phase::NotStarted),
    changed: Condvar::new(),
    gate: RwLock::new(None),
    live: AtomicUsize::new(0),
    log: Mutex::new(None),
};

/// When a wait that begins now ends. A wait of more than a year would overflow the clock.
pub fn deadline(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + timeout.min(YEAR)
}

/// Locks a mutex, even if another thread panicked while it held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The current phase.
    pub fn phase(&self) -> Phase {
        lock(&self.phase).clone()
    }

    /// Changes the phase and wakes the threads that wait for it. No phase follows `Halted`.
    pub fn set(&self, phase: Phase) {
        let mut now = lock(&self.phase);
        if *now != Phase::Halted {
            *now = phase;
        }
        drop(now);
        self.changed.notify_all();
    }

    /// Opens the gate for commands, unless the engine was told to stop while it started.
    pub fn engine_ready(&self, sender: Sender<Command>) {
        let mut phase = lock(&self.phase);
        if *phase == Phase::Starting {
            *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Some(sender);
            *phase = Phase::Running;
        }
        drop(phase);
        self.changed.notify_all();
    }

    /// Waits for a wanted phase. Returns `None` if the time is up.
    pub fn wait(&self, deadline: Instant, wanted: impl Fn(&Phase) -> bool) -> Option<Phase> {
        let mut phase = lock(&self.phase);

        while !wanted(&phase) {
            let left = deadline.checked_duration_since(Instant::now())?;
            phase = match self.changed.wait_timeout(phase, left) {
                Ok((phase, _)) => phase,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Some(phase.clone())
    }

    /// Closes the gate. All accepted commands are in the channel when this returns.
    pub fn close_gate(&self) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Submits a command without waiting.
    ///
    /// # Errors
    /// `Overloaded` if the channel is full, `NotRunning` or `Crashed` if there is no engine.
    pub fn submit(&self, command: Command) -> Result<(), BridgeError> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);

        match &*gate {
            Some(sender) => match sender.try_send(command) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(_)) => Err(BridgeError::Overloaded {
                    waiting: sender.len(),
                }),
                Err(TrySendError::Disconnected(_)) => Err(BridgeError::NotRunning("gone")),
            },
            None => {
                drop(gate);
                Err(match self.phase() {
                    Phase::Crashed(error) => BridgeError::Crashed(error.to_string()),
                    phase => BridgeError::NotRunning(phase.name()),
                })
            }
        }
    }

    /// How many commands wait; `None` if the engine accepts none.
    pub fn waiting(&self) -> Option<usize> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        gate.as_ref().map(Sender::len)
    }

    /// How many requests are live.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Publishes the number of live requests.
    pub fn set_live(&self, live: usize) {
        self.live.store(live, Ordering::Relaxed);
    }

    /// Changes the process that receives log lines.
    pub fn log_to(&self, process: LocalPid) {
        *lock(&self.log) = Some(process);
    }

    /// The process that receives log lines.
    pub fn log_pid(&self) -> Option<LocalPid> {
        *lock(&self.log)
    }
}
