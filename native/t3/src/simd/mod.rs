//! Sixteen float32 lanes, the same on every processor.
//!
//! Every computation of the engine is written once against [`Simd`]. Each instruction set implements the sixteen
//! lanes with registers of its own width. Every operation rounds each lane as IEEE 754 requires, and no sum of
//! lanes has an order that depends on the register's width. So all instruction sets give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::error::{Error, Result};

/// Lanes of a [`Simd::V`].
pub const LANES: usize = 16;

/// The operations of one instruction set.
///
/// A value of the type proves that the processor has the instructions: only [`InstructionSet::run`] creates one.
pub trait Simd: Copy {
    /// Sixteen float32 numbers.
    type V: Copy;
    /// Most rows of a tile of a matrix product.
    const ROWS: usize;
    /// The width of such a tile in vectors of 16 columns: 1 or 2.
    const WIDE: usize;
    /// Most queries of a tile of attention.
    const QUERIES: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Reads 16 numbers.
    ///
    /// # Safety
    /// `from` is valid for reads of 16 numbers.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// Writes 16 numbers.
    ///
    /// # Safety
    /// `to` is valid for writes of 16 numbers.
    unsafe fn store(self, to: *mut f32, v: Self::V);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where `a > b`, else `b`: also where one of them is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `a < b`, else `b`: also where one of them is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The first `count` lanes of `a`, the others of `b`.
    fn first(self, count: usize, a: Self::V, b: Self::V) -> Self::V;
    /// The bits of each lane, shifted left by 23, as a float32 number.
    fn shift_23(self, a: Self::V) -> Self::V;

    /// Asks for the memory at `from`, which need not be valid, to be brought near.
    fn prefetch(self, from: *const f32);

    /// The lanes as an array.
    #[inline(always)]
    fn array(self, v: Self::V) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has 16 numbers.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        lanes
    }

    /// The sum of the lanes: lane `i` with lane `i + 8`, then `i + 4`, `i + 2` and `i + 1`.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        fold(self.array(v), |a, b| a + b)
    }

    /// The greatest lane, in the same order.
    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        fold(self.array(v), |a, b| if a > b { a } else { b })
    }
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Whole numbers as well: what products of bytes need.
pub trait Dot: Simd {
    /// Sixteen 32-bit whole numbers.
    type I: Copy;
    /// Sixteen times four bytes.
    type B: Copy;
    /// Most rows of a tile of a product of bytes, 8 at most.
    const TILE: usize;

    /// All lanes `x`.
    fn whole(self, x: i32) -> Self::I;
    /// Reads 64 bytes.
    ///
    /// # Safety
    /// `from` is valid for reads of 64 bytes.
    unsafe fn bytes(self, from: *const u8) -> Self::B;
    /// To each lane of `a` adds the products of its four bytes in `b`, taken without a sign and from 1 to 255, with the
    /// four of `x`, taken with a sign and from -127 to 127.
    fn dot(self, a: Self::I, b: Self::B, x: i32) -> Self::I;
    /// As float32, which is exact below 2^24.
    fn float(self, a: Self::I) -> Self::V;
    /// Reads 16 bfloat16 numbers.
    ///
    /// # Safety
    /// `from` is valid for unaligned reads of 16 numbers.
    unsafe fn bfloat16(self, from: *const u16) -> Self::V;
}

/// A [`Kernel`] with products of bytes.
pub trait IntKernel {
    /// What comes out.
    type Output;
    /// Does the work; see [`Kernel::run`].
    fn run<S: Dot>(self, simd: S) -> Self::Output;
}

/// A piece of work that is written for any instruction set.
pub trait Kernel {
    /// What comes out.
    type Output;
    /// Does the work. Mark it `#[inline(always)]`: only then is it compiled with the instructions.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The instruction sets that the engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// No vector instructions. Runs everywhere, slowly.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F.
    Avx512,
    /// 64-bit ARM.
    Neon,
}

impl InstructionSet {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar];

    /// Those this processor has, the fastest first. `Scalar` is always among them.
    pub fn available() -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|set| set.is_available())
            .collect()
    }

    /// The fastest this processor has.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .find(|set| set.is_available())
            .unwrap_or(Self::Scalar)
    }

    /// The one with this name, if the processor has it; an empty name asks for the best.
    pub fn named(name: &str) -> Result<Self> {
        if name.is_empty() {
            return Ok(Self::best());
        }
        let available = Self::available();
        match available.iter().find(|set| set.name() == name) {
            Some(set) => Ok(*set),
            None => {
                let names: Vec<_> = available.iter().map(|set| set.name()).collect();
                Err(Error::invalid(format!(
                    "this processor has no instruction set {name:?}; it has {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// Its name: `avx512`, `avx2`, `neon` or `scalar`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Runs a kernel with these instructions. A set that the processor lacks falls back to `Scalar`.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the condition checks what the function needs (the answer is cached).
            Self::Avx512 if self.is_available() => unsafe { avx512::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 if self.is_available() => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::run(kernel),
            _ => scalar::run(kernel),
        }
    }

    /// As [`run`](Self::run), for products of bytes. AVX-512 without its instructions for them leaves the work to AVX2:
    /// the results are the same.
    #[inline]
    pub fn run_int<K: IntKernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the condition checks what the function needs.
            Self::Avx512 if avx512::has_dot() => unsafe { avx512::run_int(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 | Self::Avx2 if Self::Avx2.is_available() => unsafe {
                avx2::run_int(kernel)
            },
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::run_int(kernel),
            _ => scalar::run_int(kernel),
        }
    }
}
