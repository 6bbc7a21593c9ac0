//! Ogg Opus files, written with `opus-pure`.

use std::borrow::Cow;

use opus_pure::{Application, MAX_PACKET_BYTES, OggOpusWriter, OpusEncoder, OpusHead, OpusTags};

use crate::error::AudioError;
use crate::limits::Caller;
use crate::resample;
use crate::samples::reserve;

/// The rates that Opus encodes from. It can decode to any of them, whichever the encoder used.
pub const RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// The most channels in the simplest layout of Ogg Opus.
pub const MOST_CHANNELS: u32 = 2;
/// The rate in which the container counts, in Hz.
pub const TICKS: usize = 48_000;

/// An Ogg Opus file of samples, at `bitrate` bits per second. It stores their number, so that a reader returns
/// the same number. Rates that Opus does not support are converted to 48 kHz.
///
/// # Errors
/// `ManyChannels`, `Abandoned`, and those of [`resample::resample`].
pub fn encode(
    samples: &[f32],
    sample_rate: u32,
    channels: u32,
    bitrate: i32,
    caller: Caller,
) -> Result<Vec<u8>, AudioError> {
    if channels > MOST_CHANNELS {
        return Err(AudioError::ManyChannels {
            channels,
            most: MOST_CHANNELS,
        });
    }

    let (samples, rate) = if RATES.contains(&sample_rate) {
        (Cow::Borrowed(samples), sample_rate)
    } else {
        let new = resample::resample(samples, channels, sample_rate, TICKS as u32, caller)?;
        (Cow::Owned(new), TICKS as u32)
    };
    let rates = (sample_rate, rate);
    packets(&samples, rates, channels as usize, bitrate, caller).map_err(|error| match error {
        Failure::Opus(error) => AudioError::failed(error),
        Failure::Audio(error) => error,
    })
}

enum Failure {
    Opus(opus_pure::Error),
    Audio(AudioError),
}

impl From<opus_pure::Error> for Failure {
    fn from(error: opus_pure::Error) -> Self {
        Self::Opus(error)
    }
}

fn packets(
    samples: &[f32],
    (from, rate): (u32, u32),
    channels: usize,
    bitrate: i32,
    caller: Caller,
) -> Result<Vec<u8>, Failure> {
    let mut encoder = OpusEncoder::new(rate as i32, channels, Application::Audio)?;
    encoder.bitrate_bps = bitrate;
    let head = OpusHead::for_encoder(&encoder, from);

    // Silence pushes out the samples that the encoder holds back, and the last packet says how much of it is
    // sound (RFC 7845, sections 4.2 and 4.4).
    let frames = samples.len() / channels;
    let block = rate as usize / 50;
    let ticks = TICKS / rate as usize;
    let held_back = usize::from(head.pre_skip).div_ceil(ticks);
    let end = u64::from(head.pre_skip) + (frames * ticks) as u64;
    let last = (frames + held_back).div_ceil(block).saturating_sub(1);

    let mut writer = OggOpusWriter::with_tags(Vec::new(), head, OpusTags::new())?;
    let mut packet = vec![0; MAX_PACKET_BYTES];
    let mut input = reserve(block * channels).map_err(Failure::Audio)?;

    for number in 0..=last {
        caller.check().map_err(Failure::Audio)?;
        let start = (number * block * channels).min(samples.len());
        let stop = (start + block * channels).min(samples.len());
        input.clear();
        input.extend(
            samples[start..stop]
                .iter()
                .map(|sample| sample.clamp(-1.0, 1.0)),
        );
        input.resize(block * channels, 0.0);

        let size = encoder.encode(&input, block, &mut packet)?;
        let packet = packet.get(..size).unwrap_or_default();
        if number == last {
            let rest = end.saturating_sub(writer.granule() as u64);
            writer.write_packet_with_duration(packet, rest as u32)?;
        } else {
            writer.write_packet(packet)?;
        }
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, decode, fixture, likeness, sine};

    fn encode(
        samples: &[f32],
        rate: u32,
        channels: u32,
        bitrate: i32,
    ) -> Result<Vec<u8>, AudioError> {
        super::encode(samples, rate, channels, bitrate, Caller::patient())
    }

    fn through(samples: &[f32], rate: u32, channels: u32, bitrate: i32) -> Vec<f32> {
        let file = encode(samples, rate, channels, bitrate).unwrap();
        let read = decode(&file, 3_600).unwrap();
        let expected = if RATES.contains(&rate) { rate } else { 48_000 };
        assert_eq!(
            (read.sample_rate, u32::from(read.channels)),
            (expected, channels)
        );
        read.samples
    }

    #[test]
    fn speech_is_still_speech_and_in_time() {
        let speech = decode(fixture("speech.flac"), 60).unwrap().samples;
        let read = through(&speech, 24_000, 1, 48_000);
        assert_eq!(read.len(), speech.len());
        let likeness = likeness(&speech, &read, 0);
        assert!(likeness > 0.97, "{likeness}");
    }

    #[test]
    fn more_bits_are_closer() {
        let speech = decode(fixture("speech.flac"), 60).unwrap().samples;
        let close = |bitrate| likeness(&speech, &through(&speech, 24_000, 1, bitrate), 0);
        assert!(close(128_000) > close(16_000) + 0.005);
    }

    #[test]
    fn any_length_at_any_rate() {
        for rate in RATES {
            for frames in [1, 2, 159, 160, 161, 959, 960, 961, 5_000] {
                for channels in [1, 2] {
                    let tone = sine(440.0, rate, frames * channels as usize);
                    assert_eq!(through(&tone, rate, channels, 64_000).len(), tone.len());
                }
            }
        }
        // For a rate that Opus does not support, the same duration.
        assert_eq!(through(&vec![0.1; 44_100], 44_100, 1, 64_000).len(), 48_000);
        assert_eq!(through(&vec![0.1; 96_000], 96_000, 1, 64_000).len(), 48_000);
    }

    #[test]
    fn a_file_of_nothing_has_no_samples() {
        let file = encode(&[], 24_000, 1, 48_000).unwrap();
        assert_eq!(decode(&file, 60), Err(AudioError::NoSamples));
    }

    #[test]
    fn any_samples_and_bitrates() {
        let mut numbers = Numbers(0x09a5);
        for _ in 0..60 {
            let channels = 1 + numbers.below(2);
            let scale = [0.0, 1e-30, 0.5, 1.0, 1e12][numbers.below(5)];
            let frames = numbers.below(3_000);
            let samples: Vec<f32> = (0..frames * channels)
                .map(|_| numbers.sample() * scale)
                .collect();
            let rate = RATES[numbers.below(5)];
            let bitrate = 6_000 + numbers.below(504_001) as i32;
            let file = encode(&samples, rate, channels as u32, bitrate).unwrap();
            match decode(&file, 60) {
                Ok(read) => assert_eq!(read.samples.len(), samples.len()),
                Err(error) => assert_eq!((error, frames), (AudioError::NoSamples, 0)),
            }
        }
    }

    #[test]
    fn what_opus_cannot_hold_is_refused() {
        let refused = encode(&[0.0; 3], 24_000, 3, 48_000);
        assert!(matches!(refused, Err(AudioError::ManyChannels { .. })));
        let refused = encode(&[0.0; 3], 10, 1, 48_000);
        assert!(matches!(refused, Err(AudioError::Rate { .. })));
    }
}
