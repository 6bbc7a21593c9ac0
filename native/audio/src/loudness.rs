//! Loudness by EBU R128 (ITU-R BS.1770), measured with `ebur128`.

use std::ops::RangeInclusive;

use ebur128::{EbuR128, Mode};

use crate::error::AudioError;
use crate::level::{decibels, factor};
use crate::limits::Caller;

/// At lower rates the standard's filter does not fit below half the rate.
pub const RATES: RangeInclusive<u32> = 4_000..=768_000;
/// 5.1, because the standard has no weights for more channels.
pub const MOST_CHANNELS: u32 = 6;
/// The standard's absolute gate, in LUFS. Quieter audio is not measured.
const GATE: f64 = -70.0;
/// How many frames after its samples the true peak may come.
const TAIL: usize = 64;
/// How many frames are measured at once.
const BLOCK: usize = 65_536;

/// How loud audio is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loudness {
    /// Integrated loudness, in LUFS; `None` if all audio is below the gate.
    pub integrated: Option<f64>,
    /// The highest level between samples, as a factor of full scale.
    pub true_peak: f64,
}

/// Measures samples. Audio shorter than the standard's block of 0.4 s is one block of its
/// own length.
///
/// # Errors
/// `Rate` outside [`RATES`], `ManyChannels`, `Abandoned`.
pub fn measure(
    samples: &[f32],
    channels: u32,
    rate: u32,
    caller: Caller,
) -> Result<Loudness, AudioError> {
    if !RATES.contains(&rate) {
        return Err(AudioError::Rate {
            rate,
            range: RATES,
            purpose: "have its loudness measured",
        });
    }
    if channels > MOST_CHANNELS {
        return Err(AudioError::ManyChannels {
            channels,
            most: MOST_CHANNELS,
        });
    }

    let frames = samples.len() / channels as usize;
    let mut meter =
        EbuR128::new(channels, rate, Mode::I | Mode::TRUE_PEAK).map_err(AudioError::failed)?;
    for part in samples.chunks(BLOCK * channels as usize) {
        caller.check()?;
        meter.add_frames_f32(part).map_err(AudioError::failed)?;
    }

    let block = 4 * ((rate as usize + 5) / 10);
    let loudness = if frames < block {
        pad(&mut meter, channels, block - frames)?;
        let padded = meter.loudness_momentary().map_err(AudioError::failed)?;
        padded + 10.0 * (block as f64 / frames as f64).log10()
    } else {
        let loudness = meter.loudness_global().map_err(AudioError::failed)?;
        pad(&mut meter, channels, TAIL)?;
        loudness
    };

    Ok(Loudness {
        // Nothing at all is NaN.
        integrated: (loudness >= GATE).then_some(loudness),
        true_peak: peak(&meter, channels)?,
    })
}

fn pad(meter: &mut EbuR128, channels: u32, frames: usize) -> Result<(), AudioError> {
    let silence = [0.0; 64 * MOST_CHANNELS as usize];
    let mut samples = frames * channels as usize;

    while samples > 0 {
        let some = samples.min(64 * channels as usize);
        meter
            .add_frames_f32(&silence[..some])
            .map_err(AudioError::failed)?;
        samples -= some;
    }
    Ok(())
}

fn peak(meter: &EbuR128, channels: u32) -> Result<f64, AudioError> {
    let mut highest = 0.0f64;
    for channel in 0..channels {
        highest = highest.max(meter.true_peak(channel).map_err(AudioError::failed)?);
    }
    Ok(highest)
}

