//! Attention of one head, for a few queries.
//!
//! # Order of summation
//!
//! A score is a chain of fused multiply-adds over the 64 numbers of query and key. The exponentials of the
//! scores are added lane by lane, position `p` into lane `p % 16`, then by the tree of [`Simd::sum`]. The values
//! are added by a chain of fused multiply-adds over the positions, then divided by the sum. So a query's result
//! depends only on the query and the positions that it sees. Queries that see the same blocks go through them
//! together, with the same bits as each query alone.

use crate::HEAD;
use crate::cache::{PART, POSITIONS};
use crate::math::exp;
use crate::memory::Shared;
use crate::product::Lane;
use crate::simd::{Kernel, LANES, Simd};

/// Blocks of keys that one query goes through at once.
const ABREAST: usize = 2;
/// How many blocks ahead keys and values are prefetched.
const AHEAD: usize = 3;
const WIDTH: usize = HEAD / LANES;

/// One row that looks back over its sequence.
#[derive(Debug, Clone)]
pub struct Query {
    /// Its row of the batch.
    pub row: usize,
    /// The index of its sequence's table of blocks.
    pub table: usize,
    /// How many positions it sees.
    pub end: usize,
}

/// Queries that go through some blocks together.
#[derive(Debug, Clone)]
pub struct Group {
    /// At most [`Simd::QUERIES`].
    pub queries: Vec<Query>,
    /// How many blocks at the beginning all of them share and see whole.
    pub common: usize,
}

impl Group {
    fn end(&self) -> usize {
        self.queries
            .iter()
            .map(|query| query.end)
            .max()
            .unwrap_or(0)
    }

    /// How many numbers of scratch memory it needs.
    pub fn scratch(&self) -> usize {
        self.queries.len() * (self.end().next_multiple_of(POSITIONS) + 2 * HEAD)
    }
}

/// Attention of one head for one group.
pub struct Attend<'a> {
    /// The queries.
    pub group: &'a Group,
    /// For each sequence, where its blocks begin.
    pub tables: &'a [Vec<Shared<f32>>],
    /// The place of this layer's head in a block.
    pub at: usize,
    /// The queries' numbers: row after row, scaled.
    pub q: *const f32,
    /// Numbers of a row.
    pub dim: usize,
    /// Which head.
    pub head: usize,
    /// Scratch memory of the size that [`Group::scratch`] returns.
    pub scratch: *mut f32,
    /// The lanes of all rows.
    pub lanes: &'a [Lane],
    /// Where the results go, tiled.
    pub to: *mut f32,
    /// Room for a list of all keys and values, in the order in which they are used.
    pub walk: &'a mut Vec<*const f32>,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        self.plan();
        let queries = &self.group.queries;
        let (count, common) = (queries.len(), self.group.common);
        let mut done = 0;
        let room = self.group.end().next_multiple_of(POSITIONS);
        // SAFETY: the scratch memory is `count * (room + 128)` long; a query's row and table exist, and its table
        // has blocks for all positions that it sees.
        unsafe {
            let scores = self.scratch;
            let packed = scores.add(count * room);
            let values = packed.add(count * HEAD);
            for (i, query) in queries.iter().enumerate() {
                let q = self.q.add(query.row * self.dim + self.head * HEAD);
                for d in 0..HEAD {
                    *packed.add(d * count + i) = *q.add(d);
                }
            }
            for block in 0..common {
                let keys = [self.walk[done], self.walk[done + AHEAD]];
                done += 1;
                scores_of(s, count, packed, keys, scores.add(block * POSITIONS), room);
            }
            for (i, query) in queries.iter().enumerate() {
                let q = self.q.add(query.row * self.dim + self.head * HEAD);
                done = self.own_scores(s, q, query, scores.add(i * room), done);
            }
            std::ptr::write_bytes(values, 0, count * HEAD);
            let mut totals = [0.0; 16];
            for (i, query) in queries.iter().enumerate() {
                totals[i] = soften(s, scores.add(i * room), query.end);
            }
            for block in 0..common {
                let from = [self.walk[done], self.walk[done + AHEAD]];
                done += 1;
                values_of(s, count, scores.add(block * POSITIONS), room, from, values);
            }
            for (i, query) in queries.iter().enumerate() {
                let (scores, values) = (scores.add(i * room), values.add(i * HEAD));
                done = self.own_values(s, query, scores, values, done);
                let total = s.splat(totals[i]);
                let mut out = [0.0; HEAD];
                for wide in 0..WIDTH {
                    let v = s.div(s.load(values.add(wide * LANES)), total);
                    s.store(out.as_mut_ptr().add(wide * LANES), v);
                }
                self.lanes[query.row].write(self.to, self.dim, self.head * HEAD, &out);
            }
        }
    }
}

