//! Convolutions with sums over channels: staging, then tiles.

use crate::dense::block::{Block, side};
use crate::dense::geometry::{Geometry, Line};
use crate::dense::kind::Kind;
use crate::dense::pack::{Order, Panels};
use crate::dense::run::{AHEAD, Layout, Run, Visit, visit};
use crate::dispatch::Kernels;
use crate::error::KernelError;
use crate::pool;
use crate::scratch::Scratch;
use crate::spec::{ConvSpec, Weights};
use crate::vector::Level;
use crate::view::{Input, Output, Sink, Source, through_words};
use crate::word::Ring;

/// Fewest output channels of a group for which vectors over channels pay.
const FEWEST: usize = 8;

/// A convolution with its weights in panels.
#[derive(Clone, Debug)]
pub struct DenseConv {
    batch: usize,
    groups: usize,
    geometry: Geometry,
    panels: Panels,
}

impl DenseConv {
    /// `None` for convolutions that other kernels suit better: few output channels, huge padding.
    pub fn new(kernels: Kernels, spec: &ConvSpec, weights: &Weights<'_>) -> Result<Option<DenseConv>, KernelError> {
        let channels = spec.out_channels / spec.groups;
        if channels < FEWEST {
            return Ok(None);
        }
        let Some(geometry) = Geometry::new(spec)? else { return Ok(None) };
        let order = Order {
            groups: spec.groups,
            channels,
            row: spec.in_channels / spec.groups * spec.kernel.iter().product::<usize>(),
            values: &geometry.values,
            run: geometry.run,
        };
        let panels = Panels::new(&order, weights, kernels.panel())?;
        Ok(Some(DenseConv { batch: spec.batch, groups: spec.groups, geometry, panels }))
    }

    /// Evaluates it.
    pub fn run<W: Ring>(
        &self,
        kernels: Kernels,
        k: u32,
        x: Input<'_, W>,
        mut y: Output<'_, W>,
    ) -> Result<(), KernelError> {
        let planes = self.batch * self.groups;
        let source = Source::new(x, k, planes * self.geometry.channels * self.geometry.inputs())?;
        let n = planes * self.panels.channels * self.geometry.positions();
        let sink = Sink::new(&mut y, k, n)?;
        if sink.splits_at(self.geometry.positions()) && sink.splits_at(side::<W>()) {
            return self.groups(kernels, k, source, sink);
        }
        through_words(kernels, &mut y, k, n, |words| {
            let mut words = Output::Words(words);
            self.groups(kernels, k, source, Sink::new(&mut words, k, n)?)
        })
    }

    fn groups<W: Ring>(&self, kernels: Kernels, k: u32, x: Source<'_, W>, y: Sink<'_, W>) -> Result<(), KernelError> {
        let planes = self.batch * self.groups;
        let one = self.panels.channels as u128 * self.geometry.positions() as u128 * self.panels.total as u128;
        let within = kernels.parts(one, usize::MAX);
        if planes > 1 && within < kernels.threads() {
            // Groups are too small for threads, but there are several.
            let threads = kernels.parts(one * planes as u128, planes);
            return pool::run(threads, planes, &|plane| self.group(kernels, 1, k, plane, x, y));
        }
        (0..planes).try_for_each(|plane| self.group(kernels, within, k, plane, x, y))
    }

    /// One group of one element of the batch.
    fn group<W: Ring>(
        &self,
        kernels: Kernels,
        threads: usize,
        k: u32,
        plane: usize,
        x: Source<'_, W>,
        y: Sink<'_, W>,
    ) -> Result<(), KernelError> {
        let geometry = &self.geometry;
        let mut scratch = Scratch::words::<W>(geometry.staged)?;
        let staged = &mut scratch.get::<W>()[..geometry.staged];
        for (first, count) in &geometry.zeros {
            staged[*first..][..*count].fill(W::ZERO);
        }
        let to = Shared(staged.as_mut_ptr());
        let base = plane * geometry.channels * geometry.inputs();
        pool::run(threads, geometry.lines.len(), &|line| {
            let line = &geometry.lines[line];
            visit(kernels, self.panels.wide, k, Stage { geometry, line, x, base, to })
        })?;
        let run = Run {
            kernels,
            k,
            panels: &self.panels,
            group: plane % self.groups,
            layout: Layout::Planes(geometry),
            segments: &geometry.segments,
            positions: geometry.positions(),
            x: staged,
            sink: y,
            base: plane * self.panels.channels * geometry.positions(),
        };
        run.all(threads)
    }
}

/// Memory that several threads write, each its own part.
#[derive(Clone, Copy)]
struct Shared<W>(*mut W);

// SAFETY: users write disjoint parts.
unsafe impl<W: Send> Send for Shared<W> {}
// SAFETY: as above.
unsafe impl<W: Send> Sync for Shared<W> {}

