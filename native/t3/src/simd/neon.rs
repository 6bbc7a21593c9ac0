//! NEON: four registers of 4 lanes.

use std::arch::aarch64::*;

use super::{Dot, IntKernel, Kernel, LANES, Simd};

#[derive(Clone, Copy)]
pub(super) struct Neon(());

pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

pub(super) fn run_int<K: IntKernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

macro_rules! lanes {
    ($i:ident => $instructions:expr) => {
        // SAFETY: every 64-bit ARM processor that Rust's targets allow has NEON.
        unsafe {
            [
                {
                    let $i = 0;
                    $instructions
                },
                {
                    let $i = 1;
                    $instructions
                },
                {
                    let $i = 2;
                    $instructions
                },
                {
                    let $i = 3;
                    $instructions
                },
            ]
        }
    };
}

impl Simd for Neon {
    type V = [float32x4_t; 4];
    const ROWS: usize = 6;
    const WIDE: usize = 1;
    const QUERIES: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        lanes!(_i => vdupq_n_f32(x))
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        lanes!(i => vld1q_f32(from.add(4 * i)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::V) {
        lanes!(i => vst1q_f32(to.add(4 * i), v[i]));
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vaddq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vsubq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vmulq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vdivq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(i => vfmaq_f32(c[i], a[i], b[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn first(self, count: usize, a: Self::V, b: Self::V) -> Self::V {
        let mask: [u32; LANES] = std::array::from_fn(|i| if i < count { u32::MAX } else { 0 });
        lanes!(i => vbslq_f32(vld1q_u32(mask.as_ptr().add(4 * i)), a[i], b[i]))
    }
    #[inline(always)]
    fn shift_23(self, a: Self::V) -> Self::V {
        lanes!(i => vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a[i]))))
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: a hint; it neither faults nor changes anything.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) from, options(nostack, preserves_flags))
        };
    }
}

impl Dot for Neon {
    type I = [int32x4_t; 4];
    type B = [uint8x16_t; 4];
    const TILE: usize = 6;

    #[inline(always)]
    fn whole(self, x: i32) -> Self::I {
        lanes!(_i => vdupq_n_s32(x))
    }
    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> Self::B {
        lanes!(i => vld1q_u8(from.add(16 * i)))
    }
    #[inline(always)]
    fn dot(self, a: Self::I, b: Self::B, x: i32) -> Self::I {
        // 16 bits hold the product of an unsigned and a signed byte, but not the sum of two such products
        lanes!(i => {
            let x = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(x)));
            let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(b[i])));
            let high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(b[i])));
            // four products of a column each; pairs are added until one sum of each column is left
            let first = vpaddq_s32(vmull_s16(vget_low_s16(low), vget_low_s16(x)), vmull_high_s16(low, x));
            let second = vpaddq_s32(vmull_s16(vget_low_s16(high), vget_low_s16(x)), vmull_high_s16(high, x));
            vaddq_s32(a[i], vpaddq_s32(first, second))
        })
    }
    #[inline(always)]
    fn float(self, a: Self::I) -> Self::V {
        lanes!(i => vcvtq_f32_s32(a[i]))
    }
    #[inline(always)]
    unsafe fn bfloat16(self, from: *const u16) -> Self::V {
        lanes!(i => vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.add(4 * i)))))
    }
}
