//! Tiles over the panels of output channels and blocks of output positions.

use std::ops::Range;

use crate::dense::block::{Block, side};
use crate::dense::geometry::Geometry;
use crate::dense::kind::Kind;
use crate::dense::pack::{Panel, Panels};
use crate::dense::tile::{self, Tile};
use crate::dispatch::Kernels;
use crate::error::KernelError;
use crate::pool;
use crate::scratch::Scratch;
use crate::vector::{Level, Task};
use crate::view::Sink;
use crate::word::Ring;

/// Bytes of one panel's weights that pass over a block of positions before the next ones: they stay in the
/// second-level cache meanwhile.
const WEIGHTS_BYTES: usize = 200 << 10;

/// Bytes of staged activations that a block of positions reads.
const BLOCK_BYTES: usize = 256 << 10;

/// Fewest and most positions of a block; multiples of the sides of all blocks that are transposed.
const BLOCK: (usize, usize) = (48, 480);

/// How many blocks ahead of a transposition its lines are asked for: each is the only one of its channel, so the
/// processor does not see that they are streams.
pub const AHEAD: usize = 6;

/// Work for the kind of product that suits an instruction set, a word, a width and a width of weights.
pub trait Visit<W: Ring> {
    type Out;

    /// Does the work.
    fn visit<L: Level, K: Kind<Word = W>>(self) -> Self::Out;
}

/// A visit as a task.
pub struct Visiting<V> {
    pub wide: bool,
    pub k: u32,
    pub visit: V,
}

/// Runs a visit compiled for the instruction set.
pub fn visit<W: Ring, V: Visit<W>>(kernels: Kernels, wide: bool, k: u32, visit: V) -> V::Out {
    struct Of<W, V>(Visiting<V>, std::marker::PhantomData<W>);
    impl<W: Ring, V: Visit<W>> Task for Of<W, V> {
        type Out = V::Out;

        #[inline(always)]
        fn run<L: Level>(self) -> V::Out {
            W::kind::<L, V>(self.0)
        }
    }
    kernels.run(Of(Visiting { wide, k, visit }, std::marker::PhantomData))
}

/// How output positions lie in the staged input and in the output.
#[derive(Clone, Copy)]
pub enum Layout<'a> {
    /// Positions of a convolution; the output is `[channel, position]`.
    Planes(&'a Geometry),
    /// Rows of a matrix of this pitch; the output is `[position, channel]`.
    Rows { pitch: usize },
}

/// One group of a convolution, or a matrix product, with its input staged.
#[derive(Clone, Copy)]
pub struct Run<'a, W> {
    pub kernels: Kernels,
    pub k: u32,
    pub panels: &'a Panels,
    pub group: usize,
    pub layout: Layout<'a>,
    pub segments: &'a [usize],
    /// Output positions.
    pub positions: usize,
    /// Staged words.
    pub x: &'a [W],
    pub sink: Sink<'a, W>,
    /// First element of the output.
    pub base: usize,
}

impl<W: Ring> Run<'_, W> {
    /// Computes all positions and channels on up to so many threads.
    pub fn all(&self, threads: usize) -> Result<(), KernelError> {
        let block = self.block();
        let blocks = self.positions.div_ceil(block);
        let panels = &self.panels.panels;
        pool::run(threads, blocks * panels.len(), &|item| {
            let first = item / panels.len() * block;
            let range = first..self.positions.min(first + block);
            let item = Item { run: self, range, panel: panels[item % panels.len()] };
            visit(self.kernels, self.panels.wide, self.k, item)
        })
    }

    /// Positions of a block.
    fn block(&self) -> usize {
        let footprint = match self.layout {
            Layout::Planes(geometry) => geometry.footprint(),
            Layout::Rows { pitch } => pitch,
        };
        let most = (BLOCK_BYTES / size_of::<W>() / footprint).clamp(BLOCK.0, BLOCK.1);
        let even = self.positions.div_ceil(self.positions.div_ceil(most));
        even.next_multiple_of(BLOCK.0)
    }
}

/// A block of positions and a panel of channels.
struct Item<'a, W> {
    run: &'a Run<'a, W>,
    range: Range<usize>,
    panel: Panel,
}

