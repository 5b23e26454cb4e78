//! AVX-512 with VNNI (`vpdpwssd` on 16-bit limbs) and IFMA (`vpmadd52luq` for rings up to 2^52).

use crate::avx512::{V32, V64, packing, transpose};
use crate::dense::{Limbs16, Whole};
use crate::vector::{Level, NoWide, Task};

/// Runs a task compiled for AVX-512 with VNNI and IFMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512ifma")]
pub fn enter<T: Task>(task: T) -> T::Out {
    task.run::<Avx512Vnni>()
}

/// The same in a function of its own.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512ifma")]
fn call<T: Task>(task: T) -> T::Out {
    task.run::<Avx512Vnni>()
}

/// AVX-512 with VNNI and IFMA. Only [`enter`] and `call` name this type: see [`super::Avx512`].
#[derive(Clone, Copy)]
pub struct Avx512Vnni;

impl Level for Avx512Vnni {
    type V32 = V32<true>;
    type V64 = V64<true>;
    type Wide = NoWide;
    const ROWS: usize = 4;
    const REGISTERS: usize = 32;
    type Sum32 = Limbs16;
    type Sum52 = Whole<u64, false, true>;
    type Sum52Wide = Whole<u64, true, true>;
    type Sum64 = Whole<u64, false, false>;
    type Sum64Wide = Whole<u64, true, false>;

    #[inline(always)]
    fn call<T: Task>(task: T) -> T::Out {
        // SAFETY: the extensions were detected.
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
