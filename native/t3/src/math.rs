//! Functions of one variable, lane by lane, from additions and multiplications alone.

use crate::simd::Simd;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts: with fused multiply-add, both products are exact.
const LN_2: f32 = std::f32::consts::LN_2;
const LN_2_REST: f32 = -1.904_654_3e-9;
// Adding 1.5 * 2^23 rounds to a whole number; the 127 is the bias of the exponent of a float32.
const WHOLE: f32 = 12_582_912.0 + 127.0;

/// `e^x`, to about one unit in the last place.
///
/// Below -87.7 it is 0 (there are no subnormal results), above 88.4 infinite. NaN stays NaN.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(89.0), x);
    let x = s.max(s.splat(-88.0), x);
    let shifted = s.fma(x, s.splat(LOG2_E), s.splat(WHOLE));
    let n = s.sub(shifted, s.splat(WHOLE));
    let r = s.fma(n, s.splat(-LN_2), x);
    let r = s.fma(n, s.splat(-LN_2_REST), r);
    // the polynomial of Cephes' expf, for |r| <= ln 2 / 2
    let mut p = s.splat(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.mul(p, s.shift_23(shifted))
}

/// GELU as GPT-2 has it: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
///
/// Computed as `x / (1 + e^-2u)`, which is the same and needs no tanh.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let inner = s.mul(x, s.fma(s.mul(x, x), s.splat(0.044_715), s.splat(1.0)));
    let e = exp(s, s.mul(inner, s.splat(-1.595_769_2)));
    s.div(x, s.add(s.splat(1.0), e))
}

/// SiLU: `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(x, s.add(s.splat(1.0), e))
}

#[cfg(test)]
mod tests {
    use crate::simd::{InstructionSet, Kernel, LANES, Simd};

    struct Apply<'a>(&'a [f32], u8);

    impl Kernel for Apply<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<f32> {
            let mut out = Vec::new();
            for chunk in self.0.chunks_exact(LANES) {
                // SAFETY: a chunk has 16 numbers.
                let x = unsafe { s.load(chunk.as_ptr()) };
                out.extend(s.array(match self.1 {
                    0 => super::exp(s, x),
                    1 => super::gelu(s, x),
                    _ => super::silu(s, x),
                }));
            }
            out
        }
    }

    fn numbers() -> Vec<f32> {
        let mut x: Vec<f32> = (-1600..1600).map(|i| i as f32 * 0.061).collect();
        x.extend([
            0.0,
            -0.0,
            1e-30,
            -1e-30,
            1e30,
            -1e30,
            f32::MIN_POSITIVE,
            1e-42,
        ]);
        x.extend([88.3, 88.5, 89.0, 100.0, -87.3, -87.6, -87.7, -88.0, -500.0]);
        while !x.len().is_multiple_of(LANES) {
            x.push(0.25);
        }
        x
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let mut x = numbers();
        x.extend([f32::INFINITY; LANES]);
        x.extend([f32::NEG_INFINITY; LANES]);
        for function in 0..3 {
            let expected = InstructionSet::Scalar.run(Apply(&x, function));
            for set in InstructionSet::available() {
                for (i, y) in set.run(Apply(&x, function)).into_iter().enumerate() {
                    let wanted = expected[i];
                    assert!(
                        y.to_bits() == wanted.to_bits() || (y.is_nan() && wanted.is_nan()),
                        "{} of {}: {y} instead of {wanted}",
                        set.name(),
                        x[i]
                    );
                }
            }
        }
    }

    #[test]
    fn exp_is_close_and_keeps_what_is_no_number() {
        let x = numbers();
        for (x, y) in x.iter().zip(InstructionSet::best().run(Apply(&x, 0))) {
            let exact = (*x as f64).exp();
            if *x > 88.37 {
                assert!(
                    y.is_infinite() || (y as f64 / exact - 1.0).abs() < 1e-6,
                    "{x}: {y}"
                );
            } else if *x < -87.3 {
                assert!((y as f64 - exact).abs() < 2e-38, "{x}: {y}");
            } else {
                assert!(
                    (y as f64 / exact - 1.0).abs() < 1.5e-7,
                    "{x}: {y} for {exact}"
                );
            }
        }
        assert!(InstructionSet::best().run(Apply(&[f32::NAN; 16], 0))[3].is_nan());
        assert_eq!(
            InstructionSet::best().run(Apply(&[f32::NEG_INFINITY; 16], 0))[3],
            0.0
        );
    }

    #[test]
    fn gelu_and_silu_are_close() {
        let x = numbers();
        let gelu = InstructionSet::best().run(Apply(&x, 1));
        let silu = InstructionSet::best().run(Apply(&x, 2));
        for (i, x) in x.iter().enumerate() {
            let x = *x as f64;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            let exact = 0.5 * x * (1.0 + u.tanh());
            assert!(
                (gelu[i] as f64 - exact).abs() <= 4e-7 * x.abs().max(1e-30),
                "gelu {x}"
            );
            let exact = x / (1.0 + (-x).exp());
            assert!(
                (silu[i] as f64 - exact).abs() <= 4e-7 * x.abs().max(1e-30),
                "silu {x}"
            );
        }
    }
}