impl<W: Ring> Visit<W> for Item<'_, W> {
    type Out = Result<(), KernelError>;

    #[inline(always)]
    fn visit<L: Level, K: Kind<Word = W>>(self) -> Result<(), KernelError> {
        let Item { run, range, panel } = self;
        let n = range.len();
        let mut addresses = [0; BLOCK.1];
        let addresses = &mut addresses[..n];
        match run.layout {
            Layout::Planes(geometry) => geometry.addresses(range.start, addresses),
            Layout::Rows { pitch } => {
                addresses.iter_mut().enumerate().for_each(|(j, a)| *a = (range.start + j) * pitch);
            }
        }
        // Whole blocks for the transposition: what lies behind the last position is dropped.
        let rows = n.next_multiple_of(side::<W>());
        let mut scratch = Scratch::words::<W>(rows * panel.width)?;
        let c = &mut scratch.get::<W>()[..rows * panel.width];
        if let Layout::Planes(_) = run.layout {
            // The first of the lines that the end touches; it asks for the others itself.
            for channel in panel.first..run.panels.channels.min(panel.first + panel.width) {
                let at = run.base + channel * run.positions + range.start;
                (0..AHEAD).for_each(|i| run.sink.prefetch::<L>(at + i * side::<W>()));
            }
        }
        multiply::<L, K>(run, addresses, &panel, c);
        match run.layout {
            Layout::Planes(_) => planes::<L, W>(run, range, &panel, c)?,
            Layout::Rows { .. } => {
                for (row, c) in range.zip(c.chunks_exact(panel.width)) {
                    let there = panel.width.min(run.panels.channels - panel.first);
                    // SAFETY: panels and rows are disjoint; `matmul` has asked whether the output splits there.
                    unsafe { run.sink.write::<L>(run.base + row * run.panels.channels + panel.first, &c[..there]) };
                }
            }
        }
        Ok(())
    }
}

/// The products of some positions and a panel, `[position, channel]`.
#[inline(always)]
fn multiply<L: Level, K: Kind>(run: &Run<'_, K::Word>, addresses: &[usize], panel: &Panel, c: &mut [K::Word]) {
    let panels = run.panels;
    let step = panel.width * 4;
    let start = panels.start(run.group, panel);
    let mut mv = K::vectors::<L>();
    while !panel.width.is_multiple_of(mv * K::lanes::<L>()) {
        mv /= 2;
    }
    let lanes = mv * K::lanes::<L>();
    let most = tile::most::<L, K>(mv);
    // One pass where weights are read once anyway.
    let limit = if addresses.len() <= most { usize::MAX } else { (WEIGHTS_BYTES / step).max(1) };
    let whole = (limit / panels.units).max(1);
    let mut add = false;
    for (s, segments) in run.segments.chunks(whole).enumerate() {
        let skipped = s * whole * panels.units;
        let parts = panels.units.div_ceil(limit);
        let part = panels.units.div_ceil(parts);
        for first in (0..panels.units).step_by(part) {
            let units = part.min(panels.units - first);
            for sub in 0..panel.width / lanes {
                let mut at = 0;
                while at < addresses.len() {
                    // As even as possible, not a full tile and then a single position.
                    let left = addresses.len() - at;
                    let size = tile::fitting(mv, left.div_ceil(left.div_ceil(most)));
                    let tile = Tile {
                        w: start.wrapping_add((skipped + first) * step + sub * lanes * 4),
                        step,
                        segments,
                        units,
                        x: run.x.as_ptr().wrapping_add(first * K::unit()),
                        positions: &addresses[at..at + size],
                        c: c[at * panel.width + sub * lanes..].as_mut_ptr(),
                        pitch: panel.width,
                        add,
                    };
                    // SAFETY: the panel has these weights; `Geometry` and `matmul` stage a unit behind each address;
                    // `c` has a row for each position; `L` runs.
                    unsafe { tile::run::<L, K>(mv, tile) };
                    at += size;
                }
            }
            add = true;
        }
    }
}

/// Transposes the products and writes them, channel by channel: each as one long line, which the processor sees as a
/// stream, and not as one short piece of many.
#[inline(always)]
fn planes<L: Level, W: Ring>(run: &Run<'_, W>, range: Range<usize>, panel: &Panel, c: &[W]) -> Result<(), KernelError> {
    let side = side::<W>();
    let channels = panel.width.min(run.panels.channels - panel.first);
    let length = range.len().next_multiple_of(side);
    let mut scratch = Scratch::words::<W>(side * length)?;
    let lines = &mut scratch.get::<W>()[..side * length];
    let mut block = Block::zero();
    for first in (0..channels).step_by(side) {
        for at in (0..range.len()).step_by(side) {
            for j in 0..side {
                block.row_mut(j).copy_from_slice(&c[(at + j) * panel.width + first..][..side]);
            }
            block.transpose::<L>();
            for i in 0..side {
                lines[i * length + at..][..side].copy_from_slice(block.row(i));
            }
        }
        for i in 0..side.min(channels - first) {
            let channel = panel.first + first + i;
            let to = run.base + channel * run.positions + range.start;
            // SAFETY: blocks of positions and panels are disjoint; `conv` has asked whether the output splits at blocks
            // and channels.
            unsafe { run.sink.write::<L>(to, &lines[i * length..][..range.len()]) };
        }
    }
    Ok(())
}
