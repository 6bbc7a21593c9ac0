//! What can be wrong with audio.

use chatterbex_nif::{Detail, NifError};
use thiserror::Error;

/// Why audio was refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum AudioError {
    /// The sample binary does not hold whole frames.
    #[error(
        "the samples are {bytes} bytes, which is not a whole number of frames of {channels} \
         32-bit floats"
    )]
    Misaligned {
        /// Size of the binary in bytes.
        bytes: usize,
        /// Channels asked for.
        channels: u32,
    },
    /// Sample rate or channels that no WAV header can hold.
    #[error("{name} must be an integer from 1 to {maximum}, got {value}")]
    OutOfRange {
        /// The argument.
        name: &'static str,
        /// What was given.
        value: i64,
        /// The greatest that is allowed.
        maximum: i64,
    },
    /// More than a RIFF file can hold.
    #[error("{bytes} bytes of samples are too many for a WAV file, which holds less than 4 GiB")]
    TooLong {
        /// Size of the samples in the file, in bytes.
        bytes: u64,
    },
    /// Too short or not RIFF/WAVE at all.
    #[error("not a WAV file: it {0}")]
    NotWav(String),
    /// The file ends before the length that its own header gives.
    #[error(
        "the WAV file is truncated: it should be {expected} bytes long and is {actual}; copy or \
         record it again"
    )]
    Truncated {
        /// Length by the header, in bytes.
        expected: u64,
        /// Length found, in bytes.
        actual: u64,
    },
    /// The length of the samples in the header is more than what is there.
    #[error(
        "the WAV file's header promises {promised} bytes of samples and the file has {actual}: \
         its header is wrong"
    )]
    LengthMismatch {
        /// Length by the data chunk's header, in bytes.
        promised: u64,
        /// Length found, in bytes.
        actual: u64,
    },
    /// A part is missing that every WAV file has.
    #[error("the WAV file has no {0} chunk")]
    MissingChunk(&'static str),
    /// The format chunk makes no sense.
    #[error("the WAV file's format chunk is wrong: {0}")]
    BadFormat(String),
    /// A codec other than PCM and 32-bit float.
    #[error(
        "the WAV file holds {0}, which is not supported; convert it to 16-bit PCM, for example \
         with: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
    )]
    Unsupported(String),
    /// A proper file with nothing in it.
    #[error("the WAV file holds no samples")]
    NoSamples,
    /// No memory for the result.
    #[error("no memory for {bytes} bytes of audio")]
    OutOfMemory {
        /// Size asked for, in bytes.
        bytes: usize,
    },
}

impl AudioError {
    fn reason_and_cause(&self) -> (&'static str, &'static str) {
        use AudioError::*;

        match self {
            Misaligned { .. } => ("invalid_option", "misaligned_samples"),
            OutOfRange { .. } => ("invalid_option", "out_of_range"),
            TooLong { .. } => ("invalid_option", "too_long"),
            NotWav(_) => ("invalid_audio", "not_wav"),
            Truncated { .. } => ("invalid_audio", "truncated"),
            LengthMismatch { .. } => ("invalid_audio", "length_mismatch"),
            MissingChunk(_) => ("invalid_audio", "missing_chunk"),
            BadFormat(_) => ("invalid_audio", "bad_format"),
            Unsupported(_) => ("invalid_audio", "unsupported_codec"),
            NoSamples => ("invalid_audio", "no_samples"),
            OutOfMemory { .. } => ("out_of_memory", "no_memory"),
        }
    }
}

impl From<AudioError> for NifError {
    fn from(error: AudioError) -> Self {
        let (reason, cause) = error.reason_and_cause();
        let built = NifError::new(reason, error.to_string()).cause(cause);
        let integer = |value: u64| Detail::Integer(i64::try_from(value).unwrap_or(i64::MAX));

        match error {
            AudioError::Truncated { expected, actual } => built
                .with("expected_bytes", integer(expected))
                .with("actual_bytes", integer(actual)),
            AudioError::LengthMismatch { promised, actual } => built
                .with("promised_bytes", integer(promised))
                .with("actual_bytes", integer(actual)),
            AudioError::OutOfRange { name, value, .. } => built
                .with("argument", Detail::Atom(name))
                .with("value", Detail::Integer(value)),
            _ => built,
        }
    }
}
