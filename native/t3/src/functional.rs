//! Layers over plain arrays, for work that runs once per voice. They keep no packed weights, and run on the calling
//! thread.
//!
//! # Order of summation
//!
//! [`linear`] adds as [`product`](crate::product) does, and [`layer_norm`] as [`norm`](crate::norm) does.
//!
//! [`attention`] multiplies the queries by `1 / sqrt(width)` first. A score is a chain of fused multiply-adds over the
//! numbers of query and key, beginning with 0. The exponentials of the scores are added lane by lane, position `p`
//! into lane `p % 16`, then by the tree of [`Simd::sum`]. Each value is a chain of fused multiply-adds over the
//! positions, beginning with 0, divided by the sum of the exponentials.

use crate::attention::soften;
use crate::error::{Error, Result};
use crate::float_state::Ieee;
use crate::memory::{Memory, Shared};
use crate::norm::{Norm, NormRow};
use crate::product::{GROUP, Lane, Outputs, PANEL, Piece, Source, Tile, Weights, tiles};
use crate::simd::{InstructionSet, Kernel, LANES, Simd};

/// `x * weight^T + bias`.
///
/// # Errors
/// If the lengths do not fit each other, `weight` holds NaN or infinite numbers, or there is no memory for a packed
/// copy of it.
pub fn linear(
    set: InstructionSet,
    inputs: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    to: &mut [f32],
) -> Result<()> {
    let _ieee = Ieee::set();
    let rows = rows_of("x", x.len(), inputs)?;
    let outputs = rows_of("weight", weight.len(), inputs)?;
    let fits = bias.is_none_or(|bias| bias.len() == outputs);
    if !fits || Some(to.len()) != rows.checked_mul(outputs) {
        return Err(Error::invalid(format!(
            "x has {rows} rows and weight has {outputs}: bias and result must be as long"
        )));
    }
    let weights = Weights::new(inputs, outputs)?;
    let source = Source {
        start: weight.as_ptr(),
        inputs: 1,
        outputs: inputs,
    };
    for panel in 0..weights.panels() {
        let columns =
            std::array::from_fn(|lane| Some(panel * PANEL + lane).filter(|c| *c < outputs));
        // SAFETY: `weight` has `inputs` numbers for each of these columns, and nobody else knows the panels.
        unsafe { weights.fill(panel, &columns, &source) }.map_err(|error| Error {
            message: format!("weight: {}", error.message),
            ..error
        })?;
    }
    let mut padded = vec![0.0; weights.panels() * PANEL];
    if let Some(bias) = bias {
        padded[..outputs].copy_from_slice(bias);
    }
    set.run(Product {
        x,
        rows,
        tiled: Memory::of::<f32>(x.len())?,
        sums: Memory::of::<f32>(GROUP * PANEL)?,
        weights: &weights,
        finish: Outputs {
            bias: &padded,
            to: Shared(to.as_mut_ptr()),
            outputs,
        },
    });
    Ok(())
}

/// A whole product, computed piece by piece.
struct Product<'a> {
    x: &'a [f32],
    rows: usize,
    tiled: Memory,
    sums: Memory,
    weights: &'a Weights,
    finish: Outputs<'a>,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.weights.inputs();
        let tiles = tiles(self.rows, S::ROWS);
        for (lane, row) in Lane::of(&tiles).iter().zip(self.x.chunks_exact(inputs)) {
            // SAFETY: there is room for all rows, and nobody else uses it.
            unsafe { lane.write(self.tiled.start(), inputs, 0, row) };
        }
        let groups: Vec<&[Tile]> = tiles.chunks(GROUP / S::ROWS).collect();
        for piece in 0..self.weights.panels() * groups.len() {
            Piece {
                rows: self.tiled.start::<f32>(),
                weights: self.weights,
                panel: piece / groups.len(),
                tiles: groups[piece % groups.len()],
                sums: self.sums.start(),
                finish: &self.finish,
            }
            .run(s);
        }
    }
}

/// LayerNorm of each row of `x`: as many numbers as `weight`, a multiple of 16.
///
/// # Errors
/// If the lengths do not fit each other.
pub fn layer_norm(
    set: InstructionSet,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    to: &mut [f32],
) -> Result<()> {
    let _ieee = Ieee::set();
    let width = weight.len();
    check_width(width)?;
    rows_of("x", x.len(), width)?;
    if bias.len() != width || to.len() != x.len() {
        return Err(Error::invalid(
            "bias must be as long as weight, and the result as long as x",
        ));
    }
    for (x, to) in x.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
        set.run(NormRow {
            norm: Norm::Layer,
            x,
            weight,
            bias,
            eps,
            to,
        });
    }
    Ok(())
}

