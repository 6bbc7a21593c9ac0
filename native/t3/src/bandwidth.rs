//! Measures how fast this machine reads memory, for comparison with a decode step.

use std::time::Instant;

use crate::error::Result;
use crate::memory::{Memory, Shared};
use crate::pool::Pool;
use crate::simd::{InstructionSet, Kernel, LANES, Simd};

const PIECE: usize = 64 * 1024;
const ROUNDS: usize = 5;

struct Read(*const f32);

impl Kernel for Read {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 4];
        for i in (0..PIECE).step_by(4 * LANES) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a piece has this many numbers.
                *sum = s.add(*sum, unsafe { s.load(self.0.add(i + lane * LANES)) });
            }
        }
        s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
    }
}

/// How fast `threads` threads read `bytes` of memory, in bytes per second: the best of five runs.
pub fn bandwidth(set: InstructionSet, bytes: usize, threads: usize) -> Result<f64> {
    let pieces = bytes.div_ceil(PIECE * size_of::<f32>()).max(1);
    let memory = Memory::of::<f32>(pieces * PIECE)?;
    let start = Shared(memory.start::<f32>());
    let mut pool = Pool::new();
    pool.grow(threads)?;
    pool.run(threads, pieces, &|piece, _| {
        // SAFETY: each piece has its own memory. Pages that were never written would all be the same page.
        unsafe { std::slice::from_raw_parts_mut(start.get().add(piece * PIECE), PIECE) }.fill(1.0);
    })?;
    let mut best = 0.0_f64;
    for _ in 0..ROUNDS {
        let since = Instant::now();
        pool.run(threads, pieces, &|piece, _| {
            // SAFETY: within the memory.
            std::hint::black_box(set.run(Read(unsafe { start.get().add(piece * PIECE) })));
        })?;
        best = best.max(memory.bytes() as f64 / since.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_speed() {
        assert!(bandwidth(InstructionSet::best(), 1 << 20, 2).unwrap() > 0.0);
    }
}
