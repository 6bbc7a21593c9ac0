//! Where decoded samples go.

use super::Decoded;
use crate::error::AudioError;

/// Two gibibytes of samples: an hour at 48 kHz has less than a third of it in each channel.
const MOST_SAMPLES: u64 = 1 << 29;

/// Collects samples up to a limit, taking memory as they come.
pub struct Sink {
    samples: Vec<f32>,
    sample_rate: u32,
    channels: u16,
    most: usize,
    max_seconds: u32,
}

impl Sink {
    pub fn new(sample_rate: u32, channels: u16, max_seconds: u32) -> Self {
        let most = u64::from(max_seconds) * u64::from(sample_rate) * u64::from(channels);
        Self {
            samples: Vec::new(),
            sample_rate,
            channels,
            most: most.min(MOST_SAMPLES) as usize,
            max_seconds,
        }
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        (self.samples.len() / usize::from(self.channels)) as u64
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.seconds_of(self.frames())
    }

    pub fn seconds_of(&self, frames: u64) -> f64 {
        frames as f64 / f64::from(self.sample_rate)
    }

    /// Whether samples of that rate and so many channels can be added.
    pub fn takes(&self, sample_rate: u32, channels: u16) -> bool {
        self.sample_rate == sample_rate && self.channels == channels
    }

    /// Adds whole frames.
    pub fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        if self.samples.len() + samples.len() > self.most {
            return Err(AudioError::LongerThan {
                seconds: self.max_seconds,
            });
        }

        self.samples
            .try_reserve(samples.len())
            .map_err(|_| AudioError::no_memory(self.samples.len() + samples.len()))?;
        self.samples.extend_from_slice(samples);
        Ok(())
    }

    pub fn finish(self) -> Result<Decoded, AudioError> {
        if self.samples.is_empty() {
            return Err(AudioError::NoSamples);
        }
        Ok(Decoded {
            samples: self.samples,
            sample_rate: self.sample_rate,
            channels: self.channels,
        })
    }
}
