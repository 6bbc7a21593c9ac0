//! Mixes channels into one.

use crate::error::AudioError;
use crate::samples::reserve;

/// The mean of each frame's samples.
pub fn mono(
    samples: impl ExactSizeIterator<Item = f32>,
    channels: u32,
) -> Result<Vec<f32>, AudioError> {
    let channels = channels as usize;
    let mut out = reserve(samples.len() / channels)?;
    let mut sum = 0.0;

    for (at, sample) in samples.enumerate() {
        sum += f64::from(sample);
        if (at + 1) % channels == 0 {
            out.push((sum / channels as f64) as f32);
            sum = 0.0;
        }
    }

    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages() {
        let stereo = [0.5, -0.5, 1.0, 0.5];
        assert_eq!(mono(stereo.into_iter(), 2), Ok(vec![0.0, 0.75]));
        assert_eq!(mono(stereo.into_iter(), 1), Ok(stereo.to_vec()));
        assert_eq!(mono([].into_iter(), 3), Ok(vec![]));
    }

    #[test]
    fn full_scale_stays_full_scale() {
        assert_eq!(mono([1.0; 255].into_iter(), 255), Ok(vec![1.0]));
        // A sum of 32-bit floats could overflow.
        assert_eq!(mono([f32::MAX; 2].into_iter(), 2), Ok(vec![f32::MAX]));
    }
}
