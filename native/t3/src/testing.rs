//! Helpers for tests: numbers that are the same on every machine, and products that are kept.

use crate::memory::Shared;
use crate::philox::philox;
use crate::product::{Finish, PANEL, Source};
use crate::simd::{LANES, Simd};

/// Numbers drawn by Philox.
pub struct Numbers {
    seed: u64,
    drawn: u32,
}

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn next(&mut self) -> u32 {
        self.drawn += 1;
        philox(
            [self.drawn, 0, 0, 0],
            [self.seed as u32, (self.seed >> 32) as u32],
        )[0]
    }

    /// Numbers that are about normal: sums of four even ones.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| {
                (0..4)
                    .map(|_| self.next() as f32 / 4_294_967_296.0 - 0.5)
                    .sum::<f32>()
                    * 1.732
            })
            .collect()
    }
}

/// The results of a product, row by row.
pub struct Kept {
    numbers: Vec<f32>,
    width: usize,
    outputs: usize,
}

impl Kept {
    pub fn new(rows: usize, outputs: usize) -> Self {
        let width = outputs.div_ceil(PANEL) * PANEL;
        Self {
            numbers: vec![f32::NAN; rows * width],
            width,
            outputs,
        }
    }

    pub fn finish(&mut self) -> Keep {
        Keep(Shared(self.numbers.as_mut_ptr()), self.width)
    }

    /// Without what fills the last panel.
    pub fn columns(&self) -> Vec<f32> {
        self.numbers
            .chunks(self.width)
            .flat_map(|row| row[..self.outputs].to_vec())
            .collect()
    }
}

/// Writes to a `Kept`, which must live longer.
pub struct Keep(Shared<f32>, usize);

impl Finish for Keep {
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, sums: [S::V; 2]) {
        // SAFETY: there is a whole panel for each.
        unsafe {
            let to = self.0.get().add(row * self.1 + panel * PANEL);
            s.store(to, sums[0]);
            s.store(to.add(LANES), sums[1]);
        }
    }
}

/// Goes through the panels of a weight, (inputs, outputs), each with its columns.
pub fn each_panel(
    w: &[f32],
    outputs: usize,
    mut fill: impl FnMut(usize, &[Option<usize>; PANEL], &Source),
) {
    let source = Source {
        start: w.as_ptr(),
        inputs: outputs,
        outputs: 1,
    };
    for panel in 0..outputs.div_ceil(PANEL) {
        fill(
            panel,
            &std::array::from_fn(|i| Some(panel * PANEL + i).filter(|c| *c < outputs)),
            &source,
        );
    }
}
