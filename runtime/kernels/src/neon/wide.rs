//! Sums of 64-bit words in digits: the signed low one by `smlal`, the high one by `mla`.
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

use std::arch::aarch64::*;

use crate::vector::Wide;

/// Sums for four channels.
#[derive(Clone, Copy)]
pub struct Digits {
    /// 64-bit sums of the low digit for channels 0 and 1, and 2 and 3.
    low: [int64x2_t; 2],
    /// 32-bit sums of the high digit.
    high: int32x4_t,
}

impl Wide for Digits {
    type Weights = int32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    fn zero() -> Digits {
        // SAFETY: NEON is part of the target.
        unsafe { Digits { low: [vdupq_n_s64(0); 2], high: vdupq_n_s32(0) } }
    }

    #[inline(always)]
    fn no_weights() -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn read_i32(from: *const i32) -> int32x4_t {
        // SAFETY: NEON is part of the target; `from` has 16 bytes.
        unsafe { vld1q_s32(from) }
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [int32x4_t; 2] {
        // SAFETY: NEON is part of the target; `from` has 16 bytes.
        unsafe {
            let pairs = vld2_s16(from);
            [vmovl_s16(pairs.0), vmovl_s16(pairs.1)]
        }
    }

    #[inline(always)]
    fn mul_add(self, w: int32x4_t, lo: i32, hi: i32) -> Digits {
        // SAFETY: NEON is part of the target.
        unsafe {
            let lo = vdupq_n_s32(lo);
            Digits {
                low: [vmlal_s32(self.low[0], vget_low_s32(w), vget_low_s32(lo)), vmlal_high_s32(self.low[1], w, lo)],
                high: vmlaq_n_s32(self.high, w, hi),
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u64, add: bool) {
        // SAFETY: NEON is part of the target; `to` has 32 bytes.
        unsafe {
            let high = [vshll_n_s32::<0>(vget_low_s32(self.high)), vshll_n_s32::<0>(vget_high_s32(self.high))];
            for i in 0..2 {
                let sum = vaddq_s64(self.low[i], vshlq_n_s64::<32>(high[i]));
                let to = to.cast::<i64>().add(2 * i);
                let there = if add { vld1q_s64(to) } else { vdupq_n_s64(0) };
                vst1q_s64(to, vaddq_s64(there, sum));
            }
        }
    }
}
