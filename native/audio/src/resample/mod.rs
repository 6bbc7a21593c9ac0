//! Converts from one sample rate to another.

mod sinc;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler};

use crate::error::AudioError;
use crate::limits::Caller;
use crate::samples::reserve;

/// Rates that make sense for sound and keep the transforms small.
pub const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;
/// Limited because each channel has its own buffers.
pub const MOST_CHANNELS: u32 = 64;
/// How many frames are transformed at once. Longer blocks pass more of the highest tones.
const BLOCK: usize = 2048;
/// Rates without a large common divisor need longer blocks, and each channel has several of them. Beyond this
/// length, and where 32-bit floats lose precision, frames are computed one by one.
const LONGEST_BLOCK: usize = 1 << 15;
/// Two gibibytes.
const MOST_SAMPLES: u64 = 1 << 29;

/// The samples at another rate: `ceil(frames * to / from)` frames, aligned with the old ones. Frequencies below
/// 95 % of half the lower rate are kept; those above half the lower rate are removed.
///
/// # Errors
/// `Rate` for one outside [`RATES`], `ManyChannels`, `ManySamples`, `OutOfMemory`, `Abandoned`.
pub fn resample(
    samples: &[f32],
    channels: u32,
    from: u32,
    to: u32,
    caller: Caller,
) -> Result<Vec<f32>, AudioError> {
    if let Some(rate) = [from, to].into_iter().find(|rate| !RATES.contains(rate)) {
        return Err(AudioError::Rate {
            rate,
            range: RATES,
            purpose: "be resampled",
        });
    }
    if channels > MOST_CHANNELS {
        return Err(AudioError::ManyChannels {
            channels,
            most: MOST_CHANNELS,
        });
    }

    let channels = channels as usize;
    let frames = samples.len() / channels;
    let wanted = (frames as u64 * u64::from(to)).div_ceil(from.into());
    if wanted.saturating_mul(channels as u64) > MOST_SAMPLES {
        return Err(AudioError::ManySamples { most: MOST_SAMPLES });
    }
    let wanted = wanted as usize;

    if from == to || frames == 0 {
        let mut same = reserve(samples.len())?;
        same.extend_from_slice(samples);
        return Ok(same);
    }

    let (before, after) = block(from, to);
    if before.max(after) > LONGEST_BLOCK {
        return sinc::resample(samples, channels, from, to, wanted, caller);
    }

    let resampler = Fft::<f32>::new(
        from as usize,
        to as usize,
        before,
        channels,
        FixedSync::Both,
    )
    .map_err(AudioError::failed)?;
    in_blocks(resampler, samples, channels, wanted, caller)
}

fn in_blocks(
    mut resampler: Fft<f32>,
    samples: &[f32],
    channels: usize,
    wanted: usize,
    caller: Caller,
) -> Result<Vec<f32>, AudioError> {
    let mut out = reserve(wanted * channels)?;
    let mut rest = samples;
    // The filter's delay comes first.
    let mut delay = resampler.output_delay();
    let room = resampler.output_frames_max();
    let mut block = reserve(room * channels)?;
    block.resize(room * channels, 0.0);

    while out.len() < wanted * channels {
        caller.check()?;
        let left = rest.len() / channels;
        let indexing = Indexing {
            input_offset: 0,
            output_offset: 0,
            partial_len: (left < resampler.input_frames_next()).then_some(left),
            active_channels_mask: None,
        };
        let input = InterleavedSlice::new(rest, channels, left).map_err(AudioError::failed)?;
        let mut output =
            InterleavedSlice::new_mut(&mut block, channels, room).map_err(AudioError::failed)?;
        let (read, written) = resampler
            .process_into_buffer(&input, &mut output, Some(&indexing))
            .map_err(AudioError::failed)?;

        rest = rest.get(read * channels..).unwrap_or_default();
        let start = delay.min(written);
        delay -= start;
        let end = written.min(start + wanted - out.len() / channels);
        out.extend_from_slice(
            block
                .get(start * channels..end * channels)
                .unwrap_or_default(),
        );
    }
    Ok(out)
}

