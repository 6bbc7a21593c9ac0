//! Writes files as their samples come, with at most one block in memory.

mod flac;
mod mp3;
mod opus;
mod wav;

use crate::error::AudioError;
use crate::wav::Format as Integers;

/// The format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 16-bit little-endian integers without a header.
    Pcm,
    /// A WAV file with samples of this width.
    Wav(Integers),
    /// A FLAC file of integers with 16 or 24 bits.
    Flac {
        /// Bits per sample.
        bits: u32,
    },
    /// An Ogg Opus file.
    Opus {
        /// Bits a second.
        bitrate: i32,
    },
    /// An MP3 file.
    Mp3 {
        /// Bits a second.
        bitrate: u32,
    },
}

/// The end of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Its last bytes.
    pub bytes: Vec<u8>,
    /// Bytes to write at earlier places, if they can still be written: the length of the file. Without them, the
    /// file does not give its length.
    pub patches: Vec<(u64, Vec<u8>)>,
}

/// A file in the making.
pub struct Encoder {
    channels: u32,
    kind: Kind,
}

enum Kind {
    Wav(wav::Encoder),
    Flac(Box<flac::Encoder>),
    Opus(Box<opus::Encoder>),
    Mp3(Box<mp3::Encoder>),
}

impl Encoder {
    /// Begins a file.
    ///
    /// # Errors
    /// The format does not support the rate, channels or bits.
    pub fn new(format: Format, sample_rate: u32, channels: u32) -> Result<Self, AudioError> {
        let kind = match format {
            Format::Pcm => Kind::Wav(wav::Encoder::plain()),
            Format::Wav(integers) => Kind::Wav(wav::Encoder::new(sample_rate, channels, integers)?),
            Format::Flac { bits } => {
                Kind::Flac(Box::new(flac::Encoder::new(sample_rate, channels, bits)?))
            }
            Format::Opus { bitrate } => Kind::Opus(Box::new(opus::Encoder::new(
                sample_rate,
                channels,
                bitrate,
            )?)),
            Format::Mp3 { bitrate } => {
                Kind::Mp3(Box::new(mp3::Encoder::new(sample_rate, channels, bitrate)?))
            }
        };
        Ok(Self { channels, kind })
    }

    /// Accepts samples (32-bit little-endian floats), and returns the bytes of the file that are ready. The first
    /// call also returns the header. Samples clamp to -1.0 to 1.0, and NaN is silence.
    ///
    /// # Errors
    /// `Misaligned`, `TooLong`, and failures of the encoder. It cannot be used after an error.
    pub fn push(&mut self, samples: &[u8]) -> Result<Vec<u8>, AudioError> {
        let samples = crate::samples::floats(samples, self.channels)?;
        match &mut self.kind {
            Kind::Wav(encoder) => encoder.push(samples),
            Kind::Flac(encoder) => encoder.push(samples),
            Kind::Opus(encoder) => encoder.push(samples),
            Kind::Mp3(encoder) => encoder.push(samples),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Failures of the encoder.
    pub fn finish(self) -> Result<Ending, AudioError> {
        match self.kind {
            Kind::Wav(encoder) => Ok(encoder.finish()),
            Kind::Flac(encoder) => encoder.finish(),
            Kind::Opus(encoder) => encoder.finish(),
            Kind::Mp3(encoder) => encoder.finish(),
        }
    }
}

/// A sample that encoders accept.
fn sound(sample: f32) -> f32 {
    if sample.is_nan() {
        0.0
    } else {
        sample.clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests;
