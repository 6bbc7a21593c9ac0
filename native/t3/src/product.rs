//! Matrix products of a few rows with packed weights.
//!
//! # Order of summation
//!
//! An output is the sum over its inputs in blocks of [`BLOCK`]: within a block, fused multiply-adds in the
//! order of the inputs, beginning with 0; the sums of the blocks are added in order; the bias comes last.
//! Lanes are outputs, never inputs, so the order does not depend on the instruction set, on the rows that are
//! computed together, or on the threads.

use crate::error::{Error, Result};
use crate::memory::{Memory, Shared};
use crate::simd::{Kernel, LANES, Simd};

/// Inputs whose products are summed before they are added to the rest.
pub const BLOCK: usize = 128;
/// Columns of a panel, which is the part of a matrix that one piece of work reads.
pub const PANEL: usize = 2 * LANES;
/// Most rows of the tiles that one piece of work goes through.
pub const GROUP: usize = 96;

/// Numbers of a line of the processor's caches.
const LINE: usize = 16;
/// How many inputs ahead weights are prefetched: several rows keep the processor busy for longer than its own
/// prefetching reaches.
const AHEAD: usize = 64;

/// Rows that go through the weights together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The first row.
    pub first: usize,
    /// How many.
    pub rows: usize,
}

/// Cuts rows into tiles of about the same size, at most `most` each.
pub fn tiles(rows: usize, most: usize) -> Vec<Tile> {
    let count = rows.div_ceil(most);
    let mut first = 0;
    (0..count)
        .map(|i| {
            let rows = (rows - first).div_ceil(count - i);
            let tile = Tile { first, rows };
            first += rows;
            tile
        })
        .collect()
}

/// Where a row's numbers are in a tiled matrix, which stores a tile's rows input by input.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    /// The row's tile.
    pub tile: Tile,
    /// The row's place in it.
    pub place: usize,
}

impl Lane {
    /// The lanes of all rows.
    pub fn of(tiles: &[Tile]) -> Vec<Lane> {
        tiles
            .iter()
            .flat_map(|tile| (0..tile.rows).map(|place| Lane { tile: *tile, place }))
            .collect()
    }

    /// Writes numbers of the row, from `column` on.
    ///
    /// # Safety
    /// `to` has `width` numbers for each row, and `column + numbers.len() <= width`. Nobody else reads or writes
    /// these columns of the row meanwhile.
    #[inline(always)]
    pub unsafe fn write(&self, to: *mut f32, width: usize, column: usize, numbers: &[f32]) {
        let stride = self.tile.rows;
        // SAFETY: within the tile, which begins at `first * width` and has `rows * width` numbers.
        unsafe {
            let to = to.add(self.tile.first * width + self.place + column * stride);
            if stride == 1 {
                std::ptr::copy_nonoverlapping(numbers.as_ptr(), to, numbers.len());
            } else {
                for (i, x) in numbers.iter().enumerate() {
                    *to.add(i * stride) = *x;
                }
            }
        }
    }
}

/// A matrix of a checkpoint, not packed: element (input, output) is at `input * inputs + output * outputs`.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The first element.
    pub start: *const f32,
    /// Distance from one input to the next.
    pub inputs: usize,
    /// Distance from one output to the next.
    pub outputs: usize,
}

// SAFETY: it is only read; the code that creates one is responsible for the pointer.
unsafe impl Sync for Source {}

/// Weights in panels of 32 columns, each panel input by input.
#[derive(Debug)]
pub struct Weights {
    memory: Memory,
    inputs: usize,
    panels: usize,
}

impl Weights {
    /// Room for `inputs` times `outputs`, all 0. Outputs are padded to whole panels.
    pub fn new(inputs: usize, outputs: usize) -> Result<Self> {
        let panels = outputs.div_ceil(PANEL);
        let memory = Memory::for_weights::<f32>(inputs * panels * PANEL)?;
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

    /// A panel's numbers.
    pub fn panel(&self, panel: usize) -> *const f32 {
        assert!(panel < self.panels);
        // SAFETY: within the memory.
        unsafe { self.memory.start::<f32>().add(panel * self.inputs * PANEL) }
    }

    /// Fills lanes of a panel from the columns of a matrix. A lane without a column is not changed.
    ///
    /// # Errors
    /// If a number is NaN or infinite.
    ///
    /// # Safety
    /// `from` may be read for every input and these columns. Nobody else uses the panel meanwhile.
    pub unsafe fn fill(
        &self,
        panel: usize,
        columns: &[Option<usize>; PANEL],
        from: &Source,
    ) -> Result<()> {
        let to = self.panel(panel).cast_mut();
        let mut not_finite = false;
        for input in 0..self.inputs {
            for (lane, column) in columns.iter().enumerate() {
                if let Some(column) = column {
                    // SAFETY: the caller's promise; the panel has `inputs * PANEL` numbers.
                    let x = unsafe { *from.start.add(input * from.inputs + column * from.outputs) };
                    not_finite |= !x.is_finite();
                    // SAFETY: as above.
                    unsafe { *to.add(input * PANEL + lane) = x };
                }
            }
        }
        match not_finite {
            false => Ok(()),
            true => Err(Error::invalid("it holds NaN or infinite numbers")),
        }
    }
}

/// Handles the sums of a row: adds the bias, and does everything after that.
pub trait Finish: Sync {
    /// Handles the sums of a row for the 32 columns of a panel.
    ///
    /// # Safety
    /// The row and the panel exist, and nobody else works on the same row and panel.
    unsafe fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, sums: [S::V; 2]);
}

