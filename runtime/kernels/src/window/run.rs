//! Running a convolution: units of work, threads, blocks of positions, tiles.

use std::ops::Range;

use crate::dispatch::Kernels;
use crate::error::{KernelError, filled, length};
use crate::portable::{dot, tile};
use crate::vector::{Level, MAX_LANES, MAX_VECTORS, Task, Vector, Weight};
use crate::window::pack::{Packed, Stored};
use crate::window::plan::{Plan, Route, Section};
use crate::window::stage::stage;
use crate::word::Ring;

/// Staged bytes that the positions of a block read, so that they stay in the second-level cache while all output
/// channels pass over them.
const BLOCK_BYTES: usize = 1 << 19;

/// Overwrites `y`. A unit is a tile of output channels of one group of one batch element; units lie in `y` one after
/// the other, so threads get consecutive ones and disjoint parts of `y`.
pub fn run<W: Ring>(kernels: Kernels, packed: &Packed, x: &[W], y: &mut [W]) -> Result<(), KernelError> {
    let plan = &packed.plan;
    length("input", plan.input_len(), x.len())?;
    length("output", plan.output_len(), y.len())?;
    let units = plan.batch * plan.groups * plan.tiles();
    let parts = kernels.parts(plan.mult_adds(), units);
    let mut rest = y;
    let mut start = 0;
    let mut tasks = Vec::new();
    for part in 0..parts {
        let end = (units as u128 * (part as u128 + 1) / parts as u128) as usize;
        let (y, next) = rest.split_at_mut(position(plan, end) - position(plan, start));
        rest = next;
        tasks.push(Part { packed, x, y, units: start..end });
        start = end;
    }
    let Some(last) = tasks.pop() else { return Ok(()) };
    std::thread::scope(|scope| {
        let others: Vec<_> = tasks.into_iter().map(|task| scope.spawn(move || kernels.run(task))).collect();
        let mut result = kernels.run(last);
        for other in others {
            result = result.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        result
    })
}

/// Where a unit begins in the output.
fn position(plan: &Plan, unit: usize) -> usize {
    let (group, tile) = (unit / plan.tiles(), unit % plan.tiles());
    (group * plan.out_channels + tile * plan.route.channels()) * plan.outputs()
}

/// The units of one thread; `y` is their part of the output.
struct Part<'a, W> {
    packed: &'a Packed,
    x: &'a [W],
    y: &'a mut [W],
    units: Range<usize>,
}

impl<W: Ring> Task for Part<'_, W> {
    type Out = Result<(), KernelError>;

    #[inline(always)]
    fn run<L: Level>(self) -> Result<(), KernelError> {
        let Part { packed, x, mut y, units } = self;
        let plan = &packed.plan;
        let tiles = plan.tiles();
        let mut staged = filled(W::ZERO, plan.staged)?;
        let mut unit = units.start;
        while unit < units.end {
            let group = unit / tiles;
            let end = units.end.min((group + 1) * tiles);
            let (group_y, next) = y.split_at_mut(position(plan, end) - position(plan, unit));
            y = next;
            let channels = plan.in_channels * plan.inputs();
            stage(plan, &x[group * channels..][..channels], &mut staged);
            // Weights are the same for every element of the batch.
            let first = group % plan.groups * tiles;
            let range = first + unit % tiles..first + unit % tiles + (end - unit);
            match plan.route {
                Route::Positions(1) => by_positions::<L, W, 1>(packed, range, &staged, group_y)?,
                Route::Positions(2) => by_positions::<L, W, 2>(packed, range, &staged, group_y)?,
                Route::Positions(_) => by_positions::<L, W, 4>(packed, range, &staged, group_y)?,
                Route::Taps => by_taps::<L, W>(packed, range, &staged, group_y)?,
            }
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
    let mut panel = filled(W::ZERO, longest * M)?;
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
                    to[..piece.len()].copy_from_slice(piece);
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
