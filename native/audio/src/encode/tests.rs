use super::*;
use crate::testing::{Decoded, Numbers, bytes, decode, fixture, likeness, sine};

const FORMATS: [Format; 5] = [
    Format::Wav(Integers::S16),
    Format::Wav(Integers::F32),
    Format::Flac { bits: 16 },
    Format::Opus { bitrate: 48_000 },
    Format::Mp3 { bitrate: 64_000 },
];

/// The file as it is sent, and the file with its length written into it.
fn write(samples: &[f32], format: Format, rate: u32, channels: u32, parts: usize) -> [Vec<u8>; 2] {
    let mut encoder = Encoder::new(format, rate, channels).unwrap();
    let mut sent = Vec::new();
    for part in samples.chunks(parts * channels as usize) {
        sent.extend(encoder.push(&bytes(part)).unwrap());
    }
    let ending = encoder.finish().unwrap();
    sent.extend(ending.bytes);

    let mut file = sent.clone();
    for (at, patch) in ending.patches {
        file[at as usize..at as usize + patch.len()].copy_from_slice(&patch);
    }
    [sent, file]
}

fn speech() -> Vec<f32> {
    decode(fixture("speech.flac"), 60).unwrap().samples
}

fn same_form(read: &Decoded, rate: u32, channels: u32) {
    assert_eq!(
        (read.sample_rate, u32::from(read.channels)),
        (rate, channels)
    );
}

#[test]
fn speech_comes_back_from_every_format() {
    let speech = speech();
    for format in FORMATS {
        let [sent, file] = write(&speech, format, 24_000, 1, 1_000);

        let whole = decode(&file, 60).unwrap();
        same_form(&whole, 24_000, 1);
        assert_eq!(whole.samples.len(), speech.len(), "{format:?}");
        let like = likeness(&speech, &whole.samples, 0);
        assert!(like > 0.97, "{format:?}: {like}");

        // Of MP3 without its length, the silence at both ends is kept.
        let unsized_ = decode(&sent, 60).unwrap();
        let surplus = unsized_.samples.len() - speech.len();
        assert!(surplus < 4_000, "{format:?}: {surplus}");
        let like = likeness(&speech, &unsized_.samples[..], 2_000);
        assert!(like > 0.97 || surplus > 0, "{format:?}: {like}");
    }
}

#[test]
fn wav_and_flac_lose_nothing() {
    let speech = speech();
    for format in [Format::Wav(Integers::S16), Format::Flac { bits: 16 }] {
        for file in write(&speech, format, 24_000, 1, 333) {
            assert!(decode(&file, 60).unwrap().samples == speech, "{format:?}");
        }
    }
    let [_, file] = write(&speech, Format::Wav(Integers::S16), 24_000, 1, 333);
    let at_once = crate::wav::encode(
        &bytes(&speech),
        24_000,
        1,
        Integers::S16,
        crate::limits::Caller::patient(),
    );
    assert_eq!(at_once.unwrap(), file);
}

#[test]
fn the_parts_that_come_do_not_matter() {
    let speech = speech();
    for format in FORMATS {
        let whole = write(&speech, format, 24_000, 1, speech.len());
        for parts in [1, 479, 4_097] {
            assert!(
                write(&speech, format, 24_000, 1, parts) == whole,
                "{format:?}"
            );
        }
    }
}

#[test]
fn any_length_any_rate_any_channels() {
    for format in FORMATS {
        let rates: &[u32] = match format {
            Format::Opus { .. } => &crate::opus::RATES,
            Format::Mp3 { .. } => &mp3::RATES,
            _ => &[8_000, 11_111, 44_100],
        };
        for rate in rates {
            for frames in [1, 2, 479, 480, 481, 1_152, 4_095, 4_096, 4_097, 9_000] {
                for channels in [1, 2] {
                    let tone = sine(440.0, *rate, frames * channels);
                    let [_, file] = write(&tone, format, *rate, channels as u32, 1_000);
                    let read = decode(&file, 60).unwrap();
                    same_form(&read, *rate, channels as u32);
                    assert_eq!(read.samples.len(), tone.len(), "{format:?} {rate} {frames}");
                }
            }
        }
    }
}

#[test]
fn bytes_come_as_samples_do() {
    let minute = sine(220.0, 24_000, 24_000 * 60);
    for format in FORMATS {
        let mut encoder = Encoder::new(format, 24_000, 1).unwrap();
        let mut silent = 0;
        for part in minute.chunks(2_400) {
            // Never more than a second behind, never more than a second at once.
            let out = encoder.push(&bytes(part)).unwrap();
            silent = if out.is_empty() { silent + 1 } else { 0 };
            assert!(silent < 10, "{format:?}");
            assert!(out.len() < 100_000, "{format:?}");
        }
        assert!(encoder.finish().unwrap().bytes.len() < 20_000);
    }
}

#[test]
fn mpeg_1_rates_are_not_kept_either() {
    let second = sine(220.0, 48_000, 48_000);
    let mut encoder = Encoder::new(Format::Mp3 { bitrate: 96_000 }, 48_000, 1).unwrap();
    assert!(encoder.push(&bytes(&second)).unwrap().len() > 5_000);
}

#[test]
fn any_samples() {
    let mut numbers = Numbers(0xe9c0);
    for format in FORMATS {
        for _ in 0..20 {
            let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e-40];
            let samples: Vec<f32> = (0..1 + numbers.below(20_000))
                .map(|at| {
                    if at % 7 == 3 {
                        odd[numbers.below(5)]
                    } else {
                        numbers.sample()
                    }
                })
                .collect();
            let [_, file] = write(&samples, format, 24_000, 1, 1 + numbers.below(5_000));
            assert_eq!(decode(&file, 60).unwrap().samples.len(), samples.len());
        }
    }
}

#[test]
fn what_a_format_does_not_know_is_refused() {
    let refused = |format, rate, channels| Encoder::new(format, rate, channels).err();
    for format in [
        Format::Opus { bitrate: 48_000 },
        Format::Mp3 { bitrate: 64_000 },
    ] {
        assert!(matches!(
            refused(format, 24_001, 1),
            Some(AudioError::OtherRate { .. })
        ));
        assert!(matches!(
            refused(format, 24_000, 3),
            Some(AudioError::ManyChannels { .. })
        ));
        assert!(matches!(
            refused(format, 24_000, 0),
            Some(AudioError::ManyChannels { .. })
        ));
    }
    assert!(refused(Format::Flac { bits: 16 }, 0, 1).is_some());
    assert!(refused(Format::Flac { bits: 16 }, 24_000, 9).is_some());
    assert!(refused(Format::Wav(Integers::S16), 0, 1).is_some());

    let mut encoder = Encoder::new(Format::Wav(Integers::S16), 24_000, 2).unwrap();
    assert!(matches!(
        encoder.push(&[0; 12]),
        Err(AudioError::Misaligned { .. })
    ));
}

#[test]
fn a_file_of_nothing() {
    for format in [Format::Flac { bits: 16 }, Format::Mp3 { bitrate: 64_000 }] {
        let encoder = Encoder::new(format, 24_000, 1).unwrap();
        assert_eq!(encoder.finish(), Err(AudioError::NoSamples));
    }
    let encoder = Encoder::new(Format::Opus { bitrate: 48_000 }, 24_000, 1).unwrap();
    assert_eq!(
        decode(&encoder.finish().unwrap().bytes, 60),
        Err(AudioError::NoSamples)
    );
}
