//! Starting and stopping the engine, and where it stands.
//!
//! The model thread is made once and lives as long as the VM: PyTorch, ONNX Runtime and Python
//! itself remember the thread they were started on. `stop` takes the engine and its models away
//! and leaves the thread waiting for the next `start`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use rustler::env::SavedTerm;
use rustler::{LocalPid, OwnedEnv, Term};

use crate::error::BridgeError;
use crate::settings::Settings;
use crate::thread::{self, Command};

/// A term that outlives the call which brought it.
pub struct Kept {
    env: OwnedEnv,
    term: SavedTerm,
}

impl Kept {
    /// Copies a term (large binaries are shared, not copied).
    pub fn new(term: Term) -> Self {
        let env = OwnedEnv::new();
        let term = env.save(term);
        Self { env, term }
    }

    /// Works with the term.
    pub fn with<R>(&self, work: impl FnOnce(Term<'_>) -> R) -> R {
        self.env.run(|env| work(self.term.load(env)))
    }

    fn equals(&self, other: Term) -> bool {
        let other = self.env.save(other);
        self.env.run(|env| self.term.load(env) == other.load(env))
    }
}

/// Where the engine stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Never started.
    NotStarted,
    /// Python starts, or the engine is being made.
    Starting,
    /// It takes commands.
    Running,
    /// It was told to stop and ends its step.
    Stopping,
    /// Stopped; it may be started again.
    Stopped,
    /// It could not be made, or not made anew.
    Crashed(BridgeError),
    /// The process ends.
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

/// What the model thread is told outside of commands.
pub enum Control {
    /// Make the engine and take commands from this channel.
    Start {
        /// The parts of the configuration that this library reads.
        settings: Settings,
        /// The whole of it, for the Python engine.
        config: Kept,
        /// The bounded channel of this run.
        commands: Receiver<Command>,
        /// Its other end, for the gate to be opened when the engine is there.
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
    /// Open while the engine takes commands.
    gate: RwLock<Option<Sender<Command>>>,
    live: AtomicUsize,
    log: Mutex<Option<LocalPid>>,
}

struct Thread {
    controls: Sender<Control>,
    cancels: Sender<i64>,
    id: ThreadId,
}

static SHARED: Shared = Shared {
    phase: Mutex::new(Phase::NotStarted),
    changed: Condvar::new(),
    gate: RwLock::new(None),
    live: AtomicUsize::new(0),
    log: Mutex::new(None),
};
static THREAD: OnceLock<Thread> = OnceLock::new();
/// The configuration of this run; locked while a run is begun or ended.
static CURRENT: Mutex<Option<Kept>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The phase, now.
    pub fn phase(&self) -> Phase {
        lock(&self.phase).clone()
    }

    /// Changes the phase and wakes who waits for it. Nothing comes after `Halted`.
    pub fn set(&self, phase: Phase) {
        let mut now = lock(&self.phase);
        if *now != Phase::Halted {
            *now = phase;
        }
        drop(now);
        self.changed.notify_all();
    }

    /// Lets commands in, unless the engine was told to stop while it started.
    pub fn engine_ready(&self, sender: Sender<Command>) {
        let mut phase = lock(&self.phase);
        if *phase == Phase::Starting {
            *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Some(sender);
            *phase = Phase::Running;
        }
        drop(phase);
        self.changed.notify_all();
    }

