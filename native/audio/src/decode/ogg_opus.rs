//! Opus in Ogg.

use opus_pure::{Error, MAX_PACKET_SAMPLES, OggOpusReader, OggPacket, Trim};

use super::ogg_pages;
use crate::error::AudioError;
use crate::opus::RATES;
use crate::sink::{Form, Sink};

const FORMAT: &str = "Opus";

/// Mono or stereo Opus, at the rate that it was made from where that is one of Opus' own.
pub fn decode(file: &[u8], mut sink: Sink) -> Result<Form, AudioError> {
    let file = ogg_pages::check(file, FORMAT)?;
    let mut reader = OggOpusReader::new(file).map_err(|error| damaged(error, 0.0))?;
    let head = reader.head();

    if head.mapping_family != 0 {
        return Err(AudioError::OtherFormat("Opus with more than two channels"));
    }

    let channels = usize::from(head.channel_count);
    let rate = match head.input_sample_rate {
        rate if RATES.contains(&rate) => rate,
        _ => 48_000,
    };
    let mut decoder = head
        .decoder(rate as i32)
        .map_err(|error| damaged(error, 0.0))?;
    let mut trim = Trim::new(head, rate as i32, channels).map_err(|error| damaged(error, 0.0))?;

    let form = Form::new(rate, channels).ok_or(AudioError::NoSamples)?;
    if !sink.takes(form) {
        return Err(AudioError::NoSamples);
    }
    let mut packet = OggPacket::default();
    let mut block = vec![0.0; MAX_PACKET_SAMPLES * channels];

    while reader
        .read_packet_into(&mut packet)
        .map_err(|error| damaged(error, sink.seconds()))?
    {
        let frames = decoder
            .decode(&packet.data, MAX_PACKET_SAMPLES, &mut block)
            .map_err(|error| damaged(error, sink.seconds()))?;
        let decoded = block.get(..frames * channels).unwrap_or_default();
        sink.push(trim.keep(&packet, decoded))?;
    }

    sink.finish()
}

fn damaged(error: Error, seconds: f64) -> AudioError {
    AudioError::Damaged {
        format: FORMAT,
        what: format!("{error}, at {seconds:.2} s"),
    }
}
