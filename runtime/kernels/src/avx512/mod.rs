//! AVX-512 F, BW, DQ and VL: vectors of 512 bits.

mod packing;
mod transpose;
pub mod vnni;

use std::arch::x86_64::*;

use crate::dense::{Limbs16, Whole};
use crate::vector::{Dot, Level, NoWide, Task, Vector};

/// Runs a task compiled for AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn enter<T: Task>(task: T) -> T::Out {
    task.run::<Avx512>()
}

/// The same in a function of its own.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn call<T: Task>(task: T) -> T::Out {
    task.run::<Avx512>()
}

/// AVX-512. Only [`enter`] and `call` name this type, so code generic in the level runs with it only where AVX-512 was
/// detected: the argument behind every `SAFETY` line of this file.
#[derive(Clone, Copy)]
pub struct Avx512;

impl Level for Avx512 {
    type V32 = V32<false>;
    type V64 = V64<false>;
    type Wide = NoWide;
    const ROWS: usize = 4;
    const REGISTERS: usize = 32;
    type Sum32 = Limbs16;
    type Sum52 = Whole<u64, false, false>;
    type Sum52Wide = Whole<u64, true, false>;
    type Sum64 = Whole<u64, false, false>;
    type Sum64Wide = Whole<u64, true, false>;

    #[inline(always)]
    fn call<T: Task>(task: T) -> T::Out {
        // SAFETY: AVX-512 was detected.
        unsafe { call(task) }
    }

    #[inline(always)]
    unsafe fn unpack8<const K: usize>(from: *const u8, half: bool, to: *mut u64) {
        // SAFETY: AVX-512 was detected; the rest as the contract says.
        unsafe { packing::unpack8::<K>(from, half, to) }
    }

    #[inline(always)]
    unsafe fn pack8<const K: usize>(from: *const u64, minus: Option<*const u8>, to: *mut u8) {
        // SAFETY: AVX-512 was detected; the rest as the contract says.
        unsafe { packing::pack8::<K>(from, minus, to) }
    }

    #[inline(always)]
    fn transpose32(block: &mut [u32; 256]) {
        // SAFETY: AVX-512 was detected.
        unsafe { transpose::words32(block) }
    }

    #[inline(always)]
    fn transpose64(block: &mut [u64; 64]) {
        // SAFETY: AVX-512 was detected.
        unsafe { transpose::words64(block) }
    }
}

/// Sixteen 32-bit words. With `VNNI` that extension was detected as well.
#[derive(Clone, Copy)]
pub struct V32<const VNNI: bool>(__m512i);

impl<const VNNI: bool> Dot for V32<VNNI> {
    #[inline(always)]
    fn dot(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 was detected, and VNNI where it is used.
        V32(unsafe {
            if VNNI {
                _mm512_dpwssd_epi32(self.0, a.0, b.0)
            } else {
                _mm512_add_epi32(self.0, _mm512_madd_epi16(a.0, b.0))
            }
        })
    }

    #[inline(always)]
    fn shift16(self) -> Self {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_slli_epi32::<16>(self.0) })
    }
}

impl<const VNNI: bool> Vector<u32> for V32<VNNI> {
    const LANES: usize = 16;
    const VECTORS: usize = 6;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    fn splat(w: u32) -> Self {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_set1_epi32(w as i32) })
    }

    #[inline(always)]
    fn load(from: &[u32]) -> Self {
        let from = &from[..16];
        // SAFETY: AVX-512 was detected; the slice has 64 bytes.
        V32(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> Self {
        let from = &from[..16];
        // SAFETY: AVX-512 was detected; the slice has 32 bytes.
        V32(unsafe { _mm512_cvtepi16_epi32(_mm256_loadu_si256(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> Self {
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
    fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_add_epi32(self.0, _mm512_mullo_epi32(a.0, b.0)) })
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected.
        V32(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [Self; 2] {
        // SAFETY: AVX-512 was detected; `from` has 64 bytes.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let first = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
            [V32(first), V32(_mm512_srai_epi32::<16>(pairs))]
        }
    }
}

/// Eight 64-bit words. With `IFMA` that extension was detected as well.
#[derive(Clone, Copy)]
pub struct V64<const IFMA: bool>(__m512i);

impl<const IFMA: bool> Vector<u64> for V64<IFMA> {
    const LANES: usize = 8;
    const VECTORS: usize = 6;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: AVX-512 was detected.
        V64(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    fn splat(w: u64) -> Self {
        // SAFETY: AVX-512 was detected.
        V64(unsafe { _mm512_set1_epi64(w as i64) })
    }

    #[inline(always)]
    fn load(from: &[u64]) -> Self {
        let from = &from[..8];
        // SAFETY: AVX-512 was detected; the slice has 64 bytes.
        V64(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> Self {
        let from = &from[..8];
        // SAFETY: AVX-512 was detected; the slice has 16 bytes.
        V64(unsafe { _mm512_cvtepi16_epi64(_mm_loadu_si128(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> Self {
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
    fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 was detected.
        V64(unsafe { _mm512_add_epi64(self.0, _mm512_mullo_epi64(a.0, b.0)) })
    }

    /// With IFMA the product of the low 52 bits; sums wrap modulo 2^64, of which 2^52 is a divisor.
    #[inline(always)]
    fn mul_add_52(self, a: Self, b: Self) -> Self {
        if IFMA {
            // SAFETY: IFMA was detected.
            V64(unsafe { _mm512_madd52lo_epu64(self.0, a.0, b.0) })
        } else {
            self.mul_add(a, b)
        }
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected.
        V64(unsafe { _mm512_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [Self; 2] {
        // SAFETY: AVX-512 was detected; `from` has 32 bytes.
        unsafe {
            let pairs = _mm512_cvtepi32_epi64(_mm256_loadu_si256(from.cast()));
            let first = _mm512_srai_epi64::<48>(_mm512_slli_epi64::<48>(pairs));
            [V64(first), V64(_mm512_srai_epi64::<16>(pairs))]
        }
    }
}
