//! Operations from samples to samples.

use chatterbex_nif::{NifError, try_binary};
use rustler::{Binary, Env, NifUnitEnum};

use super::{long_work, no_memory, sample_binary, work};
use crate::edges::Side;
use crate::level::factor;
use crate::samples::{floats, read};
use crate::{edges, loudness, mono, resample};

#[derive(NifUnitEnum)]
enum End {
    In,
    Out,
    Both,
}

/// `mono(samples, channels) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn mono<'a>(env: Env<'a>, samples: Binary<'a>, channels: u32) -> Result<Binary<'a>, NifError> {
    let mixed = work(|| mono::mono(floats(&samples, channels)?, channels))?;
    sample_binary(env, &mixed)
}

/// `resample(samples, channels, from, to) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn resample<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    channels: u32,
    from: u32,
    to: u32,
) -> Result<Binary<'a>, NifError> {
    let new = long_work(env, |caller| {
        resample::resample(&read(&samples, channels)?, channels, from, to, caller)
    })?;
    sample_binary(env, &new)
}

/// `concat([samples]) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn concat<'a>(env: Env<'a>, parts: Vec<Binary<'a>>) -> Result<Binary<'a>, NifError> {
    let bytes = parts
        .iter()
        .fold(0usize, |sum, part| sum.saturating_add(part.len()));
    let mut all = try_binary(bytes).ok_or_else(|| no_memory(bytes))?;
    let mut rest = all.as_mut_slice();

    for part in parts {
        let (here, behind) = rest.split_at_mut(part.len());
        here.copy_from_slice(&part);
        rest = behind;
    }
    Ok(all.release(env))
}

/// `silence(samples) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn silence<'a>(env: Env<'a>, samples: usize) -> Result<Binary<'a>, NifError> {
    let bytes = samples.saturating_mul(4);
    let mut silence = try_binary(bytes).ok_or_else(|| no_memory(bytes))?;
    silence.as_mut_slice().fill(0);
    Ok(silence.release(env))
}

/// `trim(samples, channels, threshold_db, margin_frames) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn trim<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    channels: u32,
    threshold: f64,
    margin: usize,
) -> Result<Binary<'a>, NifError> {
    let kept = work(|| {
        let mut samples = read(&samples, channels)?;
        let frames = edges::sounding(&samples, channels, factor(threshold), margin);
        samples.truncate(frames.end * channels as usize);
        Ok(samples.split_off(frames.start * channels as usize))
    })?;
    sample_binary(env, &kept)
}

/// `fade(samples, channels, :in | :out | :both, frames) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn fade<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    channels: u32,
    side: End,
    frames: usize,
) -> Result<Binary<'a>, NifError> {
    let side = match side {
        End::In => Side::In,
        End::Out => Side::Out,
        End::Both => Side::Both,
    };
    let faded = work(|| {
        let mut samples = read(&samples, channels)?;
        edges::fade(&mut samples, channels, side, frames);
        Ok(samples)
    })?;
    sample_binary(env, &faded)
}

/// `normalize(samples, channels, rate, target_lufs, ceiling_dbtp) :: {:ok, samples} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn normalize<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    channels: u32,
    rate: u32,
    target: f64,
    ceiling: f64,
) -> Result<Binary<'a>, NifError> {
    let level = long_work(env, |caller| {
        let mut samples = read(&samples, channels)?;
        loudness::normalize(&mut samples, channels, rate, target, ceiling, caller)?;
        Ok(samples)
    })?;
    sample_binary(env, &level)
}
