//! Rotary positions with Llama 3's stretching of the long wavelengths.

use crate::HEAD;

/// The parameters of the angles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f32,
    /// How much the longest are stretched.
    pub factor: f32,
    /// Wavelengths beyond `original_positions / low_freq_factor` are stretched whole.
    pub low_freq_factor: f32,
    /// Wavelengths below `original_positions / high_freq_factor` are not changed.
    pub high_freq_factor: f32,
    /// Positions that the model was first trained with.
    pub original_positions: f32,
}

/// Cosines and sines: for each position 32 of each.
#[derive(Debug)]
pub struct Angles {
    table: Vec<f32>,
}

impl Angles {
    /// The tables for positions below `positions`.
    ///
    /// Frequencies and angles are rounded to float32 where the model's authors rounded them; their cosines and
    /// sines are computed in float64 by the `libm` crate, so they are the same everywhere.
    pub fn new(rope: &Rope, positions: usize) -> Self {
        let frequencies: Vec<f32> = (0..HEAD / 2).map(|i| rope.frequency(i)).collect();
        let mut table = Vec::with_capacity(positions * HEAD);
        for position in 0..positions {
            let angles = frequencies.iter().map(|f| f64::from(position as f32 * f));
            table.extend(angles.clone().map(|angle| libm::cos(angle) as f32));
            table.extend(angles.map(|angle| libm::sin(angle) as f32));
        }
        Self { table }
    }

    /// 32 cosines, then 32 sines.
    pub fn at(&self, position: usize) -> &[f32] {
        &self.table[position * HEAD..][..HEAD]
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.table.as_slice())
    }
}

impl Rope {
    /// Radians per position of a pair of numbers.
    fn frequency(&self, pair: usize) -> f32 {
        let exponent = (2 * pair) as f32 / HEAD as f32;
        let frequency = 1.0 / libm::pow(f64::from(self.theta), f64::from(exponent)) as f32;
        let wavelength = 2.0 * std::f32::consts::PI / frequency;
        let ramp = (self.original_positions / wavelength - self.low_freq_factor)
            / (self.high_freq_factor - self.low_freq_factor);
        let ramp = ramp.clamp(0.0, 1.0);
        if ramp >= 1.0 {
            return frequency;
        }
        (1.0 - ramp) * (frequency / self.factor) + ramp * frequency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_of_llama_3() {
        let rope = Rope {
            theta: 500_000.0,
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192.0,
        };
        assert_eq!(rope.frequency(0), 1.0);
        let last = 1.0 / 500_000_f64.powf(62.0 / 64.0) / 8.0;
        assert!((f64::from(rope.frequency(31)) / last - 1.0).abs() < 1e-6);
        let angles = Angles::new(&rope, 4);
        assert_eq!(angles.at(0)[0], 1.0);
        assert_eq!(angles.at(0)[32], 0.0);
        assert!((angles.at(3)[0] - 3_f32.cos()).abs() < 1e-7);
        assert!((angles.at(3)[32] - 3_f32.sin()).abs() < 1e-7);
    }
}