/// The bias of a panel's halves.
#[inline(always)]
pub fn biased<S: Simd>(s: S, bias: &[f32], panel: usize, [a, b]: [S::V; 2]) -> [S::V; 2] {
    let bias = &bias[panel * PANEL..][..PANEL];
    // SAFETY: there are 32 of them.
    unsafe {
        [
            s.add(a, s.load(bias.as_ptr())),
            s.add(b, s.load(bias.as_ptr().add(LANES))),
        ]
    }
}

/// Adds the bias and writes the outputs, row after row.
pub struct Outputs<'a> {
    /// One for each column of the panels.
    pub bias: &'a [f32],
    /// Where they go: `outputs` numbers for each row.
    pub to: Shared<f32>,
    /// How many outputs a row has; further columns are dropped.
    pub outputs: usize,
}

impl Finish for Outputs<'_> {
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, sums: [S::V; 2]) {
        for (half, v) in biased(s, self.bias, panel, sums).into_iter().enumerate() {
            let first = panel * PANEL + half * LANES;
            let count = self.outputs.saturating_sub(first).min(LANES);
            let numbers = s.array(v);
            // SAFETY: only columns that are there are written.
            unsafe {
                let to = self
                    .to
                    .get()
                    .add(row * self.outputs + first.min(self.outputs));
                std::ptr::copy_nonoverlapping(numbers.as_ptr(), to, count);
            }
        }
    }
}

/// The product of some tiles of rows with one panel of weights.
pub struct Piece<'a, F> {
    /// The rows, tiled: a tile's rows lie input by input.
    pub rows: *const f32,
    /// The weights.
    pub weights: &'a Weights,
    /// Which panel.
    pub panel: usize,
    /// Which rows: at most [`GROUP`] of them.
    pub tiles: &'a [Tile],
    /// Room for 32 sums of each of these rows.
    pub sums: *mut f32,
    /// What is done with the sums.
    pub finish: &'a F,
}

impl<F: Finish> Kernel for Piece<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Some(first) = self.tiles.first() else {
            return;
        };
        let (inputs, panel) = (self.weights.inputs, self.weights.panel(self.panel));
        let mut done = 0;
        while done < inputs {
            let size = BLOCK.min(inputs - done);
            for tile in self.tiles {
                // SAFETY: the rows have `inputs` numbers each, the panel 32 for each input, and there is room
                // for 32 sums for each row.
                unsafe {
                    let a = self.rows.add(tile.first * inputs + done * tile.rows);
                    let b = panel.add(done * PANEL);
                    let sums = self.sums.add((tile.first - first.first) * PANEL);
                    block_of(s, tile.rows, size, a, b, sums, done == 0);
                }
            }
            done += size;
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

/// One block of inputs of a tile of up to 12 rows.
#[inline(always)]
unsafe fn block_of<S: Simd>(
    s: S,
    rows: usize,
    inputs: usize,
    a: *const f32,
    b: *const f32,
    sums: *mut f32,
    fresh: bool,
) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match rows {
                // one row alone is a wait for the weights: both halves of a panel at once
                // SAFETY: the caller's promise.
                1 => unsafe { block::<S, 1, 2>(s, inputs, a, b, sums, fresh) },
                $($rows if $rows <= S::ROWS => {
                    if S::WIDE == 2 || $rows <= S::ROWS / 2 {
                        // SAFETY: the caller's promise.
                        unsafe { block::<S, $rows, 2>(s, inputs, a, b, sums, fresh) }
                    } else {
                        // SAFETY: the caller's promise; the second half of the panel begins after 16 lanes.
                        unsafe {
                            block::<S, $rows, 1>(s, inputs, a, b, sums, fresh);
                            block::<S, $rows, 1>(s, inputs, a, b.add(LANES), sums.add(LANES), fresh);
                        }
                    }
                })*
                _ => unreachable!("a tile has too many rows"),
            }
        };
    }
    by_rows!(2 3 4 5 6 7 8 9 10 11 12)
}

