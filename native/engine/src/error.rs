//! Everything that can go wrong between Elixir and Python.

use chatterbex_nif::{Detail, NifError, guarded};
use thiserror::Error;

/// A failure of the bridge itself or of the engine behind it.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BridgeError {
    /// The configuration or a command is not what the Elixir side should have sent.
    #[error("{0}")]
    Invalid(String),
    /// The virtual environment is not there, or not whole.
    #[error("{0}; run `mix chatterbex.setup`")]
    Environment(String),
    /// The interpreter came up in another environment than it was told to.
    #[error(
        "Python came up in {found} and not in the virtual environment {expected}; run \
         `mix chatterbex.setup --force`, then restart the VM"
    )]
    WrongPrefix {
        /// The virtual environment that was asked for.
        expected: String,
        /// What `sys.prefix` says.
        found: String,
    },
    /// Another Python runs in this VM.
    #[error("{0}: a VM can run only one Python, restart the VM to change it")]
    OnePython(String),
    /// The engine runs with another configuration.
    #[error(
        "the engine already runs with another configuration: stop the :chatterbex application \
         before you start it with a new one"
    )]
    OtherConfiguration,
    /// No thread could be made.
    #[error("cannot start the model thread: {0}")]
    Thread(String),
    /// Something was not done in time.
    #[error("{what} took longer than {milliseconds} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long, in milliseconds.
        milliseconds: u64,
    },
    /// Too many commands are waiting already.
    #[error("{waiting} commands are waiting for the engine, which is as many as may: try again")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// There is no engine to take a command.
    #[error("the engine is {0}: start the :chatterbex application")]
    NotRunning(&'static str),
    /// The engine broke, and could not be made anew.
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
        /// What the exception says.
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

/// Does work in which a panic is an error like any other.
///
/// What the work was changing must not be relied on after an error.
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
