//! Running a convolution: units of work, threads, blocks of positions, tiles.

use std::ops::Range;

use crate::dispatch::Kernels;
use crate::error::{KernelError, filled};
use crate::pool;
use crate::portable::{dot, tile};
use crate::scratch::Scratch;
use crate::vector::{Level, MAX_LANES, MAX_VECTORS, Task, Vector, Weight};
use crate::view::{Sink, Source};
use crate::window::pack::{Packed, Stored};
use crate::window::plan::{Plan, Route, Section};
use crate::window::stage::{copy_row, stage};
use crate::word::Ring;

/// Staged bytes that the positions of a block read, so that they stay in the second-level cache while all output
/// channels pass over them.
const BLOCK_BYTES: usize = 1 << 19;

/// Writes `y`. A unit is a tile of output channels of one group of one element of the batch; units lie in the output
/// one after the other.
pub fn run<W: Ring>(kernels: Kernels, packed: &Packed, x: Source<'_, W>, y: Sink<'_, W>) -> Result<(), KernelError> {
    let plan = &packed.plan;
    let units = plan.batch * plan.groups * plan.tiles();
    let threads = kernels.parts(plan.mult_adds(), units);
    // Several parts a thread, since threads are not equally fast.
    let parts = if threads == 1 { 1 } else { units.min(4 * threads) };
    let start = |part: usize| (units as u128 * part as u128 / parts as u128) as usize;
    pool::run(threads, parts, &|part| kernels.run(Part { packed, x, y, units: start(part)..start(part + 1) }))
}

/// Where a unit begins in the output.
fn position(plan: &Plan, unit: usize) -> usize {
    let (group, tile) = (unit / plan.tiles(), unit % plan.tiles());
    (group * plan.out_channels + tile * plan.route.channels()) * plan.outputs()
}

/// Some units in a row.
struct Part<'a, W> {
    packed: &'a Packed,
    x: Source<'a, W>,
    y: Sink<'a, W>,
    units: Range<usize>,
}

impl<W: Ring> Task for Part<'_, W> {
    type Out = Result<(), KernelError>;

    #[inline(always)]
    fn run<L: Level>(self) -> Result<(), KernelError> {
        let Part { packed, x, y, units } = self;
        let plan = &packed.plan;
        let tiles = plan.tiles();
        let channels = plan.in_channels * plan.inputs();
        let most = tiles.min(units.len()) * plan.route.channels().min(plan.out_channels) * plan.outputs();
        let mut staged = Scratch::words::<W>(plan.staged)?;
        let staged = &mut staged.get::<W>()[..plan.staged];
        staged.fill(W::ZERO);
        let mut input = Scratch::words::<W>(channels)?;
        let input = &mut input.get::<W>()[..channels];
        let mut output = Scratch::words::<W>(most)?;
        let output = &mut output.get::<W>()[..most];
        let mut panel = Vec::new();
        let mut unit = units.start;
        while unit < units.end {
            let group = unit / tiles;
            let end = units.end.min((group + 1) * tiles);
            let at = position(plan, unit);
            let output = &mut output[..position(plan, end) - at];
            x.read::<L>(group * channels, input);
            stage(plan, input, staged);
            // Weights are the same for every element of the batch.
            let first = group % plan.groups * tiles;
            let range = first + unit % tiles..first + unit % tiles + (end - unit);
            match plan.route {
                Route::Positions(1) => by_positions::<L, W, 1>(packed, range, staged, output, &mut panel)?,
                Route::Positions(2) => by_positions::<L, W, 2>(packed, range, staged, output, &mut panel)?,
                Route::Positions(_) => by_positions::<L, W, 4>(packed, range, staged, output, &mut panel)?,
                Route::Taps => by_taps::<L, W>(packed, range, staged, output)?,
            }
            // SAFETY: units are disjoint, and the caller has asked whether the output splits at channels.
            unsafe { y.write::<L>(at, output) };
            unit = end;
        }
        Ok(())
    }
}

/// Tiles `range` (counted over all groups) of one group, vectors over output positions.
#[inline(always)]
fn by_positions<L: Level, W: Ring, const M: usize>(
    packed: &Packed,
    range: Range<usize>,
    staged: &[W],
    y: &mut [W],
    panel: &mut Vec<W>,
) -> Result<(), KernelError> {
    let plan = &packed.plan;
    let covered: usize = plan.sections.iter().map(|s| plan.phases(s).iter().map(|p| p.count).product::<usize>()).sum();
    if covered < plan.outputs() {
        y.fill(W::ZERO); // outputs of a transposed convolution that no tap reaches
    }
    let lanes = <W::Vector<L> as Vector<W>>::LANES;
    let largest = lanes * <W::Vector<L> as Vector<W>>::VECTORS;
    let taps: usize = plan.sections.iter().map(|s| s.offsets.len()).sum();
    let longest = plan.sections.iter().map(|s| s.offsets.len()).max().unwrap_or(0);
    if panel.len() < longest * M {
        *panel = filled(W::ZERO, longest * M)?;
    }
    let mut sums = [W::ZERO; 4 * MAX_LANES * MAX_VECTORS];
    let planes: usize = plan.axes.iter().map(|a| a.planes.len()).product();
    let block = (BLOCK_BYTES / size_of::<W>() / (plan.in_channels * planes).max(1)).max(largest) / largest * largest;

    let mut skipped = 0;
    for section in &plan.sections {
        let panel = &mut panel[..section.offsets.len() * M];
        for (z, from, to) in blocks(plan, section, block) {
            let x = &staged[z * plan.axes[1].len * plan.axes[2].len..];
            for (index, tile) in range.clone().enumerate() {
                widen(&packed.weights, (tile * taps + skipped) * M, panel);
                let first = index * M * plan.outputs();
                let rows = M.min(y[first..].len() / plan.outputs());
                let y = &mut y[first..][..rows * plan.outputs()];
                let mut at = from;
                while at < to {
                    // As even as possible, not five vectors and then one.
                    let vectors = (to - at).div_ceil(lanes);
                    let vectors = vectors.div_ceil(vectors.div_ceil(largest / lanes));
                    tile::tile::<L, W, M>(vectors, panel, &section.offsets, &x[at..], &mut sums);
                    let end = to.min(at + vectors * lanes);
                    scatter(plan, section, z, at..end, vectors * lanes, &sums, y);
                    at = end;
                }
            }
        }
        skipped += section.offsets.len();
    }
    Ok(())
}

