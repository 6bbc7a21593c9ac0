//! The engine NIF, `Chatterbex.Native`: Python embedded in the BEAM, on its own thread.
//!
//! Elixir submits commands (`submit`). The model thread turns them into Python objects, runs the Python
//! engine step by step, and sends the resulting events to the process that made the request. Nothing else in
//! the VM touches Python, and this library does not know what a model is.
//!
//! - [`inbox`]: commands, cancels and controls, and the order in which they are taken
//! - [`routes`]: which process waits for which request
//! - [`venv`], [`environment`]: the conditions for starting Python
//! - [`signals`]: the exit statuses of Python's child processes
//! - `state`: the state that the model thread and its callers share
//! - `thread`, `lifecycle`: the model thread, and how it starts and stops
//! - `python`, `engine`, `value`: the interpreter, the Python engine, and terms as Python objects
//! - `kept`: terms that outlive a call
//! - `events`, `nif`, `halt`: messages to the VM, calls from it, and its end

pub mod environment;
pub mod error;
pub mod inbox;
pub mod routes;
pub mod signals;
pub mod venv;

// The VM's and Python's functions exist only inside a VM that opened libpython, so these modules do not link
// in a test binary.
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
