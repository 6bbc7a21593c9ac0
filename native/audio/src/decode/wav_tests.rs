use super::*;
use crate::limits::{Caller, Limits};
use crate::testing::{Numbers, bytes};
use crate::wav::{self, Format};

const LIMITS: Limits = Limits {
    max_seconds: 60,
    max_samples: 1 << 20,
};

#[derive(Debug, PartialEq)]
struct Decoded {
    samples: Vec<f32>,
    channels: u16,
}

fn decode(file: &[u8]) -> Result<Decoded, AudioError> {
    let mut samples = Vec::new();
    let sink = Sink::new(&mut samples, LIMITS, Caller::patient(), file.len());
    let channels = super::decode(file, sink)?.channels;
    Ok(Decoded { samples, channels })
}

fn encode(samples: &[f32]) -> Vec<u8> {
    wav::encode(&bytes(samples), 24_000, 1, Format::S16, Caller::patient()).unwrap()
}

/// A file chunk by chunk, so that each of them may lie.
struct File {
    format: Vec<u8>,
    data: Vec<u8>,
    data_length: Option<u32>,
    riff_length: Option<u32>,
    before_data: Vec<u8>,
}

impl File {
    fn pcm(channels: u16, bits: u16, data: &[u8]) -> Self {
        Self::tagged(1, channels, bits, data)
    }

    fn tagged(tag: u16, channels: u16, bits: u16, data: &[u8]) -> Self {
        let align = channels.wrapping_mul(bits / 8);
        let mut format = Vec::new();
        format.extend(tag.to_le_bytes());
        format.extend(channels.to_le_bytes());
        format.extend(24_000u32.to_le_bytes());
        format.extend((24_000 * u32::from(align)).to_le_bytes());
        format.extend(align.to_le_bytes());
        format.extend(bits.to_le_bytes());
        Self {
            format,
            data: data.to_vec(),
            data_length: None,
            riff_length: None,
            before_data: Vec::new(),
        }
    }

    fn extensible(mut self, valid_bits: u16, codec: u16) -> Self {
        self.format[..2].copy_from_slice(&0xfffeu16.to_le_bytes());
        self.format.extend(22u16.to_le_bytes());
        self.format.extend(valid_bits.to_le_bytes());
        self.format.extend(0u32.to_le_bytes());
        self.format.extend(codec.to_le_bytes());
        self.format
            .extend([0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]);
        self
    }

    fn build(&self) -> Vec<u8> {
        let mut body = b"WAVEfmt ".to_vec();
        body.extend((self.format.len() as u32).to_le_bytes());
        body.extend(&self.format);
        body.extend(&self.before_data);
        body.extend(b"data");
        body.extend(
            self.data_length
                .unwrap_or(self.data.len() as u32)
                .to_le_bytes(),
        );
        body.extend(&self.data);

        let mut file = b"RIFF".to_vec();
        file.extend(self.riff_length.unwrap_or(body.len() as u32).to_le_bytes());
        file.extend(body);
        file
    }

    fn decode(&self) -> Result<Decoded, AudioError> {
        decode(&self.build())
    }
}

#[test]
fn reads_every_integer_width() {
    let eight = File::pcm(1, 8, &[0, 128, 255]).decode().unwrap();
    assert_eq!(eight.samples, [-1.0, 0.0, 127.0 / 128.0]);

    let sixteen = File::pcm(2, 16, &[0, 0x80, 0, 0x40]).decode().unwrap();
    assert_eq!((sixteen.samples, sixteen.channels), (vec![-1.0, 0.5], 2));

    let twenty_four = File::pcm(1, 24, &[0, 0, 0x80, 0, 0, 0x40])
        .decode()
        .unwrap();
    assert_eq!(twenty_four.samples, [-1.0, 0.5]);

    let thirty_two = File::pcm(1, 32, &[0, 0, 0, 0x80, 0, 0, 0, 0x40])
        .decode()
        .unwrap();
    assert_eq!(thirty_two.samples, [-1.0, 0.5]);
}

