//! A few threads that work together on many small pieces.
//!
//! The threads take the pieces of a job one by one; the calling thread takes part. Between jobs the helpers
//! spin for a short while, because a step has about a hundred jobs, and then sleep.
//!
//! If the system takes a helper off its core in the middle of a piece, the others wait for milliseconds. So such
//! a helper is left out for many times as long as the others waited. With a busy neighbour, the work then runs
//! about as fast as on one thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::float_state::Ieee;

/// Most threads of a pool.
pub const MOST_THREADS: usize = 64;

/// How long a helper waits for the next job before it sleeps.
const AWAKE: Duration = Duration::from_micros(150);
/// A wait for a helper's last piece that is longer than this, and than several pieces take, is a stall.
const STALL: Duration = Duration::from_micros(150);
const STALL_PIECES: u32 = 4;
/// A stalled helper is left out for this multiple of the length of the stall, at first and at most.
const BENCH_FIRST: u32 = 8;
const BENCH_MOST: u32 = 64;

/// A job's work. Its arguments are the numbers of the piece and of the thread; the caller's thread is 0.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    pieces: u32,
}

struct Common {
    /// The job's number (high half) and how many of its pieces nobody has taken (low half).
    open: AtomicU64,
    /// The job. It changes only while no piece of the last job is open or in progress.
    job: AtomicPtr<Job>,
    /// Which helpers may take pieces, bit by bit.
    allowed: AtomicU64,
    done: AtomicU32,
    panicked: AtomicBool,
    stop: AtomicBool,
    helpers: [Helper; MOST_THREADS],
}

#[derive(Default)]
struct Helper {
    working: AtomicBool,
    asleep: AtomicBool,
}

/// What the caller knows about one helper.
struct Known {
    thread: Thread,
    handle: Option<JoinHandle<()>>,
    left_out_until: Option<Instant>,
    times: u32,
}

/// Threads that work together.
pub struct Pool {
    common: Arc<Common>,
    known: Vec<Known>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool of {} threads", self.threads())
    }
}

impl Pool {
    /// Creates a pool of one thread, the caller's.
    pub fn new() -> Self {
        let common = Common {
            open: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            allowed: AtomicU64::new(0),
            done: AtomicU32::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            helpers: std::array::from_fn(|_| Helper::default()),
        };
        Self {
            common: Arc::new(common),
            known: Vec::new(),
        }
    }

    /// The number of threads, including the caller's.
    pub fn threads(&self) -> usize {
        self.known.len() + 1
    }

    /// Starts helpers until the pool has this many threads.
    pub fn grow(&mut self, threads: usize) -> Result<()> {
        while self.threads() < threads.min(MOST_THREADS) {
            let (common, index) = (Arc::clone(&self.common), self.known.len());
            let handle = std::thread::Builder::new()
                .name(format!("t3-{}", index + 1))
                .spawn(move || help(&common, index))
                .map_err(|error| {
                    Error::internal(format!("a thread could not be started: {error}"))
                })?;
            let thread = handle.thread().clone();
            self.known.push(Known {
                thread,
                handle: Some(handle),
                left_out_until: None,
                times: BENCH_FIRST,
            });
        }
        Ok(())
    }

    /// Runs all pieces of a job on at most `threads` threads, and returns when they are done.
    ///
    /// # Errors
    /// If a piece panicked.
    pub fn run(&mut self, threads: usize, pieces: usize, work: &Work<'_>) -> Result<()> {
        let pieces = u32::try_from(pieces).map_err(|_| Error::internal("too many pieces"))?;
        let helpers = self
            .known
            .len()
            .min(threads.saturating_sub(1))
            .min(pieces.saturating_sub(1) as usize);
        if helpers == 0 {
            return caught(|| (0..pieces as usize).for_each(|piece| work(piece, 0)));
        }
        // SAFETY: only the lifetime changes. No thread calls it after this function has returned: the function
        // waits for every piece that was taken, and no piece is open then.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let mut job = Job { work, pieces };
        self.begin(helpers, &mut job);
        let common = &*self.common;
        let mut shortest = None;
        let mut last = Instant::now();
        let mut panicked = false;
        while let Some((piece, _)) = common.take(None) {
            // SAFETY: `work` is the reference that was given to this function.
            panicked |= catch_unwind(AssertUnwindSafe(|| unsafe { (*work)(piece, 0) })).is_err();
            common.done.fetch_add(1, Ordering::AcqRel);
            let now = Instant::now();
            let took = now - last;
            shortest = Some(shortest.map_or(took, |shortest: Duration| shortest.min(took)));
            last = now;
        }
        self.wait(pieces, last, shortest.unwrap_or_default());
        if panicked | self.common.panicked.swap(false, Ordering::AcqRel) {
            return Err(Error::internal("a piece of work panicked"));
        }
        Ok(())
    }

