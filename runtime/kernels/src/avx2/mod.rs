//! AVX2: vectors of 256 bits.
//!
//! There is no 64-bit product, so `u64` lanes take three 32-bit ones. Kernels that split words into limbs themselves
//! belong here too (`vpmaddwd` for i16 weights, `vpmuldq` for rings above 2^32).

use std::arch::x86_64::*;

use crate::vector::{Level, Task, Vector};

/// Runs a task compiled for AVX2.
#[target_feature(enable = "avx2")]
pub fn enter<T: Task>(task: T) -> T::Out {
    task.run::<Avx2>()
}

/// AVX2. Only [`enter`] names this type, so code generic in the level runs with it only where AVX2 was detected: the
/// argument behind every `SAFETY` line of this file.
#[derive(Clone, Copy)]
pub struct Avx2;

impl Level for Avx2 {
    type V32 = V32;
    type V64 = V64;
    const ROWS: usize = 2;
}

/// Eight 32-bit words.
#[derive(Clone, Copy)]
pub struct V32(__m256i);

impl Vector<u32> for V32 {
    const LANES: usize = 8;
    const VECTORS: usize = 3;

    #[inline(always)]
    fn zero() -> V32 {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    fn splat(w: u32) -> V32 {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_set1_epi32(w as i32) })
    }

    #[inline(always)]
    fn load(from: &[u32]) -> V32 {
        let from = &from[..8];
        // SAFETY: AVX2 was detected; the slice has 32 bytes.
        V32(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> V32 {
        let from = &from[..8];
        // SAFETY: AVX2 was detected; the slice has 16 bytes.
        V32(unsafe { _mm256_cvtepi16_epi32(_mm_loadu_si128(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> V32 {
        let from = &from[..8];
        // SAFETY: AVX2 was detected; the slice has 32 bytes.
        V32(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [u32]) {
        let to = &mut to[..8];
        // SAFETY: AVX2 was detected; the slice has 32 bytes.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, a: V32, b: V32) -> V32 {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_add_epi32(self.0, _mm256_mullo_epi32(a.0, b.0)) })
    }
}

/// Four 64-bit words.
#[derive(Clone, Copy)]
pub struct V64(__m256i);

impl Vector<u64> for V64 {
    const LANES: usize = 4;
    const VECTORS: usize = 2;

    #[inline(always)]
    fn zero() -> V64 {
        // SAFETY: AVX2 was detected.
        V64(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    fn splat(w: u64) -> V64 {
        // SAFETY: AVX2 was detected.
        V64(unsafe { _mm256_set1_epi64x(w as i64) })
    }

    #[inline(always)]
    fn load(from: &[u64]) -> V64 {
        let from = &from[..4];
        // SAFETY: AVX2 was detected; the slice has 32 bytes.
        V64(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> V64 {
        let from = &from[..4];
        // SAFETY: AVX2 was detected; the slice has 8 bytes.
        V64(unsafe { _mm256_cvtepi16_epi64(_mm_loadl_epi64(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> V64 {
        let from = &from[..4];
        // SAFETY: AVX2 was detected; the slice has 16 bytes.
        V64(unsafe { _mm256_cvtepi32_epi64(_mm_loadu_si128(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store(self, to: &mut [u64]) {
        let to = &mut to[..4];
        // SAFETY: AVX2 was detected; the slice has 32 bytes.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self.0) }
    }

    /// `a * b = low(a) low(b) + 2^32 (high(a) low(b) + low(a) high(b))` modulo 2^64.
    #[inline(always)]
    fn mul_add(self, a: V64, b: V64) -> V64 {
        // SAFETY: AVX2 was detected.
        V64(unsafe {
            let crossed = _mm256_mullo_epi32(a.0, _mm256_shuffle_epi32::<0b10_11_00_01>(b.0));
            let high = _mm256_slli_epi64::<32>(_mm256_add_epi32(crossed, _mm256_srli_epi64::<32>(crossed)));
            _mm256_add_epi64(self.0, _mm256_add_epi64(_mm256_mul_epu32(a.0, b.0), high))
        })
    }
}
