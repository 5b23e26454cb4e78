//! Staging: the input of a group with its zero padding, one plane for each residue of the stride.

use crate::window::plan::Plan;
use crate::word::Ring;

/// Copies the channels `x` of one group to `staged`. What the copy does not touch is padding and must be zero; it is
/// the same for every group, so a buffer can be used again.
#[inline(always)]
pub fn stage<W: Ring>(plan: &Plan, x: &[W], staged: &mut [W]) {
    let [z_axis, y_axis, x_axis] = &plan.axes;
    let row_len = x_axis.input;
    let volume = z_axis.len * y_axis.len * x_axis.len;
    if volume == 0 {
        return; // a transposed convolution whose taps all miss the output
    }
    for (channel, staged) in x.chunks_exact(plan.inputs()).zip(staged.chunks_exact_mut(plan.staged_channel)) {
        let mut volumes = staged.chunks_exact_mut(volume);
        for z in &z_axis.planes {
            for y in &y_axis.planes {
                for (x, volume) in x_axis.planes.iter().zip(volumes.by_ref()) {
                    let (from, to) = x.inside;
                    if from >= to {
                        continue;
                    }
                    for jz in z.inside.0..z.inside.1 {
                        for jy in y.inside.0..y.inside.1 {
                            let row = z.source(jz) * y_axis.input + y.source(jy);
                            let source = &channel[row * row_len..][..row_len][x.source(from)..];
                            let target = &mut volume[(jz * y_axis.len + jy) * x_axis.len..][from..to];
                            copy(source, x.step, target);
                        }
                    }
                }
            }
        }
    }
}

/// Every `step`th element, from the first on.
#[inline(always)]
fn copy<W: Ring>(source: &[W], step: usize, target: &mut [W]) {
    match step {
        1 => copy_row(&source[..target.len()], target),
        2 => {
            // By pairs, which the compiler vectorises; the last element may have no partner.
            if let Some((last, target)) = target.split_last_mut() {
                *last = source[2 * target.len()];
                target.iter_mut().zip(source.as_chunks::<2>().0).for_each(|(t, [s, _])| *t = *s);
            }
        }
        _ => target.iter_mut().zip(source.iter().step_by(step)).for_each(|(t, s)| *t = *s),
    }
}

/// Copies a row, which is too short for a call: sixteen words at a time, the last of them a second time if need be.
#[inline(always)]
pub fn copy_row<W: Copy>(from: &[W], to: &mut [W]) {
    const PIECE: usize = 16;
    if let (Some(first), Some(last)) = (from.last_chunk::<PIECE>(), to.len().checked_sub(PIECE)) {
        for (to, from) in to.as_chunks_mut::<PIECE>().0.iter_mut().zip(from.as_chunks::<PIECE>().0) {
            *to = *from;
        }
        to[last..].copy_from_slice(first);
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}
