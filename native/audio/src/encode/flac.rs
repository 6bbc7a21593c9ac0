//! FLAC. `flac-codec` encodes the frames. The header is written here, because the library's needs the final
//! length of the file.

use flac_codec::encode::{FlacStreamWriter, Options};

use super::Ending;
use crate::error::AudioError;
use crate::flac::{MOST_CHANNELS, RATES};
use crate::pcm::quantise;

/// Frames of samples in a FLAC frame.
const BLOCK: usize = 4096;
/// Where the header stores its number of samples, 36 bits of these 8 bytes.
const TOTAL: usize = 18;

pub(super) struct Encoder {
    header: Vec<u8>,
    /// The 8 bytes at `TOTAL`, without the number.
    form: u64,
    writer: FlacStreamWriter<Shared>,
    out: Shared,
    rate: u32,
    channels: u32,
    bits: u32,
    block: Vec<i32>,
    frames: u64,
}

impl Encoder {
    pub(super) fn new(rate: u32, channels: u32, bits: u32) -> Result<Self, AudioError> {
        if !RATES.contains(&rate) {
            return Err(AudioError::Rate {
                rate,
                range: RATES,
                purpose: "be written as FLAC",
            });
        }
        if channels == 0 || channels > MOST_CHANNELS {
            return Err(AudioError::ManyChannels {
                channels,
                most: MOST_CHANNELS,
            });
        }

        // STREAMINFO (RFC 9639, section 8.2): block sizes, no frame sizes, rate, channels, bits, no
        // number of samples, no checksum of them.
        let form =
            u64::from(rate) << 44 | u64::from(channels - 1) << 41 | u64::from(bits - 1) << 36;
        let mut header = b"fLaC\x80\x00\x00\x22".to_vec();
        header.extend((BLOCK as u16).to_be_bytes());
        header.extend((BLOCK as u16).to_be_bytes());
        header.extend([0; 6]);
        header.extend(form.to_be_bytes());
        header.extend([0; 16]);

        let out = Shared::default();
        Ok(Self {
            header,
            form,
            writer: FlacStreamWriter::new(out.clone(), Options::default()),
            out,
            rate,
            channels,
            bits,
            block: Vec::with_capacity(BLOCK * channels as usize),
            frames: 0,
        })
    }

    pub(super) fn push(
        &mut self,
        samples: impl Iterator<Item = f32>,
    ) -> Result<Vec<u8>, AudioError> {
        for sample in samples {
            self.block.push(quantise(sample, self.bits));
            if self.block.len() == BLOCK * self.channels as usize {
                self.write()?;
            }
        }
        let mut out = std::mem::take(&mut self.header);
        out.append(&mut self.out.take());
        Ok(out)
    }

    fn write(&mut self) -> Result<(), AudioError> {
        self.writer
            .write(self.rate, self.channels as u8, self.bits, &self.block)
            .map_err(AudioError::failed)?;
        self.frames += self.block.len() as u64 / u64::from(self.channels);
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Ending, AudioError> {
        if !self.block.is_empty() {
            self.write()?;
        }
        if self.frames == 0 {
            return Err(AudioError::NoSamples);
        }
        let mut bytes = std::mem::take(&mut self.header);
        bytes.append(&mut self.out.take());

        // 0 means "unknown", as it must for more samples than 36 bits can count.
        let total = if self.frames < 1 << 36 {
            self.frames
        } else {
            0
        };
        let patch = (self.form | total).to_be_bytes().to_vec();
        Ok(Ending {
            bytes,
            patches: vec![(TOTAL as u64, patch)],
        })
    }
}

/// Receives the writer's output, which the writer does not return.
#[derive(Clone, Default)]
struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        self.0
            .lock()
            .map(|mut bytes| std::mem::take(&mut *bytes))
            .unwrap_or_default()
    }
}

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut all = self.0.lock().map_err(|_| std::io::ErrorKind::Other)?;
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
