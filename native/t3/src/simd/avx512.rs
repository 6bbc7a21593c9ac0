//! AVX-512: one register of 16 lanes.

use std::arch::x86_64::*;

use super::{Dot, IntKernel, Kernel, LANES, Simd};

/// With or without the instructions for products of bytes.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const DOT: bool>(());

/// # Safety
/// The processor has AVX-512 F.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

/// Whether the processor has what `run_int` needs.
pub(super) fn has_dot() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// # Safety
/// `has_dot` returned true.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
pub(super) unsafe fn run_int<K: IntKernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

macro_rules! lanes {
    ($instructions:expr) => {
        // SAFETY: a value of `Avx512` exists only if the processor has the instructions.
        unsafe { $instructions }
    };
}

impl<const DOT: bool> Simd for Avx512<DOT> {
    type V = __m512;
    const ROWS: usize = 12;
    const WIDE: usize = 2;
    const QUERIES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        lanes!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize, a: Self::V, b: Self::V) -> Self::V {
        let mask = if count >= LANES {
            u16::MAX
        } else {
            (1 << count) - 1
        };
        lanes!(_mm512_mask_blend_ps(mask, b, a))
    }
    #[inline(always)]
    fn shift_23(self, a: Self::V) -> Self::V {
        lanes!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(
            _mm512_castps_si512(a)
        )))
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        lanes!(_mm_prefetch::<_MM_HINT_T0>(from.cast()));
    }
}

impl Dot for Avx512<true> {
    type I = __m512i;
    type B = __m512i;
    const TILE: usize = 8;

    #[inline(always)]
    fn whole(self, x: i32) -> Self::I {
        lanes!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> Self::B {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    fn dot(self, a: Self::I, b: Self::B, x: i32) -> Self::I {
        lanes!(_mm512_dpbusd_epi32(a, b, _mm512_set1_epi32(x)))
    }
    #[inline(always)]
    fn float(self, a: Self::I) -> Self::V {
        lanes!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    unsafe fn bfloat16(self, from: *const u16) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe {
            let numbers = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(numbers))
        }
    }
}
