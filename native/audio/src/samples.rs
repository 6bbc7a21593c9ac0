//! Samples as they come from Elixir and go back: 32-bit little-endian floats.

use crate::error::AudioError;

/// The samples in a binary, checked to be whole frames.
pub fn floats(
    bytes: &[u8],
    channels: u32,
) -> Result<impl ExactSizeIterator<Item = f32>, AudioError> {
    let frame = 4 * channels as usize;

    if frame == 0 || !bytes.len().is_multiple_of(frame) {
        return Err(AudioError::Misaligned {
            bytes: bytes.len(),
            channels,
        });
    }

    Ok(bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
}

/// An empty list with room for `samples` samples.
pub fn reserve(samples: usize) -> Result<Vec<f32>, AudioError> {
    let mut list = Vec::new();
    list.try_reserve_exact(samples)
        .map_err(|_| AudioError::no_memory(samples))?;
    Ok(list)
}

/// Far beyond any sound (full scale is 1.0), and far below the point where sums and products overflow.
const LARGEST: f32 = 1e12;

/// The samples in a binary, checked to be finite and not too large.
pub fn read(bytes: &[u8], channels: u32) -> Result<Vec<f32>, AudioError> {
    let floats = floats(bytes, channels)?;
    let mut samples = reserve(floats.len())?;
    samples.extend(floats);

    let sound = |sample: &f32| sample.abs() <= LARGEST;
    let Some(at) = samples.iter().position(|sample| !sound(sample)) else {
        return Ok(samples);
    };
    let frame = at / channels as usize;
    Err(if samples[at].is_finite() {
        AudioError::NoSound {
            frame,
            sample: samples[at],
        }
    } else {
        AudioError::NotFinite { frame }
    })
}

/// Writes samples into a binary of four times as many bytes.
pub fn write(samples: &[f32], bytes: &mut [u8]) {
    for (sample, bytes) in samples.iter().zip(bytes.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&sample.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let samples = [0.5, -1.0, f32::MIN_POSITIVE];
        let mut bytes = [0; 12];
        write(&samples, &mut bytes);
        assert_eq!(read(&bytes, 3), Ok(samples.to_vec()));
    }

    #[test]
    fn half_a_frame_is_refused() {
        assert!(matches!(
            read(&[0; 12], 2),
            Err(AudioError::Misaligned { bytes: 12, .. })
        ));
        assert!(read(&[0; 12], 0).is_err());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut bytes = [0; 16];
            write(&[0.0, 0.0, 0.0, bad], &mut bytes);
            assert_eq!(read(&bytes, 2), Err(AudioError::NotFinite { frame: 1 }));
        }
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        let mut bytes = [0; 16];
        write(&[0.0, 0.0, -1e12, f32::MIN], &mut bytes);
        let (frame, sample) = (1, f32::MIN);
        assert_eq!(read(&bytes, 2), Err(AudioError::NoSound { frame, sample }));
    }
}
