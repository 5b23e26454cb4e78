//! What an instruction set provides: vectors of ring words. Loops are written once, generic in the [`Level`], and
//! compiled for each instruction set by being inlined into its `enter` function.

use crate::dense::Kind;
use crate::word::Ring;

/// Work that is compiled once for each instruction set.
///
/// Implementations mark `run` and all it calls `#[inline(always)]`: code that is not inlined into the entry function
/// is compiled for the baseline.
pub trait Task {
    /// The result.
    type Out;

    /// Does the work with the vectors of `L`.
    fn run<L: Level>(self) -> Self::Out;
}

/// An instruction set: its vector types and the tile sizes that its register file holds.
pub trait Level: Copy {
    /// Vectors of 32-bit words.
    type V32: Dot;
    /// Vectors of 64-bit words.
    type V64: Vector<u64>;
    /// Sums of 64-bit words in limbs.
    type Wide: Wide;
    /// Rows of activations that a tile of dot products has at most: 4, 2 or 1.
    const ROWS: usize;
    /// Vector registers.
    const REGISTERS: usize;
    /// Products of 32-bit words and i16 weights.
    type Sum32: Kind<Word = u32>;
    /// Products modulo 2^52 of 64-bit words and i16 weights.
    type Sum52: Kind<Word = u64>;
    /// Products modulo 2^52 of 64-bit words and i32 weights.
    type Sum52Wide: Kind<Word = u64>;
    /// Products of 64-bit words and i16 weights.
    type Sum64: Kind<Word = u64>;
    /// Products of 64-bit words and i32 weights.
    type Sum64Wide: Kind<Word = u64>;

    /// Runs a task in a function of its own.
    fn call<T: Task>(task: T) -> T::Out;

    /// Asks for a cache line that will be needed soon. Any address will do.
    #[inline(always)]
    fn prefetch(at: *const u8) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: part of the baseline, and a hint only.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Eight elements of `K` = 40 or 52 bits. They begin with the first byte, or in the middle of it if `half`.
    ///
    /// # Safety
    /// `from` has all bytes in which one of their bits lies, `to` eight words.
    #[inline(always)]
    unsafe fn unpack8<const K: usize>(from: *const u8, half: bool, to: *mut u64) {
        let skip = if half { 4 } else { 0 };
        // SAFETY: as the contract says.
        let (from, to) = unsafe {
            (std::slice::from_raw_parts(from, (8 * K + skip).div_ceil(8)), std::slice::from_raw_parts_mut(to, 8))
        };
        for (i, to) in to.iter_mut().enumerate() {
            // The eight bytes from its first one, or the last eight, hold all of it.
            let first = ((i * K + skip) / 8).min(from.len() - 8);
            let mut word = [0; 8];
            word.copy_from_slice(&from[first..][..8]);
            *to = u64::from_le_bytes(word) >> (i * K + skip - 8 * first) & (u64::MAX >> (64 - K));
        }
    }

    /// Packs eight elements of `K` = 40 or 52 bits, less those of another payload.
    ///
    /// # Safety
    /// `from` has eight words, `minus` and `to` have `K` bytes.
    #[inline(always)]
    unsafe fn pack8<const K: usize>(from: *const u64, minus: Option<*const u8>, to: *mut u8) {
        let mut words = [0; 8];
        if let Some(minus) = minus {
            // SAFETY: as the contract says.
            unsafe { Self::unpack8::<K>(minus, false, words.as_mut_ptr()) };
        }
        // SAFETY: as the contract says.
        let (from, to) = unsafe { (std::slice::from_raw_parts(from, 8), std::slice::from_raw_parts_mut(to, K)) };
        words.iter_mut().zip(from).for_each(|(w, v)| *w = v.wrapping_sub(*w));
        crate::bits::write(&words, K as u32, to);
    }

    /// Transposes 16 rows of 16 words.
    #[inline(always)]
    fn transpose32(block: &mut [u32; 256]) {
        transpose::<u32, 16>(block);
    }

    /// Transposes 8 rows of 8 words.
    #[inline(always)]
    fn transpose64(block: &mut [u64; 64]) {
        transpose::<u64, 8>(block);
    }
}

/// Transposes `N` rows of `N` words.
#[inline(always)]
fn transpose<W: Copy, const N: usize>(block: &mut [W]) {
    for i in 0..N {
        for j in 0..i {
            block.swap(i * N + j, j * N + i);
        }
    }
}

/// Vectors of 32-bit words as pairs of 16-bit numbers.
pub trait Dot: Vector<u32> {
    /// `self + a.0 * b.0 + a.1 * b.1` in each lane.
    fn dot(self, a: Self, b: Self) -> Self;

    /// `self * 2^16`.
    fn shift16(self) -> Self;
}

/// Sums of products of i32 weights and 64-bit words in 32-bit digits, one a channel.
pub trait Wide: Copy {
    /// Weights of the channels.
    type Weights: Copy;
    /// Channels.
    const LANES: usize;

    /// No products.
    fn zero() -> Self;

