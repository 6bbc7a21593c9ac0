//! Operations on samples as they come: encoding a growing file, and changing the pace of sound.

use std::sync::PoisonError;

use chatterbex_nif::{Handles, NifError};
use rustler::{Atom, Binary, Encoder as _, Env, Term};

use super::{binary, no_memory, sample_binary, work};
use crate::encode::{Encoder, Format};
use crate::error::AudioError;
use crate::samples::read;
use crate::stretch::Stretcher;
use crate::wav;

pub(super) static FLOWS: Handles<Option<Flow>> = Handles::new(c"audio_flow");

rustler::atoms! {
    pcm,
    wav_s16,
    wav_s24,
    wav_f32,
    flac,
    opus,
    mp3,
}

/// Both are used in the same way: create, push, and finish once.
pub(super) enum Flow {
    File(Encoder),
    Sound { stretcher: Stretcher, channels: u32 },
}

/// Runs an operation on the value of a term. After an error, the value cannot be used any more.
fn with<R>(
    flow: Term,
    work_on: impl FnOnce(Flow) -> Result<(Option<Flow>, R), AudioError>,
) -> Result<R, NifError> {
    let flow = FLOWS.get(flow).ok_or(AudioError::Ended)?;
    let mut flow = flow.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = flow.take().ok_or(AudioError::Ended)?;
    let (kept, result) = work(|| work_on(taken))?;
    *flow = kept;
    Ok(result)
}

fn make<'a>(
    env: Env<'a>,
    new: impl FnOnce() -> Result<Flow, AudioError>,
) -> Result<Term<'a>, NifError> {
    let flow = work(new)?;
    let handle = FLOWS.make(env, Some(flow));
    handle.ok_or_else(|| no_memory(size_of::<Flow>()))
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
    make(env, || {
        Ok(Flow::File(Encoder::new(format, rate, channels)?))
    })
}

/// `stretcher_new(factor, rate, channels) :: {:ok, stretcher} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn stretcher_new(
    env: Env<'_>,
    factor: f64,
    rate: u32,
    channels: u32,
) -> Result<Term<'_>, NifError> {
    make(env, || {
        let stretcher = Stretcher::new(factor, rate, channels)?;
        Ok(Flow::Sound {
            stretcher,
            channels,
        })
    })
}

/// `flow_push(encoder_or_stretcher, samples) :: {:ok, binary} | {:error, error}`
///
/// Returns what is ready: bytes of the file, or samples.
#[rustler::nif(schedule = "DirtyCpu")]
fn flow_push<'a>(
    env: Env<'a>,
    flow: Term<'a>,
    samples: Binary<'a>,
) -> Result<Binary<'a>, NifError> {
    let ready = with(flow, |mut flow| {
        let ready = match &mut flow {
            Flow::File(encoder) => Ready::Bytes(encoder.push(&samples)?),
            Flow::Sound {
                stretcher,
                channels,
            } => Ready::Samples(stretcher.push(&read(&samples, *channels)?)?),
        };
        Ok((Some(flow), ready))
    })?;
    ready.binary(env)
}

/// `flow_finish(encoder_or_stretcher) :: {:ok, {binary, [{place, binary}]}} | {:error, error}`
///
/// Returns the rest, and for a file also bytes to overwrite at earlier places.
#[rustler::nif(schedule = "DirtyCpu")]
fn flow_finish<'a>(env: Env<'a>, flow: Term<'a>) -> Result<Term<'a>, NifError> {
    let (ready, patches) = with(flow, |flow| {
        let last = match flow {
            Flow::File(encoder) => {
                let ending = encoder.finish()?;
                (Ready::Bytes(ending.bytes), ending.patches)
            }
            Flow::Sound { stretcher, .. } => (Ready::Samples(stretcher.finish()?), Vec::new()),
        };
        Ok((None, last))
    })?;
    let patches = patches
        .iter()
        .map(|(place, bytes)| Ok((*place, binary(env, bytes)?).encode(env)))
        .collect::<Result<Vec<Term>, NifError>>()?;
    Ok((ready.binary(env)?, patches).encode(env))
}

enum Ready {
    Bytes(Vec<u8>),
    Samples(Vec<f32>),
}

impl Ready {
    fn binary<'a>(&self, env: Env<'a>) -> Result<Binary<'a>, NifError> {
        match self {
            Self::Bytes(bytes) => binary(env, bytes),
            Self::Samples(samples) => sample_binary(env, samples),
        }
    }
}
