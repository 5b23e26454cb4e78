//! Square blocks of words, transposed between channels and pixels.

use crate::vector::Level;
use crate::word::Ring;

/// Rows and columns of a block: a row is a cache line.
pub const fn side<W>() -> usize {
    64 / size_of::<W>()
}

/// Words of the largest block.
const WORDS: usize = 256;

/// A block of `side x side` words.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Block<W>([W; WORDS]);

impl<W: Ring> Block<W> {
    /// All zero.
    #[inline(always)]
    pub fn zero() -> Block<W> {
        Block([W::ZERO; WORDS])
    }

    /// A row.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &[W] {
        &self.0[i * side::<W>()..][..side::<W>()]
    }

    /// A row.
    #[inline(always)]
    pub fn row_mut(&mut self, i: usize) -> &mut [W] {
        &mut self.0[i * side::<W>()..][..side::<W>()]
    }

    /// All words of the block.
    #[inline(always)]
    pub fn words(&mut self) -> &mut [W] {
        &mut self.0[..side::<W>() * side::<W>()]
    }

    /// Rows become columns.
    #[inline(always)]
    pub fn transpose<L: Level>(&mut self) {
        W::transpose::<L>(self.words());
    }
}
