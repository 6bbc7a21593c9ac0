//! FLAC, MP3 and Ogg, by Symphonia.

use std::io::{ErrorKind, Read};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, ReadOnlySource};
use symphonia::default::formats::{FlacReader, MpaReader, OggReader};
use symphonia::default::get_codecs;

use super::{cut_short, ogg_pages, vorbis};
use crate::error::AudioError;
use crate::sink::{Form, Sink};

/// FLAC. Its checksums are checked.
pub fn flac(file: &[u8], sink: Sink) -> Result<Form, AudioError> {
    const FORMAT: &str = "FLAC";
    let (head, frames) = flac_frames(file)?;
    let source = stream(head.as_slice().chain(frames));
    let reader = FlacReader::try_new(source, FormatOptions::default());
    let mut run = Run::new(FORMAT);
    run.frames_are_numbered = true;
    run.decode(
        &mut reader.map_err(|error| unreadable(FORMAT, error))?,
        sink,
    )
}

/// MP3, from its first frame on.
pub fn mp3(file: &[u8], sink: Sink) -> Result<Form, AudioError> {
    const FORMAT: &str = "MP3";
    let reader = MpaReader::try_new(stream(file), FormatOptions::default());
    let mut run = Run::new(FORMAT);
    run.starts_in_the_middle = true;
    // Programs disagree on whether the count includes the frame that holds it.
    run.frames_of_doubt = 2 * 1152;
    run.decode(
        &mut reader.map_err(|error| unreadable(FORMAT, error))?,
        sink,
    )
}

/// Vorbis or FLAC in Ogg.
pub fn ogg(file: &[u8], sink: Sink) -> Result<Form, AudioError> {
    const FORMAT: &str = "Ogg";
    let file = ogg_pages::check(file, FORMAT)?;
    let packets = ogg_pages::packets(file, 3);
    if packets
        .first()
        .is_some_and(|first| first.starts_with(vorbis::MARKER))
    {
        let damaged = |what: &str| AudioError::Damaged {
            format: FORMAT,
            what: what.into(),
        };
        // Symphonia allocates tables as large as a setup asks for, and panics for some setups.
        vorbis::check(&packets).map_err(damaged)?;
        // Symphonia would read another setup, which was not checked.
        let mut later = ogg_pages::first_bytes(file).into_iter().skip(packets.len());
        if later.any(vorbis::is_header) {
            return Err(damaged("it has a header in the middle of its sound"));
        }
    }
    let reader = OggReader::try_new(stream(file), FormatOptions::default());
    Run::new(FORMAT).decode(
        &mut reader.map_err(|error| unreadable(FORMAT, error))?,
        sink,
    )
}

/// Nothing here seeks, and with a seekable source the readers guess lengths.
fn stream<'a>(source: impl Read + Send + Sync + 'a) -> MediaSourceStream<'a> {
    MediaSourceStream::new(Box::new(ReadOnlySource::new(source)), Default::default())
}

/// A header with the one block that matters, and the frames. Pictures and comments are skipped.
fn flac_frames(file: &[u8]) -> Result<(Vec<u8>, &[u8]), AudioError> {
    const MARKER: &[u8] = b"fLaC";
    const STREAM_INFO: u8 = 0;
    const LAST: u8 = 0x80;

    let cut = || cut_short("FLAC", "it ends before its sound begins".into());
    let mut head = None;
    let mut rest = file.get(MARKER.len()..).ok_or_else(cut)?;

    loop {
        let (&[kind, a, b, c], body) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let (block, behind) = body.split_at_checked(length).ok_or_else(cut)?;
        rest = behind;

        if kind & !LAST == STREAM_INFO {
            let length = [LAST | STREAM_INFO, a, b, c];
            head.get_or_insert_with(|| [MARKER, &length, block].concat());
        }
        if kind & LAST != 0 {
            break;
        }
    }

    let head = head.ok_or(AudioError::Damaged {
        format: "FLAC",
        what: "it has no description of its sound".into(),
    })?;
    Ok((head, rest))
}

