//! The loop of a tile, written once for all kinds of products and instruction sets.
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

use crate::dense::kind::Kind;
use crate::vector::{Level, Task};

/// A tile: one run of weights, some positions.
#[derive(Clone, Copy)]
pub struct Tile<'a, W> {
    /// Weights of the first unit.
    pub w: *const u8,
    /// Bytes from the weights of one unit to those of the next.
    pub step: usize,
    /// First word of each segment, relative to a position.
    pub segments: &'a [usize],
    /// Units of a segment.
    pub units: usize,
    /// Staged words.
    pub x: *const W,
    /// First word of each position; as many as the tile has.
    pub positions: &'a [usize],
    /// Results, `[position, channel]`.
    pub c: *mut W,
    /// Words from one position's results to the next.
    pub pitch: usize,
    /// Whether results are added to what is there.
    pub add: bool,
}

/// Runs a tile with `mv` vectors of channels: the widest that the kind has at this instruction set, or a half or a
/// quarter of it.
///
/// # Safety
/// Weights, positions and results are in memory: `units * segments` units of weights that are `step` bytes apart, of
/// which the tile reads 4 bytes a channel; a unit of words at each place that a position and a segment name; a row of
/// results for each position. The number of positions is one that [`fitting`] returns, at most [`most`]. `L` is the instruction set that runs.
#[inline(always)]
pub unsafe fn run<L: Level, K: Kind>(mv: usize, tile: Tile<'_, K::Word>) {
    macro_rules! sizes {
        ($($mv:literal: $($nb:literal)*;)*) => {
            match (mv, tile.positions.len()) {
                $($(($mv, $nb) if $mv <= K::vectors::<L>() && $nb <= most::<L, K>($mv) => {
                    L::call(Fixed::<K, $mv, $nb>(tile));
                })*)*
                _ => (),
            }
        };
    }
    sizes! {
        1: 1 2 3 4 6 8 12;
        2: 1 2 3 4 6;
        4: 1 2 3 5;
    }
}

/// Sizes of tiles with `mv` vectors, the largest first.
fn sizes(mv: usize) -> &'static [usize] {
    match mv {
        1 => &[12, 8, 6, 4, 3, 2, 1],
        2 => &[6, 4, 3, 2, 1],
        _ => &[5, 3, 2, 1],
    }
}

/// Positions of the largest tile with `mv` vectors.
pub fn most<L: Level, K: Kind>(mv: usize) -> usize {
    fitting(mv, K::positions::<L>(mv))
}

/// Positions of the largest tile with `mv` vectors and at most so many positions.
#[inline(always)]
pub fn fitting(mv: usize, positions: usize) -> usize {
    sizes(mv).iter().copied().find(|n| *n <= positions).unwrap_or(1)
}

/// A tile with all sizes known, so that the sums stay in registers.
struct Fixed<'a, K: Kind, const MV: usize, const NB: usize>(Tile<'a, K::Word>);

impl<K: Kind, const MV: usize, const NB: usize> Task for Fixed<'_, K, MV, NB> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let tile = &self.0;
        let unit = K::unit() * size_of::<K::Word>();
        let mut x = [tile.x.cast::<u8>(); NB];
        for j in 0..NB {
            x[j] = x[j].wrapping_add(tile.positions[j] * size_of::<K::Word>());
        }
        let mut sums = [[K::zero::<L>(); MV]; NB];
        let mut w = tile.w;
        for segment in tile.segments {
            let mut at = segment * size_of::<K::Word>();
            for _ in 0..tile.units {
                // SAFETY: `run` demands that weights and words of each unit are in memory.
                unsafe {
                    let mut weights = [K::no_weights::<L>(); MV];
                    for i in 0..MV {
                        weights[i] = K::weights::<L>(w.wrapping_add(i * K::lanes::<L>() * 4));
                    }
                    for j in 0..NB {
                        K::step::<L, MV>(&mut sums[j], &weights, x[j].wrapping_add(at));
                    }
                }
                w = w.wrapping_add(tile.step);
                at += unit;
            }
        }
        for j in 0..NB {
            for i in 0..MV {
                // SAFETY: `run` demands a row of results for each position.
                unsafe {
                    K::store::<L>(sums[j][i], tile.c.wrapping_add(j * tile.pitch + i * K::lanes::<L>()), tile.add)
                };
            }
        }
    }
}
