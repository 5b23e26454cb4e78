//! AVX2 with AVX-VNNI: `vpdpwssd` on vectors of 256 bits.

use crate::avx2::wide::Digits;
use crate::avx2::{V32, V64, packing, transpose};
use crate::dense::{Limbs16, Limbs32};
use crate::vector::{Level, Task};

/// Runs a task compiled for AVX2 with AVX-VNNI.
#[target_feature(enable = "avx2,avxvnni")]
pub fn enter<T: Task>(task: T) -> T::Out {
    task.run::<AvxVnni>()
}

/// The same in a function of its own.
#[inline(never)]
#[target_feature(enable = "avx2,avxvnni")]
fn call<T: Task>(task: T) -> T::Out {
    task.run::<AvxVnni>()
}

/// AVX2 with AVX-VNNI. Only [`enter`] and `call` name this type: see [`super::Avx2`].
#[derive(Clone, Copy)]
pub struct AvxVnni;

impl Level for AvxVnni {
    type V32 = V32<true>;
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
        // SAFETY: the extensions were detected.
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
