//! AVX-512 F, BW, DQ and VL: vectors of 512 bits.
//!
//! Kernels for further extensions belong here too (`vpdpwssd` of VNNI on 16-bit limbs for i16 weights, `vpmadd52luq`
//! of IFMA for rings up to 2^52).

use std::arch::x86_64::*;

use crate::vector::{Level, Task, Vector};

/// Runs a task compiled for AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn enter<T: Task>(task: T) -> T::Out {
    task.run::<Avx512>()
}

/// AVX-512. Only [`enter`] names this type, so code generic in the level runs with it only where AVX-512 was detected:
/// the argument behind every `SAFETY` line of this file.
#[derive(Clone, Copy)]
pub struct Avx512;

impl Level for Avx512 {
    type V32 = V32;
    type V64 = V64;
    const ROWS: usize = 4;
}

/// Sixteen 32-bit words.
#[derive(Clone, Copy)]
pub struct V32(__m512i);

impl Vector<u32> for V32 {
    const LANES: usize = 16;
    const VECTORS: usize = 6;

    #[inline(always)]
    fn zero() -> V32 {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    fn splat(w: u32) -> V32 {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_set1_epi32(w as i32) })
    }

    #[inline(always)]
    fn load(from: &[u32]) -> V32 {
        let from = &from[..16];
        // SAFETY: AVX-512 was detected; the slice has 64 bytes.
        V32(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> V32 {
        let from = &from[..16];
        // SAFETY: AVX-512 was detected; the slice has 32 bytes.
        V32(unsafe { _mm512_cvtepi16_epi32(_mm256_loadu_si256(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> V32 {
        let from = &from[..16];
        // SAFETY: AVX-512 was detected; the slice has 64 bytes.
        V32(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [u32]) {
        let to = &mut to[..16];
        // SAFETY: AVX-512 was detected; the slice has 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, a: V32, b: V32) -> V32 {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_add_epi32(self.0, _mm512_mullo_epi32(a.0, b.0)) })
    }
}

/// Eight 64-bit words.
#[derive(Clone, Copy)]
pub struct V64(__m512i);

impl Vector<u64> for V64 {
    const LANES: usize = 8;
    const VECTORS: usize = 6;

    #[inline(always)]
    fn zero() -> V64 {
        // SAFETY: AVX-512 was detected.
        V64(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    fn splat(w: u64) -> V64 {
        // SAFETY: AVX-512 was detected.
        V64(unsafe { _mm512_set1_epi64(w as i64) })
    }

    #[inline(always)]
    fn load(from: &[u64]) -> V64 {
        let from = &from[..8];
        // SAFETY: AVX-512 was detected; the slice has 64 bytes.
        V64(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> V64 {
        let from = &from[..8];
        // SAFETY: AVX-512 was detected; the slice has 16 bytes.
        V64(unsafe { _mm512_cvtepi16_epi64(_mm_loadu_si128(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> V64 {
        let from = &from[..8];
        // SAFETY: AVX-512 was detected; the slice has 32 bytes.
        V64(unsafe { _mm512_cvtepi32_epi64(_mm256_loadu_si256(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store(self, to: &mut [u64]) {
        let to = &mut to[..8];
        // SAFETY: AVX-512 was detected; the slice has 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, a: V64, b: V64) -> V64 {
        // SAFETY: AVX-512 was detected.
        V64(unsafe { _mm512_add_epi64(self.0, _mm512_mullo_epi64(a.0, b.0)) })
    }
}
