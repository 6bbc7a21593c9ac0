//! What can be said of samples.

use chatterbex_nif::NifError;
use rustler::Binary;

use super::work;
use crate::loudness;
use crate::samples::read;

/// `loudness(samples, channels, rate) :: {:ok, lufs | nil} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn loudness(samples: Binary, channels: u32, rate: u32) -> Result<Option<f64>, NifError> {
    let measured = work(|| loudness::measure(&read(&samples, channels)?, channels, rate))?;
    Ok(measured.integrated)
}
