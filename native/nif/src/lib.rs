//! What the NIF libraries of Chatterbex share.
//!
//! - [`nif_library!`] makes a library's entry point. It differs from `rustler::init!` in two ways:
//!   the library stays in memory for ever, and its Elixir module may be loaded again (a reload in
//!   iex, a hot upgrade) while the old one is in use.
//! - [`panic_message`] tells what a caught panic said.
//! - [`NifError`] is the one shape of failure: `{:error, {reason, message, details}}`.

mod binary;
mod entry;
mod error;
mod panics;

pub use binary::{try_binary, try_copy};
pub use entry::library_entry;
pub use error::{Detail, Done, NifError, REASONS, known_reason};
pub use panics::panic_message;
