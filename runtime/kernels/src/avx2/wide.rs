//! Sums of 64-bit words in digits: the signed low one by `vpmuldq`, the high one by `vpmulld`.
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

use std::arch::x86_64::*;

use crate::vector::Wide;

/// Sums for eight channels. Only the levels of AVX2 name this type, which is the argument behind every `SAFETY` line
/// of this file.
#[derive(Clone, Copy)]
pub struct Digits {
    /// 64-bit sums of the low digit for channels 0, 2, 4 and 6.
    even: __m256i,
    /// 64-bit sums of the low digit for channels 1, 3, 5 and 7.
    odd: __m256i,
    /// 32-bit sums of the high digit.
    high: __m256i,
}

/// Products of the signed low halves of 64-bit lanes. The intrinsic is taken apart into shifts and shuffles in loops;
/// the instruction is not.
#[inline]
#[target_feature(enable = "avx2")]
fn low_products(a: __m256i, b: __m256i) -> __m256i {
    let product: __m256i;
    // SAFETY: the instruction reads two registers and writes one.
    unsafe {
        std::arch::asm!(
            "vpmuldq {0}, {1}, {2}",
            out(ymm_reg) product, in(ymm_reg) a, in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    product
}

impl Wide for Digits {
    /// The weights, and those of odd channels moved to even places.
    type Weights = [__m256i; 2];
    const LANES: usize = 8;

    #[inline(always)]
    fn zero() -> Digits {
        // SAFETY: AVX2 was detected.
        let zero = unsafe { _mm256_setzero_si256() };
        Digits { even: zero, odd: zero, high: zero }
    }

    #[inline(always)]
    fn no_weights() -> [__m256i; 2] {
        // SAFETY: AVX2 was detected.
        [unsafe { _mm256_setzero_si256() }; 2]
    }

    #[inline(always)]
    unsafe fn read_i32(from: *const i32) -> [__m256i; 2] {
        // SAFETY: AVX2 was detected; `from` has 32 bytes.
        unsafe {
            let w = _mm256_loadu_si256(from.cast());
            [w, _mm256_srli_epi64::<32>(w)]
        }
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [[__m256i; 2]; 2] {
        // SAFETY: AVX2 was detected; `from` has 32 bytes.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let first = _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(pairs));
            let second = _mm256_srai_epi32::<16>(pairs);
            [[first, _mm256_srli_epi64::<32>(first)], [second, _mm256_srli_epi64::<32>(second)]]
        }
    }

    #[inline(always)]
    fn mul_add(self, w: [__m256i; 2], lo: i32, hi: i32) -> Digits {
        // SAFETY: AVX2 was detected.
        unsafe {
            let (lo, hi) = (_mm256_set1_epi32(lo), _mm256_set1_epi32(hi));
            Digits {
                even: _mm256_add_epi64(self.even, low_products(w[0], lo)),
                odd: _mm256_add_epi64(self.odd, low_products(w[1], lo)),
                high: _mm256_add_epi32(self.high, _mm256_mullo_epi32(w[0], hi)),
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u64, add: bool) {
        // SAFETY: AVX2 was detected; `to` has 64 bytes.
        unsafe {
            let even = _mm256_add_epi64(self.even, _mm256_slli_epi64::<32>(self.high));
            let high = _mm256_slli_epi64::<32>(_mm256_srli_epi64::<32>(self.high));
            let odd = _mm256_add_epi64(self.odd, high);
            let (low, high) = (_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd));
            let to = to.cast::<__m256i>();
            let words = [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
            for i in 0..2 {
                let there = if add { _mm256_loadu_si256(to.add(i)) } else { _mm256_setzero_si256() };
                _mm256_storeu_si256(to.add(i), _mm256_add_epi64(there, words[i]));
            }
        }
    }
}