impl Attend<'_> {
    /// Lists where keys and values are, in the order in which they are used.
    fn plan(&mut self) {
        let (group, at) = (self.group, self.at);
        self.walk.clear();
        for part in [at, at + PART] {
            for (number, query) in group.queries.iter().enumerate() {
                let first = if number == 0 { 0 } else { group.common };
                let blocks = &self.tables[query.table][first..query.end.div_ceil(POSITIONS)];
                // within the block: it has all layers and heads
                let parts = blocks
                    .iter()
                    .map(|block| block.get().wrapping_add(part).cast_const());
                self.walk.extend(parts);
            }
        }
        let last = self.walk.last().copied().unwrap_or(std::ptr::null());
        self.walk.extend([last; AHEAD + ABREAST]);
    }

    /// Scores of the blocks that a query does not share; `done` of the walk is done before and after.
    #[inline(always)]
    unsafe fn own_scores<S: Simd>(
        &self,
        s: S,
        q: *const f32,
        query: &Query,
        scores: *mut f32,
        mut done: usize,
    ) -> usize {
        let blocks = query.end.div_ceil(POSITIONS);
        let mut block = self.group.common;
        while block < blocks {
            let abreast = ABREAST.min(blocks - block);
            // if fewer are left, the last one is computed more than once
            let keys: [_; ABREAST] = std::array::from_fn(|i| self.walk[done + i.min(abreast - 1)]);
            let next: [_; ABREAST] = std::array::from_fn(|i| self.walk[done + AHEAD + i]);
            // SAFETY: the blocks exist; the scores have room for all of them.
            unsafe {
                let mut acc = [s.splat(0.0); ABREAST];
                for d in 0..HEAD {
                    let x = s.splat(*q.add(d));
                    for (i, acc) in acc.iter_mut().enumerate() {
                        s.prefetch(next[i].wrapping_add(d * POSITIONS));
                        *acc = s.fma(x, s.load(keys[i].add(d * POSITIONS)), *acc);
                    }
                }
                for (i, acc) in acc.into_iter().enumerate().take(abreast) {
                    s.store(scores.add((block + i) * POSITIONS), acc);
                }
            }
            block += abreast;
            done += abreast;
        }
        done
    }

    /// Adds the values of the positions that a query does not share; `done` as for the scores.
    #[inline(always)]
    unsafe fn own_values<S: Simd>(
        &self,
        s: S,
        query: &Query,
        scores: *const f32,
        values: *mut f32,
        mut done: usize,
    ) -> usize {
        // SAFETY: a value has 64 numbers; the blocks exist.
        unsafe {
            let mut acc = [s.splat(0.0); WIDTH];
            for (wide, acc) in acc.iter_mut().enumerate() {
                *acc = s.load(values.add(wide * LANES));
            }
            for block in self.group.common..query.end.div_ceil(POSITIONS) {
                let (from, next) = (self.walk[done], self.walk[done + AHEAD]);
                let scores = scores.add(block * POSITIONS);
                for p in 0..POSITIONS.min(query.end - block * POSITIONS) {
                    let x = s.splat(*scores.add(p));
                    for (wide, acc) in acc.iter_mut().enumerate() {
                        let at = p * HEAD + wide * LANES;
                        s.prefetch(next.wrapping_add(at));
                        *acc = s.fma(x, s.load(from.add(at)), *acc);
                    }
                }
                done += 1;
            }
            for (wide, acc) in acc.into_iter().enumerate() {
                s.store(values.add(wide * LANES), acc);
            }
        }
        done
    }
}

