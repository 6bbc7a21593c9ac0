//! WAV files, written and read with `hound`.
//!
//! Reading walks the chunks first and gives `hound` a plain header of our own making in front of
//! the file's own samples: what hound trusts (chunk lengths) has then been held against what is
//! there, and files that other programs write (padded, odd or unknown chunks) are read too.

use std::io::{Cursor, Read};

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use crate::decode::Decoded;
use crate::error::AudioError;
use crate::panics::guarded;
use crate::pcm::{dequantise, quantise};
use crate::samples::{floats, reserve};

/// How samples are kept in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 16-bit integers.
    S16,
    /// 24-bit integers.
    S24,
    /// 32-bit floats.
    F32,
}

impl Format {
    fn bits(self) -> u16 {
        match self {
            Format::S16 => 16,
            Format::S24 => 24,
            Format::F32 => 32,
        }
    }
}

const PCM: u16 = 1;
const IEEE_FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;
const HEADER_ROOM: u64 = 128;

fn in_range(name: &'static str, value: i64, maximum: i64) -> Result<u32, AudioError> {
    match u32::try_from(value) {
        Ok(fits) if (1..=maximum).contains(&value) => Ok(fits),
        _ => Err(AudioError::OutOfRange {
            name,
            value,
            maximum,
        }),
    }
}

/// A WAV file of the samples (32-bit little-endian floats).
///
/// Integer formats clamp to -1.0 to 1.0, round to the nearest, and take NaN as silence; `F32`
/// writes the samples as they are.
///
/// # Errors
/// `Misaligned`, `OutOfRange` (a rate or channels below 1 or above what a header holds), `TooLong`.
pub fn encode(
    samples: &[u8],
    sample_rate: i64,
    channels: i64,
    format: Format,
) -> Result<Vec<u8>, AudioError> {
    let channels = in_range("channels", channels, i64::from(u16::MAX))?;
    let bytes_per_sample = u32::from(format.bits() / 8);
    // The header keeps bytes per frame in 16 bits and bytes per second in 32.
    let channels = in_range(
        "channels",
        channels.into(),
        i64::from(u16::MAX) / i64::from(bytes_per_sample),
    )?;
    let most = i64::from(u32::MAX / (channels * bytes_per_sample));
    let sample_rate = in_range("sample_rate", sample_rate, most)?;

    let floats = floats(samples, channels)?;
    let bytes = floats.len() as u64 * u64::from(bytes_per_sample);
    if bytes + HEADER_ROOM > u64::from(u32::MAX) {
        return Err(AudioError::TooLong { bytes });
    }

    let spec = WavSpec {
        channels: channels as u16,
        sample_rate,
        bits_per_sample: format.bits(),
        sample_format: match format {
            Format::F32 => SampleFormat::Float,
            _ => SampleFormat::Int,
        },
    };

    let size = (bytes + HEADER_ROOM) as usize;
    let mut file = Vec::new();
    file.try_reserve_exact(size)
        .map_err(|_| AudioError::OutOfMemory { bytes: size })?;

    let mut file = Cursor::new(file);
    write(&mut file, spec, format, floats).map_err(hound_error)?;
    Ok(file.into_inner())
}

fn write(
    file: &mut Cursor<Vec<u8>>,
    spec: WavSpec,
    format: Format,
    samples: impl ExactSizeIterator<Item = f32>,
) -> hound::Result<()> {
    let mut writer = WavWriter::new(file, spec)?;

    match format {
        Format::S16 => {
            let mut fast = writer.get_i16_writer(samples.len() as u32);
            for sample in samples {
                fast.write_sample(quantise(sample, 16) as i16);
            }
            fast.flush()?;
        }
        Format::S24 => {
            for sample in samples {
                writer.write_sample(quantise(sample, 24))?;
            }
        }
        Format::F32 => {
            for sample in samples {
                writer.write_sample(sample)?;
            }
        }
    }

    writer.finalize()
}

