//! Matrix products with 8-bit weights and 8-bit activations.
//!
//! Weights have a scale for every [`GROUP_INPUTS`] inputs of an output; activations have one for every
//! [`GROUP_INPUTS`] numbers of a row. So a row's numbers do not depend on other rows.
//!
//! # Order of summation
//!
//! The 32 products of a group are added as whole numbers, which is exact in any order. The sum, as float32, is
//! multiplied by the product of both scales and added to the groups before it by one fused multiply-add, in the order
//! of the groups, beginning with 0; the bias comes last.

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::product::{Finish, Lane, PANEL, Source, Tile};
use crate::simd::{Dot, IntKernel, Kernel, LANES, Simd};

/// Inputs that share a scale.
pub const GROUP_INPUTS: usize = 32;
const QUADS: usize = GROUP_INPUTS / 4;
/// Bytes of a group of a panel: its weights, four inputs of a column side by side, then its scales as bfloat16.
const GROUP_BYTES: usize = PANEL * GROUP_INPUTS + PANEL * 2;
/// Bytes of a group of a row: its numbers, their scale, and a correction for weights that are stored without a sign.
const ROW_BYTES: usize = GROUP_INPUTS + 8;
/// Groups that all tiles of rows go through before the next ones.
const BLOCK: usize = 8;
/// How many bytes ahead weights are prefetched.
const AHEAD: usize = 4 * GROUP_BYTES;
const LINE: usize = 64;
/// Weights are stored as `w + 128`.
const OFFSET: i32 = 128;
const MOST: f32 = 127.0;

/// Adding this rounds to a whole number, which is then in the low bits.
const WHOLE: f32 = 12_582_912.0;

/// 8-bit weights in panels of 32 columns.
#[derive(Debug)]
pub struct Weights8 {
    memory: Memory,
    inputs: usize,
    panels: usize,
}

impl Weights8 {
    /// Room for `inputs` times `outputs`, all 0. Outputs are padded to whole panels.
    pub fn new(inputs: usize, outputs: usize) -> Result<Self> {
        let panels = outputs.div_ceil(PANEL);
        let memory =
            Memory::for_weights::<u8>(panels * inputs.div_ceil(GROUP_INPUTS) * GROUP_BYTES)?;
        Ok(Self {
            memory,
            inputs,
            panels,
        })
    }

    /// Inputs of each output.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Panels of 32 columns.
    pub fn panels(&self) -> usize {
        self.panels
    }

    /// Its memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP_INPUTS)
    }

    fn panel(&self, panel: usize) -> *mut u8 {
        assert!(panel < self.panels);
        // SAFETY: within the memory.
        unsafe {
            self.memory
                .start::<u8>()
                .add(panel * self.groups() * GROUP_BYTES)
        }
    }

    /// As [`Weights::fill`](crate::product::Weights::fill), rounding to 8 bits.
    ///
    /// # Errors
    /// If a number is NaN or infinite.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn fill(
        &self,
        panel: usize,
        columns: &[Option<usize>; PANEL],
        from: &Source,
    ) -> Result<()> {
        let to = self.panel(panel);
        for group in 0..self.groups() {
            let first = group * GROUP_INPUTS;
            let count = GROUP_INPUTS.min(self.inputs - first);
            for (lane, column) in columns.iter().enumerate() {
                let Some(column) = column else { continue };
                let mut numbers = [0.0_f32; GROUP_INPUTS];
                for (i, x) in numbers.iter_mut().enumerate().take(count) {
                    // SAFETY: the caller's promise.
                    *x = unsafe {
                        *from
                            .start
                            .add((first + i) * from.inputs + column * from.outputs)
                    };
                }
                if numbers.iter().any(|x| !x.is_finite()) {
                    return Err(Error::invalid("it holds NaN or infinite numbers"));
                }
                let greatest = numbers
                    .iter()
                    .fold(0.0_f32, |greatest, x| greatest.max(x.abs()));
                let scale = bfloat16_above(greatest / MOST);
                let divisor = f32::from_bits(u32::from(scale) << 16);
                // SAFETY: within the group, which has room for 32 columns.
                unsafe {
                    let to = to.add(group * GROUP_BYTES);
                    for (i, x) in numbers.iter().enumerate() {
                        let whole = if divisor > 0.0 {
                            (x / divisor).round_ties_even()
                        } else {
                            0.0
                        };
                        let whole = whole.clamp(-MOST, MOST) as i32 + OFFSET;
                        *to.add((i / 4 * PANEL + lane) * 4 + i % 4) = whole as u8;
                    }
                    let scales = to.add(PANEL * GROUP_INPUTS).cast::<u16>();
                    scales.add(lane).write_unaligned(scale);
                }
            }
        }
        Ok(())
    }
}

