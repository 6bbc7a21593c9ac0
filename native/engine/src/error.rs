//! Everything that can go wrong between Elixir and Python.

use chatterbex_nif::{Detail, NifError, guarded};
use thiserror::Error;

/// A failure of the bridge itself or of the engine behind it.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BridgeError {
    /// The Elixir side sent an invalid configuration or command.
    #[error("{0}")]
    Invalid(String),
    /// The virtual environment is missing or incomplete.
    #[error("{0}; run `mix chatterbex.setup`")]
    Environment(String),
    /// The interpreter started in the wrong environment.
    #[error(
        "Python started in {found}, not in the virtual environment {expected}; run \
         `mix chatterbex.setup --force`, then restart the VM"
    )]
    WrongPrefix {
        /// The requested virtual environment.
        expected: String,
        /// The value of `sys.prefix`.
        found: String,
    },
    /// Another Python runs in this VM.
    #[error("{0}: a VM can run only one Python; restart the VM to change it")]
    OnePython(String),
    /// The engine runs with another configuration.
    #[error(
        "the engine already runs with another configuration: stop the :chatterbex application \
         before you start it with a new one"
    )]
    OtherConfiguration,
    /// The model thread could not be started, or has ended.
    #[error("cannot start the model thread: {0}")]
    Thread(String),
    /// Something took too long.
    #[error("{what} took longer than {milliseconds} ms")]
    Timeout {
        /// The step that took too long.
        what: &'static str,
        /// The limit, in milliseconds.
        milliseconds: u64,
    },
    /// The queue of commands is full.
    #[error("the engine's queue is full with {waiting} commands: try again")]
    Overloaded {
        /// The number of waiting commands.
        waiting: usize,
    },
    /// No engine is running to receive the command.
    #[error("the engine is {0}: start the :chatterbex application")]
    NotRunning(&'static str),
    /// The engine crashed, and could not be started again.
    #[error(
        "the engine crashed and could not be started again: {0}. Restart the :chatterbex \
         application; if that does not help, run `mix chatterbex.setup --force`"
    )]
    Crashed(String),
    /// An exception in Python.
    #[error("{message}")]
    Python {
        /// One of Chatterbex's reasons.
        reason: &'static str,
        /// The exception's message.
        message: String,
        /// The exception's class.
        exception: String,
        /// The traceback, or an empty text.
        traceback: String,
    },
    /// A panic in this library.
    #[error("the engine's native code panicked: {0}")]
    Panic(String),
}

/// Runs `work` and turns a panic into an error.
///
/// After an error, do not rely on anything that the work was changing.
pub fn caught<T>(work: impl FnOnce() -> Result<T, BridgeError>) -> Result<T, BridgeError> {
    guarded(work).unwrap_or_else(|what| Err(BridgeError::Panic(what)))
}

impl From<BridgeError> for NifError {
    fn from(error: BridgeError) -> Self {
        use BridgeError::*;

        let (reason, cause) = match &error {
            Invalid(_) => ("invalid_option", "invalid"),
            Environment(_) => ("not_set_up", "environment"),
            WrongPrefix { .. } => ("not_set_up", "wrong_prefix"),
            OnePython(_) => ("not_set_up", "one_python"),
            OtherConfiguration => ("invalid_option", "other_configuration"),
            Thread(_) => ("engine_crashed", "thread"),
            Timeout { .. } => ("timeout", "timeout"),
            Overloaded { .. } => ("overloaded", "queue_full"),
            NotRunning(_) => ("engine_crashed", "not_running"),
            Crashed(_) => ("engine_crashed", "crashed"),
            Python { reason, .. } => (*reason, "python"),
            Panic(_) => ("engine_crashed", "panic"),
        };

        let built = NifError::new(reason, error.to_string()).cause(cause);
        match error {
            Python {
                exception,
                traceback,
                ..
            } => built
                .with("exception", Detail::Text(exception))
                .with("traceback", Detail::Text(traceback)),
            Timeout { milliseconds, .. } => built.with(
                "milliseconds",
                Detail::Integer(i64::try_from(milliseconds).unwrap_or(i64::MAX)),
            ),
            Overloaded { waiting } => built.with(
                "waiting",
                Detail::Integer(i64::try_from(waiting).unwrap_or(i64::MAX)),
            ),
            _ => built,
        }
    }
}