fn unreadable(format: &'static str, error: Error) -> AudioError {
    match error {
        Error::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            cut_short(format, "it ends before its sound begins".into())
        }
        error => AudioError::Damaged {
            format,
            what: error.to_string(),
        },
    }
}

/// The decoding of one file.
struct Run {
    format: &'static str,
    /// The reader skips damaged parts, and packets give their own place.
    frames_are_numbered: bool,
    /// Frames of MP3 use bits that earlier ones left over, so the first frames of a file that was cut from
    /// a longer one cannot be decoded.
    starts_in_the_middle: bool,
    /// How many of the promised frames may be missing without a sign of a cut.
    frames_of_doubt: u64,
}

impl Run {
    fn new(format: &'static str) -> Self {
        Self {
            format,
            frames_are_numbered: false,
            starts_in_the_middle: false,
            frames_of_doubt: 0,
        }
    }

    fn decode(&self, reader: &mut dyn FormatReader, mut sink: Sink) -> Result<Form, AudioError> {
        let format = self.format;
        let track = reader.default_track(TrackType::Audio).cloned();
        let track = track.ok_or(AudioError::NoSamples)?;
        let Some(CodecParameters::Audio(params)) = &track.codec_params else {
            return Err(AudioError::NoSamples);
        };
        let promised = track.num_frames;
        let channels = params
            .channels
            .as_ref()
            .map_or(0, |channels| channels.count());
        if let Some(form) = Form::new(params.sample_rate.unwrap_or(0), channels) {
            sink.expect(form, promised.unwrap_or(0))?;
        }

        let options = AudioDecoderOptions::default().verify(true);
        let mut decoder = get_codecs()
            .make_audio_decoder(params, &options)
            .map_err(|error| unreadable(format, error))?;

        let mut block = Vec::new();
        let mut next_frame = 0;

        loop {
            let packet = match reader.next_packet() {
                Ok(Some(packet)) if packet.track_id == track.id => packet,
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(self.cut_short(promised, &sink));
                }
                Err(error) => return Err(self.damaged(&sink, &error.to_string())),
            };

            if self.frames_are_numbered && packet.pts.get() as u64 != next_frame {
                return Err(self.damaged(&sink, "a part is missing"));
            }
            next_frame = next_frame.saturating_add(packet.dur.get());

            let decoded = match decoder.decode(&packet) {
                Ok(decoded) => decoded,
                Err(Error::DecodeError(_)) if self.starts_in_the_middle && sink.frames() == 0 => {
                    sink.push(&[])?;
                    continue;
                }
                Err(error) => return Err(self.damaged(&sink, &error.to_string())),
            };

            let spec = decoded.spec();
            let Some(form) = Form::new(spec.rate(), spec.channels().count()) else {
                return Err(self.damaged(&sink, "it has no channels or no sample rate"));
            };
            if !sink.takes(form) {
                return Err(self.damaged(&sink, "its sample rate or channels change"));
            }
            decoded.copy_to_vec_interleaved::<f32>(&mut block);
            sink.push(&block)?;
        }

        if promised.is_some_and(|promised| sink.frames() + self.frames_of_doubt < promised) {
            return Err(self.cut_short(promised, &sink));
        }
        if decoder.finalize().verify_ok == Some(false) {
            return Err(AudioError::Damaged {
                format,
                what: "its samples do not match its checksum".into(),
            });
        }
        sink.finish()
    }

    fn damaged(&self, sink: &Sink, what: &str) -> AudioError {
        AudioError::Damaged {
            format: self.format,
            what: format!("{what}, at {:.2} s", sink.seconds()),
        }
    }

    fn cut_short(&self, promised: Option<u64>, sink: &Sink) -> AudioError {
        let end = sink.seconds();
        let how = match promised {
            Some(frames) if sink.frames() > 0 => {
                let all = sink.seconds_of(frames);
                format!("it should be {all:.2} s long and ends after {end:.2} s")
            }
            _ => format!("it ends after {end:.2} s"),
        };
        cut_short(self.format, how)
    }
}
