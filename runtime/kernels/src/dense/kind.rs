//! How words are multiplied: whole, or in limbs.
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

use std::marker::PhantomData;

use crate::dense::block::{Block, side};
use crate::vector::{Dot, Level, Vector, Wide};
use crate::word::Ring;

/// A way to multiply staged words and packed weights, with vectors over output channels.
///
/// # Safety
/// Functions that take pointers read or write what they say there. `L` must be the instruction set that runs.
pub unsafe trait Kind: 'static {
    type Word: Ring;
    type Sum<L: Level>: Copy;
    type Weights<L: Level>: Copy;

    /// Words of a unit.
    fn unit() -> usize;
    /// Channels of a vector.
    fn lanes<L: Level>() -> usize;
    /// Vectors of the widest tile: 4, 2 or 1.
    fn vectors<L: Level>() -> usize;
    /// Positions that fit the registers beside `mv` vectors.
    fn positions<L: Level>(mv: usize) -> usize;

    fn zero<L: Level>() -> Self::Sum<L>;
    fn no_weights<L: Level>() -> Self::Weights<L>;
    /// Loads 4 bytes a channel.
    unsafe fn weights<L: Level>(from: *const u8) -> Self::Weights<L>;
    /// Adds the products of one staged unit.
    unsafe fn step<L: Level, const MV: usize>(sums: &mut [Self::Sum<L>; MV], w: &[Self::Weights<L>; MV], x: *const u8);
    /// Writes a vector of results, or adds it to what is there.
    unsafe fn store<L: Level>(sum: Self::Sum<L>, to: *mut Self::Word, add: bool);

    /// Turns a block `[channel, pixel]` into staged form, apart from the transposition.
    fn split_block(block: &mut Block<Self::Word>);
    /// Turns consecutive words, an even number, into staged form.
    fn split_run(words: &mut [Self::Word]);
}

/// Signed 16-bit digits: `x = lo + 2^16 hi`, and both sums wrap modulo 2^32. A staged pair of words is
/// `(lo0, lo1, hi0, hi1)`. For instruction sets with products of pairs of 16-bit numbers.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Limbs16;

/// The digits of two words: low ones and high ones.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[inline(always)]
fn digits(a: u32, b: u32) -> (u32, u32) {
    const CARRY: u32 = 1 << 15;
    let high = a.wrapping_add(CARRY) >> 16 | b.wrapping_add(CARRY) & 0xffff_0000;
    (a & 0xffff | b << 16, high)
}

// SAFETY: pointers are used as the trait says.
unsafe impl Kind for Limbs16 {
    type Word = u32;
    type Sum<L: Level> = (L::V32, L::V32);
    type Weights<L: Level> = L::V32;

    #[inline(always)]
    fn unit() -> usize {
        2
    }

    #[inline(always)]
    fn lanes<L: Level>() -> usize {
        <L::V32 as Vector<u32>>::LANES
    }

    #[inline(always)]
    fn vectors<L: Level>() -> usize {
        if L::REGISTERS >= 32 { 4 } else { 2 }
    }

    #[inline(always)]
    fn positions<L: Level>(mv: usize) -> usize {
        L::REGISTERS * 3 / 4 / (2 * mv)
    }

    #[inline(always)]
    fn zero<L: Level>() -> Self::Sum<L> {
        (L::V32::zero(), L::V32::zero())
    }

    #[inline(always)]
    fn no_weights<L: Level>() -> L::V32 {
        L::V32::zero()
    }

    #[inline(always)]
    unsafe fn weights<L: Level>(from: *const u8) -> L::V32 {
        // SAFETY: as the trait demands.
        unsafe { L::V32::read(from.cast()) }
    }

    #[inline(always)]
    unsafe fn step<L: Level, const MV: usize>(sums: &mut [Self::Sum<L>; MV], w: &[L::V32; MV], x: *const u8) {
        // SAFETY: as the trait demands.
        let (lo, hi) = unsafe { (x.cast::<u32>().read(), x.cast::<u32>().add(1).read()) };
        let (lo, hi) = (L::V32::splat(lo), L::V32::splat(hi));
        for i in 0..MV {
            sums[i].0 = sums[i].0.dot(w[i], lo);
        }
        for i in 0..MV {
            sums[i].1 = sums[i].1.dot(w[i], hi);
        }
    }

    #[inline(always)]
    unsafe fn store<L: Level>(sum: Self::Sum<L>, to: *mut u32, add: bool) {
        let v = sum.0.plus(sum.1.shift16());
        // SAFETY: as the trait demands.
        unsafe { if add { v.plus(L::V32::read(to)).write(to) } else { v.write(to) } }
    }

    #[inline(always)]
    fn split_block(block: &mut Block<u32>) {
        const SIDE: usize = side::<u32>();
        for pair in block.words().as_chunks_mut::<{ 2 * SIDE }>().0 {
            let (a, b) = pair.split_at_mut(SIDE);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = digits(*a, *b);
            }
        }
    }

    #[inline(always)]
    fn split_run(words: &mut [u32]) {
        for [a, b] in words.as_chunks_mut::<2>().0 {
            (*a, *b) = digits(*a, *b);
        }
    }
}

/// Whole words. With `NARROW` results are right modulo 2^52 only, for which some processors have an instruction.
pub struct Whole<W, const WIDE: bool, const NARROW: bool>(PhantomData<W>);

