//! What the tests share: numbers that are the same on every machine.

use crate::philox::philox;

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
