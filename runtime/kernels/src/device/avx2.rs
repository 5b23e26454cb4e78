//! The device's loops that compilers do not vectorise, with AVX2.

use std::arch::x86_64::*;

use super::check::{LIMB, LOW_BITS, LimbSums};

/// Sums of limbs in four lanes. Only chosen for [`crate::Isa::Avx2`], which was detected.
pub(super) enum Avx2Sums {}

impl LimbSums for Avx2Sums {
    #[inline(always)]
    fn narrow(v: &[u64], x: &[i32]) -> [i64; 3] {
        // SAFETY: AVX2 was detected.
        unsafe { narrow(v, x) }
    }

    #[inline(always)]
    fn wide(v: &[u64], x: &[i64]) -> [[i64; 3]; 2] {
        // SAFETY: AVX2 was detected.
        unsafe { wide(v, x) }
    }
}

/// `sums + x * v`, limb by limb; of `x` the low 32 bits of each lane count, signed.
#[inline]
#[target_feature(enable = "avx2")]
fn plus([s0, s1, s2]: [__m256i; 3], x: __m256i, v: [__m256i; 3]) -> [__m256i; 3] {
    [
        _mm256_add_epi64(s0, _mm256_mul_epi32(x, v[0])),
        _mm256_add_epi64(s1, _mm256_mul_epi32(x, v[1])),
        _mm256_add_epi64(s2, _mm256_mul_epi32(x, v[2])),
    ]
}

/// The limbs of residues.
#[inline]
#[target_feature(enable = "avx2")]
fn limbs(v: &[u64; 4]) -> [__m256i; 3] {
    // SAFETY: the array has 32 bytes.
    let v = unsafe { _mm256_loadu_si256(v.as_ptr().cast()) };
    let low = _mm256_set1_epi64x(LIMB as i64);
    [_mm256_and_si256(v, low), _mm256_and_si256(_mm256_srli_epi64::<21>(v), low), _mm256_srli_epi64::<42>(v)]
}

/// The sum of all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn total(v: __m256i) -> i64 {
    let halves = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    _mm_extract_epi64::<0>(halves).wrapping_add(_mm_extract_epi64::<1>(halves))
}

/// Up to four elements, and zeros behind them.
#[inline(always)]
fn filled<T: Copy + Default>(rest: &[T]) -> [T; 4] {
    std::array::from_fn(|i| rest.get(i).copied().unwrap_or_default())
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow(v: &[u64], x: &[i32]) -> [i64; 3] {
    let ((v, v_rest), (x, x_rest)) = (v.as_chunks::<4>(), x.as_chunks::<4>());
    let mut sums = [_mm256_setzero_si256(); 3];
    let step = |sums: [__m256i; 3], v: &[u64; 4], x: &[i32; 4]| {
        // SAFETY: the array has 16 bytes.
        let x = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
        plus(sums, _mm256_cvtepi32_epi64(x), limbs(v))
    };
    for (v, x) in v.iter().zip(x) {
        sums = step(sums, v, x);
    }
    if !x_rest.is_empty() {
        sums = step(sums, &filled(v_rest), &filled(x_rest));
    }
    [total(sums[0]), total(sums[1]), total(sums[2])]
}

#[inline]
#[target_feature(enable = "avx2")]
fn wide(v: &[u64], x: &[i64]) -> [[i64; 3]; 2] {
    let ((v, v_rest), (x, x_rest)) = (v.as_chunks::<4>(), x.as_chunks::<4>());
    let zero = [_mm256_setzero_si256(); 3];
    let keep = _mm256_set1_epi64x((1 << LOW_BITS) - 1);
    let step = |[low, high]: [[__m256i; 3]; 2], v: &[u64; 4], x: &[i64; 4]| {
        // SAFETY: the array has 32 bytes.
        let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
        let v = limbs(v);
        // The upper limb's low 32 bits are all that counts, so that a shift without the sign will do.
        [plus(low, _mm256_and_si256(x, keep), v), plus(high, _mm256_srli_epi64::<{ LOW_BITS as i32 }>(x), v)]
    };
    let mut sums = [zero; 2];
    for (v, x) in v.iter().zip(x) {
        sums = step(sums, v, x);
    }
    if !x_rest.is_empty() {
        sums = step(sums, &filled(v_rest), &filled(x_rest));
    }
    sums.map(|s| [total(s[0]), total(s[1]), total(s[2])])
}
