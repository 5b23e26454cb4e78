//! Two-dimensional pooling: the largest or the mean element of each window.

use super::pointwise::larger;
use super::{LANES, scratch};
use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::portable::loops::loops;
use crate::vector::{Level, Task};

/// Geometry of two-dimensional pooling over planes of `input[0]` rows of `input[1]` elements. Window `i` of an axis
/// covers the elements from `i * stride - begin` on, as far as there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Rows and columns of a plane.
    pub input: [usize; 2],
    /// Rows and columns of a result.
    pub output: [usize; 2],
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Steps from window to window.
    pub strides: [usize; 2],
    /// Padding before the first row and column; what follows the last is given by the output.
    pub begin: [usize; 2],
}

/// Elements of padded rows taken at once, so that all passes stay in the first cache.
const BAND: usize = 2048;

impl PoolSpec {
    /// `Err` unless every window holds an element, so that there always is a largest and a mean one.
    ///
    /// # Errors
    /// Sizes of zero or beyond what is addressed; a window that lies in the padding.
    pub fn validate(&self) -> Result<(), KernelError> {
        let large = KernelError::TooLarge { what: "pooling" };
        for axis in 0..2 {
            let lists = [("pooling input", self.input), ("pooling output", self.output)];
            let lists = lists.into_iter().chain([("pooling window", self.kernel), ("pooling stride", self.strides)]);
            if let Some((what, _)) = lists.into_iter().find(|(_, list)| list[axis] == 0) {
                return Err(KernelError::Zero { what });
            }
            let padded = self.input[axis].checked_add(self.begin[axis]).ok_or(large.clone())?;
            padded.checked_add(LANES).ok_or(large.clone())?;
            let last = (self.output[axis] - 1).checked_mul(self.strides[axis]).ok_or(large.clone())?;
            let window = self.kernel[axis];
            if self.begin[axis] >= window || last >= padded {
                return Err(KernelError::Window { axis, window, padded });
            }
            last.checked_add(window).and_then(|n| n.checked_mul(4)).ok_or(large.clone())?;
        }
        self.input[0].checked_mul(self.input[1]).ok_or(large.clone())?;
        self.output[0].checked_mul(self.output[1]).ok_or(large)?;
        Ok(())
    }

    /// Elements of a row that windows may hold, in whole vectors.
    fn vectors(&self) -> usize {
        self.input[1].next_multiple_of(LANES)
    }

    /// Results of a padded row, those that are not wanted included: room for the windows of the last, and for rows in
    /// whole vectors.
    fn columns(&self) -> usize {
        let windows = self.output[1] + (self.kernel[1] - 1) / self.strides[1];
        windows.max((self.begin[1] + self.vectors()).div_ceil(self.strides[1]))
    }

    /// Rows of results taken at once.
    fn band(&self) -> usize {
        (BAND / self.columns().saturating_mul(self.strides[1])).max(1)
    }

    /// The first row or column of a window, and the one after its last.
    fn range(&self, axis: usize, window: usize) -> (usize, usize) {
        let start = window * self.strides[axis];
        let end = (start + self.kernel[axis]).saturating_sub(self.begin[axis]).min(self.input[axis]);
        (start.saturating_sub(self.begin[axis]), end)
    }
}

impl Kernels {
    /// The largest element of each window, of as many planes as `x` has. `buffer` is scratch space that keeps its memory
    /// between calls.
    ///
    /// # Errors
    /// As [`PoolSpec::validate`]; numbers of elements that are not those of whole planes.
    pub fn max_pool(
        self,
        spec: &PoolSpec,
        x: &[f32],
        buffer: &mut Vec<f32>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        planes(spec, x, out)?;
        let rows = buffers(spec, f32::NEG_INFINITY, buffer)?;
        largest(self, spec, x, rows, out);
        Ok(())
    }

    /// The mean of each window, padding (before and after) counted as zeros or not counted. `padded` is the number of
    /// rows and columns with padding, as far as it counts.
    ///
    /// # Errors
    /// As [`Kernels::max_pool`].
    pub fn average_pool(
        self,
        spec: &PoolSpec,
        padded: Option<[usize; 2]>,
        x: &[f32],
        buffer: &mut Vec<f32>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        planes(spec, x, out)?;
        let rows = buffers(spec, 0.0, buffer)?;
        mean(self, spec, padded, x, rows, out);
        Ok(())
    }
}

/// `Err` unless both hold the same number of planes.
fn planes(spec: &PoolSpec, x: &[f32], out: &[f32]) -> Result<(), KernelError> {
    spec.validate()?;
    let plane = spec.input[0] * spec.input[1];
    length("pooling input", x.len() / plane * plane, x.len())?;
    let results = (spec.output[0] * spec.output[1]).checked_mul(x.len() / plane);
    length("pooling output", results.ok_or(KernelError::TooLarge { what: "pooling output" })?, out.len())
}

/// Padded rows of a band, the same taken apart by column modulo the stride, and results.
fn buffers<'a>(spec: &PoolSpec, start: f32, buffer: &'a mut Vec<f32>) -> Result<[&'a mut [f32]; 3], KernelError> {
    let results = spec.band().checked_mul(spec.columns());
    let rows = results.and_then(|n| n.checked_mul(spec.strides[1]));
    let all = rows.and_then(|n| n.checked_mul(2)).and_then(|n| n.checked_add(results?));
    let (Some(results), Some(rows), Some(all)) = (results, rows, all) else {
        return Err(KernelError::TooLarge { what: "pooling rows" });
    };
    let (padded, rest) = scratch(buffer, start, all)?.split_at_mut(rows);
    let (parts, rest) = rest.split_at_mut(rows);
    Ok([padded, parts, &mut rest[..results]])
}

