//! One spatial axis of a convolution: which source elements are staged, and where each tap finds them.

use std::collections::BTreeMap;

/// A run of staged elements: element `j` is source element `start + step * j`, or zero outside the source.
#[derive(Clone, Debug)]
pub struct Plane {
    pub start: i64,
    pub step: usize,
    /// The `j` inside the source: `inside.0..inside.1`.
    pub inside: (usize, usize),
}

/// A weight's position on this axis and the staged element that it multiplies for the first output of its phase.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    pub index: usize,
    pub plane: usize,
    pub shift: usize,
}

/// Outputs `first + step * j` for `j < count` (`step` of the axis), which read element `shift + j` of each tap.
#[derive(Clone, Debug)]
pub struct Phase {
    pub first: usize,
    pub count: usize,
    pub taps: Vec<Tap>,
}

/// An axis, staged in planes of `len` elements. Outputs that belong to no phase are zero.
#[derive(Clone, Debug)]
pub struct Axis {
    pub input: usize,
    pub output: usize,
    pub planes: Vec<Plane>,
    pub len: usize,
    pub phases: Vec<Phase>,
    /// Distance between the outputs of a phase.
    pub step: usize,
}

impl Axis {
    /// An axis that is not there.
    pub fn unit() -> Axis {
        Axis::conv(1, 1, 1, 1, 0, 1)
    }

    /// An axis of a convolution; arguments as validated by the specification.
    pub fn conv(input: usize, kernel: usize, stride: usize, dilation: usize, before: usize, output: usize) -> Axis {
        let reach = |k: usize| k * dilation;
        // One plane for each residue of the stride that a tap has; neighbouring taps of a residue share it.
        let mut residues: BTreeMap<usize, usize> = BTreeMap::new();
        for k in 0..kernel {
            let next = residues.len();
            residues.entry(reach(k) % stride).or_insert(next);
        }
        let shared = output + reach(kernel - 1) / stride;
        let starts: Vec<i64>;
        let (len, taps);
        if worth_apart(output, kernel, shared, residues.len()) {
            starts = (0..kernel).map(|k| reach(k) as i64 - before as i64).collect();
            len = output;
            taps = (0..kernel).map(|k| Tap { index: k, plane: k, shift: 0 }).collect();
        } else {
            let mut by_plane = vec![0; residues.len()];
            for (residue, plane) in &residues {
                by_plane[*plane] = *residue as i64 - before as i64;
            }
            starts = by_plane;
            len = shared;
            let tap = |k: usize| Tap { index: k, plane: residues[&(reach(k) % stride)], shift: reach(k) / stride };
            taps = (0..kernel).map(tap).collect();
        }
        Axis {
            input,
            output,
            planes: starts.into_iter().map(|start| Plane::new(start, stride, len, input)).collect(),
            len,
            phases: vec![Phase { first: 0, count: output, taps }],
            step: 1,
        }
    }

    /// An axis of a transposed convolution; arguments as validated by the specification.
    pub fn transpose(
        input: usize,
        kernel: usize,
        stride: usize,
        dilation: usize,
        before: usize,
        output: usize,
    ) -> Axis {
        // Output o gets tap k from input (o + before - k * dilation) / stride if that divides, so outputs of one
        // residue share their taps.
        let mut residues: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for k in 0..kernel {
            residues.entry(k * dilation % stride).or_default().push(k);
        }
        // First output, number of outputs, and each tap with the source element that it meets in the first output.
        type Reached = (usize, usize, Vec<(usize, i64)>);
        let mut phases: Vec<Reached> = Vec::new();
        for (residue, taps) in residues {
            let first = (residue + stride - before % stride) % stride;
            if first < output {
                let source = |k: usize| ((first + before) / stride) as i64 - (k * dilation / stride) as i64;
                let count = (output - first).div_ceil(stride);
                phases.push((first, count, taps.into_iter().map(|k| (k, source(k))).collect()));
            }
        }
        let sources = || phases.iter().flat_map(|(_, count, taps)| taps.iter().map(move |(_, s)| (*s, *count)));
        let low = sources().map(|(s, _)| s).min().unwrap_or(0);
        let high = sources().map(|(s, count)| s + count as i64).max().unwrap_or(0);
        let shared = (high - low) as usize;
        let most = phases.iter().map(|(_, count, _)| *count).max().unwrap_or(0);
        let apart = worth_apart(most, sources().count(), shared, 1);
        let len = if apart { most } else { shared };
        let mut planes = if apart { Vec::new() } else { vec![Plane::new(low, 1, len, input)] };
        let mut staged = Vec::new();
        for (first, count, taps) in phases {
            let mut found = Vec::new();
            for (index, source) in taps {
                if apart {
                    found.push(Tap { index, plane: planes.len(), shift: 0 });
                    planes.push(Plane::new(source, 1, len, input));
                } else {
                    found.push(Tap { index, plane: 0, shift: (source - low) as usize });
                }
            }
            staged.push(Phase { first, count, taps: found });
        }
        Axis { input, output, planes, len, phases: staged, step: stride }
    }
}

impl Plane {
    fn new(start: i64, step: usize, len: usize, input: usize) -> Plane {
        // Least j with start + step * j >= bound.
        let reaches = |bound: i64| {
            let j = (bound - start).max(0) as u64;
            (j.div_ceil(step as u64) as usize).min(len)
        };
        let inside = (reaches(0), reaches(input as i64));
        Plane { start, step, inside }
    }

    /// The source element of a `j` inside the source.
    pub fn source(&self, j: usize) -> usize {
        (self.start + (self.step * j) as i64) as usize
    }
}

/// Whether each tap should have a plane of its own. Shared planes are longer than the outputs by the reach of the
/// window, and positions in between are computed in vain: not where most would be, unless separate planes take several
/// times the memory.
fn worth_apart(output: usize, taps: usize, shared: usize, planes: usize) -> bool {
    shared > output.saturating_mul(2) && taps.saturating_mul(output) <= planes.saturating_mul(shared).saturating_mul(4)
}
