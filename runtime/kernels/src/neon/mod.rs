//! AArch64 NEON, which every AArch64 processor has, so nothing here needs detection.
//!
//! There is no 64-bit product: `u64` lanes are left to the compiler, and sums over channels take limbs.

mod wide;

use std::arch::aarch64::*;

use crate::dense::{Limbs32, Whole};
use crate::neon::wide::Digits;
use crate::portable::Lanes;
use crate::vector::{Dot, Level, Task, Vector};

/// NEON.
#[derive(Clone, Copy)]
pub struct Neon;

/// Runs a task in a function of its own.
#[inline(never)]
fn call<T: Task>(task: T) -> T::Out {
    task.run::<Neon>()
}

impl Level for Neon {
    type V32 = V32;
    type V64 = Lanes<u64, 2>;
    type Wide = Digits;
    const ROWS: usize = 4;
    const REGISTERS: usize = 32;
    type Sum32 = Whole<u32, false, false>;
    type Sum52 = Limbs32<false>;
    type Sum52Wide = Limbs32<true>;
    type Sum64 = Limbs32<false>;
    type Sum64Wide = Limbs32<true>;

    #[inline(always)]
    fn call<T: Task>(task: T) -> T::Out {
        call(task)
    }
}

/// There is no such instruction, so nothing uses this.
impl Dot for V32 {
    #[inline(always)]
    fn dot(self, a: V32, b: V32) -> V32 {
        let halves = |v: V32| {
            // SAFETY: NEON is part of the target.
            unsafe {
                let v = vreinterpretq_s32_u32(v.0);
                let first = vshrq_n_s32::<16>(vshlq_n_s32::<16>(v));
                [V32(vreinterpretq_u32_s32(first)), V32(vreinterpretq_u32_s32(vshrq_n_s32::<16>(v)))]
            }
        };
        let (a, b) = (halves(a), halves(b));
        self.mul_add(a[0], b[0]).mul_add(a[1], b[1])
    }

    #[inline(always)]
    fn shift16(self) -> V32 {
        // SAFETY: NEON is part of the target.
        V32(unsafe { vshlq_n_u32::<16>(self.0) })
    }
}

/// Four 32-bit words.
#[derive(Clone, Copy)]
pub struct V32(uint32x4_t);

impl Vector<u32> for V32 {
    const LANES: usize = 4;
    const VECTORS: usize = 5;

    #[inline(always)]
    fn zero() -> V32 {
        V32::splat(0)
    }

    #[inline(always)]
    fn splat(w: u32) -> V32 {
        // SAFETY: NEON is part of the target.
        V32(unsafe { vdupq_n_u32(w) })
    }

    #[inline(always)]
    fn load(from: &[u32]) -> V32 {
        let from = &from[..4];
        // SAFETY: NEON is part of the target; the slice has 16 bytes.
        V32(unsafe { vld1q_u32(from.as_ptr()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> V32 {
        let from = &from[..4];
        // SAFETY: NEON is part of the target; the slice has 8 bytes.
        V32(unsafe { vreinterpretq_u32_s32(vmovl_s16(vld1_s16(from.as_ptr()))) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> V32 {
        let from = &from[..4];
        // SAFETY: NEON is part of the target; the slice has 16 bytes.
        V32(unsafe { vreinterpretq_u32_s32(vld1q_s32(from.as_ptr())) })
    }

    #[inline(always)]
    fn store(self, to: &mut [u32]) {
        let to = &mut to[..4];
        // SAFETY: NEON is part of the target; the slice has 16 bytes.
        unsafe { vst1q_u32(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, a: V32, b: V32) -> V32 {
        // SAFETY: NEON is part of the target.
        V32(unsafe { vmlaq_u32(self.0, a.0, b.0) })
    }

    #[inline(always)]
    fn plus(self, other: V32) -> V32 {
        // SAFETY: NEON is part of the target.
        V32(unsafe { vaddq_u32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [V32; 2] {
        // SAFETY: NEON is part of the target; `from` has 16 bytes.
        unsafe {
            let pairs = vld2_s16(from);
            [pairs.0, pairs.1].map(|w| V32(vreinterpretq_u32_s32(vmovl_s16(w))))
        }
    }
}
