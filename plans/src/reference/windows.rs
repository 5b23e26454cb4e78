//! Sliding windows over the spatial axes of one channel, shared by convolutions, their transposes and pooling.

use super::scalar::Weighted;

/// One spatial axis: `input[out * stride + tap * dilation - before]` meets `output[out]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// Size of the unpadded input.
    pub(crate) input: usize,
    /// Size of the output.
    pub(crate) output: usize,
    /// Size of the window.
    pub(crate) kernel: usize,
    /// Step.
    pub(crate) stride: usize,
    /// Spacing of taps.
    pub(crate) dilation: usize,
    /// Zeros in front.
    pub(crate) before: usize,
}

impl Axis {
    /// Where `tap` of the window at `out` reads; `None` in the padding.
    fn at(&self, out: usize, tap: usize) -> Option<usize> {
        (out * self.stride + tap * self.dilation).checked_sub(self.before).filter(|i| *i < self.input)
    }

    /// First output, first input and number of outputs at which `tap` reads inside the input.
    fn span(&self, tap: usize) -> Option<(usize, usize, usize)> {
        let shift = tap * self.dilation;
        let first = self.before.saturating_sub(shift).div_ceil(self.stride);
        let end = (self.input + self.before).checked_sub(shift + 1)? / self.stride + 1;
        let len = end.min(self.output).checked_sub(first).filter(|n| *n > 0)?;
        Some((first, first * self.stride + shift - self.before, len))
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.before == 0 && self.input == self.output
    }
}

/// A row of outputs beside a row of inputs, for one tap of the leading axes.
struct Row {
    tap: usize,
    out: usize,
    input: usize,
}

/// The part of a row that one tap of the last axis reads.
struct Tap {
    tap: usize,
    out: usize,
    input: usize,
    len: usize,
}

/// All meetings of inputs, taps and outputs of one channel.
pub(crate) struct Windows {
    rows: Vec<Row>,
    taps: Vec<Tap>,
    stride: usize,
    /// Elements of an input channel.
    pub(crate) input: usize,
    /// Elements of an output channel.
    pub(crate) output: usize,
    /// Taps of a window.
    pub(crate) kernel: usize,
}

impl Windows {
    /// Prepares the windows of these axes (none stands for a single pixel).
    pub(crate) fn new(axes: &[Axis]) -> Windows {
        let input = axes.iter().map(|a| a.input).product();
        let output = axes.iter().map(|a| a.output).product();
        let kernel = axes.iter().map(|a| a.kernel).product();
        let flat = Axis { input, output, kernel: 1, stride: 1, dilation: 1, before: 0 };
        let (last, lead) = match axes.split_last() {
            Some((last, lead)) if !axes.iter().all(Axis::is_pointwise) => (*last, lead),
            _ => (flat, &[][..]),
        };
        let mut rows = vec![Row { tap: 0, out: 0, input: 0 }];
        for axis in lead {
            rows = rows
                .iter()
                .flat_map(|row| (0..axis.kernel).flat_map(move |tap| (0..axis.output).map(move |out| (row, tap, out))))
                .filter_map(|(row, tap, out)| {
                    Some(Row {
                        tap: row.tap * axis.kernel + tap,
                        out: row.out * axis.output + out,
                        input: row.input * axis.input + axis.at(out, tap)?,
                    })
                })
                .collect();
        }
        for row in &mut rows {
            row.tap *= last.kernel;
            row.out *= last.output;
            row.input *= last.input;
        }
        let taps = (0..last.kernel)
            .filter_map(|tap| last.span(tap).map(|(out, input, len)| Tap { tap, out, input, len }))
            .collect();
        Windows { rows, taps, stride: last.stride, input, output, kernel }
    }

    /// `output[o] += sum_tap weights[tap] * input[..]`.
    pub(crate) fn gather<S: Weighted<W>, W: Copy>(&self, input: &[S], weights: &[W], output: &mut [S]) {
        for row in &self.rows {
            for tap in &self.taps {
                let w = weights[row.tap + tap.tap];
                let to = &mut output[row.out + tap.out..][..tap.len];
                let from = &input[row.input + tap.input..];
                if self.stride == 1 {
                    to.iter_mut().zip(from).for_each(|(t, x)| *t = t.mul_add(*x, w));
                } else {
                    to.iter_mut().zip(from.iter().step_by(self.stride)).for_each(|(t, x)| *t = t.mul_add(*x, w));
                }
            }
        }
    }

    /// `input[..] += weights[tap] * output[o]`: the adjoint of [`Windows::gather`].
    pub(crate) fn scatter<S: Weighted<W>, W: Copy>(&self, output: &[S], weights: &[W], input: &mut [S]) {
        for row in &self.rows {
            for tap in &self.taps {
                let w = weights[row.tap + tap.tap];
                let from = &output[row.out + tap.out..][..tap.len];
                let to = &mut input[row.input + tap.input..];
                if self.stride == 1 {
                    to.iter_mut().zip(from).for_each(|(t, x)| *t = t.mul_add(*x, w));
                } else {
                    to.iter_mut().step_by(self.stride).zip(from).for_each(|(t, x)| *t = t.mul_add(*x, w));
                }
            }
        }
    }
}
