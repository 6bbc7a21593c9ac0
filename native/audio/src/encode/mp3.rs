//! MP3, with `rusty_mp3`.

use rusty_mp3::{Mp3Encoder, Mp3EncoderConfig};

use super::Ending;
use crate::error::AudioError;

/// The rates of MPEG Layer III.
pub const RATES: [u32; 9] = [
    8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
];
/// From this rate on, a constant bitrate uses a bit reservoir, for which the encoder keeps the whole file. It
/// returns a variable bitrate frame by frame.
const WITH_RESERVOIR: u32 = 32_000;
const MOST_CHANNELS: u32 = 2;
/// Bytes of a frame's header.
const HEADER: usize = 4;
/// Samples that the encoder receives at once.
const BLOCK: usize = 4_608;

pub(super) struct Encoder {
    encoder: Mp3Encoder,
    rate: u32,
    channels: u16,
    block: Vec<f32>,
    begun: bool,
    /// Whether the first frame has not come yet.
    first: bool,
}

impl Encoder {
    pub(super) fn new(rate: u32, channels: u32, bitrate: u32) -> Result<Self, AudioError> {
        if !RATES.contains(&rate) {
            return Err(AudioError::OtherRate {
                rate,
                rates: &RATES,
                format: "MP3",
            });
        }
        if channels == 0 || channels > MOST_CHANNELS {
            return Err(AudioError::ManyChannels {
                channels,
                most: MOST_CHANNELS,
            });
        }

        let kilobits = bitrate.div_ceil(1_000);
        let encoder = Mp3Encoder::new(Mp3EncoderConfig {
            bitrate_kbps: kilobits,
            vbr_quality: (rate >= WITH_RESERVOIR).then_some(kilobits as f32),
        });
        Ok(Self {
            encoder,
            rate,
            channels: channels as u16,
            block: Vec::new(),
            begun: false,
            first: true,
        })
    }

    pub(super) fn push(
        &mut self,
        mut samples: impl ExactSizeIterator<Item = f32>,
    ) -> Result<Vec<u8>, AudioError> {
        let mut out = Vec::new();
        while samples.len() > 0 {
            self.block.clear();
            self.block
                .extend(samples.by_ref().take(BLOCK).map(super::sound));
            self.encoder
                .push_pcm_f32(&self.block, self.channels, self.rate)
                .map_err(AudioError::failed)?;
            self.begun = true;
            self.drain(&mut out);
        }
        Ok(out)
    }

    /// The first frame gives the length of the file. Until that is known, it is a frame of silence: with the
    /// encoder's own first frame, a reader would see a file without sound.
    fn drain(&mut self, out: &mut Vec<u8>) {
        while let Ok(mut packet) = self.encoder.next_packet() {
            if self.first {
                self.first = false;
                packet.iter_mut().skip(HEADER).for_each(|byte| *byte = 0);
            }
            out.extend(packet);
        }
    }

    pub(super) fn finish(mut self) -> Result<Ending, AudioError> {
        if !self.begun {
            return Err(AudioError::NoSamples);
        }
        let mut bytes = Vec::new();
        self.encoder.finish();
        self.drain(&mut bytes);
        let tag = self.encoder.lame_tag_frame().map(<[u8]>::to_vec);
        Ok(Ending {
            bytes,
            patches: tag.into_iter().map(|tag| (0, tag)).collect(),
        })
    }
}
