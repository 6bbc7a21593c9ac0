//! What can be wrong with audio.

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
    /// A proper file with nothing in it, or nothing for a file.
    #[error("there are no samples in it")]
    NoSamples,
    /// A file of a kind that is known and not read.
    #[error(
        "this is {0}, which cannot be read: only WAV, FLAC, MP3, Ogg Vorbis and Ogg Opus can. \
         Convert it, for example with: ffmpeg -i in out.wav"
    )]
    OtherFormat(&'static str),
    /// A file of no kind that is known.
    #[error(
        "these {bytes} bytes are no audio file: neither WAV, FLAC, MP3, Ogg Vorbis nor Ogg Opus"
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
        /// Where, and in which way.
        what: String,
    },
    /// A compressed file that ends before it should.
    #[error("the {format} file is truncated: {how}; copy or record it again")]
    CutShort {
        /// The file's format.
        format: &'static str,
        /// Where it ends.
        how: String,
    },
    /// Longer than the caller wants.
    #[error(
        "the audio is longer than {seconds} s; cut it, or ask for more with the option :max_seconds"
    )]
    LongerThan {
        /// The limit.
        seconds: u32,
    },
    /// More samples than the caller wants.
    #[error(
        "the audio has more than {samples} samples; cut it, or allow more with the option :max_samples"
    )]
    MoreThan {
        /// The limit, for all channels together.
        samples: u64,
    },
    /// More samples than so few bytes hold in any recording.
    #[error(
        "these {bytes} bytes hold more sound than any recording of their size: the file is damaged, \
         or made to exhaust memory"
    )]
    TooDense {
        /// Size of the file.
        bytes: usize,
    },
    /// The process that asked for the audio is gone.
    #[error("nobody waits for the audio any more")]
    Abandoned,
    /// NaN or an infinity among the samples.
    #[error(
        "the samples of frame {frame} are not finite numbers: nothing can be computed from them"
    )]
    NotFinite {
        /// Where, from 0.
        frame: usize,
    },
    /// Numbers that no sound has.
    #[error(
        "frame {frame} has a sample of {sample:e}, which is no sound: full scale is 1.0, and at most \
         1e12 can be computed with"
    )]
    NoSound {
        /// Where, from 0.
        frame: usize,
        /// The first such sample.
        sample: f32,
    },
    /// A sample rate that something cannot be done at.
    #[error(
        "the sample rate must be from {} to {} Hz for audio to {purpose}, got {rate}",
        range.start(),
        range.end()
    )]
    Rate {
        /// The rate, in Hz.
        rate: u32,
        /// The rates that it can be done at.
        range: RangeInclusive<u32>,
        /// What, in words.
        purpose: &'static str,
    },
    /// A sample rate that a format does not know.
    #[error(
        "{format} knows the sample rates {} Hz only, and this audio has {rate}; bring it to one of them \
         with Chatterbex.Audio.resample/2",
        listed(rates)
    )]
    OtherRate {
        /// The rate, in Hz.
        rate: u32,
        /// Those that it knows.
        rates: &'static [u32],
        /// The format's name.
        format: &'static str,
    },
    /// An encoder that failed, or was finished.
    #[error("this encoder has ended; make a new one")]
    Ended,
    /// More channels than there is sense in.
    #[error(
        "the audio has {channels} channels, and at most {most} can be worked on; mix them with \
         Chatterbex.Audio.mono/1"
    )]
    ManyChannels {
        /// How many there are.
        channels: u32,
        /// How many may be.
        most: u32,
    },
    /// A result of more samples than are made at once.
    #[error("the result would have more than {most} samples: work on shorter parts of the audio")]
    ManySamples {
        /// How many there may be, in all channels together.
        most: u64,
    },
    /// A library refused what it should have taken.
    #[error("the audio could not be processed: {0}")]
    Failed(String),
    /// No memory for the result.
    #[error("no memory for {bytes} bytes of audio")]
    OutOfMemory {
        /// Size asked for, in bytes.
        bytes: usize,
    },
}

impl AudioError {
    /// No memory for so many samples.
    pub fn no_memory(samples: usize) -> Self {
        Self::OutOfMemory {
            bytes: samples.saturating_mul(4),
        }
    }

    /// For what cannot happen: the words of the library that says it did.
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