/// `softmax(q * k^T / sqrt(width)) * v` for each head, without a mask.
///
/// # Errors
/// If the width of a head is not a multiple of 16, the lengths do not fit each other, there are no positions, or there
/// is no memory for a copy of one head's keys.
pub fn attention(
    set: InstructionSet,
    heads: usize,
    width: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    to: &mut [f32],
) -> Result<()> {
    let _ieee = Ieee::set();
    check_width(width)?;
    let head = heads.saturating_mul(width);
    let (queries, positions) = (rows_of("q", q.len(), head)?, rows_of("k", k.len(), head)?);
    if positions == 0 || v.len() != k.len() || to.len() != q.len() {
        return Err(Error::invalid(
            "k must have a position, v must be as long as k, and the result as long as q",
        ));
    }
    let room = positions.next_multiple_of(LANES);
    let scratch = Memory::of::<f32>(room * (width + 1))?;
    // SAFETY: the memory is that long, and nobody else uses it.
    let scratch =
        unsafe { std::slice::from_raw_parts_mut(scratch.start::<f32>(), room * (width + 1)) };
    let (keys, scores) = scratch.split_at_mut(room * width);
    for head in 0..heads {
        let part = |length: usize| head * length * width..(head + 1) * length * width;
        set.run(Head {
            width,
            q: &q[part(queries)],
            k: &k[part(positions)],
            v: &v[part(positions)],
            keys,
            scores,
            to: &mut to[part(queries)],
        });
    }
    Ok(())
}

/// Attention of one head.
struct Head<'a> {
    width: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// Room for the keys, filled up to whole blocks of 16 positions.
    keys: &'a mut [f32],
    /// Room for the scores of one query, likewise.
    scores: &'a mut [f32],
    to: &'a mut [f32],
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        let positions = self.k.len() / width;
        let block = width * LANES;
        assert!(width.is_multiple_of(LANES) && self.v.len() == self.k.len());
        assert!(self.scores.len() == positions.next_multiple_of(LANES));
        assert!(self.keys.len() == self.scores.len() * width);
        // a vector is one number of 16 keys
        for (p, key) in self.k.chunks_exact(width).enumerate() {
            for (d, x) in key.iter().enumerate() {
                self.keys[p / LANES * block + d * LANES + p % LANES] = *x;
            }
        }
        let scale = 1.0 / (width as f32).sqrt();
        let rows = self.q.chunks_exact(width);
        for (query, to) in rows.zip(self.to.chunks_exact_mut(width)) {
            let blocks = self.keys.chunks_exact(block);
            for (keys, scores) in blocks.zip(self.scores.chunks_exact_mut(LANES)) {
                let mut acc = s.splat(0.0);
                for (x, key) in query.iter().zip(keys.chunks_exact(LANES)) {
                    // SAFETY: a chunk has 16 numbers.
                    acc = s.fma(s.splat(x * scale), unsafe { s.load(key.as_ptr()) }, acc);
                }
                // SAFETY: as above.
                unsafe { s.store(scores.as_mut_ptr(), acc) };
            }
            // SAFETY: the scores are whole blocks.
            let total = s.splat(unsafe { soften(s, self.scores.as_mut_ptr(), positions) });
            for (first, to) in (0..).step_by(LANES).zip(to.chunks_exact_mut(LANES)) {
                let mut acc = s.splat(0.0);
                for (x, value) in self.scores.iter().zip(self.v.chunks_exact(width)) {
                    // SAFETY: the width is a multiple of 16, so 16 numbers follow.
                    acc = s.fma(
                        s.splat(*x),
                        unsafe { s.load(value.as_ptr().add(first)) },
                        acc,
                    );
                }
                // SAFETY: a chunk has 16 numbers.
                unsafe { s.store(to.as_mut_ptr(), s.div(acc, total)) };
            }
        }
    }
}

fn check_width(width: usize) -> Result<()> {
    match width {
        0 => Err(Error::invalid("the width must be above 0")),
        _ if width.is_multiple_of(LANES) => Ok(()),
        _ => Err(Error::invalid(format!(
            "the width must be a multiple of {LANES}, not {width}"
        ))),
    }
}

