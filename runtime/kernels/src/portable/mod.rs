//! Kernels written once: generic in the vectors of an instruction set, or plain loops that the compiler vectorises.
//! With [`Lanes`] for vectors they are the portable kernels.

pub mod dot;
pub mod loops;
pub mod tile;

use crate::dense::Whole;
use crate::vector::{Dot, Level, NoWide, Task, Vector};
use crate::word::Ring;

/// The baseline of the target.
#[derive(Clone, Copy)]
pub struct Portable;

/// Runs a task in a function of its own.
#[inline(never)]
fn call<T: Task>(task: T) -> T::Out {
    task.run::<Portable>()
}

impl Level for Portable {
    type V32 = Lanes<u32, 4>;
    type V64 = Lanes<u64, 2>;
    type Wide = NoWide;
    const ROWS: usize = 2;
    const REGISTERS: usize = 16;
    type Sum32 = Whole<u32, false, false>;
    type Sum52 = Whole<u64, false, false>;
    type Sum52Wide = Whole<u64, true, false>;
    type Sum64 = Whole<u64, false, false>;
    type Sum64Wide = Whole<u64, true, false>;

    #[inline(always)]
    fn call<T: Task>(task: T) -> T::Out {
        call(task)
    }
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

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Lanes(std::array::from_fn(|i| self.0[i].plus(other.0[i])))
    }

    #[inline(always)]
    unsafe fn read_pairs(from: *const i16) -> [Self; 2] {
        // SAFETY: `from` has `N` pairs.
        let pairs = unsafe { from.cast::<[[i16; 2]; N]>().read_unaligned() };
        [0, 1].map(|u| Lanes(std::array::from_fn(|i| W::from_i32(pairs[i][u].into()))))
    }
}

impl<const N: usize> Dot for Lanes<u32, N> {
    #[inline(always)]
    fn dot(self, a: Self, b: Self) -> Self {
        let product = |a: u32, b: u32| (a as i16 as i32).wrapping_mul(b as i16 as i32) as u32;
        Lanes(std::array::from_fn(|i| {
            let (a, b) = (a.0[i], b.0[i]);
            self.0[i].wrapping_add(product(a, b)).wrapping_add(product(a >> 16, b >> 16))
        }))
    }

    #[inline(always)]
    fn shift16(self) -> Self {
        Lanes(std::array::from_fn(|i| self.0[i] << 16))
    }
}