/// Changes the loudness of samples to `target` (LUFS), or as near to it as a true peak of at most `ceiling`
/// (dBTP) allows. Silence is not changed.
///
/// # Errors
/// As [`measure`].
pub fn normalize(
    samples: &mut [f32],
    channels: u32,
    rate: u32,
    target: f64,
    ceiling: f64,
    caller: Caller,
) -> Result<(), AudioError> {
    let Loudness {
        integrated,
        true_peak,
    } = measure(samples, channels, rate, caller)?;

    if let Some(loudness) = integrated {
        let gain = factor((target - loudness).min(ceiling - decibels(true_peak)));
        for sample in samples {
            *sample = (f64::from(*sample) * gain) as f32;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, sine};

    fn measure(samples: &[f32], channels: u32, rate: u32) -> Result<Loudness, AudioError> {
        super::measure(samples, channels, rate, Caller::patient())
    }

    fn normalize(
        samples: &mut [f32],
        channels: u32,
        rate: u32,
        target: f64,
        ceiling: f64,
    ) -> Result<(), AudioError> {
        super::normalize(samples, channels, rate, target, ceiling, Caller::patient())
    }

    /// A sine in `channels` channels.
    fn tone(decibels: f64, hertz: f64, rate: u32, seconds: f64, channels: usize) -> Vec<f32> {
        let gain = factor(decibels) as f32;
        sine(hertz, rate, (f64::from(rate) * seconds) as usize)
            .into_iter()
            .flat_map(|sample| std::iter::repeat_n(sample * gain, channels))
            .collect()
    }

    fn lufs(samples: &[f32], channels: u32, rate: u32) -> f64 {
        let measured = measure(samples, channels, rate).unwrap();
        measured.integrated.unwrap()
    }

    #[track_caller]
    fn near(is: f64, should: f64, tolerance: f64) {
        assert!((is - should).abs() <= tolerance, "{is}, not {should}");
    }

    #[test]
    fn a_tone_in_both_channels_is_as_loud_as_its_level() {
        // EBU Tech 3341, cases 1 and 2, and BS.1770's own calibration.
        for rate in [16_000, 22_050, 24_000, 44_100, 48_000, 192_000] {
            for level in [-20.0, -23.0, -33.0] {
                near(lufs(&tone(level, 997.0, rate, 5.0, 2), 2, rate), level, 0.1);
            }
        }
        near(
            lufs(&tone(0.0, 997.0, 48_000, 5.0, 1), 1, 48_000),
            -3.01,
            0.02,
        );
    }

    #[test]
    fn what_is_much_quieter_than_the_rest_does_not_count() {
        // EBU Tech 3341, cases 3 to 5.
        let cases: [&[(f64, f64)]; 3] = [
            &[(-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0)],
            &[
                (-72.0, 10.0),
                (-36.0, 10.0),
                (-23.0, 60.0),
                (-36.0, 10.0),
                (-72.0, 10.0),
            ],
            &[(-26.0, 20.0), (-20.0, 20.1), (-26.0, 20.0)],
        ];
        for case in cases {
            let parts = case.iter();
            let samples: Vec<f32> = parts
                .flat_map(|&(level, seconds)| tone(level, 1_000.0, 24_000, seconds, 2))
                .collect();
            near(lufs(&samples, 2, 24_000), -23.0, 0.1);
        }
    }

    #[test]
    fn the_channels_of_5_1_have_their_weights() {
        // EBU Tech 3341, case 6.
        let levels = [-28.0, -28.0, -24.0, f64::NEG_INFINITY, -30.0, -30.0];
        let samples: Vec<f32> = sine(1_000.0, 48_000, 20 * 48_000)
            .into_iter()
            .flat_map(|sample| levels.map(|level| sample * factor(level) as f32))
            .collect();
        near(lufs(&samples, 6, 48_000), -23.0, 0.1);
    }

    #[test]
    fn short_audio_is_as_loud_as_long_audio() {
        for seconds in [0.05, 0.1, 0.2, 0.39, 0.4, 0.41, 0.8] {
            for rate in [24_000, 22_055] {
                let loudness = lufs(&tone(-20.0, 997.0, rate, seconds, 2), 2, rate);
                near(loudness, -20.0, 0.4);
            }
        }
    }

    #[test]
    fn silence_and_nothing_have_no_loudness() {
        let quiet = tone(-80.0, 997.0, 24_000, 2.0, 1);
        for samples in [&quiet[..], &quiet[..100], &[0.0; 24_000], &[0.0], &[]] {
            assert_eq!(measure(samples, 1, 24_000).unwrap().integrated, None);
        }
        let mut same = quiet.clone();
        normalize(&mut same, 1, 24_000, -23.0, -1.0).unwrap();
        assert_eq!(same, quiet);
    }

    #[test]
    fn the_true_peak_is_between_the_samples() {
        // EBU Tech 3341, cases 15 and 16: a quarter of the rate, 45 degrees off.
        let samples: Vec<f32> = (0..48_000)
            .map(|n| (f64::from(n) / 4.0 + 0.125) * std::f64::consts::TAU)
            .map(|angle| (0.5 * angle.sin()) as f32)
            .collect();
        let highest = samples.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        near(decibels(f64::from(highest)), -9.03, 0.01);
        let peak = decibels(measure(&samples, 1, 48_000).unwrap().true_peak);
        assert!((-6.4..=-5.8).contains(&peak), "{peak}");
    }

    #[test]
    fn normalising_reaches_the_target() {
        for (level, target) in [(-40.0, -23.0), (-6.0, -23.0), (-30.0, -16.0)] {
            let mut samples = tone(level, 440.0, 24_000, 3.0, 1);
            normalize(&mut samples, 1, 24_000, target, -1.0).unwrap();
            near(lufs(&samples, 1, 24_000), target, 0.01);
        }
    }

    #[test]
    fn the_ceiling_comes_before_the_target() {
        let mut samples = tone(-40.0, 440.0, 24_000, 3.0, 1);
        samples[1_000] = 0.5;
        // The last sample counts, too.
        samples.push(-0.6);
        normalize(&mut samples, 1, 24_000, -10.0, -3.0).unwrap();
        let after = measure(&samples, 1, 24_000).unwrap();
        near(decibels(after.true_peak), -3.0, 0.05);
        assert!(after.integrated.unwrap() < -20.0);
    }

    #[test]
    fn any_samples() {
        let mut numbers = Numbers(0x10d);
        for round in 0..300 {
            let channels = 1 + numbers.below(6);
            let rate = [4_000, 8_000, 24_000, 768_000][numbers.below(4)];
            let scale = [f32::MIN_POSITIVE, 1e-20, 1.0, 1e12][round % 4];
            let mut samples: Vec<f32> = (0..channels * numbers.below(3_000))
                .map(|_| numbers.sample() * scale)
                .collect();
            normalize(&mut samples, channels as u32, rate, 0.0, 0.0).unwrap();
            assert!(samples.iter().all(|sample| sample.is_finite()));
        }
    }

    #[test]
    fn what_has_no_loudness_is_refused() {
        for rate in [0, 3_999, 768_001, u32::MAX] {
            let refused = measure(&[0.0; 4], 1, rate);
            assert!(matches!(refused, Err(AudioError::Rate { .. })));
        }
        let refused = measure(&[0.0; 7], 7, 24_000);
        assert!(matches!(refused, Err(AudioError::ManyChannels { .. })));
    }
}
