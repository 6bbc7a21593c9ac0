//! Any file to samples.

mod kind;
mod ogg_opus;
mod ogg_pages;
mod packets;
mod sink;

use crate::error::AudioError;
use crate::panics::guarded;
use crate::wav;
use kind::Kind;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Interleaved.
    pub samples: Vec<f32>,
    /// Frames per second.
    pub sample_rate: u32,
    /// Samples per frame.
    pub channels: u16,
}

/// The samples of a file: WAV, FLAC, MP3, Vorbis or FLAC in Ogg, Opus in Ogg. Opus comes at the rate
/// that it was made from where Opus knows that rate, else at 48 kHz.
///
/// # Errors
/// A file that is something else, is damaged, ends too early, or is longer than `max_seconds`.
pub fn decode(file: &[u8], max_seconds: u32) -> Result<Decoded, AudioError> {
    let decode = || match kind::kind(file) {
        Kind::Wav(file) => within(wav::decode(file)?, max_seconds),
        Kind::Flac(file) => packets::flac(file, max_seconds),
        Kind::Mp3(file) => packets::mp3(file, max_seconds),
        Kind::Ogg(file) => packets::ogg(file, max_seconds),
        Kind::Opus(file) => ogg_opus::decode(file, max_seconds),
        Kind::Other(name) => Err(AudioError::OtherFormat(name)),
        Kind::Unknown => Err(AudioError::UnknownFormat { bytes: file.len() }),
    };

    // The decoders are others' work, and what they read may be made to trip them.
    guarded(decode).unwrap_or_else(|what| {
        Err(AudioError::Damaged {
            format: "audio",
            what,
        })
    })
}

fn cut_short(format: &'static str, how: String) -> AudioError {
    AudioError::CutShort { format, how }
}

fn within(decoded: Decoded, max_seconds: u32) -> Result<Decoded, AudioError> {
    let frames = decoded.samples.len() as u64 / u64::from(decoded.channels);

    if frames > u64::from(max_seconds) * u64::from(decoded.sample_rate) {
        return Err(AudioError::LongerThan {
            seconds: max_seconds,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