#[test]
fn reads_extensible_and_float() {
    let float = File::tagged(3, 1, 32, &0.25f32.to_le_bytes());
    assert_eq!(float.decode().unwrap().samples, [0.25]);

    let data = [0, 0, 0x40];
    let extensible = File::pcm(1, 24, &data).extensible(24, 1);
    assert_eq!(extensible.decode().unwrap().samples, [0.5]);

    let float = File::pcm(1, 32, &0.25f32.to_le_bytes()).extensible(32, 3);
    assert_eq!(float.decode().unwrap().samples, [0.25]);

    // 24 bits at the top of 32.
    let wide = File::pcm(1, 32, &[0, 0, 0, 0x40]).extensible(24, 1);
    assert_eq!(wide.decode().unwrap().samples, [0.5]);

    // 24 bits in four bytes by the frame size.
    let mut loose = File::pcm(1, 24, &[0, 0, 0x40, 0]);
    loose.format[12] = 4;
    assert_eq!(loose.decode().unwrap().samples, [0.5]);
}

#[test]
fn skips_chunks_it_does_not_know() {
    let mut file = File::pcm(1, 16, &[0, 0x40]);
    // Of odd length, hence padded; and a fact chunk longer than usual.
    file.before_data = b"LIST\x03\0\0\0abc\0fact\x08\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    assert_eq!(file.decode().unwrap().samples, [0.5]);

    let mut tail = file.build();
    tail.extend(b"id3 \x02\0\0\0xy");
    assert_eq!(decode(&tail).unwrap().samples, [0.5]);
}

