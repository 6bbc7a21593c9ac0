//! The engine NIF, `Chatterbex.Native`: Python embedded in the BEAM, on one thread of its own.
//!
//! Elixir hands commands over (`submit`), the model thread turns them into Python objects, lets
//! the Python engine take one step after another, and sends what comes out to the process that
//! asked. Nothing else in the VM ever touches Python, and nothing here knows what a model is.
//!
//! - [`inbox`] commands, cancels and controls, and the order in which they are taken
//! - [`routes`] which process waits for which request
//! - [`venv`], [`environment`] what must be true before Python is started
//! - [`signals`] the exit statuses of Python's children
//! - `state` what the model thread and its callers share
//! - `thread`, `lifecycle` the model thread, and starting and stopping it
//! - `python`, `engine`, `value` the interpreter, the Python engine, and terms as Python objects
//! - `kept` terms that outlive a call
//! - `events`, `nif`, `halt` messages to the VM, calls from it, and its end

pub mod environment;
pub mod error;
pub mod inbox;
pub mod routes;
pub mod signals;
pub mod venv;

// The VM's functions and Python's exist only inside a VM that opened libpython: nothing of this
// links in a test binary.
#[cfg(not(test))]
mod engine;
#[cfg(not(test))]
mod events;
#[cfg(not(test))]
mod halt;
#[cfg(not(test))]
mod kept;
#[cfg(not(test))]
mod lifecycle;
#[cfg(not(test))]
mod nif;
#[cfg(not(test))]
mod python;
#[cfg(not(test))]
mod settings;
#[cfg(not(test))]
mod state;
#[cfg(not(test))]
mod thread;
#[cfg(not(test))]
mod value;
