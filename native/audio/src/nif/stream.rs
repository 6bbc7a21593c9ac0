//! What takes samples as they come: files that grow, and sound at another pace.

use std::sync::{Mutex, PoisonError};

use chatterbex_nif::{Handles, NifError};
use rustler::{Atom, Binary, Encoder as _, Env, Term};

use super::{binary, no_memory, sample_binary, work};
use crate::encode::{Encoder, Format};
use crate::error::AudioError;
use crate::samples::read;
use crate::stretch::Stretcher;
use crate::wav;

pub(super) static ENCODERS: Handles<Option<Encoder>> = Handles::new(c"encoder");
pub(super) static STRETCHERS: Handles<Option<Stretcher>> = Handles::new(c"stretcher");

rustler::atoms! {
    pcm,
    wav_s16,
    wav_s24,
    wav_f32,
    flac,
    opus,
    mp3,
}

/// Does something with a value that is of no more use once that fails.
fn with<T, R>(
    value: &Mutex<Option<T>>,
    work_on: impl FnOnce(T) -> Result<(Option<T>, R), AudioError>,
) -> Result<R, NifError> {
    let mut value = value.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = value.take().ok_or(AudioError::Ended)?;
    let (kept, result) = work(|| work_on(taken))?;
    *value = kept;
    Ok(result)
}

fn handle<T: Send + 'static>(
    handles: &Handles<Option<T>>,
    term: Term,
) -> Result<std::sync::Arc<Mutex<Option<T>>>, NifError> {
    Ok(handles.get(term).ok_or(AudioError::Ended)?)
}

/// `encoder_new(format, rate, channels, bits_or_bitrate) :: {:ok, encoder} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn encoder_new(
    env: Env<'_>,
    format: Atom,
    rate: u32,
    channels: u32,
    quality: u32,
) -> Result<Term<'_>, NifError> {
    let format = if format == wav_s16() {
        Format::Wav(wav::Format::S16)
    } else if format == wav_s24() {
        Format::Wav(wav::Format::S24)
    } else if format == wav_f32() {
        Format::Wav(wav::Format::F32)
    } else if format == flac() {
        Format::Flac { bits: quality }
    } else if format == opus() {
        Format::Opus {
            bitrate: i32::try_from(quality).unwrap_or(i32::MAX),
        }
    } else if format == mp3() {
        Format::Mp3 { bitrate: quality }
    } else if format == pcm() {
        Format::Pcm
    } else {
        return Err(NifError::new(
            "invalid_option",
            "a format must be one of those of Chatterbex.Native.Audio",
        ));
    };
    let encoder = work(|| Encoder::new(format, rate, channels))?;
    let handle = ENCODERS.make(env, Some(encoder));
    handle.ok_or_else(|| no_memory(size_of::<Encoder>()))
}

/// `encoder_push(encoder, samples) :: {:ok, binary} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn encoder_push<'a>(
    env: Env<'a>,
    encoder: Term<'a>,
    samples: Binary<'a>,
) -> Result<Binary<'a>, NifError> {
    let bytes = with(&*handle(&ENCODERS, encoder)?, |mut encoder| {
        let bytes = encoder.push(&samples)?;
        Ok((Some(encoder), bytes))
    })?;
    binary(env, &bytes)
}

/// `encoder_finish(encoder) :: {:ok, {binary, [{place, binary}]}} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn encoder_finish<'a>(env: Env<'a>, encoder: Term<'a>) -> Result<Term<'a>, NifError> {
    let ending = with(&*handle(&ENCODERS, encoder)?, |encoder| {
        Ok((None, encoder.finish()?))
    })?;
    let patches = ending
        .patches
        .iter()
        .map(|(place, bytes)| Ok((*place, binary(env, bytes)?).encode(env)))
        .collect::<Result<Vec<Term>, NifError>>()?;
    Ok((binary(env, &ending.bytes)?, patches).encode(env))
}

/// `stretcher_new(factor, rate, channels) :: {:ok, stretcher} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn stretcher_new(
    env: Env<'_>,
    factor: f64,
    rate: u32,
    channels: u32,
) -> Result<Term<'_>, NifError> {
    let stretcher = work(|| Stretcher::new(factor, rate, channels))?;
    let handle = STRETCHERS.make(env, Some(stretcher));
    handle.ok_or_else(|| no_memory(size_of::<Stretcher>()))
}

/// `stretcher_push(stretcher, samples, channels) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn stretcher_push<'a>(
    env: Env<'a>,
    stretcher: Term<'a>,
    samples: Binary<'a>,
    channels: u32,
) -> Result<Binary<'a>, NifError> {
    let samples = with(&*handle(&STRETCHERS, stretcher)?, |mut stretcher| {
        let samples = stretcher.push(&read(&samples, channels)?)?;
        Ok((Some(stretcher), samples))
    })?;
    sample_binary(env, &samples)
}

/// `stretcher_finish(stretcher) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn stretcher_finish<'a>(env: Env<'a>, stretcher: Term<'a>) -> Result<Binary<'a>, NifError> {
    let samples = with(&*handle(&STRETCHERS, stretcher)?, |stretcher| {
        Ok((None, stretcher.finish()?))
    })?;
    sample_binary(env, &samples)
}
