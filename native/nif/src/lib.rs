//! The code that Chatterbex's NIF libraries share.
//!
//! - [`nif_library!`] creates a library's entry point. It differs from `rustler::init!` in two ways: the library
//!   stays in memory forever, and its Elixir module may be loaded again (a reload in iex, a hot upgrade) while
//!   the old one is in use.
//! - [`Handles`] keeps a Rust value as long as Elixir holds a reference to it.
//! - [`guarded`] turns a panic into an error, because no panic may reach the VM.
//! - [`GrowingBinary`] collects samples as they come; [`caller_is_alive`] returns whether the caller still waits.
//! - [`NifError`] is the common form of all failures: `{:error, {reason, message, details}}`.

mod binary;
mod caller;
mod entry;
mod error;
mod handle;
mod panics;

pub use binary::{GrowingBinary, try_binary, try_copy};
pub use caller::caller_is_alive;
pub use entry::library_entry;
pub use error::{Detail, Done, NifError, REASONS, known_reason};
pub use handle::{Handles, Opens};
pub use panics::guarded;
