//! No vector instructions. This is the reference that the others must match, bit for bit.

use super::{Dot, IntKernel, Kernel, LANES, Simd};

#[derive(Clone, Copy)]
pub(super) struct Scalar(());

pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Scalar(()))
}

pub(super) fn run_int<K: IntKernel>(kernel: K) -> K::Output {
    kernel.run(Scalar(()))
}

impl Simd for Scalar {
    type V = [f32; LANES];
    const ROWS: usize = 4;
    const WIDE: usize = 1;
    const QUERIES: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn first(self, count: usize, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if i < count { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn shift_23(self, a: Self::V) -> Self::V {
        std::array::from_fn(|i| f32::from_bits(a[i].to_bits() << 23))
    }
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}
}

impl Dot for Scalar {
    type I = [i32; LANES];
    type B = [[u8; 4]; LANES];
    const TILE: usize = 4;

    #[inline(always)]
    fn whole(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> Self::B {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::B>().read_unaligned() }
    }
    #[inline(always)]
    fn dot(self, a: Self::I, b: Self::B, x: i32) -> Self::I {
        let x = x.to_ne_bytes().map(|x| i32::from(x as i8));
        std::array::from_fn(|i| a[i] + (0..4).map(|k| i32::from(b[i][k]) * x[k]).sum::<i32>())
    }
    #[inline(always)]
    fn float(self, a: Self::I) -> Self::V {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    unsafe fn bfloat16(self, from: *const u16) -> Self::V {
        // SAFETY: the caller's promise.
        let numbers = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        numbers.map(|x| f32::from_bits(u32::from(x) << 16))
    }
}
