//! Kernels written once: generic in the vectors of an instruction set, or plain loops that the compiler vectorises.
//! With [`Lanes`] for vectors they are the portable kernels.

pub mod dot;
pub mod loops;
pub mod tile;

use crate::vector::{Level, Vector};
use crate::word::Ring;

/// The baseline of the target.
#[derive(Clone, Copy)]
pub struct Portable;

impl Level for Portable {
    type V32 = Lanes<u32, 4>;
    type V64 = Lanes<u64, 2>;
    const ROWS: usize = 2;
}

/// A vector as an array.
#[derive(Clone, Copy)]
pub struct Lanes<W, const N: usize>([W; N]);

impl<W: Ring, const N: usize> Vector<W> for Lanes<W, N> {
    const LANES: usize = N;
    const VECTORS: usize = 2;

    #[inline(always)]
    fn zero() -> Self {
        Lanes([W::ZERO; N])
    }

    #[inline(always)]
    fn splat(w: W) -> Self {
        Lanes([w; N])
    }

    #[inline(always)]
    fn load(from: &[W]) -> Self {
        let from = &from[..N];
        Lanes(std::array::from_fn(|i| from[i]))
    }

    #[inline(always)]
    fn load_i16(from: &[i16]) -> Self {
        let from = &from[..N];
        Lanes(std::array::from_fn(|i| W::from_i32(from[i].into())))
    }

    #[inline(always)]
    fn load_i32(from: &[i32]) -> Self {
        let from = &from[..N];
        Lanes(std::array::from_fn(|i| W::from_i32(from[i])))
    }

    #[inline(always)]
    fn store(self, to: &mut [W]) {
        to[..N].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Lanes(std::array::from_fn(|i| self.0[i].plus(a.0[i].times(b.0[i]))))
    }
}