/// The blocks of positions of a section: index on the first axis, first and last position among the rows.
fn blocks(plan: &Plan, section: &Section, block: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let [z, y, x] = plan.phases(section);
    let positions = (y.count - 1) * plan.axes[2].len + x.count;
    (0..z.count).flat_map(move |z| {
        (0..positions).step_by(block).map(move |from| (z, from, positions.min(from.saturating_add(block))))
    })
}

/// Weights from `at` on as words.
#[inline(always)]
fn widen<W: Ring>(weights: &Stored, at: usize, panel: &mut [W]) {
    match weights {
        Stored::I16(w) => panel.iter_mut().zip(&w[at..]).for_each(|(p, w)| *p = w.word()),
        Stored::I32(w) => panel.iter_mut().zip(&w[at..]).for_each(|(p, w)| *p = w.word()),
    }
}

/// Copies positions `at` of a tile (`[rows, width]`) to the output rows `y`, leaving out those between two rows.
fn scatter<W: Ring>(plan: &Plan, section: &Section, z: usize, at: Range<usize>, width: usize, sums: &[W], y: &mut [W]) {
    let [z_axis, y_axis, x_axis] = &plan.axes;
    let [z_phase, y_phase, x_phase] = plan.phases(section);
    let pitch = x_axis.len;
    let plane = (z_phase.first + z * z_axis.step) * y_axis.output;
    for (sums, y) in sums.chunks_exact(width).zip(y.chunks_exact_mut(plan.outputs())) {
        let (mut row, mut column) = (at.start / pitch, at.start % pitch);
        let mut sums = &sums[..at.len()];
        while !sums.is_empty() {
            let (piece, next) = sums.split_at((pitch - column).min(sums.len()));
            sums = next;
            if column < x_phase.count {
                let piece = &piece[..piece.len().min(x_phase.count - column)];
                let line = (plane + y_phase.first + row * y_axis.step) * x_axis.output;
                let to = &mut y[line + x_phase.first + column * x_axis.step..];
                if x_axis.step == 1 {
                    copy_row(piece, &mut to[..piece.len()]);
                } else {
                    to.iter_mut().step_by(x_axis.step).zip(piece).for_each(|(to, v)| *to = *v);
                }
            }
            (row, column) = (row + 1, 0);
        }
    }
}

/// Tiles `range` (counted over all groups) of one group, vectors over taps: for very few output positions.
#[inline(always)]
fn by_taps<L: Level, W: Ring>(
    packed: &Packed,
    range: Range<usize>,
    staged: &[W],
    y: &mut [W],
) -> Result<(), KernelError> {
    let plan = &packed.plan;
    let (outputs, taps) = (plan.outputs(), plan.taps);
    let [z, y_axis, x_axis] = &plan.axes;
    let mut rows = filled(W::ZERO, outputs * taps)?;
    for (row, section) in plan.sections.iter().flat_map(|s| (0..outputs).map(move |p| (p, s))) {
        let (oz, oy, ox) = (
            row / (y_axis.output * x_axis.output) % z.output,
            row / x_axis.output % y_axis.output,
            row % x_axis.output,
        );
        let base = (oz * y_axis.len + oy) * x_axis.len + ox;
        let row = &mut rows[row * taps..][..taps];
        row.iter_mut().zip(&section.offsets).for_each(|(r, offset)| *r = staged[base + offset]);
    }
    // Tiles count four channels each, but the last of a group may have fewer.
    let channels = y.len() / outputs;
    let group = range.start / plan.tiles();
    let first = group * plan.out_channels + range.start % plan.tiles() * 4;
    let mut columns = filled(W::ZERO, outputs * channels)?;
    match &packed.weights {
        Stored::I16(w) => {
            dot::product::<L, W, i16>(taps, &rows, &w[first * taps..][..channels * taps], &mut columns, channels)
        }
        Stored::I32(w) => {
            dot::product::<L, W, i32>(taps, &rows, &w[first * taps..][..channels * taps], &mut columns, channels)
        }
    }
    for (channel, y) in y.chunks_exact_mut(outputs).enumerate() {
        y.iter_mut().zip(columns.iter().skip(channel).step_by(channels)).for_each(|(y, v)| *y = *v);
    }
    Ok(())
}
