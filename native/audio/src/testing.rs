//! What the tests of this crate share.

use crate::error::AudioError;
use crate::limits::{Caller, Limits};

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub samples: Vec<f32>,
    pub sample_rate: u32,
    pub channels: u16,
}

/// Decodes a file, however many samples it has.
pub fn decode(file: &[u8], max_seconds: u32) -> Result<Decoded, AudioError> {
    let limits = Limits {
        max_seconds,
        max_samples: u64::MAX,
    };
    let mut samples = Vec::new();
    let form = crate::decode::decode(file, limits, Caller::patient(), &mut samples)?;
    Ok(Decoded {
        samples,
        sample_rate: form.sample_rate,
        channels: form.channels,
    })
}

/// A small generator of our own (xorshift): the same numbers in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn sample(&mut self) -> f32 {
        (self.next() as i64 as f64 / i64::MAX as f64) as f32
    }
}

pub fn bytes(samples: &[f32]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

/// A file of test/fixtures/audio. All of speech.* hold the same 9,600 frames of speech at 24 kHz.
pub fn fixture(name: &str) -> &'static [u8] {
    macro_rules! files {
        ($($name:literal),*) => {
            match name {
                $($name => include_bytes!(concat!("../../../test/fixtures/audio/", $name)),)*
                _ => panic!("there is no fixture {name}"),
            }
        };
    }

    files!(
        "speech.flac",
        "speech.mp3",
        "speech.oga",
        "speech.ogg",
        "speech.opus",
        "stereo.opus",
        "untagged.mp3"
    )
}

/// A sine of `frames` samples.
pub fn sine(hertz: f64, sample_rate: u32, frames: usize) -> Vec<f32> {
    (0..frames)
        .map(|n| n as f64 * hertz / f64::from(sample_rate))
        .map(|turns| (turns * std::f64::consts::TAU).sin() as f32)
        .collect()
}

/// How much of `original` is in `decoded` at the best shift of at most `reach` frames: 1.0 is all.
pub fn likeness(original: &[f32], decoded: &[f32], reach: usize) -> f64 {
    let energy = |samples: &[f32]| -> f64 { samples.iter().map(|s| f64::from(s * s)).sum() };
    let total = (energy(original) * energy(decoded)).sqrt();

    (0..=2 * reach)
        .map(|shift| {
            let padded = std::iter::repeat_n(&0.0, reach).chain(decoded);
            let product: f64 = original
                .iter()
                .zip(padded.skip(shift))
                .map(|(a, b)| f64::from(a * b))
                .sum();
            product / total
        })
        .fold(0.0, f64::max)
}
