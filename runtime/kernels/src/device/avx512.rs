//! The device's loops that compilers do not vectorise, with AVX-512.

use std::arch::x86_64::*;

use super::check::{LIMB, LOW_BITS, LimbSums};

/// Sums of limbs in eight lanes. Only chosen for [`crate::Isa::Avx512`], which was detected.
pub(super) enum Avx512Sums {}

impl LimbSums for Avx512Sums {
    #[inline(always)]
    fn narrow(v: &[u64], x: &[i32]) -> [i64; 3] {
        // SAFETY: AVX-512 F, BW, DQ and VL were detected.
        unsafe { narrow(v, x) }
    }

    #[inline(always)]
    fn wide(v: &[u64], x: &[i64]) -> [[i64; 3]; 2] {
        // SAFETY: AVX-512 F, BW, DQ and VL were detected.
        unsafe { wide(v, x) }
    }
}

/// The lanes that hold elements where `left` of them remain.
fn mask(left: usize) -> __mmask8 {
    if left >= 8 { 0xff } else { (1 << left) - 1 }
}

/// `sums + x * v`, limb by limb; of `x` the low 32 bits of each lane count, signed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn plus([s0, s1, s2]: [__m512i; 3], x: __m512i, v: [__m512i; 3]) -> [__m512i; 3] {
    [
        _mm512_add_epi64(s0, _mm512_mul_epi32(x, v[0])),
        _mm512_add_epi64(s1, _mm512_mul_epi32(x, v[1])),
        _mm512_add_epi64(s2, _mm512_mul_epi32(x, v[2])),
    ]
}

/// The limbs of residues.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn limbs(v: __m512i) -> [__m512i; 3] {
    let low = _mm512_set1_epi64(LIMB as i64);
    [_mm512_and_si512(v, low), _mm512_and_si512(_mm512_srli_epi64::<21>(v), low), _mm512_srli_epi64::<42>(v)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn narrow(v: &[u64], x: &[i32]) -> [i64; 3] {
    let n = v.len().min(x.len());
    let mut sums = [_mm512_setzero_si512(); 3];
    for at in (0..n).step_by(8) {
        let lanes = mask(n - at);
        // SAFETY: the mask leaves out what is not in the slices.
        let (v, x) = unsafe {
            let v = _mm512_maskz_loadu_epi64(lanes, v.as_ptr().add(at).cast());
            (v, _mm256_maskz_loadu_epi32(lanes, x.as_ptr().add(at)))
        };
        sums = plus(sums, _mm512_cvtepi32_epi64(x), limbs(v));
    }
    [_mm512_reduce_add_epi64(sums[0]), _mm512_reduce_add_epi64(sums[1]), _mm512_reduce_add_epi64(sums[2])]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn wide(v: &[u64], x: &[i64]) -> [[i64; 3]; 2] {
    let n = v.len().min(x.len());
    let (mut low, mut high) = ([_mm512_setzero_si512(); 3], [_mm512_setzero_si512(); 3]);
    let keep = _mm512_set1_epi64((1 << LOW_BITS) - 1);
    for at in (0..n).step_by(8) {
        let lanes = mask(n - at);
        // SAFETY: the mask leaves out what is not in the slices.
        let (v, x) = unsafe {
            let v = _mm512_maskz_loadu_epi64(lanes, v.as_ptr().add(at).cast());
            (v, _mm512_maskz_loadu_epi64(lanes, x.as_ptr().add(at)))
        };
        let v = limbs(v);
        low = plus(low, _mm512_and_si512(x, keep), v);
        high = plus(high, _mm512_srli_epi64::<LOW_BITS>(x), v);
    }
    [low, high].map(|s| [_mm512_reduce_add_epi64(s[0]), _mm512_reduce_add_epi64(s[1]), _mm512_reduce_add_epi64(s[2])])
}
