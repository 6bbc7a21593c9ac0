//! Changes the pace of speech but not its pitch, as it comes (WSOLA: Verhelst and Roelands, 1993).
//!
//! Segments of the sound are overlapped at a fixed distance. Each is taken from near its place in time, at the
//! point where it best continues the segment before it.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::error::AudioError;

/// How many times as fast.
pub const FACTORS: RangeInclusive<f64> = 0.25..=4.0;

/// A segment, in seconds: two periods of the lowest voices.
const SEGMENT: f64 = 0.03;
/// How far from its place a segment may be taken, in seconds.
const REACH: f64 = 0.01;
const MOST_CHANNELS: u32 = 64;

/// Sound that is being stretched.
pub struct Stretcher {
    factor: f64,
    channels: usize,
    /// Frames between two segments in the output; a segment is twice as long.
    hop: usize,
    reach: usize,
    window: Vec<f32>,
    /// The input from frame `first` on, interleaved.
    input: VecDeque<f32>,
    first: u64,
    taken: u64,
    /// The second half of the last segment, faded out.
    tail: Vec<f32>,
    /// Where the last segment was taken from.
    last: Option<u64>,
    segments: u64,
    given: u64,
}

impl Stretcher {
    /// Creates a stretcher that makes sound `factor` times as fast.
    ///
    /// # Errors
    /// `Failed` for a factor outside [`FACTORS`], `ManyChannels`, `Rate`.
    pub fn new(factor: f64, rate: u32, channels: u32) -> Result<Self, AudioError> {
        if !FACTORS.contains(&factor) {
            return Err(AudioError::failed(format!(
                "sound can be made 0.25 to 4 times as fast, not {factor} times"
            )));
        }
        if channels == 0 || channels > MOST_CHANNELS {
            return Err(AudioError::ManyChannels {
                channels,
                most: MOST_CHANNELS,
            });
        }
        let rates = 1_000..=768_000;
        if !rates.contains(&rate) {
            return Err(AudioError::Rate {
                rate,
                range: rates,
                purpose: "be stretched",
            });
        }

        let hop = (SEGMENT * f64::from(rate) / 2.0).round() as usize;
        let turn = std::f64::consts::PI / hop as f64;
        let window = (0..hop)
            .map(|n| (0.5 - 0.5 * ((n as f64 + 0.5) * turn).cos()) as f32)
            .collect();
        Ok(Self {
            factor,
            channels: channels as usize,
            hop,
            reach: (REACH * f64::from(rate)).round() as usize,
            window,
            input: VecDeque::new(),
            first: 0,
            taken: 0,
            tail: Vec::new(),
            last: None,
            segments: 0,
            given: 0,
        })
    }

    /// Accepts samples, and returns those that are ready.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, AudioError> {
        self.input
            .try_reserve(samples.len())
            .map_err(|_| AudioError::no_memory(samples.len()))?;
        self.input.extend(samples);
        self.taken += (samples.len() / self.channels) as u64;

