//! What the fuzz targets share.

pub mod repair;

use chatterbex_audio::decode;
use chatterbex_audio::error::AudioError;
use chatterbex_audio::limits::{Caller, Limits};

/// Small, so that a file of silence takes milliseconds. What limits do is tested elsewhere.
const LIMITS: Limits = Limits {
    max_seconds: 3_600,
    max_samples: 1 << 21,
};

/// Decodes a file, which must give audio or an error.
///
/// # Panics
/// Where a decoder panics, or the samples are no whole frames.
pub fn decode(file: &[u8]) {
    let mut samples = Vec::new();

    match decode::decode(file, LIMITS, Caller::patient(), &mut samples) {
        Ok(form) => {
            assert!(!samples.is_empty());
            assert!(samples.len().is_multiple_of(form.channels.into()));
            assert!(samples.len() as u64 <= LIMITS.max_samples);
        }
        Err(AudioError::Damaged { format, what }) => {
            assert!(!what.starts_with(decode::PANICKED), "{format}: {what}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
