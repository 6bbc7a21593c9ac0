//! Computes the frames at another rate one by one: each is a sum of the frames around its place, weighted by a
//! windowed sinc. The work depends on the number of frames and not on the rates.

use std::f64::consts::PI;

use crate::error::AudioError;
use crate::limits::Caller;
use crate::samples::reserve;

/// How far the kernel reaches to either side, in frames of the lower rate. With this window, what is
/// between 95 and 100 % of half the lower rate fades, and what is beyond is below -100 dB.
const REACH: usize = 160;
/// The amplitude is halved at this share of the lower rate.
const CUTOFF: f64 = 0.4875;
/// The Kaiser window's parameter.
const BETA: f64 = 12.0;
/// Points in the kernel's table per frame. Values between points are interpolated linearly.
const POINTS: usize = 1024;
/// How many frames to compute between two checks of the caller.
const PART: usize = 1024;

/// `wanted` frames at the new rate.
pub fn resample(
    samples: &[f32],
    channels: usize,
    from: u32,
    to: u32,
    wanted: usize,
    caller: Caller,
) -> Result<Vec<f32>, AudioError> {
    let kernel = kernel();
    // The kernel is that of the lower rate.
    let scale = (f64::from(to) / f64::from(from)).min(1.0);
    let reach = (REACH as f64 / scale) as usize;
    let frames = samples.len() / channels;
    let mut weights = Vec::with_capacity(2 * reach + 1);
    let mut out = reserve(wanted * channels)?;

    for number in 0..wanted as u64 {
        if number.is_multiple_of(PART as u64) {
            caller.check()?;
        }
        // Its place among the old frames: a whole number and a fraction.
        let place = number * u64::from(from);
        let whole = (place / u64::from(to)) as usize;
        let share = (place % u64::from(to)) as f64 / f64::from(to);

        let first = whole.saturating_sub(reach);
        let end = frames.min(whole + reach + 1);
        weights.clear();
        weights.extend((first..end).map(|frame| {
            let distance = (frame as f64 - whole as f64 - share).abs() * scale * POINTS as f64;
            let at = distance as usize;
            match kernel.get(at..at + 2) {
                Some(&[here, next]) => {
                    (scale * (here + (next - here) * (distance - at as f64))) as f32
                }
                _ => 0.0,
            }
        }));

        let around = samples
            .get(first * channels..end * channels)
            .unwrap_or_default();
        for channel in 0..channels {
            let column = around.iter().skip(channel).step_by(channels);
            out.push(
                column
                    .zip(&weights)
                    .map(|(sample, weight)| sample * weight)
                    .sum(),
            );
        }
    }
    Ok(out)
}

/// One half of the kernel, from its middle on.
fn kernel() -> Vec<f64> {
    let window = |x: f64| bessel(BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel(BETA);
    (0..=REACH * POINTS)
        .map(|at| at as f64 / POINTS as f64)
        .map(|x| sinc(2.0 * CUTOFF * x) * 2.0 * CUTOFF * window(x / REACH as f64))
        .collect()
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// The modified Bessel function of the first kind and order 0.
fn bessel(x: f64) -> f64 {
    let mut sum = 1.0;
    let mut term = 1.0;
    for n in 1..60 {
        term *= (x / (2.0 * f64::from(n))).powi(2);
        sum += term;
    }
    sum
}