/// The samples of a WAV file: 8, 16, 24 or 32-bit PCM or 32-bit float, `WAVE_FORMAT_EXTENSIBLE`
/// included.
///
/// # Errors
/// `NotWav`, `Truncated`, `LengthMismatch`, `MissingChunk`, `BadFormat`, `Unsupported`,
/// `NoSamples`, `OutOfMemory`. Memory is taken only for samples that are there.
pub fn decode(file: &[u8]) -> Result<Decoded, AudioError> {
    let chunks = Chunks::find(file)?;
    let header = Header::parse(chunks.format)?;
    let frame = usize::from(header.block_align);

    if chunks.data.is_empty() {
        return Err(AudioError::NoSamples);
    }
    if !chunks.data.len().is_multiple_of(frame) {
        return Err(AudioError::BadFormat(format!(
            "{} bytes of samples are no whole number of {frame}-byte frames",
            chunks.data.len()
        )));
    }

    // hound is kept from everything it is known to trip over; a panic would still be no reason to
    // take the caller down.
    let plain = header.plain(chunks.data.len() as u32);
    let read = || read(plain.chain(chunks.data), chunks.data.len());
    guarded(read).unwrap_or_else(|what| Err(AudioError::BadFormat(what)))
}

fn read(file: impl Read, data_bytes: usize) -> Result<Decoded, AudioError> {
    let mut reader = WavReader::new(file).map_err(hound_error)?;
    let spec = reader.spec();
    let bits = u32::from(spec.bits_per_sample);

    // The reader's length comes from the header we made, which fits the data.
    let mut samples = reserve((reader.len() as usize).min(data_bytes))?;

    match spec.sample_format {
        SampleFormat::Float => {
            for sample in reader.samples::<f32>() {
                samples.push(sample.map_err(hound_error)?);
            }
        }
        SampleFormat::Int => {
            for sample in reader.samples::<i32>() {
                samples.push(dequantise(sample.map_err(hound_error)?, bits));
            }
        }
    }

    Ok(Decoded {
        samples,
        sample_rate: spec.sample_rate,
        channels: spec.channels,
    })
}

fn hound_error(error: hound::Error) -> AudioError {
    match error {
        hound::Error::Unsupported => AudioError::Unsupported("a codec other than PCM".into()),
        other => AudioError::BadFormat(other.to_string()),
    }
}

/// The two chunks that matter.
struct Chunks<'a> {
    format: &'a [u8],
    data: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn find(file: &'a [u8]) -> Result<Self, AudioError> {
        match file.get(..12) {
            None => {
                return Err(AudioError::NotWav(format!(
                    "is only {} bytes long",
                    file.len()
                )));
            }
            Some(head) if &head[..4] == b"RF64" || &head[..4] == b"RIFX" => {
                let name = String::from_utf8_lossy(&head[..4]).into_owned();
                return Err(AudioError::Unsupported(format!(
                    "the {name} variant of WAV"
                )));
            }
            Some(head) if &head[..4] != b"RIFF" || &head[8..12] != b"WAVE" => {
                return Err(AudioError::NotWav(
                    "does not begin with RIFF and WAVE".into(),
                ));
            }
            Some(_) => {}
        }

        let expected = u64::from(u32_at(file, 4)) + 8;
        let actual = file.len() as u64;
        let cut = expected > actual;
        let truncated = AudioError::Truncated { expected, actual };

        let mut format = None;
        let mut at = 12usize;

        while let Some(head) = file.get(at..at + 8) {
            let length = u32_at(head, 4) as usize;
            let body = &file[at + 8..];

            match (&head[..4], body.get(..length)) {
                (b"data", Some(data)) => {
                    let format = format.ok_or(AudioError::MissingChunk("fmt"))?;
                    return Ok(Self { format, data });
                }
                // By the file's own length it was cut; otherwise this one chunk lies. A length of
                // all ones is what a program writes that could not go back and fill it in.
                (b"data", None) if cut && expected != u64::from(u32::MAX) + 8 => {
                    return Err(truncated);
                }
                (b"data", None) => {
                    return Err(AudioError::LengthMismatch {
                        promised: length as u64,
                        actual: body.len() as u64,
                    });
                }
                (_, None) => break,
                (b"fmt ", Some(chunk)) => format = Some(chunk),
                (_, Some(_)) => {}
            }

            // A chunk of odd length has a byte of padding behind it.
            at += 8 + length + (length & 1);
        }

        if cut {
            return Err(truncated);
        }
        Err(AudioError::MissingChunk(if format.is_none() {
            "fmt"
        } else {
            "data"
        }))
    }
}

/// A checked format chunk.
struct Header {
    float: bool,
    channels: u16,
    sample_rate: u32,
    block_align: u16,
    /// Bits of a sample that carry sound; its container has `8 * block_align / channels`.
    bits: u16,
}

