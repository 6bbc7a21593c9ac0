//! LayerNorm and RMSNorm of one row.
//!
//! Sums go lane by lane over the row, number `i` into lane `i % 16`, and the lanes are added by the tree of
//! [`Simd::sum`].

use crate::simd::{Kernel, LANES, Simd};

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// `(x - mean) / sqrt(variance + eps) * weight + bias`.
    Layer,
    /// `x / sqrt(mean square + eps) * weight`.
    Rms,
}

/// The norm of one row. All slices have the row's length, a multiple of 16.
pub struct NormRow<'a> {
    /// Which norm.
    pub norm: Norm,
    /// The row.
    pub x: &'a [f32],
    /// Its weight.
    pub weight: &'a [f32],
    /// Its bias; for [`Norm::Layer`] only.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// Where the result goes.
    pub to: &'a mut [f32],
}

impl Kernel for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.x.len();
        assert!(
            count.is_multiple_of(LANES) && self.weight.len() == count && self.to.len() == count
        );
        assert!(self.norm == Norm::Rms || self.bias.len() == count);
        let scale = 1.0 / count as f32;
        // SAFETY: in all that follows `i + 16 <= count`.
        let load = |from: &[f32], i: usize| unsafe { s.load(from.as_ptr().add(i)) };
        let mean = match self.norm {
            Norm::Layer => {
                let mut sum = s.splat(0.0);
                for i in (0..count).step_by(LANES) {
                    sum = s.add(sum, load(self.x, i));
                }
                s.splat(s.sum(sum) * scale)
            }
            Norm::Rms => s.splat(0.0),
        };
        let mut squares = s.splat(0.0);
        for i in (0..count).step_by(LANES) {
            let d = s.sub(load(self.x, i), mean);
            squares = s.fma(d, d, squares);
        }
        let shrink = s.splat(1.0 / (s.sum(squares) * scale + self.eps).sqrt());
        for i in (0..count).step_by(LANES) {
            let y = s.mul(s.sub(load(self.x, i), mean), shrink);
            let y = match self.norm {
                Norm::Layer => s.fma(y, load(self.weight, i), load(self.bias, i)),
                Norm::Rms => s.mul(y, load(self.weight, i)),
            };
            // SAFETY: `i + 16 <= count`.
            unsafe { s.store(self.to.as_mut_ptr().add(i), y) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;
    use crate::testing::Numbers;

    fn run(set: InstructionSet, norm: Norm, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut to = vec![0.0; x.len()];
        set.run(NormRow {
            norm,
            x,
            weight,
            bias,
            eps: 1e-5,
            to: &mut to,
        });
        to
    }

    #[test]
    fn norms_are_close_and_the_same_bits_everywhere() {
        let mut numbers = Numbers::new(3);
        for count in [16, 64, 768, 1040] {
            let (x, weight, bias) = (
                numbers.normal(count),
                numbers.normal(count),
                numbers.normal(count),
            );
            for norm in [Norm::Layer, Norm::Rms] {
                let expected = run(InstructionSet::Scalar, norm, &x, &weight, &bias);
                for set in InstructionSet::available() {
                    let found = run(set, norm, &x, &weight, &bias);
                    assert!(
                        found
                            .iter()
                            .zip(&expected)
                            .all(|(a, b)| a.to_bits() == b.to_bits()),
                        "{}",
                        set.name()
                    );
                }
                let x: Vec<f64> = x.iter().map(|x| *x as f64).collect();
                let mean = if norm == Norm::Layer {
                    x.iter().sum::<f64>() / count as f64
                } else {
                    0.0
                };
                let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
                for i in 0..count {
                    let mut y = (x[i] - mean) / (square + 1e-5).sqrt() * weight[i] as f64;
                    if norm == Norm::Layer {
                        y += bias[i] as f64;
                    }
                    assert!((y - expected[i] as f64).abs() < 3e-6, "{y} {}", expected[i]);
                }
            }
        }
    }
}
