//! Files to samples and back.

use chatterbex_nif::{NifError, try_binary};
use rustler::{Atom, Binary, Env, Term};

use super::{binary, no_memory, sample_binary, work};
use crate::decode::Decoded;
use crate::samples::read;
use crate::wav::Format;
use crate::{decode, flac, opus, pcm, wav};

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

    let file = work(|| wav::encode(&samples, sample_rate, channels, format))?;
    binary(env, &file)
}

/// `flac_encode(samples, sample_rate, channels, bits) :: {:ok, binary} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn flac_encode<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    sample_rate: u32,
    channels: u32,
    bits: u32,
) -> Result<Binary<'a>, NifError> {
    let file = work(|| flac::encode(&samples, sample_rate, channels, bits))?;
    binary(env, &file)
}

/// `opus_encode(samples, sample_rate, channels, bitrate) :: {:ok, binary} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn opus_encode<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    sample_rate: u32,
    channels: u32,
    bitrate: i32,
) -> Result<Binary<'a>, NifError> {
    let file = work(|| opus::encode(&read(&samples, channels)?, sample_rate, channels, bitrate))?;
    binary(env, &file)
}

/// `wav_decode(file) :: {:ok, %{samples: f32le, sample_rate: hz, channels: n}} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn wav_decode<'a>(env: Env<'a>, file: Binary<'a>) -> Result<Term<'a>, NifError> {
    audio(env, work(|| wav::decode(&file))?)
}

/// `decode(file, max_seconds) :: {:ok, %{samples: f32le, sample_rate: hz, channels: n}} |
/// {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn decode<'a>(env: Env<'a>, file: Binary<'a>, max_seconds: u32) -> Result<Term<'a>, NifError> {
    audio(env, work(|| decode::decode(&file, max_seconds))?)
}

/// `pcm16(samples) :: {:ok, s16le} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn pcm16<'a>(env: Env<'a>, samples: Binary<'a>) -> Result<Binary<'a>, NifError> {
    let bytes = samples.len() / 2;
    let mut out = try_binary(bytes).ok_or_else(|| no_memory(bytes))?;
    work(|| pcm::write_s16(&samples, out.as_mut_slice()))?;
    Ok(out.release(env))
}

fn audio(env: Env, decoded: Decoded) -> Result<Term, NifError> {
    let bytes = sample_binary(env, &decoded.samples)?;
    let map = Term::map_new(env).map_put(samples(), bytes);
    let map = map.and_then(|map| map.map_put(sample_rate(), decoded.sample_rate));
    map.and_then(|map| map.map_put(channels(), decoded.channels))
        .map_err(|_| NifError::new("generation_failed", "the VM refused to make a map"))
}
