//! Measurements and plots of samples.

use chatterbex_nif::NifError;
use rustler::{Binary, Env, NifUnitEnum};

use super::{binary, long_work, work};
use crate::plot::{Kind, Size, View};
use crate::samples::read;
use crate::{loudness, plot};

/// `loudness(samples, channels, rate) :: {:ok, lufs | nil} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn loudness(env: Env, samples: Binary, channels: u32, rate: u32) -> Result<Option<f64>, NifError> {
    let measured = long_work(env, |caller| {
        loudness::measure(&read(&samples, channels)?, channels, rate, caller)
    })?;
    Ok(measured.integrated)
}

#[derive(NifUnitEnum)]
enum Show {
    Waveform,
    Spectrogram,
    Both,
}

#[derive(NifUnitEnum)]
enum Format {
    Svg,
    Png,
}

/// `plot(samples, channels, rate, :waveform | :spectrogram | :both, :svg | :png, {width, height}) ::
/// {:ok, binary} | {:error, error}`
#[rustler::nif(schedule = "DirtyCpu")]
fn plot<'a>(
    env: Env<'a>,
    samples: Binary<'a>,
    channels: u32,
    rate: u32,
    show: Show,
    format: Format,
    (width, height): (u32, u32),
) -> Result<Binary<'a>, NifError> {
    let view = match show {
        Show::Waveform => View::Waveform,
        Show::Spectrogram => View::Spectrogram,
        Show::Both => View::Both,
    };
    let kind = match format {
        Format::Svg => Kind::Svg,
        Format::Png => Kind::Png,
    };
    let picture = work(|| {
        let samples = read(&samples, channels)?;
        plot::plot(&samples, channels, rate, view, Size { width, height }, kind)
    })?;
    binary(env, &picture)
}