#[inline(always)]
unsafe fn block<S: Simd, const ROWS: usize, const WIDE: usize>(
    s: S,
    inputs: usize,
    a: *const f32,
    b: *const f32,
    sums: *mut f32,
    fresh: bool,
) {
    let mut acc = [[s.splat(0.0); WIDE]; ROWS];
    for input in 0..inputs {
        // SAFETY: `a` has ROWS numbers for each input and `b` a line of the panel.
        unsafe {
            for line in (0..PANEL).step_by(LINE) {
                s.prefetch(b.wrapping_add((input + AHEAD) * PANEL + line));
            }
            let mut columns = [s.splat(0.0); WIDE];
            for (wide, column) in columns.iter_mut().enumerate() {
                *column = s.load(b.add(input * PANEL + wide * LANES));
            }
            for (row, acc) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.add(input * ROWS + row));
                for (acc, column) in acc.iter_mut().zip(columns) {
                    *acc = s.fma(x, column, *acc);
                }
            }
        }
    }
    for (row, acc) in acc.into_iter().enumerate() {
        for (wide, acc) in acc.into_iter().enumerate() {
            // SAFETY: there is room for 32 sums of each row.
            unsafe {
                let sum = sums.add(row * PANEL + wide * LANES);
                let total = if fresh { acc } else { s.add(s.load(sum), acc) };
                s.store(sum, total);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;
    use crate::testing::{Kept, Numbers, each_panel};

    fn product(
        set: InstructionSet,
        most: usize,
        x: &[f32],
        w: &[f32],
        inputs: usize,
        outputs: usize,
    ) -> Vec<f32> {
        let rows = x.len() / inputs;
        let weights = Weights::new(inputs, outputs).unwrap();
        each_panel(w, outputs, |panel, columns, source| {
            // SAFETY: `w` has inputs * outputs numbers.
            unsafe { weights.fill(panel, columns, source).unwrap() };
        });
        let tiles = tiles(rows, most);
        let mut tiled = vec![0.0; rows * inputs];
        for (row, lane) in Lane::of(&tiles).iter().enumerate() {
            // SAFETY: in bounds.
            unsafe { lane.write(tiled.as_mut_ptr(), inputs, 0, &x[row * inputs..][..inputs]) };
        }
        let mut kept = Kept::new(rows, outputs);
        let finish = kept.finish();
        let mut sums = vec![0.0; rows * PANEL];
        for panel in 0..weights.panels() {
            set.run(Piece {
                rows: tiled.as_ptr(),
                weights: &weights,
                panel,
                tiles: &tiles,
                sums: sums.as_mut_ptr(),
                finish: &finish,
            });
        }
        kept.columns()
    }

    /// The order of summation, as the module documents it.
    fn by_the_book(x: &[f32], w: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
        let mut out = Vec::new();
        for row in x.chunks(inputs) {
            for column in 0..outputs {
                let mut total: Option<f32> = None;
                for block in (0..inputs).step_by(BLOCK) {
                    let mut sum = 0.0_f32;
                    for input in block..inputs.min(block + BLOCK) {
                        sum = row[input].mul_add(w[input * outputs + column], sum);
                    }
                    total = Some(total.map_or(sum, |total| total + sum));
                }
                out.push(total.unwrap());
            }
        }
        out
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn tiles_are_even() {
        let sizes = |rows, most| {
            tiles(rows, most)
                .iter()
                .map(|tile| tile.rows)
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(13, 12), [7, 6]);
        assert_eq!(sizes(8, 12), [8]);
        assert_eq!(sizes(7, 3), [3, 2, 2]);
        assert!(sizes(0, 3).is_empty());
    }

    #[test]
    fn all_sets_and_tiles_give_the_bits_of_the_documented_order() {
        let mut numbers = Numbers::new(1);
        for (inputs, outputs) in [(1, 1), (5, 33), (128, 32), (129, 64), (300, 97)] {
            let w = numbers.normal(inputs * outputs);
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 29] {
                let x = numbers.normal(rows * inputs);
                let expected = bits(&by_the_book(&x, &w, inputs, outputs));
                for set in InstructionSet::available() {
                    let most = match set {
                        InstructionSet::Avx512 => 12,
                        InstructionSet::Scalar => 4,
                        _ => 6,
                    };
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
    fn one_rows_nan_stays_there() {
        let mut numbers = Numbers::new(2);
        let w = numbers.normal(40 * 40);
        let mut x = numbers.normal(6 * 40);
        x[2 * 40 + 7] = f32::NAN;
        for set in InstructionSet::available() {
            let out = product(set, 4, &x, &w, 40, 40);
            for (row, out) in out.chunks(40).enumerate() {
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

    #[test]
    fn weights_that_are_not_finite_are_refused() {
        let w = [1.0, f32::INFINITY];
        let weights = Weights::new(2, 1).unwrap();
        let source = Source {
            start: w.as_ptr(),
            inputs: 1,
            outputs: 2,
        };
        let columns = std::array::from_fn(|i| (i == 0).then_some(0));
        // SAFETY: two numbers are read.
        assert!(unsafe { weights.fill(0, &columns, &source) }.is_err());
    }
}
