//! The errors about audio.

use std::ops::RangeInclusive;

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
        /// The requested number of channels.
        channels: u32,
    },
    /// A sample rate or number of channels that no WAV header can hold.
    #[error("{name} must be an integer from 1 to {maximum}, got {value}")]
    OutOfRange {
        /// The argument.
        name: &'static str,
        /// Its value.
        value: i64,
        /// The largest allowed value.
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
        "the WAV file is truncated: it should be {expected} bytes long but is {actual}; copy or \
         record it again"
    )]
    Truncated {
        /// Length by the header, in bytes.
        expected: u64,
        /// Length found, in bytes.
        actual: u64,
    },
    /// The header gives a greater length than the samples have.
    #[error(
        "the WAV file's header promises {promised} bytes of samples, but the file has {actual}: \
         its header is wrong"
    )]
    LengthMismatch {
        /// Length by the data chunk's header, in bytes.
        promised: u64,
        /// Length found, in bytes.
        actual: u64,
    },
    /// A required part of a WAV file is missing.
    #[error("the WAV file has no {0} chunk")]
    MissingChunk(&'static str),
    /// The format chunk is invalid.
    #[error("the WAV file's format chunk is wrong: {0}")]
    BadFormat(String),
    /// A codec other than PCM and 32-bit float.
    #[error(
        "the WAV file holds {0}, which is not supported; convert it to 16-bit PCM, for example \
         with: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
    )]
    Unsupported(String),
    /// A valid file without samples, or no samples to write to a file.
    #[error("there are no samples in it")]
    NoSamples,
    /// A file of a known but unsupported kind.
    #[error(
        "this is {0}, which cannot be read: only WAV, FLAC, MP3, Ogg Vorbis and Ogg Opus can. \
         Convert it, for example with: ffmpeg -i in out.wav"
    )]
    OtherFormat(&'static str),
    /// A file of an unknown kind.
    #[error(
        "these {bytes} bytes are not an audio file: neither WAV, FLAC, MP3, Ogg Vorbis nor Ogg Opus"
    )]
    UnknownFormat {
        /// Size of the file.
        bytes: usize,
    },
    /// A compressed file that cannot be decoded.
    #[error("the {format} file is damaged: {what}; copy or record it again")]
    Damaged {
        /// The file's format.
        format: &'static str,
        /// What is damaged, and where.
        what: String,
    },
    /// A compressed file that ends too early.
    #[error("the {format} file is truncated: {how}; copy or record it again")]
    CutShort {
        /// The file's format.
        format: &'static str,
        /// Where it ends.
        how: String,
    },
    /// Longer than the caller allows.
    #[error(
        "the audio is longer than {seconds} s; cut it, or ask for more with the option :max_seconds"
    )]
    LongerThan {
        /// The limit.
        seconds: u32,
    },
    /// More samples than the caller allows.
    #[error(
        "the audio has more than {samples} samples; cut it, or allow more with the option :max_samples"
    )]
    MoreThan {
        /// The limit, for all channels together.
        samples: u64,
    },
    /// More samples than any recording of this size holds.
    #[error(
        "these {bytes} bytes hold more sound than any recording of their size: the file is damaged, \
         or made to exhaust memory"
    )]
    TooDense {
        /// Size of the file.
        bytes: usize,
    },
    /// The calling process no longer exists.
    #[error("the process that asked for the audio no longer exists")]
    Abandoned,
    /// The samples contain NaN or infinity.
    #[error(
        "the samples of frame {frame} are not finite numbers: nothing can be computed from them"
    )]
    NotFinite {
        /// The frame, from 0.
        frame: usize,
    },
    /// Numbers that are too large for sound.
    #[error(
        "frame {frame} has a sample of {sample:e}, which is no sound: full scale is 1.0, and at most \
         1e12 can be computed with"
    )]
    NoSound {
        /// The frame, from 0.
        frame: usize,
        /// The first such sample.
        sample: f32,
    },
    /// A sample rate that an operation does not support.
    #[error(
        "the sample rate must be from {} to {} Hz for audio to {purpose}, got {rate}",
        range.start(),
        range.end()
    )]
    Rate {
        /// The rate, in Hz.
        rate: u32,
        /// The supported rates.
        range: RangeInclusive<u32>,
        /// The operation, in words.
        purpose: &'static str,
    },
    /// A sample rate that a format does not support.
    #[error(
        "{format} supports only the sample rates {} Hz, and this audio has {rate}; convert it to one of them \
         with Chatterbex.Audio.resample/2",
        listed(rates)
    )]
    OtherRate {
        /// The rate, in Hz.
        rate: u32,
        /// The supported rates.
        rates: &'static [u32],
        /// The format's name.
        format: &'static str,
    },
    /// An encoder that failed or was finished.
    #[error("this encoder has ended; make a new one")]
    Ended,
    /// More channels than an operation supports.
    #[error(
        "the audio has {channels} channels, and at most {most} are supported; mix them with \
         Chatterbex.Audio.mono/1"
    )]
    ManyChannels {
        /// The number of channels.
        channels: u32,
        /// The most channels.
        most: u32,
    },
    /// A result with too many samples.
    #[error("the result would have more than {most} samples: work on shorter parts of the audio")]
    ManySamples {
        /// The most samples, in all channels together.
        most: u64,
    },
    /// A library refused input that it should accept.
    #[error("the audio could not be processed: {0}")]
    Failed(String),
    /// No memory for the result.
    #[error("no memory for {bytes} bytes of audio")]
    OutOfMemory {
        /// The requested size, in bytes.
        bytes: usize,
    },
}

impl AudioError {
    /// An error for `samples` samples that do not fit in memory.
    pub fn no_memory(samples: usize) -> Self {
        Self::OutOfMemory {
            bytes: samples.saturating_mul(4),
        }
    }

    /// An error that should be impossible, with the message of the library that reports it.
    pub fn failed(what: impl ToString) -> Self {
        Self::Failed(what.to_string())
    }

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
            OtherFormat(_) => ("invalid_audio", "unsupported_format"),
            UnknownFormat { .. } => ("invalid_audio", "unknown_format"),
            Damaged { .. } => ("invalid_audio", "damaged"),
            CutShort { .. } => ("invalid_audio", "truncated"),
            LongerThan { .. } => ("invalid_audio", "too_long"),
            MoreThan { .. } => ("invalid_audio", "too_many_samples"),
            TooDense { .. } => ("invalid_audio", "too_dense"),
            Abandoned => ("cancelled", "abandoned"),
            NotFinite { .. } => ("invalid_audio", "not_finite"),
            NoSound { .. } => ("invalid_audio", "no_sound"),
            Rate { .. } | OtherRate { .. } => ("invalid_audio", "sample_rate"),
            Ended => ("invalid_option", "ended"),
            ManyChannels { .. } => ("invalid_audio", "many_channels"),
            ManySamples { .. } => ("invalid_audio", "too_many_samples"),
            Failed(_) => ("generation_failed", "library"),
            OutOfMemory { .. } => ("out_of_memory", "no_memory"),
        }
    }
}

fn listed(rates: &[u32]) -> String {
    let rates: Vec<String> = rates.iter().map(ToString::to_string).collect();
    rates.join(", ")
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