/// The bits of the least bfloat16 that is not below `x`, which is 0 or more.
fn bfloat16_above(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits >> 16) as u16 + u16::from(bits & 0xffff != 0)
}

/// Bytes of `rows` rows of `inputs` numbers, in 8 bits.
pub fn row_bytes(rows: usize, inputs: usize) -> usize {
    rows * inputs.div_ceil(GROUP_INPUTS) * ROW_BYTES
}

/// Rounds one row to 8 bits.
pub struct Round<'a> {
    /// The row.
    pub x: &'a [f32],
    /// Its tile and its place in it.
    pub lane: Lane,
    /// Room for all rows, of the size that [`row_bytes`] returns.
    pub to: *mut u8,
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (rows, place) = (self.lane.tile.rows, self.lane.place);
        let groups = self.x.len().div_ceil(GROUP_INPUTS);
        for group in 0..groups {
            let numbers = &self.x[group * GROUP_INPUTS..];
            let mut filled = [0.0_f32; GROUP_INPUTS];
            let numbers = match numbers.get(..GROUP_INPUTS) {
                Some(numbers) => numbers,
                None => {
                    filled[..numbers.len()].copy_from_slice(numbers);
                    &filled
                }
            };
            // SAFETY: there are 32 numbers.
            let [a, b] = unsafe {
                [
                    s.load(numbers.as_ptr()),
                    s.load(numbers.as_ptr().add(LANES)),
                ]
            };
            let zero = s.splat(0.0);
            let size = |x| s.max(x, s.sub(zero, x));
            let greatest = s.greatest(s.max(size(a), size(b)));
            // 0, or NaN if a number is not finite, which must not be rounded away
            let fault = s.sum(s.fma(a, zero, s.mul(b, zero)));
            let factor = if greatest > 0.0 { MOST / greatest } else { 0.0 };
            let (factor, whole) = (s.splat(factor), s.splat(WHOLE));
            let mut sum = 0;
            let mut bytes = [0_u8; GROUP_INPUTS];
            for (half, x) in [a, b].into_iter().enumerate() {
                for (i, x) in s.array(s.fma(x, factor, whole)).into_iter().enumerate() {
                    let x = x.to_bits() as i8;
                    sum += i32::from(x);
                    bytes[half * LANES + i] = x as u8;
                }
            }
            // SAFETY: the tile begins after `first` rows; a group of it has the numbers of all its rows, then their
            // scales, then the corrections.
            unsafe {
                let to = self
                    .to
                    .add((self.lane.tile.first * groups + group * rows) * ROW_BYTES);
                to.add(place * GROUP_INPUTS)
                    .cast::<[u8; GROUP_INPUTS]>()
                    .write(bytes);
                let scales = to.add(rows * GROUP_INPUTS).cast::<f32>();
                scales.add(place).write_unaligned(greatest / MOST + fault);
                scales
                    .add(rows + place)
                    .cast::<i32>()
                    .write_unaligned(-OFFSET * sum);
            }
        }
    }
}

/// The product of some tiles of rounded rows with one panel of weights.
pub struct Piece8<'a, F> {
    /// The rows, from [`Round`].
    pub rows: *const u8,
    /// The weights.
    pub weights: &'a Weights8,
    /// Which panel.
    pub panel: usize,
    /// Which rows.
    pub tiles: &'a [Tile],
    /// Room for 32 sums of each of these rows.
    pub sums: *mut f32,
    /// Handles the sums.
    pub finish: &'a F,
}

