//! Samples to other samples.

use chatterbex_nif::NifError;
use rustler::{Binary, Env};

use super::{sample_binary, work};
use crate::samples::{floats, read};
use crate::{mono, resample};

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
    let new = work(|| resample::resample(&read(&samples, channels)?, channels, from, to))?;
    sample_binary(env, &new)
}
