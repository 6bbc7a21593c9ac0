//! Ogg Opus, with `opus-pure`.

use opus_pure::{Application, MAX_PACKET_BYTES, OggOpusWriter, OpusEncoder, OpusHead, OpusTags};

use super::{Ending, sound};
use crate::error::AudioError;
use crate::opus::{MOST_CHANNELS, RATES, TICKS};

/// A page is sent after this many bytes, so that less than a second of speech waits.
const PAGE: usize = 1_000;

pub(super) struct Encoder {
    encoder: OpusEncoder,
    writer: OggOpusWriter<Vec<u8>>,
    packet: Vec<u8>,
    input: Vec<f32>,
    channels: usize,
    /// Frames in a packet.
    block: usize,
    /// What the container counts for a frame.
    ticks: usize,
    pre_skip: u64,
    frames: u64,
}

impl Encoder {
    pub(super) fn new(rate: u32, channels: u32, bitrate: i32) -> Result<Self, AudioError> {
        if !RATES.contains(&rate) {
            return Err(AudioError::OtherRate {
                rate,
                rates: &RATES,
                format: "Opus",
            });
        }
        if channels == 0 || channels > MOST_CHANNELS {
            return Err(AudioError::ManyChannels {
                channels,
                most: MOST_CHANNELS,
            });
        }

        let channels = channels as usize;
        let mut encoder = OpusEncoder::new(rate as i32, channels, Application::Audio)
            .map_err(AudioError::failed)?;
        encoder.bitrate_bps = bitrate;
        let head = OpusHead::for_encoder(&encoder, rate);
        let pre_skip = u64::from(head.pre_skip);
        let mut writer = OggOpusWriter::with_tags(Vec::new(), head, OpusTags::new())
            .map_err(AudioError::failed)?;
        writer.set_page_target(PAGE);
        let block = rate as usize / 50;

        Ok(Self {
            encoder,
            writer,
            packet: vec![0; MAX_PACKET_BYTES],
            input: Vec::with_capacity(block * channels),
            channels,
            block,
            ticks: TICKS / rate as usize,
            pre_skip,
            frames: 0,
        })
    }

    pub(super) fn push(
        &mut self,
        samples: impl ExactSizeIterator<Item = f32>,
    ) -> Result<Vec<u8>, AudioError> {
        self.frames += (samples.len() / self.channels) as u64;
        for sample in samples {
            self.input.push(sound(sample));
            if self.input.len() == self.block * self.channels {
                let size = self.encode()?;
                let packet = self.packet.get(..size).unwrap_or_default();
                self.writer
                    .write_packet(packet)
                    .map_err(AudioError::failed)?;
            }
        }
        Ok(self
            .writer
            .get_mut()
            .map(std::mem::take)
            .unwrap_or_default())
    }

    fn encode(&mut self) -> Result<usize, AudioError> {
        let size = self
            .encoder
            .encode(&self.input, self.block, &mut self.packet)
            .map_err(AudioError::failed)?;
        self.input.clear();
        Ok(size)
    }

    /// Silence pushes out the samples that the encoder holds back, and the last packet says how much of it is
    /// sound (RFC 7845, sections 4.2 and 4.4).
    pub(super) fn finish(mut self) -> Result<Ending, AudioError> {
        let end = self.pre_skip + self.frames * self.ticks as u64;
        let whole = (self.block * self.ticks) as u64;
        loop {
            self.input.resize(self.block * self.channels, 0.0);
            let size = self.encode()?;
            let packet = self.packet.get(..size).unwrap_or_default();
            let rest = end.saturating_sub(self.writer.granule() as u64);
            if rest > whole {
                self.writer
                    .write_packet(packet)
                    .map_err(AudioError::failed)?;
            } else {
                self.writer
                    .write_packet_with_duration(packet, rest as u32)
                    .map_err(AudioError::failed)?;
                break;
            }
        }
        let bytes = self.writer.finish().map_err(AudioError::failed)?;
        Ok(Ending {
            bytes,
            patches: Vec::new(),
        })
    }
}
