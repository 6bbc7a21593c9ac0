//! The two ends of audio: removes silence, and fades.

use std::ops::Range;

/// The frames that remain when the silence at both ends is removed: from the first to the last frame with a
/// sample beyond `threshold` (a factor of full scale), plus `margin` frames on either side.
pub fn sounding(samples: &[f32], channels: u32, threshold: f64, margin: usize) -> Range<usize> {
    let channels = channels as usize;
    let loud = |sample: &f32| f64::from(sample.abs()) > threshold;

    let (Some(first), Some(last)) = (
        samples.iter().position(loud),
        samples.iter().rposition(loud),
    ) else {
        return 0..0;
    };

    let start = (first / channels).saturating_sub(margin);
    let end = (last / channels + 1).saturating_add(margin);
    start..end.min(samples.len() / channels)
}

/// Where to fade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// At the beginning, from silence.
    In,
    /// At the end, to silence.
    Out,
    /// At both ends.
    Both,
}

/// Fades over `frames`, or over all frames if there are fewer. The curve is half a cosine wave: it has no kink at
/// either end, and a fade-out added to a fade-in gives one.
pub fn fade(samples: &mut [f32], channels: u32, side: Side, frames: usize) {
    let channels = channels as usize;
    let all = samples.len() / channels;
    let frames = frames.min(all);
    // The outermost frame becomes silent, and the first frame after the fade is the first at full level.
    let gain = |frame: usize| (0.5 - 0.5 * turn(frame, frames).cos()) as f32;

    if side != Side::Out {
        for (frame, samples) in samples.chunks_exact_mut(channels).take(frames).enumerate() {
            scale(samples, gain(frame));
        }
    }
    if side != Side::In {
        let reversed = samples.chunks_exact_mut(channels).rev();
        for (frame, samples) in reversed.take(frames).enumerate() {
            scale(samples, gain(frame));
        }
    }
}

fn turn(frame: usize, frames: usize) -> f64 {
    std::f64::consts::PI * frame as f64 / frames as f64
}

fn scale(samples: &mut [f32], gain: f32) {
    for sample in samples {
        *sample *= gain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Numbers;

    #[test]
    fn silence_is_taken_off_both_ends() {
        let samples = [0.0, 0.01, -0.5, 0.0, 0.3, -0.02, 0.0];
        assert_eq!(sounding(&samples, 1, 0.1, 0), 2..5);
        assert_eq!(sounding(&samples, 1, 0.1, 1), 1..6);
        assert_eq!(sounding(&samples, 1, 0.1, usize::MAX), 0..7);
        assert_eq!(sounding(&samples, 1, 0.0, 0), 1..6);
        // A sample exactly at the threshold is silence.
        assert_eq!(sounding(&samples, 1, 0.5, 3), 0..0);
        assert_eq!(sounding(&[], 2, 0.1, 5), 0..0);
    }

    #[test]
    fn frames_stay_whole() {
        let samples = [0.0, 0.0, 0.0, 0.9, 0.9, 0.0, 0.0, 0.0];
        assert_eq!(sounding(&samples, 2, 0.1, 0), 1..3);
        assert_eq!(sounding(&samples, 4, 0.1, 0), 0..2);
    }

    #[test]
    fn a_fade_goes_from_nothing_to_all() {
        let mut samples = [1.0; 12];
        fade(&mut samples, 2, Side::In, 4);
        let left: Vec<f32> = samples.iter().step_by(2).copied().collect();
        let right: Vec<f32> = samples.iter().skip(1).step_by(2).copied().collect();
        assert_eq!(left, right);
        assert_eq!((left[0], left[4], left[5]), (0.0, 1.0, 1.0));
        assert!((left[2] - 0.5).abs() < 1e-6);
        assert!(left.is_sorted());

        let mut out = [1.0; 12];
        fade(&mut out, 2, Side::Out, 4);
        out.reverse();
        assert_eq!(out, samples);
    }

    #[test]
    fn a_fade_over_more_than_there_is_ends_with_it() {
        for (length, frames) in [(0, 5), (1, 1), (1, usize::MAX), (7, 100), (7, 0)] {
            let mut samples = vec![1.0; length];
            fade(&mut samples, 1, Side::Both, frames);
            assert!(samples.iter().all(|sample| (0.0..=1.0).contains(sample)));
            assert_eq!(samples.first().is_some_and(|s| *s == 1.0), frames == 0);
        }
    }

    #[test]
    fn any_samples_and_any_lengths() {
        let mut numbers = Numbers(0x7a11);
        for _ in 0..2_000 {
            let channels = 1 + numbers.below(5);
            let length = channels * numbers.below(40);
            let mut samples: Vec<f32> = (0..length).map(|_| numbers.sample()).collect();
            let margin = numbers.below(50);
            let range = sounding(
                &samples,
                channels as u32,
                f64::from(numbers.sample()),
                margin,
            );
            assert!(range.start <= range.end && range.end * channels <= length);
            fade(&mut samples, channels as u32, Side::Both, numbers.below(60));
            assert_eq!(samples.len(), length);
        }
    }
}
