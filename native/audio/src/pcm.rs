//! Converts floats to integers and back.

use crate::error::AudioError;
use crate::samples::floats;

/// A sample as an integer of `bits` bits: clamped to -1.0 to 1.0, rounded to the nearest, NaN as
/// silence.
///
/// The scale is `2^(bits - 1)` both ways, so an integer that is read from a file and written again does not
/// change; 1.0 itself becomes the largest integer.
pub fn quantise(sample: f32, bits: u32) -> i32 {
    if sample.is_nan() {
        return 0;
    }

    let scale = f64::from(1u32 << (bits - 1));
    let scaled = (f64::from(sample).clamp(-1.0, 1.0) * scale).round();
    scaled.min(scale - 1.0) as i32
}

/// An integer of `bits` bits as a sample.
pub fn dequantise(value: i32, bits: u32) -> f32 {
    (f64::from(value) / f64::from(1u32 << (bits - 1))) as f32
}

/// Writes samples as 16-bit little-endian integers; `out` must be half as long as `samples`.
pub fn write_s16(samples: &[u8], out: &mut [u8]) -> Result<(), AudioError> {
    for (sample, bytes) in floats(samples, 1)?.zip(out.chunks_exact_mut(2)) {
        bytes.copy_from_slice(&(quantise(sample, 16) as i16).to_le_bytes());
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_scale_clamps() {
        assert_eq!(quantise(1.0, 16), 32767);
        assert_eq!(quantise(-1.0, 16), -32768);
        assert_eq!(quantise(7.5, 16), 32767);
        assert_eq!(quantise(f32::INFINITY, 24), 8_388_607);
        assert_eq!(quantise(f32::NEG_INFINITY, 24), -8_388_608);
        assert_eq!(quantise(1.0, 32), i32::MAX);
        assert_eq!(quantise(-1.0, 32), i32::MIN);
    }

    #[test]
    fn nan_is_silence() {
        assert_eq!(quantise(f32::NAN, 16), 0);
        assert_eq!(quantise(-f32::NAN, 24), 0);
    }

    #[test]
    fn rounds_to_the_nearest() {
        assert_eq!(quantise(0.4 / 32768.0, 16), 0);
        assert_eq!(quantise(0.6 / 32768.0, 16), 1);
        assert_eq!(quantise(-0.6 / 32768.0, 16), -1);
    }

    #[test]
    fn every_16_bit_value_survives() {
        for value in i16::MIN..=i16::MAX {
            let value = i32::from(value);
            assert_eq!(quantise(dequantise(value, 16), 16), value);
        }
    }

    #[test]
    fn s16_is_little_endian() {
        let samples: Vec<u8> = [0.5f32, -0.5]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        let mut out = [0; 4];
        write_s16(&samples, &mut out).unwrap();
        assert_eq!(out, [0x00, 0x40, 0x00, 0xc0]);
    }

    #[test]
    fn half_a_sample_is_refused() {
        assert!(matches!(
            write_s16(&[0; 6], &mut [0; 3]),
            Err(AudioError::Misaligned { bytes: 6, .. })
        ));
    }
}
