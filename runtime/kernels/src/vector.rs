//! What an instruction set provides: vectors of ring words. Loops are written once, generic in the [`Level`], and
//! compiled for each instruction set by being inlined into its `enter` function.

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
    type V32: Vector<u32>;
    /// Vectors of 64-bit words.
    type V64: Vector<u64>;
    /// Rows of activations that a tile of a matrix product has at most: 4, 2 or 1.
    const ROWS: usize;
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
