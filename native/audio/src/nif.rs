//! The NIF functions.

use chatterbex_nif::{NifError, nif_library, try_binary, try_copy};
use rustler::{Atom, Binary, Env, Term};

use crate::error::AudioError;
use crate::wav::{Decoded, Format};
use crate::{pcm, wav};

nif_library!(c"Elixir.Chatterbex.Native.Audio");

rustler::atoms! {
    s16,
    s24,
    f32,
    samples,
    sample_rate,
    channels,
}

/// `wav_encode(samples, sample_rate, channels, format) :: {:ok, binary} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn wav_encode<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    sample_rate: i64,
    channels: i64,
    format: Atom,
) -> Result<Binary<'a>, NifError> {
    let format = if format == s16() {
        Format::S16
    } else if format == s24() {
        Format::S24
    } else if format == f32() {
        Format::F32
    } else {
        return Err(NifError::new(
            "invalid_option",
            "a WAV format must be :s16, :s24 or :f32",
        ));
    };

    let file = wav::encode(&samples, sample_rate, channels, format)?;
    binary(env, &file)
}

/// `wav_decode(file) :: {:ok, %{samples: f32le, sample_rate: hz, channels: n}} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn wav_decode<'a>(env: Env<'a>, file: Binary<'a>) -> Result<Term<'a>, NifError> {
    let Decoded {
        samples: bytes,
        sample_rate: rate,
        channels: count,
    } = wav::decode(&file)?;

    let bytes = binary(env, &bytes)?;
    let map = Term::map_new(env).map_put(samples(), bytes);
    let map = map.and_then(|map| map.map_put(sample_rate(), rate));
    map.and_then(|map| map.map_put(channels(), count))
        .map_err(|_| NifError::new("generation_failed", "the VM refused to make a map"))
}

/// `pcm16(samples) :: {:ok, s16le} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn pcm16<'a>(env: Env<'a>, samples: Binary<'a>) -> Result<Binary<'a>, NifError> {
    let bytes = samples.len() / 2;
    let mut out = try_binary(bytes).ok_or_else(|| no_memory(bytes))?;
    pcm::write_s16(&samples, out.as_mut_slice())?;
    Ok(out.release(env))
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Result<Binary<'a>, NifError> {
    let binary = try_copy(bytes).ok_or_else(|| no_memory(bytes.len()))?;
    Ok(binary.release(env))
}

fn no_memory(bytes: usize) -> NifError {
    AudioError::OutOfMemory { bytes }.into()
}
