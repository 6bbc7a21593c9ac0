//! Reads WAV files. It walks the chunks and compares the sizes that they promise with the file. It also reads the
//! files of other programs, with padded, odd or unknown chunks.

use crate::error::AudioError;
use crate::pcm::dequantise;
use crate::sink::{Form, Sink};

const PCM: u16 = 1;
const IEEE_FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;
/// The length that a program writes if it does not know the length, because it writes to a pipe.
const UNKNOWN: u32 = u32::MAX;
/// How many samples are converted at once.
const BLOCK: usize = 16_384;

/// Puts the samples of a WAV file into a sink, and returns their form: 8, 16, 24 or 32-bit PCM or 32-bit float,
/// `WAVE_FORMAT_EXTENSIBLE` included.
///
/// # Errors
/// `NotWav`, `Truncated`, `LengthMismatch`, `MissingChunk`, `BadFormat`, `Unsupported`, `NoSamples`,
/// and those of the sink. The length is checked before any sample is read.
pub fn decode(file: &[u8], mut sink: Sink) -> Result<Form, AudioError> {
    let chunks = Chunks::find(file)?;
    let header = Header::parse(chunks.format)?;
    let frame = usize::from(header.block_align);

    let data = if chunks.to_the_end {
        // A recording that was interrupted may end within a frame.
        &chunks.data[..chunks.data.len() / frame * frame]
    } else {
        chunks.data
    };
    if data.is_empty() {
        return Err(AudioError::NoSamples);
    }
    if !data.len().is_multiple_of(frame) {
        return Err(AudioError::BadFormat(format!(
            "{} bytes of samples are not a whole number of {frame}-byte frames",
            data.len()
        )));
    }

    sink.expect(header.form, (data.len() / frame) as u64)?;
    if !sink.takes(header.form) {
        return Err(AudioError::BadFormat("it changes".into()));
    }

    match header.layout() {
        Layout::U8 => convert(data, &mut sink, |&[byte]: &[u8; 1]| {
            dequantise(i32::from(byte) - 128, 8)
        }),
        Layout::S16 => convert(data, &mut sink, |bytes: &[u8; 2]| {
            dequantise(i16::from_le_bytes(*bytes).into(), 16)
        }),
        Layout::S24 => convert(data, &mut sink, |&[a, b, c]: &[u8; 3]| s24([a, b, c])),
        // The fourth byte carries nothing.
        Layout::S24In32 => convert(data, &mut sink, |&[a, b, c, _]: &[u8; 4]| s24([a, b, c])),
        Layout::S32 => convert(data, &mut sink, |bytes: &[u8; 4]| {
            dequantise(i32::from_le_bytes(*bytes), 32)
        }),
        Layout::F32 => convert(data, &mut sink, |bytes: &[u8; 4]| {
            f32::from_le_bytes(*bytes)
        }),
    }?;
    sink.finish()
}

fn s24([a, b, c]: [u8; 3]) -> f32 {
    dequantise(i32::from_le_bytes([0, a, b, c]) >> 8, 24)
}

/// Converts block by block, so that the sink can notice in between that the caller no longer waits.
fn convert<const BYTES: usize>(
    data: &[u8],
    sink: &mut Sink,
    sample: impl Fn(&[u8; BYTES]) -> f32,
) -> Result<(), AudioError> {
    let (all, _) = data.as_chunks::<BYTES>();
    let mut block = Vec::with_capacity(BLOCK.min(all.len()));

    for part in all.chunks(BLOCK) {
        block.clear();
        block.extend(part.iter().map(&sample));
        sink.push(&block)?;
    }
    Ok(())
}

/// The two chunks that matter.
struct Chunks<'a> {
    format: &'a [u8],
    data: &'a [u8],
    /// The file does not give the length of its samples: they extend to its end.
    to_the_end: bool,
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
                    return Ok(Self {
                        format: format.ok_or(AudioError::MissingChunk("fmt"))?,
                        data,
                        to_the_end: false,
                    });
                }
                (b"data", None) if length == UNKNOWN as usize => {
                    return Ok(Self {
                        format: format.ok_or(AudioError::MissingChunk("fmt"))?,
                        data: body,
                        to_the_end: true,
                    });
                }
                // By the file's own length it was cut; otherwise this chunk is wrong.
                (b"data", None) if cut && u32_at(file, 4) != UNKNOWN => return Err(truncated),
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

            // A chunk of odd length has a byte of padding after it.
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

/// How a sample is stored.
enum Layout {
    U8,
    S16,
    S24,
    S24In32,
    S32,
    F32,
}

/// A checked format chunk.
struct Header {
    float: bool,
    form: Form,
    block_align: u16,
    /// Bits per sample; a sample takes `block_align / channels` bytes.
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

        let codec = match tag {
            EXTENSIBLE if chunk.len() >= 40 => extensible_codec(chunk),
            EXTENSIBLE => return bad(format!("it is {} bytes long and needs 40", chunk.len())),
            _ => Some(tag),
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
        // A 24-bit sample may take 4 bytes; in practice all other samples are packed.
        let snug = bytes == container / 8 || (container == 24 && bytes == 4);
        if !block_align.is_multiple_of(channels) || !snug {
            return bad(format!(
                "{block_align} bytes a frame do not fit {channels} channels of {container} bits"
            ));
        }

        // The header stores the bytes per second in 32 bits.
        if u32::from(block_align).checked_mul(sample_rate).is_none() {
            return bad(format!("its sample rate is {sample_rate} Hz"));
        }

        // Fewer valid bits are left-justified in their container, so reading the whole container gives
        // the same sound.
        Ok(Self {
            float,
            form: Form {
                sample_rate,
                channels,
            },
            block_align,
            bits: container,
        })
    }

    fn layout(&self) -> Layout {
        match (self.float, self.bits, self.block_align / self.form.channels) {
            (true, ..) => Layout::F32,
            (false, 8, _) => Layout::U8,
            (false, 16, _) => Layout::S16,
            (false, 24, 4) => Layout::S24In32,
            (false, 24, _) => Layout::S24,
            (false, ..) => Layout::S32,
        }
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