impl Header {
    fn parse(chunk: &[u8]) -> Result<Self, AudioError> {
        let bad = |what: String| Err(AudioError::BadFormat(what));

        if chunk.len() < 16 {
            return bad(format!("it is {} bytes long and needs 16", chunk.len()));
        }

        let tag = u16_at(chunk, 0);
        let channels = u16_at(chunk, 2);
        let sample_rate = u32_at(chunk, 4);
        let block_align = u16_at(chunk, 12);
        let container = u16_at(chunk, 14);

        let (codec, valid) = match tag {
            EXTENSIBLE if chunk.len() >= 40 => (extensible_codec(chunk), u16_at(chunk, 18)),
            EXTENSIBLE => return bad(format!("it is {} bytes long and needs 40", chunk.len())),
            _ => (Some(tag), 0),
        };

        let float = match codec {
            Some(PCM) => false,
            Some(IEEE_FLOAT) => true,
            Some(other) => return Err(AudioError::Unsupported(codec_name(other))),
            None => return Err(AudioError::Unsupported("an unknown codec".into())),
        };

        if channels == 0 {
            return bad("it has 0 channels".into());
        }
        if sample_rate == 0 {
            return bad("its sample rate is 0".into());
        }
        if !matches!((float, container), (false, 8 | 16 | 24 | 32) | (true, 32)) {
            let kind = if float { "float" } else { "integer" };
            return Err(AudioError::Unsupported(format!(
                "{container}-bit {kind} samples"
            )));
        }

        let bytes = block_align / channels;
        // A 24-bit sample may sit in 4 bytes; nothing else is laid out loosely in practice.
        let snug = bytes == container / 8 || (container == 24 && bytes == 4);
        if !block_align.is_multiple_of(channels) || !snug {
            return bad(format!(
                "{block_align} bytes a frame do not fit {channels} channels of {container} bits"
            ));
        }

        // hound computes bytes per second, in 32 bits.
        if u32::from(block_align).checked_mul(sample_rate).is_none() {
            return bad(format!("its sample rate is {sample_rate} Hz"));
        }

        // 24 valid bits in a 32-bit container are left-justified: read as 32 they are the same sound.
        let bits = match valid {
            24 if !float && container == 32 => 32,
            _ => container,
        };

        Ok(Self {
            float,
            channels,
            sample_rate,
            block_align,
            bits,
        })
    }

    /// A RIFF header, format chunk and data chunk header in their plainest form.
    fn plain(&self, data_length: u32) -> Cursor<Vec<u8>> {
        let mut bytes = Vec::with_capacity(44);
        let tag = if self.float { IEEE_FLOAT } else { PCM };
        let rate = u32::from(self.block_align).saturating_mul(self.sample_rate);

        bytes.extend_from_slice(b"RIFF");
        bytes.extend_from_slice(&data_length.saturating_add(36).to_le_bytes());
        bytes.extend_from_slice(b"WAVEfmt ");
        bytes.extend_from_slice(&16u32.to_le_bytes());
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&self.channels.to_le_bytes());
        bytes.extend_from_slice(&self.sample_rate.to_le_bytes());
        bytes.extend_from_slice(&rate.to_le_bytes());
        bytes.extend_from_slice(&self.block_align.to_le_bytes());
        bytes.extend_from_slice(&self.bits.to_le_bytes());
        bytes.extend_from_slice(b"data");
        bytes.extend_from_slice(&data_length.to_le_bytes());
        Cursor::new(bytes)
    }
}

/// The codec in an extensible format's GUID: its first two bytes, if the rest is the standard tail.
fn extensible_codec(chunk: &[u8]) -> Option<u16> {
    const TAIL: [u8; 14] = [
        0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x80, 0x00, 0x00, 0xaa, 0x00, 0x38, 0x9b, 0x71,
    ];
    (chunk[26..40] == TAIL).then(|| u16_at(chunk, 24))
}

fn codec_name(tag: u16) -> String {
    match tag {
        0x0002 | 0x0011 => "ADPCM".into(),
        0x0006 => "A-law".into(),
        0x0007 => "mu-law".into(),
        0x0050 | 0x0055 => "MPEG audio".into(),
        other => format!("codec 0x{other:04x}"),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
#[path = "wav_tests.rs"]
mod tests;