/// Stages one line.
struct Stage<'a, W> {
    geometry: &'a Geometry,
    line: &'a Line,
    x: Source<'a, W>,
    /// First element of the group.
    base: usize,
    to: Shared<W>,
}

impl<W: Ring> Visit<W> for Stage<'_, W> {
    type Out = Result<(), KernelError>;

    #[inline(always)]
    fn visit<L: Level, K: Kind<Word = W>>(self) -> Result<(), KernelError> {
        if self.geometry.interleave {
            self.interleaved::<L, K>()
        } else {
            self.blocks::<L, K>()
        }
        Ok(())
    }
}

impl<W: Ring> Stage<'_, W> {
    /// Channels are few: word by word, then the whole row in pairs.
    #[inline(always)]
    fn interleaved<L: Level, K: Kind<Word = W>>(&self) {
        let (geometry, line) = (self.geometry, self.line);
        let (first, len) = geometry.row(line.target);
        // SAFETY: rows lie in the staged words, and no other line is in this row.
        let row = unsafe { std::slice::from_raw_parts_mut(self.to.0.add(first), len) };
        let to = &mut row[line.target - first..];
        match (geometry.channels, geometry.depth) {
            (1, 1) => self.pixels::<L, 1, 1>(to),
            (1, 2) => self.pixels::<L, 1, 2>(to),
            (2, 2) => self.pixels::<L, 2, 2>(to),
            (3, 3) => self.pixels::<L, 3, 3>(to),
            (3, 4) => self.pixels::<L, 3, 4>(to),
            (channels, depth) => {
                for (channel, at) in (0..depth).flat_map(|c| (0..line.count).map(move |at| (c, at))) {
                    let mut word = [W::ZERO];
                    if channel < channels {
                        self.read::<L>(self.from(channel, at), &mut word);
                    }
                    to[at * depth + channel] = word[0];
                }
            }
        }
        K::split_run(row);
    }

    /// First element of a pixel of the line.
    #[inline(always)]
    fn from(&self, channel: usize, pixel: usize) -> usize {
        self.base + channel * self.geometry.inputs() + self.line.source + pixel * self.geometry.step
    }

    /// Pixels of `D` words, of which the first `C` are channels.
    #[inline(always)]
    fn pixels<L: Level, const C: usize, const D: usize>(&self, to: &mut [W]) {
        const PIECE: usize = 64;
        let mut words = [[W::ZERO; PIECE]; D];
        for at in (0..self.line.count).step_by(PIECE) {
            let n = PIECE.min(self.line.count - at);
            for (channel, words) in words[..C].iter_mut().enumerate() {
                self.read::<L>(self.from(channel, at), &mut words[..n]);
            }
            for (j, pixel) in to[at * D..].as_chunks_mut::<D>().0.iter_mut().take(n).enumerate() {
                for (to, words) in pixel.iter_mut().zip(&words) {
                    *to = words[j];
                }
            }
        }
    }

    /// Blocks of pixels and channels, split and transposed.
    #[inline(always)]
    fn blocks<L: Level, K: Kind<Word = W>>(&self) {
        let (geometry, line) = (self.geometry, self.line);
        let (side, depth) = (side::<W>(), geometry.depth);
        let mut block = Block::zero();
        for first in (0..depth).step_by(side) {
            let there = side.min(geometry.channels - first.min(geometry.channels));
            let words = side.min(depth - first);
            for at in (0..line.count).step_by(side) {
                let pixels = side.min(line.count - at);
                for i in 0..there {
                    let from = self.from(first + i, at);
                    self.x.prefetch::<L>(from + AHEAD * side * geometry.step);
                    if pixels == side {
                        self.read::<L>(from, block.row_mut(i));
                    } else {
                        self.read::<L>(from, &mut block.row_mut(i)[..pixels]);
                    }
                }
                for i in there..side {
                    block.row_mut(i).fill(W::ZERO);
                }
                K::split_block(&mut block);
                block.transpose::<L>();
                for j in 0..pixels {
                    let to = line.target + (at + j) * depth + first;
                    // SAFETY: pixels of a line lie in the staged words, and lines are disjoint.
                    let to = unsafe { std::slice::from_raw_parts_mut(self.to.0.add(to), words) };
                    if words == side {
                        to.copy_from_slice(block.row(j));
                    } else {
                        to.copy_from_slice(&block.row(j)[..words]);
                    }
                }
            }
        }
    }

    /// Every `step`th element of the source.
    #[inline(always)]
    fn read<L: Level>(&self, from: usize, to: &mut [W]) {
        match self.geometry.step {
            1 => self.x.read::<L>(from, to),
            2 => {
                let mut words = [W::ZERO; 128];
                let words = &mut words[..2 * to.len() - 1];
                self.x.read::<L>(from, words);
                to.iter_mut().zip(words.iter().step_by(2)).for_each(|(t, w)| *t = *w);
            }
            step => to.chunks_mut(1).enumerate().for_each(|(i, t)| self.x.read::<L>(from + i * step, t)),
        }
    }
}
