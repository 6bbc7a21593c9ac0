//! AVX2 with FMA: two registers of 8 lanes.

use std::arch::x86_64::*;

use super::{Dot, IntKernel, Kernel, Simd};

#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
/// The processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// # Safety
/// As `run`.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_int<K: IntKernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

macro_rules! lanes {
    ($instructions:expr) => {
        // SAFETY: a value of `Avx2` exists only if the processor has the instructions.
        unsafe { $instructions }
    };
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    const ROWS: usize = 6;
    const WIDE: usize = 1;
    const QUERIES: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        lanes!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, v[0]);
            _mm256_storeu_ps(to.add(8), v[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!([
            _mm256_fmadd_ps(a[0], b[0], c[0]),
            _mm256_fmadd_ps(a[1], b[1], c[1])
        ])
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn first(self, count: usize, a: Self::V, b: Self::V) -> Self::V {
        let count = count.min(16) as i32;
        lanes!({
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
            let count = _mm256_set1_epi32(count);
            let low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, low));
            let high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, high));
            [
                _mm256_blendv_ps(b[0], a[0], low),
                _mm256_blendv_ps(b[1], a[1], high),
            ]
        })
    }
    #[inline(always)]
    fn shift_23(self, a: Self::V) -> Self::V {
        lanes!([
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a[0]))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a[1]))),
        ])
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        lanes!(_mm_prefetch::<_MM_HINT_T0>(from.cast()));
    }
}

impl Dot for Avx2 {
    type I = [__m256i; 2];
    /// The first and third, and the second and fourth, of each group of four bytes, in 16 bits.
    type B = [[__m256i; 2]; 2];
    const TILE: usize = 6;

    #[inline(always)]
    fn whole(self, x: i32) -> Self::I {
        lanes!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> Self::B {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm256_set1_epi16(0xff);
            let bytes = [
                _mm256_loadu_si256(from.cast()),
                _mm256_loadu_si256(from.add(32).cast()),
            ];
            [
                [
                    _mm256_and_si256(bytes[0], low),
                    _mm256_and_si256(bytes[1], low),
                ],
                [
                    _mm256_srli_epi16::<8>(bytes[0]),
                    _mm256_srli_epi16::<8>(bytes[1]),
                ],
            ]
        }
    }
    #[inline(always)]
    fn dot(self, a: Self::I, b: Self::B, x: i32) -> Self::I {
        // the instruction for products of bytes would saturate sums at 16 bits; the one for 16 bits does not
        lanes!({
            let x = _mm256_set1_epi32(x);
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
            let odd = _mm256_srai_epi16::<8>(x);
            let first = _mm256_add_epi32(
                _mm256_madd_epi16(b[0][0], even),
                _mm256_madd_epi16(b[1][0], odd),
            );
            let second = _mm256_add_epi32(
                _mm256_madd_epi16(b[0][1], even),
                _mm256_madd_epi16(b[1][1], odd),
            );
            [
                _mm256_add_epi32(a[0], first),
                _mm256_add_epi32(a[1], second),
            ]
        })
    }
    #[inline(always)]
    fn float(self, a: Self::I) -> Self::V {
        lanes!([_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
    }
    #[inline(always)]
    unsafe fn bfloat16(self, from: *const u16) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe {
            let halves = [
                _mm_loadu_si128(from.cast()),
                _mm_loadu_si128(from.add(8).cast()),
            ];
            let shifted =
                |half| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)));
            [shifted(halves[0]), shifted(halves[1])]
        }
    }
}
