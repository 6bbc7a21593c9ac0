//! Decodes and encodes files.

use chatterbex_nif::{GrowingBinary, NifError, try_binary};
use rustler::{Atom, Binary, Env, Term};

use super::{binary, long_work, no_memory, work};
use crate::error::AudioError;
use crate::limits::{Caller, Limits};
use crate::samples::read;
use crate::sink::{Form, Store};
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

    let file = long_work(env, |caller| {
        wav::encode(&samples, sample_rate, channels, format, caller)
    })?;
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
    let file = long_work(env, |caller| {
        flac::encode(&samples, sample_rate, channels, bits, caller)
    })?;
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
    let file = long_work(env, |caller| {
        let samples = read(&samples, channels)?;
        opus::encode(&samples, sample_rate, channels, bitrate, caller)
    })?;
    binary(env, &file)
}

/// `wav_decode(file, max_seconds, max_samples) ::
/// {:ok, %{samples: f32le, sample_rate: hz, channels: n}} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn wav_decode<'a>(
    env: Env<'a>,
    file: Binary<'a>,
    max_seconds: u32,
    max_samples: u64,
) -> Result<Term<'a>, NifError> {
    let limits = Limits {
        max_seconds,
        max_samples,
    };
    audio(env, |caller, store| {
        decode::decode_wav(&file, limits, caller, store)
    })
}

/// `decode(file, max_seconds, max_samples) ::
/// {:ok, %{samples: f32le, sample_rate: hz, channels: n}} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn decode<'a>(
    env: Env<'a>,
    file: Binary<'a>,
    max_seconds: u32,
    max_samples: u64,
) -> Result<Term<'a>, NifError> {
    let limits = Limits {
        max_seconds,
        max_samples,
    };
    audio(env, |caller, store| {
        decode::decode(&file, limits, caller, store)
    })
}

/// `pcm16(samples) :: {:ok, s16le} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn pcm16<'a>(env: Env<'a>, samples: Binary<'a>) -> Result<Binary<'a>, NifError> {
    let bytes = samples.len() / 2;
    let mut out = try_binary(bytes).ok_or_else(|| no_memory(bytes))?;
    work(|| pcm::write_s16(&samples, out.as_mut_slice()))?;
    Ok(out.release(env))
}

impl Store for GrowingBinary {
    fn extend(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        if GrowingBinary::extend(self, samples) {
            Ok(())
        } else {
            Err(AudioError::no_memory(samples.len()))
        }
    }
}

fn audio<'a>(
    env: Env<'a>,
    decode: impl FnOnce(Caller, &mut dyn Store) -> Result<Form, AudioError>,
) -> Result<Term<'a>, NifError> {
    let mut store = GrowingBinary::new().ok_or_else(|| no_memory(0))?;
    let form = long_work(env, |caller| decode(caller, &mut store))?;

    let map = Term::map_new(env).map_put(samples(), store.release(env));
    let map = map.and_then(|map| map.map_put(sample_rate(), form.sample_rate));
    map.and_then(|map| map.map_put(channels(), form.channels))
        .map_err(|_| NifError::new("generation_failed", "the VM refused to make a map"))
}