    /// Waits until the phase is one that is wanted; `None` when the time is up.
    fn wait(&self, deadline: Instant, wanted: impl Fn(&Phase) -> bool) -> Option<Phase> {
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

    /// Lets no more commands in. All that were let in are in the channel when this returns.
    pub fn close_gate(&self) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Publishes the number of live requests.
    pub fn set_live(&self, live: usize) {
        self.live.store(live, Ordering::Relaxed);
    }

    /// The process that gets log lines.
    pub fn log_pid(&self) -> Option<LocalPid> {
        *lock(&self.log)
    }
}

/// Starts the engine, or waits for it where it starts already. See `Chatterbex.Native.start/2`.
///
/// # Errors
/// Whatever keeps Python or the engine from starting; `Timeout`, after which it goes on starting;
/// `OtherConfiguration` where it runs with another one.
pub fn start(config: Term, log: LocalPid) -> Result<(), BridgeError> {
    let settings = Settings::read(config)?;
    let timeout = settings.timeout;
    let deadline = Instant::now() + timeout;
    let late = |what| BridgeError::Timeout {
        what,
        milliseconds: timeout.as_millis() as u64,
    };

    // A run that ends may take its time over its last step. Not under the lock, which `stop` needs.
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
            *lock(&SHARED.log) = Some(log);
        }
        Phase::Halted => return Err(BridgeError::NotRunning("halted")),
        _ => {
            *lock(&SHARED.log) = Some(log);
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
                return Err(BridgeError::Thread("it is gone".into()));
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

    // Only one caller gets here at a time: CURRENT is locked.
    Ok(THREAD.get_or_init(|| Thread {
        controls,
        cancels,
        id,
    }))
}

/// Hands a command over without waiting.
///
/// # Errors
/// `Overloaded` where the channel is full, `NotRunning` or `Crashed` where nobody takes it.
pub fn submit(command: Command) -> Result<(), BridgeError> {
    let gate = SHARED.gate.read().unwrap_or_else(PoisonError::into_inner);

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
            Err(match SHARED.phase() {
                Phase::Crashed(error) => BridgeError::Crashed(error.to_string()),
                phase => BridgeError::NotRunning(phase.name()),
            })
        }
    }
}

/// Cancels a request between two steps. Never refused; an id that is not live is no error.
pub fn cancel(id: i64) {
    let gate = SHARED.gate.read().unwrap_or_else(PoisonError::into_inner);

    // Without an engine there is nothing to cancel, and nobody to take it from the channel.
    if let (Some(thread), Some(_)) = (THREAD.get(), &*gate) {
        let _ = thread.cancels.send(id);
    }
}

/// Phase, commands that wait, and live requests.
pub fn status() -> (&'static str, usize, usize) {
    let gate = SHARED.gate.read().unwrap_or_else(PoisonError::into_inner);
    let queued = gate.as_ref().map_or(0, Sender::len);
    drop(gate);

    let phase = lock(&SHARED.phase).name();
    (phase, queued, SHARED.live.load(Ordering::Relaxed))
}

/// Stops the engine between two steps: every request that waits or runs gets a final `failed`.
///
/// # Errors
/// `Timeout` where a step takes longer; the engine stops when the step ends.
pub fn stop(timeout: Duration) -> Result<(), BridgeError> {
    let Some(thread) = THREAD.get() else {
        return Ok(());
    };
    // What a step loads may not have been seen yet, and the VM may be about to end.
    crate::halt::arm();

    {
        let _current = lock(&CURRENT);
        if matches!(SHARED.phase(), Phase::Starting | Phase::Running) {
            SHARED.set(Phase::Stopping);
            SHARED.close_gate();
            let _ = thread.controls.send(Control::Stop);
        }
    }

    let deadline = Instant::now() + timeout;
    match SHARED.wait(deadline, |phase| *phase != Phase::Stopping) {
        Some(_) => Ok(()),
        None => Err(BridgeError::Timeout {
            what: "the step that the engine is in",
            milliseconds: timeout.as_millis() as u64,
        }),
    }
}

/// Keeps the model thread from Python for the rest of the process. False where its step did not
/// end in time.
pub fn halt(timeout: Duration) -> bool {
    let Some(thread) = THREAD.get() else {
        return true;
    };
    // Something in Python's own code ended the process: there is nobody to wait for.
    if thread.id == std::thread::current().id() {
        return false;
    }

    SHARED.close_gate();
    let _ = thread.controls.send(Control::Halt);
    let deadline = Instant::now() + timeout;
    SHARED
        .wait(deadline, |phase| *phase == Phase::Halted)
        .is_some()
}
