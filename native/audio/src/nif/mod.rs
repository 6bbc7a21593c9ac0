//! The NIF functions. All of them may take long: they run on dirty schedulers.

mod change;
mod files;
mod measure;

use chatterbex_nif::{NifError, nif_library, try_binary, try_copy};
use rustler::{Binary, Env};

use crate::error::AudioError;
use crate::panics::guarded;
use crate::samples;

nif_library!(c"Elixir.Chatterbex.Native.Audio");

/// Does the work of a NIF.
fn work<T>(work: impl FnOnce() -> Result<T, AudioError>) -> Result<T, NifError> {
    Ok(guarded(work).unwrap_or_else(|what| Err(AudioError::Failed(what)))?)
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Result<Binary<'a>, NifError> {
    let binary = try_copy(bytes).ok_or_else(|| no_memory(bytes.len()))?;
    Ok(binary.release(env))
}

fn sample_binary<'a>(env: Env<'a>, samples: &[f32]) -> Result<Binary<'a>, NifError> {
    let bytes = samples.len().saturating_mul(4);
    let mut binary = try_binary(bytes).ok_or_else(|| no_memory(bytes))?;
    samples::write(samples, binary.as_mut_slice());
    Ok(binary.release(env))
}

fn no_memory(bytes: usize) -> NifError {
    AudioError::OutOfMemory { bytes }.into()
}
