//! Transposition in registers: pairs of rows are interleaved by ever larger pieces.
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

use std::arch::x86_64::*;

/// Sixteen rows of sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn words32(block: &mut [u32; 256]) {
    let at = block.as_mut_ptr().cast::<__m512i>();
    // SAFETY: the block has sixteen vectors.
    let load = |i: usize| unsafe { _mm512_loadu_si512(at.add(i)) };
    let mut a = [_mm512_setzero_si512(); 16];
    let mut b = a;
    for i in 0..8 {
        let (x, y) = (load(2 * i), load(2 * i + 1));
        a[2 * i] = _mm512_unpacklo_epi32(x, y);
        a[2 * i + 1] = _mm512_unpackhi_epi32(x, y);
    }
    // Row 4i + j now has, in each quarter q, column 4q + j of rows 4i .. 4i + 4.
    for i in 0..4 {
        b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    quarters(&b[..], 4, &mut a);
    for i in 0..16 {
        // SAFETY: the block has sixteen vectors.
        unsafe { _mm512_storeu_si512(at.add(i), a[i]) };
    }
}

/// `to[q * step + j]` is made of quarter `q` of rows `j`, `step + j`, `2 * step + j` and `3 * step + j`.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters(from: &[__m512i], step: usize, to: &mut [__m512i; 16]) {
    for j in 0..step {
        let rows = [from[j], from[step + j], from[2 * step + j], from[3 * step + j]];
        let low = _mm512_shuffle_i32x4::<0b01_00_01_00>(rows[0], rows[1]);
        let high = _mm512_shuffle_i32x4::<0b11_10_11_10>(rows[0], rows[1]);
        let low2 = _mm512_shuffle_i32x4::<0b01_00_01_00>(rows[2], rows[3]);
        let high2 = _mm512_shuffle_i32x4::<0b11_10_11_10>(rows[2], rows[3]);
        to[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low2);
        to[step + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low2);
        to[2 * step + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high2);
        to[3 * step + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high2);
    }
}

/// Eight rows of eight words.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn words64(block: &mut [u64; 64]) {
    let at = block.as_mut_ptr().cast::<__m512i>();
    let mut a = [_mm512_setzero_si512(); 8];
    let mut b = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        // SAFETY: the block has eight vectors.
        let (x, y) = unsafe { (_mm512_loadu_si512(at.add(2 * i)), _mm512_loadu_si512(at.add(2 * i + 1))) };
        a[2 * i] = _mm512_unpacklo_epi64(x, y);
        a[2 * i + 1] = _mm512_unpackhi_epi64(x, y);
    }
    quarters(&a, 2, &mut b);
    for i in 0..8 {
        // SAFETY: the block has eight vectors.
        unsafe { _mm512_storeu_si512(at.add(i), b[i]) };
    }
}