/// Joins the rows of `width` elements from `first` to `end`, as far as `out` reaches. Each number of rows has a loop of
/// its own, in the form that compilers turn into vectors.
#[inline(always)]
fn join_rows(x: &[f32], width: usize, (first, end): (usize, usize), out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let n = out.len();
    let row = |y: usize| &x[y * width..][..n];
    match end - first {
        1 => out.copy_from_slice(row(first)),
        2 => {
            for ((out, a), b) in out.iter_mut().zip(row(first)).zip(row(first + 1)) {
                *out = f(*a, *b);
            }
        }
        _ => {
            for (((out, a), b), c) in out.iter_mut().zip(row(first)).zip(row(first + 1)).zip(row(first + 2)) {
                *out = f(f(*a, *b), *c);
            }
        }
    }
    for y in first + 3..end {
        for (out, x) in out.iter_mut().zip(row(y)) {
            *out = f(*out, *x);
        }
    }
}

/// Joins `K` elements from every `S`th on.
#[inline(always)]
fn join_columns<const K: usize, const S: usize>(x: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let (groups, _) = x.as_chunks::<S>();
    let n = groups.len().saturating_sub((K - 1) / S).min(out.len());
    let shifted: [&[[f32; S]]; K] = std::array::from_fn(|j| &groups[j / S..][..n]);
    for (i, out) in out[..n].iter_mut().enumerate() {
        *out = (1..K).fold(shifted[0][i][0], |a, j| f(a, shifted[j][i][j % S]));
    }
}

/// Joins any number of elements, with any step, by way of the columns of each remainder.
#[inline(always)]
fn join_any(spec: &PoolSpec, x: &[f32], parts: &mut [f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let (stride, part) = (spec.strides[1], out.len());
    for (i, x) in x.iter().enumerate() {
        parts[i % stride * part + i / stride] = *x;
    }
    out.copy_from_slice(&parts[..part]);
    for j in 1..spec.kernel[1] {
        let from = &parts[j % stride * part..][..part][j / stride..];
        for (out, x) in out.iter_mut().zip(from) {
            *out = f(*out, *x);
        }
    }
}

/// Joins the elements of all windows of a band of rows with `f`: first rows, then columns.
#[inline(always)]
fn pool(
    spec: &PoolSpec,
    x: &[f32],
    [padded, parts, results]: [&mut [f32]; 3],
    out: &mut [f32],
    f: impl Fn(f32, f32) -> f32 + Copy,
    start: f32,
    finish: impl Fn(usize, &mut [f32]),
) {
    let ([height, width], [rows, wanted]) = (spec.input, spec.output);
    let (stride, kernel, begin) = (spec.strides[1], spec.kernel[1], spec.begin[1]);
    let columns = spec.columns();
    let row_length = columns * stride;
    // What lies in the windows of a row behind its end.
    let behind = begin + width..((wanted - 1) * stride + kernel).max(begin + width);
    let (mut plane, mut y) = (0, 0);
    for out in out.chunks_mut(spec.band() * wanted) {
        let count = out.len() / wanted;
        let from = (plane, y);
        for padded in padded.chunks_exact_mut(row_length).take(count) {
            let range = spec.range(0, y);
            let x = &x[plane * height * width..];
            // Vectors may reach into what follows the row, if anything does.
            let whole = (range.1 - 1) * width + spec.vectors() <= x.len();
            let n = if whole { spec.vectors() } else { width };
            join_rows(x, width, range, &mut padded[begin..][..n], f);
            padded[behind.clone()].fill(start);
            (plane, y) = if y + 1 == rows { (plane + 1, 0) } else { (plane, y + 1) };
        }
        let padded = &padded[..count * row_length];
        let results = &mut results[..count * columns];
        match (kernel, stride) {
            (2, 2) => join_columns::<2, 2>(padded, results, f),
            (3, 1) => join_columns::<3, 1>(padded, results, f),
            (3, 2) => join_columns::<3, 2>(padded, results, f),
            (5, 1) => join_columns::<5, 1>(padded, results, f),
            _ => join_any(spec, padded, parts, results, f),
        }
        let mut y = from.1;
        for i in 0..count {
            let (from, to) = (&results[i * columns..], &mut out[i * wanted..]);
            // Vectors may reach into rows that are written after this one.
            let vectors = wanted.next_multiple_of(LANES);
            let n = if vectors <= from.len().min(to.len()) { vectors } else { wanted };
            to[..n].iter_mut().zip(&from[..n]).for_each(|(to, from)| *to = *from);
            finish(y, &mut to[..wanted]);
            y = if y + 1 == rows { 0 } else { y + 1 };
        }
    }
}

loops! {
    fn largest<'a>(spec: &'a PoolSpec, x: &'a [f32], rows: [&'a mut [f32]; 3], out: &'a mut [f32]) -> () {
        pool(spec, x, rows, out, larger, f32::NEG_INFINITY, |_, _| {});
    }

    fn mean<'a>(
        spec: &'a PoolSpec,
        padded: Option<[usize; 2]>,
        x: &'a [f32],
        rows: [&'a mut [f32]; 3],
        out: &'a mut [f32],
    ) -> () {
        let count = |axis: usize, window: usize| match padded {
            Some(padded) => {
                let start = window * spec.strides[axis];
                (start + spec.kernel[axis]).min(padded[axis].max(start + 1)) - start
            }
            None => {
                let (first, end) = spec.range(axis, window);
                end - first
            }
        };
        pool(spec, x, rows, out, |a, b| a + b, 0.0, |y, out| {
            let rows = count(0, y);
            for (x, out) in out.iter_mut().enumerate() {
                *out /= (rows * count(1, x)) as f32;
            }
        });
    }
}
