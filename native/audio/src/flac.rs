//! FLAC files, written with `flac-codec`.

use std::io::Cursor;
use std::ops::RangeInclusive;

use flac_codec::encode::{FlacSampleWriter, Options};

use crate::error::AudioError;
use crate::limits::Caller;
use crate::pcm::quantise;
use crate::samples::floats;

/// The rates that FLAC holds.
pub const RATES: RangeInclusive<u32> = 1..=655_350;
/// The most channels in a FLAC file.
pub const MOST_CHANNELS: u32 = 8;
/// Frames that the encoder receives at once.
const BLOCK: usize = 4096;
/// Room for the metadata, and for the overhead of a block.
const HEADER_ROOM: usize = 65_536;

/// A FLAC file of the samples (32-bit little-endian floats), as integers of 16 or 24 bits.
///
/// They clamp to -1.0 to 1.0, round to the nearest, and NaN becomes silence, as in WAV files.
///
/// # Errors
/// `Misaligned`, `NoSamples` (which FLAC cannot hold), `Rate` outside [`RATES`], `ManyChannels`,
/// `OutOfMemory`, `Abandoned`.
pub fn encode(
    samples: &[u8],
    sample_rate: u32,
    channels: u32,
    bits: u32,
    caller: Caller,
) -> Result<Vec<u8>, AudioError> {
    if !RATES.contains(&sample_rate) {
        return Err(AudioError::Rate {
            rate: sample_rate,
            range: RATES,
            purpose: "be written as FLAC",
        });
    }
    if channels > MOST_CHANNELS {
        return Err(AudioError::ManyChannels {
            channels,
            most: MOST_CHANNELS,
        });
    }

    let mut floats = floats(samples, channels)?;
    if floats.len() == 0 {
        return Err(AudioError::NoSamples);
    }

    // A block that does not compress is stored as it is, so it never needs more room than its samples.
    let size = floats.len().saturating_mul(bits as usize / 8) + HEADER_ROOM;
    let mut file = Vec::new();
    file.try_reserve_exact(size)
        .map_err(|_| AudioError::OutOfMemory { bytes: size })?;
    let mut file = Cursor::new(file);

    let mut writer = FlacSampleWriter::new(
        &mut file,
        Options::default().no_padding(),
        sample_rate,
        bits,
        channels as u8,
        Some(floats.len() as u64),
    )
    .map_err(AudioError::failed)?;

    let mut block = Vec::with_capacity(BLOCK * channels as usize);
    loop {
        caller.check()?;
        block.clear();
        let next = floats.by_ref().take(BLOCK * channels as usize);
        block.extend(next.map(|sample| quantise(sample, bits)));
        if block.is_empty() {
            break;
        }
        writer.write(&block).map_err(AudioError::failed)?;
    }
    writer.finalize().map_err(AudioError::failed)?;
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcm::dequantise;
    use crate::testing::{Numbers, bytes, decode, fixture, sine};

    fn encode(samples: &[u8], rate: u32, channels: u32, bits: u32) -> Result<Vec<u8>, AudioError> {
        super::encode(samples, rate, channels, bits, Caller::patient())
    }

    /// Samples that integers of `bits` bits hold exactly.
    fn exact(samples: impl IntoIterator<Item = f32>, bits: u32) -> Vec<f32> {
        let samples = samples.into_iter();
        samples
            .map(|sample| dequantise(quantise(sample, bits), bits))
            .collect()
    }

    #[track_caller]
    fn round_trip(samples: &[f32], rate: u32, channels: u32, bits: u32) -> usize {
        let file = encode(&bytes(samples), rate, channels, bits).unwrap();
        // The reader holds the samples against the file's checksum and its count.
        let read = decode(&file, 86_400).unwrap();
        assert_eq!(
            (read.sample_rate, u32::from(read.channels)),
            (rate, channels)
        );
        assert!(read.samples == samples, "other samples");
        file.len()
    }

    #[test]
    fn nothing_is_lost() {
        let mut numbers = Numbers(0xf1ac);
        for bits in [16, 24] {
            for (rate, channels) in [
                (24_000, 1),
                (44_100, 2),
                (96_000, 8),
                (11_025, 3),
                (655_350, 1),
            ] {
                let frames = 2 * BLOCK + 17;
                let tones = sine(440.0, 24_000, frames * channels as usize);
                round_trip(&exact(tones, bits), rate, channels, bits);
                let noise = (0..frames * channels as usize).map(|_| numbers.sample());
                round_trip(&exact(noise, bits), rate, channels, bits);
            }
        }
    }

    #[test]
    fn any_length() {
        let mut numbers = Numbers(0x1e46);
        for frames in (1..200).chain([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK]) {
            for channels in [1, 2] {
                let count = frames * channels as usize;
                let noise = (0..count).map(|_| numbers.sample() * 0.1);
                round_trip(&exact(noise, 16), 24_000, channels, 16);
                round_trip(&vec![0.0; count], 24_000, channels, 24);
            }
        }
    }

    #[test]
    fn extremes_are_not_larger_than_they_are() {
        let mut numbers = Numbers(0xe7);
        for bits in [16, 24] {
            let full = dequantise(i32::MAX >> (32 - bits), bits);
            let square = |n: usize| if n % 50 < 25 { full } else { -1.0 };
            let mut noise_and_silence = |n: usize| {
                let sample = if n % BLOCK < 2_944 {
                    numbers.sample()
                } else {
                    0.0
                };
                dequantise(quantise(sample, bits), bits)
            };
            let cases: [Vec<f32>; 2] = [
                (0..10_000).map(square).collect(),
                (0..3 * BLOCK).map(&mut noise_and_silence).collect(),
            ];
            for (samples, channels) in cases.iter().flat_map(|case| [(case, 1), (case, 2)]) {
                let size = round_trip(samples, 24_000, channels, bits);
                let plain = samples.len() * bits as usize / 8;
                assert!(size < plain + 1_000, "{size} bytes, not {plain}");
            }
        }
    }

    #[test]
    fn speech_becomes_smaller() {
        let speech = decode(fixture("speech.flac"), 60).unwrap().samples;
        let size = round_trip(&speech, 24_000, 1, 16);
        assert!(size < 2 * speech.len() * 7 / 10, "{size} bytes");
    }

    #[test]
    fn what_is_no_number_is_silence() {
        let odd = [f32::NAN, f32::INFINITY, -2.0, f32::NEG_INFINITY];
        let file = encode(&bytes(&odd), 24_000, 1, 16).unwrap();
        let read = decode(&file, 60).unwrap();
        assert_eq!(read.samples, [0.0, 32_767.0 / 32_768.0, -1.0, -1.0]);
    }

    #[test]
    fn what_flac_cannot_hold_is_refused() {
        for rate in [0, 655_351, u32::MAX] {
            let refused = encode(&[0; 8], rate, 1, 16);
            assert!(matches!(refused, Err(AudioError::Rate { .. })));
        }
        let refused = encode(&[0; 36], 24_000, 9, 16);
        assert!(matches!(refused, Err(AudioError::ManyChannels { .. })));
        assert_eq!(encode(&[], 24_000, 1, 16), Err(AudioError::NoSamples));
        assert!(encode(&[0; 6], 24_000, 1, 16).is_err());
        assert!(encode(&[0; 8], 24_000, 0, 16).is_err());
    }
}
