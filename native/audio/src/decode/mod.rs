//! Decodes any supported file to samples.

mod kind;
mod ogg_opus;
mod ogg_pages;
mod packets;
mod vorbis;
mod wav;

use chatterbex_nif::guarded;

use crate::error::AudioError;
use crate::limits::{Caller, Limits};
use crate::sink::{Form, Sink, Store};
use kind::Kind;

/// Puts the samples of a file into a store: WAV, FLAC, MP3, Vorbis or FLAC in Ogg, Opus in Ogg. Opus is decoded at
/// its original rate if Opus supports that rate, else at 48 kHz.
///
/// Memory is allocated for decoded samples, never because a file asks for it.
///
/// # Errors
/// The file is of another kind, is damaged, ends too early, or exceeds the limits; `Abandoned` if the caller no
/// longer exists; `OutOfMemory`.
pub fn decode(
    file: &[u8],
    limits: Limits,
    caller: Caller,
    store: &mut dyn Store,
) -> Result<Form, AudioError> {
    let sink = Sink::new(store, limits, caller, file.len());

    match kind::kind(file) {
        Kind::Wav(file) => protected("WAV", || wav::decode(file, sink)),
        Kind::Flac(file) => protected("FLAC", || packets::flac(file, sink)),
        Kind::Mp3(file) => protected("MP3", || packets::mp3(file, sink)),
        Kind::Ogg(file) => protected("Ogg", || packets::ogg(file, sink)),
        Kind::Opus(file) => protected("Opus", || ogg_opus::decode(file, sink)),
        Kind::Other(name) => Err(AudioError::OtherFormat(name)),
        Kind::Unknown => Err(AudioError::UnknownFormat { bytes: file.len() }),
    }
}

/// As [`decode`], for files that must be WAV.
///
/// # Errors
/// As [`decode`].
pub fn decode_wav(
    file: &[u8],
    limits: Limits,
    caller: Caller,
    store: &mut dyn Store,
) -> Result<Form, AudioError> {
    wav::decode(file, Sink::new(store, limits, caller, file.len()))
}

/// The decoders come from other libraries. A file that makes one panic counts as damaged.
fn protected<T>(
    format: &'static str,
    decode: impl FnOnce() -> Result<T, AudioError>,
) -> Result<T, AudioError> {
    guarded(decode).unwrap_or_else(|what| {
        Err(AudioError::Damaged {
            format,
            what: format!("{PANICKED}{what})"),
        })
    })
}

/// The beginning of the error for a decoder that panicked. The fuzz targets look for it.
pub const PANICKED: &str = "its decoder cannot make sense of it (";

fn cut_short(format: &'static str, how: String) -> AudioError {
    AudioError::CutShort { format, how }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