// SAFETY: pointers are used as the trait says.
unsafe impl<W: Ring, const WIDE: bool, const NARROW: bool> Kind for Whole<W, WIDE, NARROW> {
    type Word = W;
    type Sum<L: Level> = W::Vector<L>;
    type Weights<L: Level> = [W::Vector<L>; 2];

    #[inline(always)]
    fn unit() -> usize {
        if WIDE { 1 } else { 2 }
    }

    #[inline(always)]
    fn lanes<L: Level>() -> usize {
        <W::Vector<L> as Vector<W>>::LANES
    }

    #[inline(always)]
    fn vectors<L: Level>() -> usize {
        if L::REGISTERS >= 32 { 4 } else { 2 }
    }

    #[inline(always)]
    fn positions<L: Level>(mv: usize) -> usize {
        (L::REGISTERS - Self::unit() * mv - 3) / mv
    }

    #[inline(always)]
    fn zero<L: Level>() -> Self::Sum<L> {
        W::Vector::<L>::zero()
    }

    #[inline(always)]
    fn no_weights<L: Level>() -> Self::Weights<L> {
        [W::Vector::<L>::zero(); 2]
    }

    #[inline(always)]
    unsafe fn weights<L: Level>(from: *const u8) -> Self::Weights<L> {
        // SAFETY: as the trait demands.
        unsafe {
            if WIDE {
                [W::Vector::<L>::read_i32(from.cast()), W::Vector::<L>::zero()]
            } else {
                W::Vector::<L>::read_pairs(from.cast())
            }
        }
    }

    #[inline(always)]
    unsafe fn step<L: Level, const MV: usize>(sums: &mut [Self::Sum<L>; MV], w: &[Self::Weights<L>; MV], x: *const u8) {
        for u in 0..Self::unit() {
            // SAFETY: as the trait demands.
            let x = W::Vector::<L>::splat(unsafe { x.cast::<W>().add(u).read() });
            for i in 0..MV {
                sums[i] = if NARROW { sums[i].mul_add_52(w[i][u], x) } else { sums[i].mul_add(w[i][u], x) };
            }
        }
    }

    #[inline(always)]
    unsafe fn store<L: Level>(sum: Self::Sum<L>, to: *mut W, add: bool) {
        // SAFETY: as the trait demands.
        unsafe { if add { sum.plus(W::Vector::<L>::read(to)).write(to) } else { sum.write(to) } }
    }

    #[inline(always)]
    fn split_block(_: &mut Block<W>) {}

    #[inline(always)]
    fn split_run(_: &mut [W]) {}
}

/// 64-bit words as a signed low and a high 32-bit digit, where there is no product of 64-bit lanes. A staged word is
/// `(lo, hi)`.
pub struct Limbs32<const WIDE: bool>;

/// The digits of a word: the high one takes the borrow of the signed low one.
#[inline(always)]
fn halves(v: u64) -> u64 {
    v.wrapping_add((v & 1 << 31) << 1)
}

// SAFETY: pointers are used as the trait says.
unsafe impl<const WIDE: bool> Kind for Limbs32<WIDE> {
    type Word = u64;
    type Sum<L: Level> = L::Wide;
    type Weights<L: Level> = [<L::Wide as Wide>::Weights; 2];

    #[inline(always)]
    fn unit() -> usize {
        if WIDE { 1 } else { 2 }
    }

    #[inline(always)]
    fn lanes<L: Level>() -> usize {
        <L::Wide as Wide>::LANES
    }

    #[inline(always)]
    fn vectors<L: Level>() -> usize {
        1
    }

    #[inline(always)]
    fn positions<L: Level>(_: usize) -> usize {
        L::REGISTERS / 5
    }

    #[inline(always)]
    fn zero<L: Level>() -> Self::Sum<L> {
        L::Wide::zero()
    }

    #[inline(always)]
    fn no_weights<L: Level>() -> Self::Weights<L> {
        [L::Wide::no_weights(); 2]
    }

    #[inline(always)]
    unsafe fn weights<L: Level>(from: *const u8) -> Self::Weights<L> {
        // SAFETY: as the trait demands.
        unsafe {
            if WIDE {
                [L::Wide::read_i32(from.cast()), L::Wide::no_weights()]
            } else {
                L::Wide::read_pairs(from.cast())
            }
        }
    }

    #[inline(always)]
    unsafe fn step<L: Level, const MV: usize>(sums: &mut [Self::Sum<L>; MV], w: &[Self::Weights<L>; MV], x: *const u8) {
        for u in 0..Self::unit() {
            // SAFETY: as the trait demands.
            let (lo, hi) = unsafe { (x.cast::<i32>().add(2 * u).read(), x.cast::<i32>().add(2 * u + 1).read()) };
            for i in 0..MV {
                sums[i] = sums[i].mul_add(w[i][u], lo, hi);
            }
        }
    }

    #[inline(always)]
    unsafe fn store<L: Level>(sum: Self::Sum<L>, to: *mut u64, add: bool) {
        // SAFETY: as the trait demands.
        unsafe { sum.store(to, add) }
    }

    #[inline(always)]
    fn split_block(block: &mut Block<u64>) {
        Self::split_run(block.words());
    }

    #[inline(always)]
    fn split_run(words: &mut [u64]) {
        words.iter_mut().for_each(|v| *v = halves(*v));
    }
}