        let mut out = Vec::new();
        while self.needed() <= self.taken {
            self.segment(&mut out);
        }
        Ok(out)
    }

    /// Returns the rest. The whole output is as long as the input divided by the factor.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn finish(mut self) -> Result<Vec<f32>, AudioError> {
        let total = (self.taken as f64 / self.factor).round() as u64;
        let mut out = Vec::new();
        while self.given < total {
            let missing = (self.needed().saturating_sub(self.taken)) as usize * self.channels;
            self.input
                .try_reserve(missing)
                .map_err(|_| AudioError::no_memory(missing))?;
            self.input.extend(std::iter::repeat_n(0.0, missing));
            self.taken += (missing / self.channels) as u64;
            self.segment(&mut out);
        }
        let surplus = (self.given - total) as usize * self.channels;
        out.truncate(out.len().saturating_sub(surplus));
        Ok(out)
    }

    /// Where the next segment belongs, in frames of the input.
    fn place(&self) -> u64 {
        (self.segments as f64 * self.hop as f64 * self.factor).round() as u64
    }

    /// How much input the next segment needs, in frames.
    fn needed(&self) -> u64 {
        let segment = 2 * self.hop as u64;
        let continued = self.last.map_or(0, |last| last + self.hop as u64 + segment);
        // Do not return more than the length of the input so far, divided by the factor.
        let worth = ((self.segments + 1) as f64 * self.hop as f64 * self.factor).ceil() as u64;
        continued
            .max(self.place() + self.reach as u64 + segment)
            .max(worth)
    }

    fn segment(&mut self, out: &mut Vec<f32>) {
        let from = self.best();
        let (hop, channels) = (self.hop, self.channels);
        let start = (from - self.first) as usize * channels;

        for frame in 0..hop {
            for channel in 0..channels {
                let at = frame * channels + channel;
                let sample = self.input[start + at];
                // The first segment has nothing to overlap.
                out.push(match self.tail.get(at) {
                    Some(tail) => tail + sample * self.window[frame],
                    None => sample,
                });
            }
        }
        let second = start + hop * channels;
        self.tail.clear();
        self.tail.extend((0..hop * channels).map(|at| {
            let fade = 1.0 - self.window[at / channels];
            self.input[second + at] * fade
        }));

        self.last = Some(from);
        self.segments += 1;
        self.given += hop as u64;

        let keep = (from + hop as u64).min(self.place().saturating_sub(self.reach as u64));
        let gone = keep.saturating_sub(self.first);
        self.input
            .drain(..(gone as usize * channels).min(self.input.len()));
        self.first += gone;
    }

    /// The point near its place where a segment best continues the last one.
    fn best(&self) -> u64 {
        let Some(last) = self.last else { return 0 };
        let natural = last + self.hop as u64;
        let place = self.place();
        let lowest = place.saturating_sub(self.reach as u64).max(self.first);
        let highest = place + self.reach as u64;
        if (lowest..=highest).contains(&natural) {
            return natural;
        }

        let wanted = self.mixed(natural);
        let nearby = self.mixed_to(lowest, (highest - lowest) as usize + self.hop);
        let mut best = (f64::MIN, place);
        for (shift, candidate) in nearby.windows(self.hop).enumerate() {
            let mut product = 0.0f32;
            let mut energy = 1e-9f32;
            for (a, b) in candidate.iter().zip(&wanted) {
                product += a * b;
                energy += a * a;
            }
            let likeness = f64::from(product) / f64::from(energy).sqrt();
            if likeness > best.0 {
                best = (likeness, lowest + shift as u64);
            }
        }
        best.1
    }

    fn mixed(&self, from: u64) -> Vec<f32> {
        self.mixed_to(from, self.hop)
    }

    /// The sum of the channels, for `frames` frames.
    fn mixed_to(&self, from: u64, frames: usize) -> Vec<f32> {
        let start = from.saturating_sub(self.first) as usize * self.channels;
        (0..frames)
            .map(|frame| {
                let at = start + frame * self.channels;
                (at..at + self.channels)
                    .map(|at| self.input.get(at).copied().unwrap_or(0.0))
                    .sum()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, decode, fixture, sine};

    fn stretch(samples: &[f32], factor: f64, rate: u32, channels: u32, parts: usize) -> Vec<f32> {
        let mut stretcher = Stretcher::new(factor, rate, channels).unwrap();
        let mut out = Vec::new();
        for part in samples.chunks(parts * channels as usize) {
            out.extend(stretcher.push(part).unwrap());
        }
        out.extend(stretcher.finish().unwrap());
        out
    }

    /// How often the sound crosses zero upwards in a second.
    fn pitch(samples: &[f32], rate: u32) -> f64 {
        let inner = &samples[samples.len() / 10..samples.len() * 9 / 10];
        let crossings = inner
            .windows(2)
            .filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0)
            .count();
        crossings as f64 * f64::from(rate) / inner.len() as f64
    }

    #[test]
    fn the_length_changes_and_the_pitch_does_not() {
        let tone = sine(220.0, 24_000, 48_000);
        for factor in [0.25, 0.5, 0.8, 1.0, 1.3, 2.0, 4.0] {
            let out = stretch(&tone, factor, 24_000, 1, 1_000);
            assert_eq!(out.len(), (48_000.0 / factor).round() as usize, "{factor}");
            let pitch = pitch(&out, 24_000);
            assert!((pitch - 220.0).abs() < 3.0, "{pitch} Hz at {factor}");
            // No segment stands against another: the tone is as loud as it was.
            let inner = &out[out.len() / 10..out.len() * 9 / 10];
            let power = inner.iter().map(|s| f64::from(s * s)).sum::<f64>() / inner.len() as f64;
            assert!((power - 0.5).abs() < 0.05, "{power} at {factor}");
        }
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        let speech = decode(fixture("speech.flac"), 60).unwrap().samples;
        let out = stretch(&speech, 1.0, 24_000, 1, 777);
        assert_eq!(out.len(), speech.len());
        for (a, b) in speech.iter().zip(&out) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn the_parts_that_come_do_not_matter() {
        let speech = decode(fixture("speech.flac"), 60).unwrap().samples;
        for factor in [0.3, 1.7, 4.0] {
            let whole = stretch(&speech, factor, 24_000, 1, speech.len());
            for parts in [1, 100, 1_001] {
                assert!(stretch(&speech, factor, 24_000, 1, parts) == whole);
            }
        }
    }

    #[test]
    fn channels_stay_together() {
        let left = sine(220.0, 16_000, 16_000);
        let both: Vec<f32> = left.iter().flat_map(|s| [*s, -s]).collect();
        let out = stretch(&both, 1.5, 16_000, 2, 500);
        assert!(out.chunks(2).all(|pair| (pair[0] + pair[1]).abs() < 1e-6));
    }

    #[test]
    fn any_length_and_any_samples() {
        let mut numbers = Numbers(0x57e7);
        for _ in 0..200 {
            let channels = 1 + numbers.below(3);
            let frames = numbers.below(3_000);
            let rate = [1_000, 8_000, 24_000][numbers.below(3)];
            let factor = 0.25 + 3.75 * (f64::from(numbers.sample()) + 1.0) / 2.0;
            let odd = [f32::NAN, f32::INFINITY, -1e30];
            let samples: Vec<f32> = (0..frames * channels)
                .map(|at| {
                    if at % 97 == 3 {
                        odd[at % 3]
                    } else {
                        numbers.sample()
                    }
                })
                .collect();
            let parts = 1 + numbers.below(800);
            let out = stretch(&samples, factor, rate, channels as u32, parts);
            let expected = (frames as f64 / factor).round() as usize * channels;
            assert_eq!(out.len(), expected);
        }
    }

    #[test]
    fn no_more_than_a_moment_is_kept() {
        let mut stretcher = Stretcher::new(0.5, 24_000, 1).unwrap();
        for _ in 0..200 {
            stretcher.push(&[0.1; 2_400]).unwrap();
            assert!(stretcher.input.len() < 24_000);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for factor in [0.0, 0.24, 4.01, f64::NAN, f64::INFINITY, -1.0] {
            assert!(Stretcher::new(factor, 24_000, 1).is_err());
        }
        assert!(Stretcher::new(1.0, 24_000, 0).is_err());
        assert!(Stretcher::new(1.0, 24_000, 65).is_err());
        assert!(Stretcher::new(1.0, 999, 1).is_err());
    }
}