/// The number of frames in a block, before and after. The first is at least [`BLOCK`], and both are whole and
/// even: the middle of an odd block lies between two frames, which would shift the sound by part of a frame.
fn block(from: u32, to: u32) -> (usize, usize) {
    let divisor = greatest_common_divisor(from, to);
    let (before, after) = ((from / divisor) as usize, (to / divisor) as usize);
    let units = 2 * BLOCK.div_ceil(2 * before);
    (before * units, after * units)
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::megabytes;
    use crate::testing::sine;

    fn resample(
        samples: &[f32],
        channels: u32,
        from: u32,
        to: u32,
    ) -> Result<Vec<f32>, AudioError> {
        super::resample(samples, channels, from, to, Caller::patient())
    }

    // The last ones have no common divisor that helps.
    const PAIRS: [(u32, u32); 10] = [
        (24_000, 16_000),
        (16_000, 24_000),
        (48_000, 24_000),
        (44_100, 24_000),
        (44_100, 16_000),
        (22_050, 16_000),
        (8_000, 48_000),
        (24_000, 16_001),
        (16_001, 24_000),
        (47_999, 48_000),
    ];

    fn decibels(ratio: f64) -> f64 {
        20.0 * ratio.max(1e-12).log10()
    }

    fn rms(samples: &[f32]) -> f64 {
        let sum: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
        (sum / samples.len() as f64).sqrt()
    }

    #[test]
    fn tones_stay_what_they_are() {
        for (from, to) in PAIRS {
            let half = f64::from(from.min(to)) / 2.0;
            for hertz in [50.0, 0.2 * half, 0.5 * half, 0.8 * half, 0.95 * half] {
                let tone = sine(hertz, from, from as usize);
                let new = resample(&tone, 1, from, to).unwrap();
                let ideal = sine(hertz, to, to as usize);
                assert_eq!(new.len(), ideal.len());

                // At its ends the tone is switched on and off, which is no tone.
                let middle = ideal.len() / 4..ideal.len() * 3 / 4;
                let error: Vec<f32> = middle.map(|n| new[n] - ideal[n]).collect();
                let level = decibels(rms(&error) / rms(&ideal));
                assert!(level < -100.0, "{from} to {to}, {hertz} Hz: {level} dB");
            }
        }
    }

    #[test]
    fn what_the_new_rate_cannot_hold_is_taken_away() {
        for (from, to) in PAIRS.into_iter().filter(|(from, to)| from > to) {
            for share in [1.02, 1.2, 0.999 * f64::from(from) / f64::from(to)] {
                let hertz = share * f64::from(to) / 2.0;
                let new = resample(&sine(hertz, from, from as usize), 1, from, to).unwrap();
                let level = decibels(rms(&new[new.len() / 4..new.len() * 3 / 4]));
                assert!(level < -100.0, "{from} to {to}, {hertz} Hz: {level} dB");
            }
        }
    }

    #[test]
    fn the_length_is_rounded_up() {
        for (from, to) in PAIRS
            .into_iter()
            .chain([(44_101, 16_000), (768_000, 1_000)])
        {
            for frames in [1, 2, 3, 7, 100, 2_047, 2_048, 2_049, 10_001, 441_000] {
                let new = resample(&vec![0.1; frames], 1, from, to).unwrap();
                let wanted = (frames as u64 * u64::from(to)).div_ceil(from.into());
                assert_eq!(new.len() as u64, wanted, "{frames} frames, {from} to {to}");
                assert!(new.iter().all(|sample| sample.is_finite()));
            }
        }
        assert_eq!(resample(&[], 2, 24_000, 16_000), Ok(vec![]));
    }

    #[test]
    fn what_is_beyond_full_scale_stays_so() {
        let loud: Vec<f32> = sine(440.0, 24_000, 24_000)
            .iter()
            .map(|s| 3.0 * s)
            .collect();
        let new = resample(&loud, 1, 24_000, 16_000).unwrap();
        assert!((rms(&new) / rms(&loud) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn it_stays_in_time() {
        for (to, expected) in [(16_000, 8_000), (24_001, 12_001)] {
            let mut click = vec![0.0; 24_000];
            click[12_000] = 1.0;
            let new = resample(&click, 1, 24_000, to).unwrap();
            let peak = (0..new.len()).max_by(|a, b| new[*a].total_cmp(&new[*b]));
            assert_eq!(peak, Some(expected));
        }
    }

    #[test]
    fn few_samples_take_little_memory() {
        for (from, to) in [
            (767_999, 768_000),
            (768_000, 767_999),
            (1_000, 768_000),
            (767_999, 1_000),
        ] {
            let (new, megabytes) = megabytes(|| resample(&[0.5; 64], 64, from, to));
            let wanted = to.div_ceil(from) as usize * 64;
            assert_eq!(new.unwrap().len(), wanted);
            assert!(megabytes <= 64, "{from} to {to}: {megabytes} MB");
        }
    }

    #[test]
    fn more_samples_than_fit_are_refused() {
        let refused = resample(&[0.5; 700_000], 1, 1_000, 768_000);
        assert!(matches!(refused, Err(AudioError::ManySamples { .. })));
    }

    #[test]
    fn a_caller_that_leaves_ends_the_work() {
        for to in [16_000, 16_001] {
            let left = Caller::new(&|| false);
            let result = super::resample(&[0.5; 24_000], 1, 24_000, to, left);
            assert_eq!(result, Err(AudioError::Abandoned));
        }
    }

    #[test]
    fn channels_stay_apart() {
        let left = sine(440.0, 24_000, 5_000);
        let right = sine(1_000.0, 24_000, 5_000);
        let both: Vec<f32> = left
            .iter()
            .zip(&right)
            .flat_map(|(l, r)| [*l, *r])
            .collect();

        let new = resample(&both, 2, 24_000, 16_000).unwrap();
        let alone = resample(&right, 1, 24_000, 16_000).unwrap();
        let second: Vec<f32> = new.iter().skip(1).step_by(2).copied().collect();
        assert_eq!(second, alone);
    }

    #[test]
    fn the_same_rate_changes_nothing() {
        let samples = sine(440.0, 24_000, 100);
        assert_eq!(resample(&samples, 1, 24_000, 24_000), Ok(samples));
    }

    #[test]
    fn rates_without_sense_are_refused() {
        for (from, to) in [(0, 24_000), (24_000, 0), (999, 24_000), (24_000, u32::MAX)] {
            let refused = resample(&[0.0; 8], 1, from, to);
            assert!(matches!(refused, Err(AudioError::Rate { .. })));
        }
        let refused = resample(&[0.0; 130], 65, 24_000, 16_000);
        assert!(matches!(refused, Err(AudioError::ManyChannels { .. })));
    }
}