    fn begin(&mut self, helpers: usize, job: &mut Job) {
        let common = &*self.common;
        let mut allowed = 0;
        for (index, known) in self.known.iter_mut().enumerate().take(helpers) {
            let out = known
                .left_out_until
                .is_some_and(|until| Instant::now() < until);
            if !out {
                known.left_out_until = None;
                allowed |= 1 << index;
            }
        }
        common.done.store(0, Ordering::Relaxed);
        common.allowed.store(allowed, Ordering::Relaxed);
        common.job.store(job, Ordering::Relaxed);
        let number = (common.open.load(Ordering::Relaxed) >> 32).wrapping_add(1) & u32::MAX as u64;
        // After this, every thread that takes a piece sees all of the above. This is sequentially consistent, as
        // is the helper's own pair of falling asleep and looking again, so one of the two sees the other.
        common
            .open
            .store(number << 32 | job.pieces as u64, Ordering::SeqCst);
        for (index, known) in self.known.iter().enumerate().take(helpers) {
            if allowed & (1 << index) != 0
                && common.helpers[index].asleep.swap(false, Ordering::SeqCst)
            {
                known.thread.unpark();
            }
        }
    }

    fn wait(&mut self, pieces: u32, since: Instant, piece: Duration) {
        let common = &*self.common;
        let patience = STALL.max(piece * STALL_PIECES);
        let mut late = 0_u64;
        let mut turns = 0_u32;
        while common.done.load(Ordering::Acquire) < pieces {
            turns = turns.wrapping_add(1);
            if late != 0 {
                // it may need this very core
                std::thread::yield_now();
            } else if turns.is_multiple_of(64) && since.elapsed() > patience {
                for index in 0..self.known.len() {
                    late |=
                        u64::from(common.helpers[index].working.load(Ordering::Relaxed)) << index;
                }
            } else {
                std::hint::spin_loop();
            }
        }
        if late != 0 {
            self.leave_out(late, since.elapsed());
        }
    }

    /// Leaves out the late helpers, one per bit.
    fn leave_out(&mut self, late: u64, waited: Duration) {
        let now = Instant::now();
        for (index, known) in self.known.iter_mut().enumerate() {
            if late & (1 << index) != 0 {
                known.left_out_until = Some(now + waited * known.times);
                known.times = (known.times * 2).min(BENCH_MOST);
            }
        }
    }

    /// Forgets gradually that helpers were slow. Call it once for every successful step.
    pub fn forgive(&mut self) {
        for known in &mut self.known {
            if known.left_out_until.is_none() && known.times > BENCH_FIRST {
                known.times -= 1;
            }
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.common.stop.store(true, Ordering::SeqCst);
        for known in &mut self.known {
            known.thread.unpark();
            if let Some(handle) = known.handle.take() {
                let _ = handle.join();
            }
        }
    }
}

fn caught(work: impl FnOnce()) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Error::internal("a piece of work panicked"))
}

impl Common {
    /// Takes a piece, if one is open (and this helper may).
    fn take(&self, helper: Option<usize>) -> Option<(usize, Job)> {
        let mut open = self.open.load(Ordering::Acquire);
        loop {
            let left = open & u32::MAX as u64;
            if left == 0 {
                return None;
            }
            if let Some(index) = helper
                && self.allowed.load(Ordering::Relaxed) & (1 << index) == 0
            {
                return None;
            }
            match self.open.compare_exchange_weak(
                open,
                open - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    // SAFETY: we hold a piece, so the job waits for us, and we see the values that were set
                    // before the piece was opened.
                    let job = unsafe { *self.job.load(Ordering::Relaxed) };
                    return Some((job.pieces as usize - left as usize, job));
                }
                Err(now) => open = now,
            }
        }
    }
}

