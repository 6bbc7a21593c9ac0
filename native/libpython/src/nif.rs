//! The NIF function.

use chatterbex_nif::{NifError, nif_library};
use rustler::{Env, Term};

nif_library!(c"Elixir.Chatterbex.Native.LibPython");

rustler::atoms! { version }

/// `open(path) :: {:ok, %{version: "3.11.7"}} | {:error, error}`
#[rustler::nif(schedule = "DirtyIo")]
fn open<'a>(env: Env<'a>, path: &str) -> Result<Term<'a>, NifError> {
    let found = crate::open::open(path)?;

    Term::map_new(env)
        .map_put(version(), found)
        .map_err(|_| NifError::new("not_set_up", "the VM refused to make a map"))
}
