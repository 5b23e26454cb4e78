//! AVX2: vectors of 256 bits.
//!
//! There is no 64-bit product: `u64` lanes take three 32-bit ones, and sums over channels take limbs.

mod packing;
mod transpose;
pub mod vnni;
mod wide;

use std::arch::x86_64::*;

use crate::avx2::wide::Digits;
use crate::dense::{Limbs16, Limbs32};
use crate::vector::{Dot, Level, Task, Vector};

/// Runs a task compiled for AVX2.
#[target_feature(enable = "avx2")]
pub fn enter<T: Task>(task: T) -> T::Out {
    task.run::<Avx2>()
}

/// The same in a function of its own.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn call<T: Task>(task: T) -> T::Out {
    task.run::<Avx2>()
}

/// AVX2. Only [`enter`] and `call` name this type, so code generic in the level runs with it only where AVX2 was
/// detected: the argument behind every `SAFETY` line of this file.
#[derive(Clone, Copy)]
pub struct Avx2;

impl Level for Avx2 {
    type V32 = V32<false>;
    type V64 = V64;
    type Wide = Digits;
    const ROWS: usize = 2;
    const REGISTERS: usize = 16;
    type Sum32 = Limbs16;
    type Sum52 = Limbs32<false>;
    type Sum52Wide = Limbs32<true>;
    type Sum64 = Limbs32<false>;
    type Sum64Wide = Limbs32<true>;

    #[inline(always)]
    fn call<T: Task>(task: T) -> T::Out {
        // SAFETY: AVX2 was detected.
        unsafe { call(task) }
    }

    #[inline(always)]
    unsafe fn unpack8<const K: usize>(from: *const u8, half: bool, to: *mut u64) {
        // SAFETY: AVX2 was detected; the rest as the contract says.
        unsafe { packing::unpack8::<K>(from, half, to) }
    }

    #[inline(always)]
    unsafe fn pack8<const K: usize>(from: *const u64, minus: Option<*const u8>, to: *mut u8) {
        // SAFETY: AVX2 was detected; the rest as the contract says.
        unsafe { packing::pack8::<K>(from, minus, to) }
    }

    #[inline(always)]
    fn transpose32(block: &mut [u32; 256]) {
        // SAFETY: AVX2 was detected.
        unsafe { transpose::words32(block) }
    }

    #[inline(always)]
    fn transpose64(block: &mut [u64; 64]) {
        // SAFETY: AVX2 was detected.
        unsafe { transpose::words64(block) }
    }
}

/// Eight 32-bit words. With `VNNI` AVX-VNNI was detected as well.
#[derive(Clone, Copy)]
pub struct V32<const VNNI: bool>(__m256i);

impl<const VNNI: bool> Dot for V32<VNNI> {
    #[inline(always)]
    fn dot(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 was detected, and AVX-VNNI where it is used.
        V32(unsafe {
            if VNNI {
                _mm256_dpwssd_avx_epi32(self.0, a.0, b.0)
            } else {
                _mm256_add_epi32(self.0, _mm256_madd_epi16(a.0, b.0))
            }
        })
    }

    #[inline(always)]
    fn shift16(self) -> Self {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_slli_epi32::<16>(self.0) })
    }
}

impl<const VNNI: bool> Vector<u32> for V32<VNNI> {
    const LANES: usize = 8;
    const VECTORS: usize = 3;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    fn splat(w: u32) -> Self {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_set1_epi32(w as i32) })
    }

    #[inline(always)]
    fn load(from: &[u32]) -> Self {
        let from = &from[..8];
        // SAFETY: AVX2 was detected; the slice has 32 bytes.
        V32(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> Self {
        let from = &from[..8];
        // SAFETY: AVX2 was detected; the slice has 16 bytes.
        V32(unsafe { _mm256_cvtepi16_epi32(_mm_loadu_si128(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> Self {
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
    fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_add_epi32(self.0, _mm256_mullo_epi32(a.0, b.0)) })
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected.
        V32(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [Self; 2] {
        // SAFETY: AVX2 was detected; `from` has 32 bytes.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let first = _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(pairs));
            [V32(first), V32(_mm256_srai_epi32::<16>(pairs))]
        }
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

    #[inline(always)]
    fn plus(self, other: V64) -> V64 {
        // SAFETY: AVX2 was detected.
        V64(unsafe { _mm256_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [V64; 2] {
        // SAFETY: AVX2 was detected; `from` has 16 bytes.
        unsafe {
            let pairs = _mm_loadu_si128(from.cast());
            let first = _mm_srai_epi32::<16>(_mm_slli_epi32::<16>(pairs));
            [V64(_mm256_cvtepi32_epi64(first)), V64(_mm256_cvtepi32_epi64(_mm_srai_epi32::<16>(pairs)))]
        }
    }
}
