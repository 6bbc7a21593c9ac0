//! The NIF functions. All of them may take long, so they run on dirty schedulers.

mod change;
mod files;
mod measure;
mod stream;

use chatterbex_nif::{NifError, caller_is_alive, guarded, nif_library, try_binary, try_copy};
use rustler::{Binary, Env};

use crate::error::AudioError;
use crate::limits::Caller;
use crate::samples;

nif_library!(c"Elixir.Chatterbex.Native.Audio", [&stream::FLOWS]);

/// Runs the work of a NIF.
fn work<T>(work: impl FnOnce() -> Result<T, AudioError>) -> Result<T, NifError> {
    Ok(guarded(work).unwrap_or_else(|what| Err(AudioError::Failed(what)))?)
}

/// Runs work of a NIF that may take long, and stops when the calling process no longer exists.
fn long_work<T>(
    env: Env,
    work_for: impl FnOnce(Caller) -> Result<T, AudioError>,
) -> Result<T, NifError> {
    work(|| work_for(Caller::new(&|| caller_is_alive(env))))
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