fn help(common: &Common, index: usize) {
    let _ieee = Ieee::set();
    let me = &common.helpers[index];
    let mut idle = None;
    let mut turns = 0_u32;
    while !common.stop.load(Ordering::Relaxed) {
        if let Some((piece, job)) = common.take(Some(index)) {
            me.working.store(true, Ordering::Relaxed);
            // SAFETY: the caller of `run` waits until this piece is done.
            if catch_unwind(AssertUnwindSafe(|| unsafe {
                (*job.work)(piece, index + 1)
            }))
            .is_err()
            {
                common.panicked.store(true, Ordering::Release);
            }
            me.working.store(false, Ordering::Relaxed);
            common.done.fetch_add(1, Ordering::AcqRel);
            idle = None;
            continue;
        }
        std::hint::spin_loop();
        turns = turns.wrapping_add(1);
        if !turns.is_multiple_of(32) {
            continue;
        }
        if idle.get_or_insert_with(Instant::now).elapsed() < AWAKE {
            continue;
        }
        me.asleep.store(true, Ordering::SeqCst);
        let open = common.open.load(Ordering::SeqCst) & u32::MAX as u64 != 0;
        let allowed = common.allowed.load(Ordering::Relaxed) & (1 << index) != 0;
        let stop = common.stop.load(Ordering::SeqCst);
        if !(stop || open && allowed) {
            std::thread::park();
        }
        me.asleep.store(false, Ordering::SeqCst);
        idle = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        let mut pool = Pool::new();
        pool.grow(4).unwrap();
        assert_eq!(pool.threads(), 4);
        for round in 0..if cfg!(miri) { 5 } else { 2000 } {
            let pieces = round % 37;
            let times: Vec<AtomicU32> = (0..pieces).map(|_| AtomicU32::new(0)).collect();
            pool.run(1 + round % 5, pieces, &|piece, thread| {
                assert!(thread < 4);
                times[piece].fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            assert!(times.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn sleepers_wake() {
        let mut pool = Pool::new();
        pool.grow(2).unwrap();
        for _ in 0..3 {
            while !pool.common.helpers[0].asleep.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            // each of the two pieces waits for the other, so two threads are needed
            let met = AtomicU32::new(0);
            pool.known[0].left_out_until = None;
            pool.run(2, 2, &|_, _| {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_goes_on() {
        let mut pool = Pool::new();
        pool.grow(2).unwrap();
        for threads in [1, 2] {
            let result = pool.run(threads, 8, &|piece, _| assert!(piece != 5, "piece 5"));
            assert!(result.is_err());
            let sum = AtomicU32::new(0);
            pool.run(threads, 8, &|piece, _| {
                sum.fetch_add(piece as u32, Ordering::Relaxed);
            })
            .unwrap();
            assert_eq!(sum.load(Ordering::Relaxed), 28);
        }
    }

    #[test]
    fn a_helper_that_was_waited_for_is_left_out_for_a_while() {
        let mut pool = Pool::new();
        pool.grow(3).unwrap();
        // each piece waits until all allowed threads have joined, or all pieces are taken
        let helpers = |pool: &mut Pool, expected: u32| {
            let seen = AtomicU64::new(0);
            pool.run(3, 3, &|_, thread| {
                seen.fetch_or(1 << thread, Ordering::SeqCst);
                while seen.load(Ordering::SeqCst).count_ones() < expected {
                    std::thread::yield_now();
                }
            })
            .unwrap();
            seen.load(Ordering::SeqCst)
        };
        // on a busy machine a helper may be left out in earnest
        let admit = |pool: &mut Pool, index: usize| {
            pool.known[index].left_out_until = None;
            pool.known[index].times = BENCH_FIRST;
        };
        assert_eq!(helpers(&mut pool, 3), 0b111);
        admit(&mut pool, 0);
        pool.leave_out(0b01, Duration::from_secs(3600));
        assert_eq!(pool.known[0].times, 2 * BENCH_FIRST);
        for _ in 0..100 {
            admit(&mut pool, 1);
            assert_eq!(helpers(&mut pool, 2), 0b101);
        }
        pool.known[0].left_out_until = Some(Instant::now());
        admit(&mut pool, 1);
        assert_eq!(helpers(&mut pool, 3), 0b111);
        pool.known[0].left_out_until = None;
        for _ in 0..100 {
            pool.forgive();
        }
        assert_eq!(pool.known[0].times, BENCH_FIRST);
    }
}
