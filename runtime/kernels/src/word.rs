//! Ring words: `u32` and `u64` with wrapping arithmetic.

use crate::dense::{DenseConv, PackedMatMul, Visit, Visiting, Whole, run_matmul};
use crate::dispatch::Kernels;
use crate::error::KernelError;
use crate::portable::loops;
use crate::vector::{Level, Vector};
use crate::view::{Input, Output, Sink, Source};
use crate::window::{self, Packed};

/// A word that holds elements of Z_2^k for k up to [`Word::BITS`]: `u32` or `u64`. Arithmetic wraps modulo 2^BITS, of
/// which 2^k is a divisor, so only the low k bits of a word mean anything.
pub trait Word: Ring + Eq + std::fmt::Debug {
    /// Width in bits.
    const BITS: u32;
}

impl Word for u32 {
    const BITS: u32 = 32;
}

impl Word for u64 {
    const BITS: u32 = 64;
}

/// The arithmetic of a word and the kernels compiled for it. This module is private, which seals [`Word`].
///
/// The kernels are methods here so that they are compiled in this crate, with its optimisation level, and not where a
/// generic caller happens to be.
pub trait Ring: Copy + Default + Send + Sync + 'static {
    /// Zero.
    const ZERO: Self;

    /// The vectors of an instruction set.
    type Vector<L: Level>: Vector<Self>;

    /// A signed value modulo 2^BITS.
    fn from_i32(v: i32) -> Self;

    /// The low bits of a value.
    fn from_u64(v: u64) -> Self;

    /// The word as an unsigned value.
    fn to_u64(self) -> u64;

    /// Wrapping sum.
    fn plus(self, other: Self) -> Self;

    /// Wrapping difference.
    fn minus(self, other: Self) -> Self;

    /// Wrapping product.
    fn times(self, other: Self) -> Self;

    /// Transposes a block of words whose rows are 64 bytes.
    fn transpose<L: Level>(block: &mut [Self]);

    /// Does work with the kind of product that suits.
    fn kind<L: Level, V: Visit<Self>>(visiting: Visiting<V>) -> V::Out;

    #[doc(hidden)]
    fn window(kernels: Kernels, packed: &Packed, x: Source<'_, Self>, y: Sink<'_, Self>) -> Result<(), KernelError>;
    #[doc(hidden)]
    fn dense(
        kernels: Kernels,
        packed: &DenseConv,
        k: u32,
        x: Input<'_, Self>,
        y: Output<'_, Self>,
    ) -> Result<(), KernelError>;
    #[doc(hidden)]
    fn matmul(
        kernels: Kernels,
        packed: &PackedMatMul,
        k: u32,
        x: Input<'_, Self>,
        y: Output<'_, Self>,
    ) -> Result<(), KernelError>;
    #[doc(hidden)]
    fn embed(kernels: Kernels, x: &[i32], out: &mut [Self]);
    #[doc(hidden)]
    fn add_assign(kernels: Kernels, x: &mut [Self], other: &[Self]);
    #[doc(hidden)]
    fn sub_assign(kernels: Kernels, x: &mut [Self], other: &[Self]);
    #[doc(hidden)]
    fn lift(kernels: Kernels, x: &[Self], k: u32, out: &mut [i64]);
    #[doc(hidden)]
    fn pack(x: &[Self], k: u32, out: &mut Vec<u8>);
    #[doc(hidden)]
    fn unpack(bytes: &[u8], k: u32, out: &mut [Self]);
}

macro_rules! ring {
    ($word:ident, $vector:ident, $transpose:ident, $kind:item) => {
        impl Ring for $word {
            const ZERO: $word = 0;

            type Vector<L: Level> = L::$vector;

            #[inline(always)]
            fn from_i32(v: i32) -> $word {
                v as $word
            }

            #[inline(always)]
            fn from_u64(v: u64) -> $word {
                v as $word
            }

            #[inline(always)]
            fn to_u64(self) -> u64 {
                self.into()
            }

            #[inline(always)]
            fn plus(self, other: $word) -> $word {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn minus(self, other: $word) -> $word {
                self.wrapping_sub(other)
            }

            #[inline(always)]
            fn times(self, other: $word) -> $word {
                self.wrapping_mul(other)
            }

            #[inline(never)]
            fn window(
                kernels: Kernels,
                packed: &Packed,
                x: Source<'_, $word>,
                y: Sink<'_, $word>,
            ) -> Result<(), KernelError> {
                window::run(kernels, packed, x, y)
            }

            #[inline(always)]
            fn transpose<L: Level>(block: &mut [$word]) {
                if let Some(block) = block.first_chunk_mut() {
                    L::$transpose(block);
                }
            }

            $kind

            #[inline(never)]
            fn dense(
                kernels: Kernels,
                packed: &DenseConv,
                k: u32,
                x: Input<'_, $word>,
                y: Output<'_, $word>,
            ) -> Result<(), KernelError> {
                packed.run(kernels, k, x, y)
            }

            #[inline(never)]
            fn matmul(
                kernels: Kernels,
                packed: &PackedMatMul,
                k: u32,
                x: Input<'_, $word>,
                y: Output<'_, $word>,
            ) -> Result<(), KernelError> {
                run_matmul(kernels, packed, k, x, y)
            }

            #[inline(never)]
            fn embed(kernels: Kernels, x: &[i32], out: &mut [$word]) {
                loops::embed(kernels, x, out)
            }

            #[inline(never)]
            fn add_assign(kernels: Kernels, x: &mut [$word], other: &[$word]) {
                loops::add_assign(kernels, x, other)
            }

            #[inline(never)]
            fn sub_assign(kernels: Kernels, x: &mut [$word], other: &[$word]) {
                loops::sub_assign(kernels, x, other)
            }

            #[inline(never)]
            fn lift(kernels: Kernels, x: &[$word], k: u32, out: &mut [i64]) {
                loops::lift(kernels, x, k, out)
            }

            #[inline(never)]
            fn pack(x: &[$word], k: u32, out: &mut Vec<u8>) {
                crate::bits::pack(x, k, out)
            }

            #[inline(never)]
            fn unpack(bytes: &[u8], k: u32, out: &mut [$word]) {
                crate::bits::unpack(bytes, k, out)
            }
        }
    };
}

ring!(
    u32,
    V32,
    transpose32,
    #[inline(always)]
    fn kind<L: Level, V: Visit<u32>>(visiting: Visiting<V>) -> V::Out {
        match visiting.wide {
            false => visiting.visit.visit::<L, L::Sum32>(),
            true => visiting.visit.visit::<L, Whole<u32, true, false>>(),
        }
    }
);
ring!(
    u64,
    V64,
    transpose64,
    #[inline(always)]
    fn kind<L: Level, V: Visit<u64>>(visiting: Visiting<V>) -> V::Out {
        match (visiting.wide, visiting.k) {
            (false, ..=52) => visiting.visit.visit::<L, L::Sum52>(),
            (true, ..=52) => visiting.visit.visit::<L, L::Sum52Wide>(),
            (false, _) => visiting.visit.visit::<L, L::Sum64>(),
            (true, _) => visiting.visit.visit::<L, L::Sum64Wide>(),
        }
    }
);
