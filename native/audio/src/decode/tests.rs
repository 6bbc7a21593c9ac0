use crate::error::AudioError;
use crate::limits::Caller;
use crate::testing::{Decoded, Numbers, bytes, decode, fixture, likeness};
use crate::wav;

const FILES: [&str; 7] = [
    "speech.flac",
    "speech.mp3",
    "speech.oga",
    "speech.ogg",
    "speech.opus",
    "stereo.opus",
    "untagged.mp3",
];

fn open(name: &str) -> Decoded {
    decode(fixture(name), 60).unwrap()
}

#[test]
fn every_format_gives_the_same_speech() {
    let original = open("speech.flac");
    assert_eq!((original.sample_rate, original.channels), (24_000, 1));
    assert_eq!(original.samples.len(), 9_600);
    assert_eq!(open("speech.oga"), original);

    for name in ["speech.mp3", "speech.ogg", "speech.opus"] {
        let decoded = open(name);
        assert_eq!(
            (decoded.sample_rate, decoded.channels),
            (24_000, 1),
            "{name}"
        );
        assert_eq!(decoded.samples.len(), 9_600, "{name}");
        // What the codec delays it by is taken away.
        let likeness = likeness(&original.samples, &decoded.samples, 0);
        assert!(likeness > 0.97, "{name}: {likeness}");
    }
}

#[test]
fn flac_is_what_wav_is() {
    let flac = open("speech.flac");
    let wav = wav::encode(
        &bytes(&flac.samples),
        24_000,
        1,
        wav::Format::S16,
        Caller::patient(),
    )
    .unwrap();
    assert_eq!(decode(&wav, 1), Ok(flac));
}

#[test]
fn other_rates_and_channels() {
    let stereo = open("stereo.opus");
    assert_eq!((stereo.sample_rate, stereo.channels), (8_000, 2));
    assert_eq!(stereo.samples.len(), 1_600);

    let mp3 = open("untagged.mp3");
    assert_eq!((mp3.sample_rate, mp3.channels), (22_050, 1));
}

#[test]
fn a_limit_on_the_length() {
    for name in FILES {
        assert_eq!(
            decode(fixture(name), 0),
            Err(AudioError::LongerThan { seconds: 0 }),
            "{name}"
        );
        assert!(decode(fixture(name), 1).is_ok(), "{name}");
    }

    let second = wav::encode(
        &bytes(&[0.5; 2_400]),
        1_200,
        1,
        wav::Format::S16,
        Caller::patient(),
    )
    .unwrap();
    assert!(decode(&second, 2).is_ok());
    assert_eq!(
        decode(&second, 1),
        Err(AudioError::LongerThan { seconds: 1 })
    );
}

/// All places in the head of a file and at its end, and some in between.
fn places(file: &[u8]) -> impl Iterator<Item = usize> {
    let length = file.len();
    (0..length).filter(move |at| *at < 500 || at + 100 > length || at % 23 == 0)
}

#[test]
fn every_truncation_is_said_so() {
    for name in FILES {
        let file = fixture(name);
        let whole = open(name);

        for length in places(file) {
            match decode(&file[..length], 60) {
                Err(error) => {
                    let message = error.to_string();
                    let known = message.contains("truncated")
                        || message.contains("not an audio file")
                        || message.contains("without Vorbis")
                        || message.contains("no samples")
                        || message.contains("damaged");
                    assert!(known, "{name} cut at {length}: {message}");
                }
                // Without a count of frames, an MP3 file that ends earlier is a shorter one. With
                // one, the last frames may be those that some programs do not count.
                Ok(cut) if name.ends_with(".mp3") => {
                    let missing = whole.samples.len() - cut.samples.len();
                    assert!(
                        name == "untagged.mp3" || missing <= 2 * 1152,
                        "cut at {length}"
                    );
                    assert_eq!(cut.samples[..], whole.samples[..cut.samples.len()]);
                }
                Ok(_) => panic!("{name} cut at {length} was read"),
            }
        }
    }
}

#[test]
fn what_checksums_cover_cannot_be_changed() {
    // MP3 has none.
    for name in ["speech.flac", "speech.oga", "speech.ogg", "speech.opus"] {
        let file = fixture(name);
        let whole = open(name);

        for at in places(file) {
            let mut file = file.to_vec();
            file[at] ^= 0x10;
            if let Ok(decoded) = decode(&file, 60) {
                assert_eq!(decoded.samples, whole.samples, "{name} changed at {at}");
            }
        }
    }
}

#[test]
fn a_missing_part_is_noticed() {
    let file = fixture("speech.flac");
    let frame = |from: usize| {
        let at = file[from..].windows(2).position(|w| w == [0xff, 0xf8]);
        from + at.unwrap()
    };
    let first = frame(0);
    let second = frame(first + 2);
    let third = frame(second + 2);

    let without = [&file[..second], &file[third..]].concat();
    let message = decode(&without, 60).unwrap_err().to_string();
    assert!(message.contains("missing"), "{message}");
}

#[test]
fn hostile_files_do_not_panic() {
    let mut numbers = Numbers(0xbad5eed);

    for round in 0..1_000 {
        let mut file = fixture(FILES[round % FILES.len()]).to_vec();
        for _ in 0..1 + numbers.below(8) {
            let at = match numbers.below(3) {
                0 => numbers.below(file.len().min(200)),
                _ => numbers.below(file.len()),
            };
            file[at] = match numbers.below(4) {
                0 => 0,
                1 => 0xff,
                2 => file[at] ^ 1 << numbers.below(8),
                _ => numbers.next() as u8,
            };
        }
        if numbers.below(4) == 0 {
            file.truncate(numbers.below(file.len()));
        }
        if let Ok(decoded) = decode(&file, 10) {
            let frames = decoded.samples.len() / usize::from(decoded.channels);
            assert!(frames as u64 <= 10 * u64::from(decoded.sample_rate));
        }
    }
}

#[test]
fn the_message_names_the_remedy() {
    let message = |file: &[u8]| decode(file, 60).unwrap_err().to_string();

    assert!(message(b"\0\0\0\x20ftypM4A ").contains("ffmpeg"));
    assert!(message(b"hello").contains("these 5 bytes are not an audio file"));
    assert!(message(&fixture("speech.flac")[..4_000]).contains("should be 0.40 s long"));
    assert!(message(b"RIFF").contains("not a WAV file"));
}