    /// Weights of which nothing is used.
    fn no_weights() -> Self::Weights;

    /// # Safety
    /// `from` has [`Wide::LANES`] weights.
    unsafe fn read_i32(from: *const i32) -> Self::Weights;

    /// The first and the second weights of pairs.
    ///
    /// # Safety
    /// `from` has [`Wide::LANES`] pairs of weights.
    unsafe fn read_pairs(from: *const i16) -> [Self::Weights; 2];

    /// Adds the products with the word `lo + 2^32 hi`.
    fn mul_add(self, w: Self::Weights, lo: i32, hi: i32) -> Self;

    /// Writes the sums, or adds them to what is there.
    ///
    /// # Safety
    /// `to` has [`Wide::LANES`] words.
    unsafe fn store(self, to: *mut u64, add: bool);
}

/// Where there is no faster way than whole words.
#[derive(Clone, Copy)]
pub struct NoWide;

impl Wide for NoWide {
    type Weights = ();
    const LANES: usize = 1;

    fn zero() -> NoWide {
        NoWide
    }

    fn no_weights() {}

    unsafe fn read_i32(_: *const i32) {}

    unsafe fn read_pairs(_: *const i16) -> [(); 2] {
        [(), ()]
    }

    fn mul_add(self, (): (), _: i32, _: i32) -> NoWide {
        NoWide
    }

    unsafe fn store(self, _: *mut u64, _: bool) {}
}

/// A vector of ring words; arithmetic wraps.
pub trait Vector<W: Ring>: Copy {
    /// Words in a vector, at most [`MAX_LANES`].
    const LANES: usize;
    /// Vectors that a convolution tile of four output channels has at most, at most [`MAX_VECTORS`].
    const VECTORS: usize;

    /// All zero.
    fn zero() -> Self;

    /// All lanes `w`.
    fn splat(w: W) -> Self;

    /// The first words of a slice of at least [`Vector::LANES`].
    fn load(from: &[W]) -> Self;

    /// The first weights of a slice of at least [`Vector::LANES`], sign-extended.
    fn load_i16(from: &[i16]) -> Self;

    /// The first weights of a slice of at least [`Vector::LANES`], sign-extended.
    fn load_i32(from: &[i32]) -> Self;

    /// Writes to the first words of a slice of at least [`Vector::LANES`].
    fn store(self, to: &mut [W]);

    /// `self + a * b` in each lane.
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// The same modulo 2^52.
    #[inline(always)]
    fn mul_add_52(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }

    /// `self + other` in each lane.
    fn plus(self, other: Self) -> Self;

    /// # Safety
    /// `from` has [`Vector::LANES`] words.
    #[inline(always)]
    unsafe fn read(from: *const W) -> Self {
        // SAFETY: as the contract says.
        Self::load(unsafe { std::slice::from_raw_parts(from, Self::LANES) })
    }

    /// # Safety
    /// `to` has [`Vector::LANES`] words.
    #[inline(always)]
    unsafe fn write(self, to: *mut W) {
        // SAFETY: as the contract says.
        self.store(unsafe { std::slice::from_raw_parts_mut(to, Self::LANES) });
    }

    /// # Safety
    /// `from` has [`Vector::LANES`] weights.
    #[inline(always)]
    unsafe fn read_i32(from: *const i32) -> Self {
        // SAFETY: as the contract says.
        Self::load_i32(unsafe { std::slice::from_raw_parts(from, Self::LANES) })
    }

    /// The first and the second weights of pairs, sign-extended.
    ///
    /// # Safety
    /// `from` has [`Vector::LANES`] pairs of weights.
    unsafe fn read_pairs(from: *const i16) -> [Self; 2];

    /// The sum of all lanes.
    #[inline(always)]
    fn sum(self) -> W {
        let mut lanes = [W::ZERO; MAX_LANES];
        self.store(&mut lanes);
        lanes[..Self::LANES].iter().fold(W::ZERO, |a, b| a.plus(*b))
    }
}

/// Most lanes of any vector.
pub const MAX_LANES: usize = 16;

/// Most vectors of a convolution tile.
pub const MAX_VECTORS: usize = 6;

/// A stored weight: i16 or i32.
pub trait Weight: Copy + Send + Sync {
    /// Loads a vector of weights, sign-extended to words.
    fn load<W: Ring, V: Vector<W>>(from: &[Self]) -> V;

    /// One weight, sign-extended to a word.
    fn word<W: Ring>(self) -> W;
}

impl Weight for i16 {
    #[inline(always)]
    fn load<W: Ring, V: Vector<W>>(from: &[i16]) -> V {
        V::load_i16(from)
    }

    #[inline(always)]
    fn word<W: Ring>(self) -> W {
        W::from_i32(self.into())
    }
}

impl Weight for i32 {
    #[inline(always)]
    fn load<W: Ring, V: Vector<W>>(from: &[i32]) -> V {
        V::load_i32(from)
    }

    #[inline(always)]
    fn word<W: Ring>(self) -> W {
        W::from_i32(self)
    }
}
