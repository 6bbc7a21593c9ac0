//! Files made to exhaust memory or time, or to trip a decoder.

use std::cell::Cell;

use crate::error::AudioError;
use crate::hostile::{Bits, codebook, flac_bomb, megabytes, opus_bomb, vorbis, vorbis_bomb};
use crate::limits::{Caller, Limits};
use crate::testing::{bytes, decode};
use crate::wav;

/// The error, which names the file as damaged or hostile, and comes before `most` megabytes are taken.
#[track_caller]
fn refused(file: &[u8], most: i64) -> String {
    let (result, megabytes) = megabytes(|| decode(file, 3_600));
    let message = result.unwrap_err().to_string();
    assert!(megabytes <= most, "{megabytes} MB: {message}");
    message
}

#[test]
fn vorbis_tables_are_limited() {
    let file = vorbis_bomb(9);
    assert!(file.len() < 530, "{} bytes", file.len());
    assert!(refused(&file, 4).contains("codebooks"));
    assert!(refused(&vorbis_bomb(256), 4).contains("codebooks"));
}

#[test]
fn what_trips_a_decoder_is_damage() {
    let damage = |write: fn(&mut Bits)| {
        let mut setup = Bits::default();
        write(&mut setup);
        refused(&vorbis(&setup), 4)
    };

    // Ordered by length, from 32 bits on, and none of 32.
    let long = damage(|setup| {
        setup.put(0, 8);
        codebook(setup, 1, 2);
        setup.put(1, 1).put(31, 5).put(0, 2).put(2, 2).put(0, 4);
    });
    assert!(long.contains("the Ogg file is damaged: "), "{long}");
    assert!(long.contains("codewords"), "{long}");

    // A table whose size is a root that does not fit 32 bits when raised again.
    let root = damage(|setup| {
        setup.put(0, 8);
        codebook(setup, 32, 2);
        setup.put(0, 1).put(0, 1).put(0, 5).put(0, 5);
        setup.put(1, 4).put(0, 32).put(0, 32).put(0, 4).put(0, 1);
    });
    assert!(root.contains("the Ogg file is damaged: "), "{root}");
    assert!(!root.contains("assertion"), "{root}");

    // A curve with two points at one place.
    let points = damage(|setup| {
        setup.put(0, 8);
        codebook(setup, 1, 2);
        setup.put(0, 1).put(0, 1).put(0, 5).put(0, 5).put(0, 4);
        setup.put(0, 6).put(0, 16);
        // A floor of type 1: one partition of one class, one dimension, no subclasses.
        setup.put(0, 6).put(1, 16);
        setup.put(1, 5).put(0, 4).put(0, 3).put(0, 2).put(1, 8);
        setup.put(0, 2).put(4, 4).put(0, 4);
        // A residue of type 0, a mapping and a mode.
        setup
            .put(0, 6)
            .put(0, 16)
            .put(0, 24)
            .put(0, 24)
            .put(0, 24)
            .put(0, 6)
            .put(0, 8)
            .put(0, 4);
        setup
            .put(0, 6)
            .put(0, 16)
            .put(0, 1)
            .put(0, 1)
            .put(0, 2)
            .put(0, 24);
        setup.put(0, 6).put(0, 1).put(0, 32).put(0, 8).put(1, 1);
    });
    assert!(points.contains("the Ogg file is damaged: "), "{points}");
    assert!(points.contains("floor"), "{points}");
}

#[test]
fn a_small_file_of_silence_is_not_an_hour() {
    let flac = flac_bomb(1_024);
    assert!(flac.len() < 35_000, "{} bytes", flac.len());
    assert!(refused(&flac, 260).contains("more sound than any recording"));

    let opus = opus_bomb(20_000);
    assert!(opus.len() < 64_000, "{} bytes", opus.len());
    assert!(refused(&opus, 400).contains("more sound than any recording"));
}

#[test]
fn the_number_of_samples_is_limited_and_said_so() {
    let limits = Limits {
        max_seconds: 3_600,
        max_samples: 1_000_000,
    };
    let mut samples = Vec::new();
    let result = super::decode(&flac_bomb(3), limits, Caller::patient(), &mut samples);
    let samples = 1_000_000;
    assert_eq!(result, Err(AudioError::MoreThan { samples }));
}

#[test]
fn the_length_of_wav_is_known_before_its_samples_are_read() {
    let file = wav::encode(
        &bytes(&vec![0.5; 1_000_000]),
        8_000,
        1,
        wav::Format::S16,
        Caller::patient(),
    );
    let file = file.unwrap();
    let (result, megabytes) = megabytes(|| decode(&file, 1));
    assert_eq!(result, Err(AudioError::LongerThan { seconds: 1 }));
    assert_eq!(megabytes, 0);
}

#[test]
fn a_caller_that_leaves_ends_the_work() {
    let wav = wav::encode(
        &vec![0; 400_000],
        8_000,
        1,
        wav::Format::S16,
        Caller::patient(),
    );

    for file in [flac_bomb(8), opus_bomb(100), wav.unwrap()] {
        let asked = Cell::new(0);
        let waits = || {
            asked.set(asked.get() + 1);
            asked.get() < 3
        };
        let limits = Limits {
            max_seconds: 3_600,
            max_samples: u64::MAX,
        };
        let mut samples = Vec::new();
        let result = super::decode(&file, limits, Caller::new(&waits), &mut samples);
        assert_eq!((result, asked.get()), (Err(AudioError::Abandoned), 3));
    }
}

/// The files that fuzzing found or begins with, under the limits that users have.
#[test]
fn what_fuzzing_found_is_audio_or_an_error() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/regressions/decode");
    let limits = Limits {
        max_seconds: 3_600,
        max_samples: 200_000_000,
    };
    let mut files = 0;

    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read(&path).unwrap();
        let mut samples = Vec::new();
        let (result, megabytes) =
            megabytes(|| super::decode(&file, limits, Caller::patient(), &mut samples).map(drop));

        let message = result.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(!message.contains(super::PANICKED), "{path:?}: {message}");
        assert!(megabytes <= 512, "{path:?}: {megabytes} MB");
        files += 1;
    }
    assert!(files >= 10, "{files} files in {folder}");
}
