//! WAV files, written with `hound`. `decode::wav` reads them.

use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};

use crate::error::AudioError;
use crate::limits::Caller;
use crate::pcm::quantise;
use crate::samples::floats;

/// How a file stores samples.
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

const HEADER_ROOM: u64 = 128;
/// How many samples are written at once.
const BLOCK: usize = 16_384;

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
/// `Misaligned`, `OutOfRange` (a rate or channels below 1 or above what a header holds), `TooLong`,
/// `OutOfMemory`, `Abandoned`.
pub fn encode(
    samples: &[u8],
    sample_rate: i64,
    channels: i64,
    format: Format,
    caller: Caller,
) -> Result<Vec<u8>, AudioError> {
    let channels = in_range("channels", channels, i64::from(u16::MAX))?;
    let bytes_per_sample = u32::from(format.bits() / 8);
    // The header stores bytes per frame in 16 bits and bytes per second in 32.
    let channels = in_range(
        "channels",
        channels.into(),
        i64::from(u16::MAX) / i64::from(bytes_per_sample),
    )?;
    let most = i64::from(u32::MAX / (channels * bytes_per_sample));
    let sample_rate = in_range("sample_rate", sample_rate, most)?;

    let mut floats = floats(samples, channels)?;
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
    let mut writer = WavWriter::new(&mut file, spec).map_err(AudioError::failed)?;
    while floats.len() > 0 {
        caller.check()?;
        write(&mut writer, format, floats.by_ref().take(BLOCK)).map_err(AudioError::failed)?;
    }
    writer.finalize().map_err(AudioError::failed)?;
    Ok(file.into_inner())
}

fn write(
    writer: &mut WavWriter<&mut Cursor<Vec<u8>>>,
    format: Format,
    samples: impl ExactSizeIterator<Item = f32>,
) -> hound::Result<()> {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, bytes, decode};

    #[test]
    fn round_trips_keep_every_sample() {
        let mut numbers = Numbers(0x5eed);

        for round in 0..200 {
            let channels = 1 + numbers.below(4);
            let count = channels * (1 + numbers.below(500));
            let rate = 1 + numbers.below(192_000) as i64;
            let original: Vec<f32> = (0..count).map(|_| numbers.sample()).collect();

            for (format, step) in [
                (Format::S16, 1.0 / 32_768.0),
                (Format::S24, 1.0 / 8_388_608.0),
                (Format::F32, 0.0),
            ] {
                let file = encode(
                    &bytes(&original),
                    rate,
                    channels as i64,
                    format,
                    Caller::patient(),
                )
                .unwrap();
                let decoded = decode(&file, 3_600).unwrap();
                assert_eq!(i64::from(decoded.sample_rate), rate, "round {round}");
                assert_eq!(usize::from(decoded.channels), channels);

                let again = &decoded.samples;
                assert_eq!(again.len(), original.len());
                for (a, b) in original.iter().zip(again) {
                    // Half a step of rounding, a whole one at full scale.
                    assert!((a - b).abs() <= step, "{format:?}: {a} became {b}");
                }

                // What was read is written as the very same file.
                let second = encode(
                    &bytes(&decoded.samples),
                    rate,
                    channels as i64,
                    format,
                    Caller::patient(),
                )
                .unwrap();
                assert_eq!(second, file, "{format:?} in round {round}");
            }
        }
    }

    #[test]
    fn arguments_out_of_range_are_refused() {
        let one = bytes(&[0.5]);
        let refused = |rate, channels| {
            encode(&one, rate, channels, Format::S16, Caller::patient()).unwrap_err()
        };

        for (rate, channels) in [
            (0, 1),
            (-1, 1),
            (i64::MAX, 1),
            (24_000, 0),
            (24_000, 70_000),
        ] {
            assert!(
                matches!(refused(rate, channels), AudioError::OutOfRange { .. }),
                "{rate} Hz, {channels} channels"
            );
        }
        assert!(matches!(refused(24_000, 2), AudioError::Misaligned { .. }));
        assert!(matches!(
            encode(&one[..3], 24_000, 1, Format::F32, Caller::patient()),
            Err(AudioError::Misaligned { .. })
        ));
    }

    #[test]
    fn what_is_no_number_is_silence() {
        let odd = bytes(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        let file = encode(&odd, 24_000, 1, Format::S16, Caller::patient()).unwrap();
        let expected = [0.0, 32_767.0 / 32_768.0, -1.0];
        assert_eq!(decode(&file, 3_600).unwrap().samples, expected);
    }
}