impl<F: Finish> IntKernel for Piece8<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Dot>(self, s: S) {
        let Some(first) = self.tiles.first() else {
            return;
        };
        let (groups, panel) = (self.weights.groups(), self.weights.panel(self.panel));
        for start in (0..groups).step_by(BLOCK) {
            for tile in self.tiles {
                for group in start..groups.min(start + BLOCK) {
                    // SAFETY: the panel and the rows have all groups, and there is room for 32 sums for each row.
                    unsafe {
                        let a = self
                            .rows
                            .add((tile.first * groups + group * tile.rows) * ROW_BYTES);
                        let b = panel.add(group * GROUP_BYTES);
                        let sums = self.sums.add((tile.first - first.first) * PANEL);
                        group_of(s, tile.rows, a, b, sums, group == 0);
                    }
                }
            }
        }
        for tile in self.tiles {
            for row in tile.first..tile.first + tile.rows {
                // SAFETY: as above.
                unsafe {
                    let sums = self.sums.add((row - first.first) * PANEL);
                    let sums = [s.load(sums), s.load(sums.add(LANES))];
                    self.finish.finish(s, row, self.panel, sums);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn group_of<S: Dot>(
    s: S,
    rows: usize,
    a: *const u8,
    b: *const u8,
    sums: *mut f32,
    fresh: bool,
) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= S::TILE => {
                    if S::WIDE == 2 || $rows <= S::TILE / 2 {
                        // SAFETY: the caller's promise.
                        unsafe { group::<S, $rows, 2>(s, a, b, sums, fresh, 0) }
                    } else {
                        // SAFETY: the caller's promise.
                        unsafe {
                            group::<S, $rows, 1>(s, a, b, sums, fresh, 0);
                            group::<S, $rows, 1>(s, a, b, sums, fresh, 1);
                        }
                    }
                })*
                _ => unreachable!("a tile has too many rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8)
}

/// One group of a tile, for both halves of a panel or the one that begins with vector `first`.
#[inline(always)]
unsafe fn group<S: Dot, const ROWS: usize, const WIDE: usize>(
    s: S,
    a: *const u8,
    b: *const u8,
    sums: *mut f32,
    fresh: bool,
    first: usize,
) {
    // SAFETY: `a` has a group of ROWS rows, `b` one of a panel, and there is room for 32 sums of each row.
    unsafe {
        let scales = a.add(ROWS * GROUP_INPUTS).cast::<f32>();
        let corrections = scales.add(ROWS).cast::<i32>();
        let mut acc = [[s.whole(0); WIDE]; ROWS];
        for (row, acc) in acc.iter_mut().enumerate() {
            *acc = [s.whole(corrections.add(row).read_unaligned()); WIDE];
        }
        for quad in 0..QUADS {
            for line in 0..2 {
                s.prefetch(b.wrapping_add(AHEAD + (quad * 2 + line) * LINE).cast());
            }
            let mut columns = [s.bytes(b.add((quad * PANEL + first * LANES) * 4)); WIDE];
            for (wide, columns) in columns.iter_mut().enumerate().skip(1) {
                *columns = s.bytes(b.add((quad * PANEL + (first + wide) * LANES) * 4));
            }
            for (row, acc) in acc.iter_mut().enumerate() {
                let x = a
                    .add(row * GROUP_INPUTS + quad * 4)
                    .cast::<i32>()
                    .read_unaligned();
                for (acc, columns) in acc.iter_mut().zip(columns) {
                    *acc = s.dot(*acc, columns, x);
                }
            }
        }
        s.prefetch(b.wrapping_add(AHEAD + GROUP_BYTES - LINE).cast());
        let column_scales = b.add(PANEL * GROUP_INPUTS).cast::<u16>();
        for wide in 0..WIDE {
            let column = s.bfloat16(column_scales.add((first + wide) * LANES));
            for (row, acc) in acc.iter().enumerate() {
                let scale = s.mul(column, s.splat(scales.add(row).read_unaligned()));
                let sum = sums.add(row * PANEL + (first + wide) * LANES);
                let before = if fresh { s.splat(0.0) } else { s.load(sum) };
                s.store(sum, s.fma(s.float(acc[wide]), scale, before));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tiles;
    use crate::simd::InstructionSet;
    use crate::testing::{Kept, Numbers, each_panel};

    struct TileOf;

    impl IntKernel for TileOf {
        type Output = usize;
        #[inline(always)]
        fn run<S: Dot>(self, _: S) -> usize {
            S::TILE
        }
    }

    fn product(
        set: InstructionSet,
        most: usize,
        x: &[f32],
        w: &[f32],
        inputs: usize,
        outputs: usize,
    ) -> Vec<f32> {
        let rows = x.len() / inputs;
        let weights = Weights8::new(inputs, outputs).unwrap();
        each_panel(w, outputs, |panel, columns, source| {
            // SAFETY: `w` has inputs * outputs numbers.
            unsafe { weights.fill(panel, columns, source).unwrap() };
        });
        let tiles = tiles(rows, most);
        let mut bytes = vec![0_u8; row_bytes(rows, inputs)];
        for (row, lane) in Lane::of(&tiles).into_iter().enumerate() {
            set.run(Round {
                x: &x[row * inputs..][..inputs],
                lane,
                to: bytes.as_mut_ptr(),
            });
        }
        let mut kept = Kept::new(rows, outputs);
        let finish = kept.finish();
        let mut sums = vec![0.0; rows * PANEL];
        for panel in 0..weights.panels() {
            set.run_int(Piece8 {
                rows: bytes.as_ptr(),
                weights: &weights,
                panel,
                tiles: &tiles,
                sums: sums.as_mut_ptr(),
                finish: &finish,
            });
        }
        kept.columns()
    }

    /// The order of summation and the rounding, as the module documents them.
    fn by_the_book(x: &[f32], w: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
        let mut out = Vec::new();
        for row in x.chunks(inputs) {
            for column in 0..outputs {
                let mut total = 0.0_f32;
                for first in (0..inputs).step_by(GROUP_INPUTS) {
                    let group = first..inputs.min(first + GROUP_INPUTS);
                    let weight = |i: usize| w[i * outputs + column];
                    let size = |x: f32, y: f32| x.max(y.abs());
                    let mine = group.clone().map(|i| row[i]).fold(0.0, size);
                    let scale = group.clone().map(weight).fold(0.0, size) / 127.0;
                    let scale = f32::from_bits(u32::from(bfloat16_above(scale)) << 16);
                    let mut sum = 0;
                    for i in group {
                        let x = (row[i] * (127.0 / mine)).round_ties_even() as i32;
                        sum += x * (weight(i) / scale).round_ties_even() as i32;
                    }
                    total = (sum as f32).mul_add(scale * (mine / 127.0), total);
                }
                out.push(total);
            }
        }
        out
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn all_sets_and_tiles_give_the_bits_of_the_documented_order() {
        let mut numbers = Numbers::new(5);
        for (inputs, outputs) in [(1, 1), (5, 33), (32, 32), (300, 97)] {
            let w = numbers.normal(inputs * outputs);
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 29] {
                let x = numbers.normal(rows * inputs);
                let expected = bits(&by_the_book(&x, &w, inputs, outputs));
                for set in InstructionSet::available() {
                    let most = set.run_int(TileOf);
                    for most in [1, 3, most] {
                        let found = product(set, most, &x, &w, inputs, outputs);
                        assert_eq!(
                            bits(&found),
                            expected,
                            "{} {rows} x {inputs} x {outputs}",
                            set.name()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_greatest_weights_and_numbers_fit() {
        for sign in [1.0, -1.0] {
            let (x, w) = (vec![3.0; 64], vec![sign * 127.0; 64 * 32]);
            for set in InstructionSet::available() {
                let out = product(set, 4, &x, &w, 64, 32);
                assert!(
                    out.iter()
                        .all(|y| (y / (sign * 64.0 * 3.0 * 127.0) - 1.0).abs() < 1e-6),
                    "{}",
                    set.name()
                );
            }
        }
    }

    #[test]
    fn one_rows_nan_stays_there_and_is_not_rounded_away() {
        let mut numbers = Numbers::new(6);
        let w = numbers.normal(40 * 40);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers.normal(6 * 40);
            x[2 * 40 + 7] = bad;
            for set in InstructionSet::available() {
                for (row, out) in product(set, 4, &x, &w, 40, 40).chunks(40).enumerate() {
                    assert_eq!(
                        out.iter().all(|x| x.is_finite()),
                        row != 2,
                        "{}",
                        set.name()
                    );
                    assert_eq!(out.iter().all(|x| x.is_nan()), row == 2, "{}", set.name());
                }
            }
        }
    }

    #[test]
    fn scales_are_never_too_small() {
        for x in [0.0, 1.0, 1.001, 0.3, 1e-30, 77.7] {
            let scale = f32::from_bits(u32::from(bfloat16_above(x)) << 16);
            assert!(scale >= x && scale <= x * 1.01, "{x}");
        }
    }
}