fn rows_of(name: &str, numbers: usize, width: usize) -> Result<usize> {
    match width {
        0 => Err(Error::invalid(format!("a row of {name} must have numbers"))),
        _ if numbers.is_multiple_of(width) => Ok(numbers / width),
        _ => Err(Error::invalid(format!(
            "{name} has {numbers} numbers, which are not whole rows of {width}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::BLOCK;
    use crate::testing::Numbers;

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    /// A sum of products in the order that [`linear`] documents.
    fn sum_of_products(x: &[f32], w: &[f32]) -> f32 {
        let blocks = x.chunks(BLOCK).zip(w.chunks(BLOCK));
        blocks
            .map(|(x, w)| chain(x.iter().copied().zip(w.iter().copied())))
            .reduce(|total, sum| total + sum)
            .unwrap()
    }

    fn chain(pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
        pairs.fold(0.0, |sum, (a, b)| a.mul_add(b, sum))
    }

    #[test]
    fn linear_has_the_bits_of_the_documented_order() {
        let mut numbers = Numbers::new(21);
        for (rows, inputs, outputs) in [(1, 1, 64), (3, 129, 33), (40, 64, 70), (150, 300, 32)] {
            let x = numbers.normal(rows * inputs);
            let weight = numbers.normal(outputs * inputs);
            let bias = numbers.normal(outputs);
            for bias in [Some(&bias[..]), None] {
                let expected: Vec<f32> = (0..rows * outputs)
                    .map(|i| {
                        let (row, output) = (i / outputs, i % outputs);
                        let sum = sum_of_products(
                            &x[row * inputs..][..inputs],
                            &weight[output * inputs..][..inputs],
                        );
                        sum + bias.map_or(0.0, |bias| bias[output])
                    })
                    .collect();
                for set in InstructionSet::available() {
                    let mut to = vec![f32::NAN; rows * outputs];
                    linear(set, inputs, &x, &weight, bias, &mut to).unwrap();
                    assert!(bits(&to) == bits(&expected), "{} {rows}", set.name());
                }
            }
        }
    }

    #[test]
    fn attention_has_the_same_bits_everywhere_and_is_close() {
        let mut numbers = Numbers::new(22);
        for (heads, queries, positions, width) in [
            (1, 1, 1, 16),
            (4, 8, 20, 32),
            (2, 3, 16, 48),
            (4, 5, 150, 256),
        ] {
            let q = numbers.normal(heads * queries * width);
            let k = numbers.normal(heads * positions * width);
            let v = numbers.normal(heads * positions * width);
            let run = |set| {
                let mut to = vec![f32::NAN; q.len()];
                attention(set, heads, width, &q, &k, &v, &mut to).unwrap();
                to
            };
            let expected = run(InstructionSet::Scalar);
            for set in InstructionSet::available() {
                assert!(bits(&run(set)) == bits(&expected), "{}", set.name());
            }
            for (i, found) in expected.iter().enumerate() {
                let (row, d) = (i / width, i % width);
                let first = row / queries * positions;
                let weights: Vec<f64> = (first..first + positions)
                    .map(|p| {
                        let pairs = q[row * width..].iter().zip(&k[p * width..]);
                        let score: f64 =
                            pairs.take(width).map(|(a, b)| *a as f64 * *b as f64).sum();
                        (score / (width as f64).sqrt()).exp()
                    })
                    .collect();
                let values = (first..).map(|p| v[p * width + d] as f64);
                let sum: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
                let exact = sum / weights.iter().sum::<f64>();
                assert!((exact - *found as f64).abs() < 3e-6, "{exact} {found}");
            }
        }
    }

    #[test]
    fn layer_norm_goes_row_by_row() {
        let mut numbers = Numbers::new(23);
        let (x, weight, bias) = (numbers.normal(96), numbers.normal(32), numbers.normal(32));
        for set in InstructionSet::available() {
            let mut to = vec![0.0; 96];
            layer_norm(set, &x, &weight, &bias, 1e-5, &mut to).unwrap();
            for row in 0..3 {
                let mut alone = vec![0.0; 32];
                layer_norm(set, &x[row * 32..][..32], &weight, &bias, 1e-5, &mut alone).unwrap();
                assert_eq!(bits(&to[row * 32..][..32]), bits(&alone));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let set = InstructionSet::best();
        let (x, mut to) = ([1.0; 64], [0.0; 64]);
        assert!(linear(set, 0, &x, &x, None, &mut to).is_err());
        assert!(linear(set, 48, &x, &x, None, &mut to).is_err());
        assert!(linear(set, 16, &x, &x, None, &mut to).is_err());
        assert!(linear(set, 8, &x, &x, Some(&x), &mut to).is_err());
        assert!(linear(set, 8, &x, &[f32::NAN; 64], None, &mut to).is_err());
        assert!(linear(set, 8, &x, &x, None, &mut to).is_ok());
        assert!(layer_norm(set, &x, &x[..24], &x[..24], 0.0, &mut to).is_err());
        assert!(layer_norm(set, &x, &[], &[], 0.0, &mut to).is_err());
        assert!(layer_norm(set, &x, &x[..16], &x[..32], 0.0, &mut to).is_err());
        assert!(attention(set, 2, 24, &x, &x, &x, &mut to).is_err());
        assert!(attention(set, 0, 16, &x, &x, &x, &mut to).is_err());
        assert!(attention(set, 2, 16, &x, &[], &[], &mut to).is_err());
        assert!(attention(set, 2, 16, &x, &x, &x[..32], &mut to).is_err());
        assert!(attention(set, usize::MAX, 16, &x, &x, &x, &mut to).is_err());
    }
}
