//! AArch64 NEON, which every AArch64 processor has, so nothing here needs detection.
//!
//! There is no 64-bit product: `u64` lanes are left to the compiler. Kernels that split words into limbs belong here
//! (`sdot`, `smmla`, `smlal` on halves).

use std::arch::aarch64::*;

use crate::portable::Lanes;
use crate::vector::{Level, Vector};

/// NEON.
#[derive(Clone, Copy)]
pub struct Neon;

impl Level for Neon {
    type V32 = V32;
    type V64 = Lanes<u64, 2>;
    const ROWS: usize = 4;
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
}
