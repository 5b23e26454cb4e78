//! Transposition in registers, in parts that fit them.

use std::arch::x86_64::*;

/// Sixteen rows of sixteen words.
#[inline]
#[target_feature(enable = "avx2")]
pub fn words32(block: &mut [u32; 256]) {
    for i in 0..2 {
        for j in 0..=i {
            let (a, b) = (part32(block, i, j), part32(block, j, i));
            for row in 0..8 {
                let mut put = |i: usize, j: usize, v: __m256i| {
                    let to = &mut block[(8 * i + row) * 16 + 8 * j..][..8];
                    // SAFETY: the slice has 32 bytes.
                    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
                };
                put(j, i, a[row]);
                put(i, j, b[row]);
            }
        }
    }
}

/// Part `(i, j)` of 8 x 8 words, transposed.
#[inline]
#[target_feature(enable = "avx2")]
fn part32(block: &[u32; 256], i: usize, j: usize) -> [__m256i; 8] {
    let load = |row: usize| {
        let from = &block[(8 * i + row) * 16 + 8 * j..][..8];
        // SAFETY: the slice has 32 bytes.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    };
    let mut a = [_mm256_setzero_si256(); 8];
    let mut b = a;
    for k in 0..4 {
        let (x, y) = (load(2 * k), load(2 * k + 1));
        a[2 * k] = _mm256_unpacklo_epi32(x, y);
        a[2 * k + 1] = _mm256_unpackhi_epi32(x, y);
    }
    for k in 0..2 {
        b[4 * k] = _mm256_unpacklo_epi64(a[4 * k], a[4 * k + 2]);
        b[4 * k + 1] = _mm256_unpackhi_epi64(a[4 * k], a[4 * k + 2]);
        b[4 * k + 2] = _mm256_unpacklo_epi64(a[4 * k + 1], a[4 * k + 3]);
        b[4 * k + 3] = _mm256_unpackhi_epi64(a[4 * k + 1], a[4 * k + 3]);
    }
    for k in 0..4 {
        a[k] = _mm256_permute2x128_si256::<0x20>(b[k], b[4 + k]);
        a[4 + k] = _mm256_permute2x128_si256::<0x31>(b[k], b[4 + k]);
    }
    a
}

/// Eight rows of eight words.
#[inline]
#[target_feature(enable = "avx2")]
pub fn words64(block: &mut [u64; 64]) {
    for i in 0..2 {
        for j in 0..=i {
            let (a, b) = (part64(block, i, j), part64(block, j, i));
            for row in 0..4 {
                let mut put = |i: usize, j: usize, v: __m256i| {
                    let to = &mut block[(4 * i + row) * 8 + 4 * j..][..4];
                    // SAFETY: the slice has 32 bytes.
                    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
                };
                put(j, i, a[row]);
                put(i, j, b[row]);
            }
        }
    }
}

/// Part `(i, j)` of 4 x 4 words, transposed.
#[inline]
#[target_feature(enable = "avx2")]
fn part64(block: &[u64; 64], i: usize, j: usize) -> [__m256i; 4] {
    let load = |row: usize| {
        let from = &block[(4 * i + row) * 8 + 4 * j..][..4];
        // SAFETY: the slice has 32 bytes.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    };
    let a = [load(0), load(1), load(2), load(3)];
    let (x, y) = (_mm256_unpacklo_epi64(a[0], a[1]), _mm256_unpackhi_epi64(a[0], a[1]));
    let (z, w) = (_mm256_unpacklo_epi64(a[2], a[3]), _mm256_unpackhi_epi64(a[2], a[3]));
    [
        _mm256_permute2x128_si256::<0x20>(x, z),
        _mm256_permute2x128_si256::<0x20>(y, w),
        _mm256_permute2x128_si256::<0x31>(x, z),
        _mm256_permute2x128_si256::<0x31>(y, w),
    ]
}
