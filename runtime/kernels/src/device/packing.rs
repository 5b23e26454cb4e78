//! Packing of 64-bit words inside the fused loops, for the instruction set in use.

use crate::bits;
use crate::dispatch::{Isa, Kernels};
use crate::vector::Task;

/// Packs and unpacks elements of `k` bits; byte slices have exactly the packed length.
pub(super) trait Packing {
    /// See [`bits::write`].
    fn write(words: &[u64], k: u32, out: &mut [u8]);
    /// See [`bits::unpack`].
    fn read(bytes: &[u8], k: u32, words: &mut [u64]);
}

/// Without vectors.
pub(super) enum Scalar {}

impl Packing for Scalar {
    #[inline(always)]
    fn write(words: &[u64], k: u32, out: &mut [u8]) {
        bits::write(words, k, out);
    }

    #[inline(always)]
    fn read(bytes: &[u8], k: u32, words: &mut [u64]) {
        bits::unpack(bytes, k, words);
    }
}

/// Work that packs.
pub(super) trait Packs: Sized {
    /// The same as a task with this packing.
    fn with<P: Packing>(self) -> impl Task<Out = ()>;
}

impl Kernels {
    /// Runs with the packing of the instruction set.
    pub(super) fn pack_with<T: Packs>(self, work: T) {
        match self.isa() {
            Isa::Portable | Isa::Neon => self.run(work.with::<Scalar>()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => {
                self.run(work.with::<super::avx2::Avx2Packing>())
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => self.run(work.with::<Scalar>()),
        }
    }
}
