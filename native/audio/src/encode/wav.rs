//! WAV, and samples without a header.

use super::Ending;
use crate::error::AudioError;
use crate::limits::Caller;
use crate::pcm::quantise;
use crate::wav::{Format, encode};

/// Both sizes in a file of unknown length: they mean "to the end".
const UNKNOWN: [u8; 4] = [0xff; 4];

pub(super) struct Encoder {
    /// Until it was given.
    header: Vec<u8>,
    format: Format,
    /// Bytes before the samples; none without a header.
    before: u64,
    written: u64,
}

impl Encoder {
    pub(super) fn plain() -> Self {
        Self {
            header: Vec::new(),
            format: Format::S16,
            before: 0,
            written: 0,
        }
    }

    pub(super) fn new(rate: u32, channels: u32, format: Format) -> Result<Self, AudioError> {
        // Of a file without samples, the size of the samples is at the end.
        let mut header = encode(&[], rate.into(), channels.into(), format, Caller::patient())?;
        let end = header.len();
        header[4..8].copy_from_slice(&UNKNOWN);
        header[end - 4..].copy_from_slice(&UNKNOWN);
        Ok(Self {
            before: end as u64,
            header,
            format,
            written: 0,
        })
    }

    pub(super) fn push(
        &mut self,
        samples: impl ExactSizeIterator<Item = f32>,
    ) -> Result<Vec<u8>, AudioError> {
        let width = match self.format {
            Format::S16 => 2,
            Format::S24 => 3,
            Format::F32 => 4,
        };
        let bytes = samples.len() * width;
        let written = self.written + bytes as u64;
        if self.before > 0 && self.before + written > u64::from(u32::MAX) {
            return Err(AudioError::TooLong { bytes: written });
        }

        let mut out = std::mem::take(&mut self.header);
        out.try_reserve(bytes)
            .map_err(|_| AudioError::OutOfMemory { bytes })?;
        for sample in samples {
            match self.format {
                Format::S16 => out.extend((quantise(sample, 16) as i16).to_le_bytes()),
                Format::S24 => out.extend(&quantise(sample, 24).to_le_bytes()[..3]),
                Format::F32 => out.extend(sample.to_le_bytes()),
            }
        }
        self.written = written;
        Ok(out)
    }

    pub(super) fn finish(self) -> Ending {
        if self.before == 0 {
            return Ending::default();
        }
        let size = |bytes: u64| {
            u32::try_from(bytes)
                .unwrap_or(u32::MAX)
                .to_le_bytes()
                .to_vec()
        };
        Ending {
            bytes: self.header,
            patches: vec![
                (4, size(self.before + self.written - 8)),
                (self.before - 4, size(self.written)),
            ],
        }
    }
}