/// Turns scores into exponentials of their distance from the greatest score, and sums them.
///
/// # Safety
/// `scores` has `end` numbers, filled up to whole blocks of 16.
#[inline(always)]
pub(crate) unsafe fn soften<S: Simd>(s: S, scores: *mut f32, end: usize) -> f32 {
    let never = s.splat(f32::NEG_INFINITY);
    // SAFETY: there is room for whole blocks.
    let load = |p: usize| unsafe { s.first(end - p, s.load(scores.add(p)), never) };
    let mut greatest = never;
    for p in (0..end).step_by(LANES) {
        greatest = s.max(greatest, load(p));
    }
    let greatest = s.splat(s.greatest(greatest));
    let mut sum = s.splat(0.0);
    for p in (0..end).step_by(LANES) {
        let e = exp(s, s.sub(load(p), greatest));
        sum = s.add(sum, e);
        // SAFETY: as above.
        unsafe { s.store(scores.add(p), e) };
    }
    s.sum(sum)
}

macro_rules! by_queries {
    ($count:expr, $function:ident $arguments:tt, $($queries:literal)*) => {
        match $count {
            // SAFETY: the caller's promise.
            $($queries if $queries <= S::QUERIES => unsafe { $function::<S, $queries> $arguments },)*
            _ => unreachable!("a group has too many queries"),
        }
    };
}

/// Scores of one block for several queries.
#[inline(always)]
unsafe fn scores_of<S: Simd>(
    s: S,
    count: usize,
    q: *const f32,
    keys: [*const f32; 2],
    to: *mut f32,
    room: usize,
) {
    by_queries!(count, scores_for(s, q, keys, to, room), 1 2 3 4 5 6 7 8)
}

#[inline(always)]
unsafe fn scores_for<S: Simd, const Q: usize>(
    s: S,
    q: *const f32,
    keys: [*const f32; 2],
    to: *mut f32,
    room: usize,
) {
    let mut acc = [s.splat(0.0); Q];
    // SAFETY: `q` has 64 numbers of each query, `keys` 16 positions of each number, `to` a row for each query.
    unsafe {
        for d in 0..HEAD {
            s.prefetch(keys[1].wrapping_add(d * POSITIONS));
            let key = s.load(keys[0].add(d * POSITIONS));
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = s.fma(s.splat(*q.add(d * Q + i)), key, *acc);
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            s.store(to.add(i * room), acc);
        }
    }
}

/// Adds the values of one block for several queries.
#[inline(always)]
unsafe fn values_of<S: Simd>(
    s: S,
    count: usize,
    weights: *const f32,
    room: usize,
    from: [*const f32; 2],
    to: *mut f32,
) {
    by_queries!(count, values_for(s, weights, room, from, to), 1 2 3 4 5 6 7 8)
}

#[inline(always)]
unsafe fn values_for<S: Simd, const Q: usize>(
    s: S,
    weights: *const f32,
    room: usize,
    from: [*const f32; 2],
    to: *mut f32,
) {
    for wide in (0..WIDTH).step_by(S::WIDE) {
        // SAFETY: a position has 64 values, each query a row of weights and 64 sums.
        unsafe {
            if S::WIDE == 2 {
                values_part::<S, Q, 2>(
                    s,
                    weights,
                    room,
                    from.map(|from| from.wrapping_add(wide * LANES)),
                    to.add(wide * LANES),
                );
            } else {
                values_part::<S, Q, 1>(
                    s,
                    weights,
                    room,
                    from.map(|from| from.wrapping_add(wide * LANES)),
                    to.add(wide * LANES),
                );
            }
        }
    }
}

#[inline(always)]
unsafe fn values_part<S: Simd, const Q: usize, const WIDE: usize>(
    s: S,
    weights: *const f32,
    room: usize,
    from: [*const f32; 2],
    to: *mut f32,
) {
    // SAFETY: as the callers say.
    unsafe {
        let mut acc = [[s.splat(0.0); WIDE]; Q];
        for (i, acc) in acc.iter_mut().enumerate() {
            for (wide, acc) in acc.iter_mut().enumerate() {
                *acc = s.load(to.add(i * HEAD + wide * LANES));
            }
        }
        for p in 0..POSITIONS {
            let mut value = [s.splat(0.0); WIDE];
            for (wide, value) in value.iter_mut().enumerate() {
                let at = p * HEAD + wide * LANES;
                s.prefetch(from[1].wrapping_add(at));
                *value = s.load(from[0].add(at));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = s.splat(*weights.add(i * room + p));
                for (acc, value) in acc.iter_mut().zip(value) {
                    *acc = s.fma(x, value, *acc);
                }
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            for (wide, acc) in acc.into_iter().enumerate() {
                s.store(to.add(i * HEAD + wide * LANES), acc);
            }
        }
    }
}