#[test]
fn a_cut_file_is_truncated() {
    let whole = encode(&[0.5; 100]);

    for length in 12..whole.len() {
        match decode(&whole[..length]) {
            Err(AudioError::Truncated { expected, actual }) => {
                assert_eq!((expected, actual), (whole.len() as u64, length as u64));
            }
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    for length in 0..12 {
        assert!(matches!(
            decode(&whole[..length]),
            Err(AudioError::NotWav(_))
        ));
    }
}

#[test]
fn a_lying_length_is_told_apart_from_a_cut() {
    let mut file = File::pcm(1, 16, &[0; 100]);
    file.data_length = Some(4_000_000_000);
    assert_eq!(
        file.decode(),
        Err(AudioError::LengthMismatch {
            promised: 4_000_000_000,
            actual: 100
        })
    );
}

#[test]
fn a_file_out_of_a_pipe_goes_on_to_its_end() {
    // As ffmpeg writes it: neither length was known, and a LIST chunk comes first.
    let mut file = File::pcm(1, 16, &[0, 0x40, 0, 0xc0]);
    file.data_length = Some(u32::MAX);
    file.riff_length = Some(u32::MAX);
    file.before_data = b"LIST\x04\0\0\0INFO".to_vec();
    assert_eq!(file.decode().unwrap().samples, [0.5, -0.5]);

    file.riff_length = None;
    assert_eq!(file.decode().unwrap().samples, [0.5, -0.5]);

    // Interrupted within a frame.
    file.data.push(7);
    assert_eq!(file.decode().unwrap().samples, [0.5, -0.5]);

    file.data.clear();
    assert_eq!(file.decode(), Err(AudioError::NoSamples));
}

#[test]
fn no_samples_is_said_so() {
    assert_eq!(File::pcm(1, 16, &[]).decode(), Err(AudioError::NoSamples));
    let empty = encode(&[]);
    assert_eq!(decode(&empty), Err(AudioError::NoSamples));
}

#[test]
fn what_is_no_wav_is_said_so() {
    assert!(matches!(decode(b""), Err(AudioError::NotWav(_))));
    assert!(matches!(decode(&[0; 4096]), Err(AudioError::NotWav(_))));
    assert!(matches!(
        decode(b"ID3\x04 an mp3 file"),
        Err(AudioError::NotWav(_))
    ));
    assert!(matches!(
        decode(b"RIFF\0\0\0\0AVI LIST"),
        Err(AudioError::NotWav(_))
    ));
    assert!(matches!(
        decode(b"RF64\xff\xff\xff\xffWAVEds64"),
        Err(AudioError::Unsupported(_))
    ));
    assert_eq!(
        decode(b"RIFF\x04\0\0\0WAVE"),
        Err(AudioError::MissingChunk("fmt"))
    );
}

#[test]
fn codecs_are_named() {
    let message = |file: File| file.decode().unwrap_err().to_string();

    assert!(message(File::tagged(2, 1, 16, &[0; 4])).contains("ADPCM"));
    assert!(message(File::tagged(7, 1, 8, &[0; 4])).contains("mu-law"));
    assert!(message(File::tagged(0x55, 1, 16, &[0; 4])).contains("MPEG"));
    assert!(message(File::tagged(3, 1, 64, &[0; 8])).contains("64-bit float"));
    assert!(message(File::pcm(1, 16, &[0; 4]).extensible(16, 0x161)).contains("0x0161"));
    assert!(message(File::tagged(2, 1, 16, &[0; 4])).contains("ffmpeg"));
}

#[test]
fn impossible_formats_are_refused() {
    let edit = |at: usize, value: &[u8]| {
        let mut file = File::pcm(1, 16, &[0; 4]);
        file.format[at..at + value.len()].copy_from_slice(value);
        file.decode()
    };

    assert!(
        matches!(edit(2, &[0, 0]), Err(AudioError::BadFormat(_))),
        "no channels"
    );
    assert!(
        matches!(edit(4, &[0; 4]), Err(AudioError::BadFormat(_))),
        "rate 0"
    );
    assert!(
        matches!(edit(12, &[0, 0]), Err(AudioError::BadFormat(_))),
        "frames of 0 bytes"
    );
    assert!(
        matches!(edit(12, &[7, 0]), Err(AudioError::BadFormat(_))),
        "frames of 7 bytes"
    );
    assert!(
        matches!(edit(14, &[0, 0]), Err(AudioError::Unsupported(_))),
        "0 bits"
    );
    assert!(
        matches!(edit(14, &[13, 0]), Err(AudioError::Unsupported(_))),
        "13 bits"
    );

    let mut short = File::pcm(1, 16, &[0; 4]);
    short.format.truncate(10);
    assert!(matches!(short.decode(), Err(AudioError::BadFormat(_))));

    let odd = File::pcm(2, 16, &[0; 6]);
    assert!(
        matches!(odd.decode(), Err(AudioError::BadFormat(_))),
        "half a frame"
    );
}

#[test]
fn bytes_per_second_may_be_wrong() {
    // Redundant, and often wrong in files found in the wild.
    let mut file = File::pcm(1, 16, &[0, 0x40]);
    file.format[8..12].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(file.decode().unwrap().samples, [0.5]);

    file.format[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(file.decode(), Err(AudioError::BadFormat(_))));
}

#[test]
fn hostile_files_neither_panic_nor_take_memory() {
    let mut numbers = Numbers(0xbad);
    let seeds = [
        File::pcm(1, 16, &[1; 64]).build(),
        File::pcm(2, 24, &[2; 60]).extensible(24, 1).build(),
        File::tagged(3, 1, 32, &[3; 64]).build(),
    ];

    for _ in 0..50_000 {
        let mut file = seeds[numbers.below(seeds.len())].clone();
        for _ in 0..1 + numbers.below(6) {
            let at = numbers.below(file.len());
            file[at] = match numbers.below(4) {
                0 => 0,
                1 => 0xff,
                _ => numbers.next() as u8,
            };
        }
        if numbers.below(4) == 0 {
            file.truncate(numbers.below(file.len()));
        }

        if let Ok(decoded) = decode(&file) {
            assert!(decoded.samples.len() <= 4 * file.len());
        }
    }
}
