//! What to compute: sizes of convolutions and matrix products, validated here for everything that follows.

use crate::error::{KernelError, length};

/// Largest size, stride, dilation or padding: index arithmetic on one axis stays far inside 64 bits.
const LARGEST: usize = i32::MAX as usize;

/// Integer weights, row-major, as they lie in a file: little-endian, of any alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights<'a> {
    /// 16-bit weights.
    I16(&'a [u8]),
    /// 32-bit weights.
    I32(&'a [u8]),
}

impl Weights<'_> {
    /// Bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Weights::I16(bytes) | Weights::I32(bytes) => bytes,
        }
    }

    /// `Err` unless there are `n` weights.
    pub(crate) fn check(&self, n: usize) -> Result<(), KernelError> {
        let size = match self {
            Weights::I16(_) => 2,
            Weights::I32(_) => 4,
        };
        let found = self.bytes().len();
        let expected = n.checked_mul(size).ok_or(KernelError::TooLarge { what: "weights" })?;
        if found.is_multiple_of(size) {
            length("weights", n, found / size)
        } else {
            length("bytes of weights", expected, found)
        }
    }
}

/// A convolution of `[batch, in_channels, input..]` with weights `[out_channels, in_channels / groups, kernel..]` to
/// `[batch, out_channels, output..]`, where `output = (input + pads - (dilation * (kernel - 1) + 1)) / stride + 1`,
/// rounded down. Padding is zero. One to three spatial axes; each list has one entry an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Size of the batch.
    pub batch: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Spatial sizes of the input.
    pub input: Vec<usize>,
    /// Output channels.
    pub out_channels: usize,
    /// Spatial sizes of the weights.
    pub kernel: Vec<usize>,
    /// Steps of the window.
    pub strides: Vec<usize>,
    /// Distances between the inputs of neighbouring weights.
    pub dilations: Vec<usize>,
    /// Zeros before each axis.
    pub pads_before: Vec<usize>,
    /// Zeros after each axis.
    pub pads_after: Vec<usize>,
    /// Groups of channels: each output reads the inputs of its group only.
    pub groups: usize,
}

impl ConvSpec {
    /// Spatial sizes of the output.
    ///
    /// # Errors
    /// Whatever is wrong with the specification: with `Ok`, all its sizes are valid.
    pub fn output(&self) -> Result<Vec<usize>, KernelError> {
        let n = self.input.len();
        spatial(
            n,
            &[
                ("kernel", &self.kernel),
                ("strides", &self.strides),
                ("dilations", &self.dilations),
                ("pads_before", &self.pads_before),
                ("pads_after", &self.pads_after),
            ],
        )?;
        positive("input", &self.input)?;
        positive("kernel", &self.kernel)?;
        positive("strides", &self.strides)?;
        positive("dilations", &self.dilations)?;
        channels(self.batch, self.in_channels, self.out_channels, self.groups)?;
        let output: Result<Vec<usize>, KernelError> = (0..n)
            .map(|axis| {
                let reach = (self.kernel[axis] - 1).checked_mul(self.dilations[axis]);
                let window = reach.and_then(|r| r.checked_add(1)).ok_or(KernelError::TooLarge { what: "window" })?;
                let padded = self.input[axis] + self.pads_before[axis] + self.pads_after[axis];
                let room = padded.checked_sub(window).ok_or(KernelError::Window { axis, window, padded })?;
                bounded("output", room / self.strides[axis] + 1)
            })
            .collect();
        let output = output?;
        total("input", &[self.batch, self.in_channels], &self.input)?;
        total("output", &[self.batch, self.out_channels], &output)?;
        total("weights", &[self.out_channels, self.in_channels / self.groups], &self.kernel)?;
        Ok(output)
    }

    /// Number of weights.
    ///
    /// # Errors
    /// As [`ConvSpec::output`].
    pub fn weights_len(&self) -> Result<usize, KernelError> {
        self.output()?;
        total("weights", &[self.out_channels, self.in_channels / self.groups], &self.kernel)
    }
}

/// A transposed convolution of `[batch, in_channels, input..]` with weights
/// `[out_channels, in_channels / groups, kernel..]` to `[batch, out_channels, output..]`, where
/// `output = stride * (input - 1) + dilation * (kernel - 1) + 1 + output_padding - pads`: padding crops.
/// Input `i` and weight `k` meet in output `stride * i + dilation * k - pads_before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTransposeSpec {
    /// Size of the batch.
    pub batch: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Spatial sizes of the input.
    pub input: Vec<usize>,
    /// Output channels.
    pub out_channels: usize,
    /// Spatial sizes of the weights.
    pub kernel: Vec<usize>,
    /// Distances between the outputs of neighbouring inputs.
    pub strides: Vec<usize>,
    /// Distances between the outputs of neighbouring weights.
    pub dilations: Vec<usize>,
    /// Elements cropped at the start of each axis.
    pub pads_before: Vec<usize>,
    /// Elements cropped at the end of each axis.
    pub pads_after: Vec<usize>,
    /// Elements added at the end of each axis before cropping.
    pub output_padding: Vec<usize>,
    /// Groups of channels: each output reads the inputs of its group only.
    pub groups: usize,
}

impl ConvTransposeSpec {
    /// Spatial sizes of the output.
    ///
    /// # Errors
    /// Whatever is wrong with the specification: with `Ok`, all its sizes are valid.
    pub fn output(&self) -> Result<Vec<usize>, KernelError> {
        let n = self.input.len();
        spatial(
            n,
            &[
                ("kernel", &self.kernel),
                ("strides", &self.strides),
                ("dilations", &self.dilations),
                ("pads_before", &self.pads_before),
                ("pads_after", &self.pads_after),
                ("output_padding", &self.output_padding),
            ],
        )?;
        positive("input", &self.input)?;
        positive("kernel", &self.kernel)?;
        positive("strides", &self.strides)?;
        positive("dilations", &self.dilations)?;
        channels(self.batch, self.in_channels, self.out_channels, self.groups)?;
        let output: Result<Vec<usize>, KernelError> = (0..n)
            .map(|axis| {
                let reach = (self.input[axis] - 1).checked_mul(self.strides[axis]);
                let full = reach
                    .and_then(|r| r.checked_add((self.kernel[axis] - 1).checked_mul(self.dilations[axis])?))
                    .and_then(|r| r.checked_add(1 + self.output_padding[axis]))
                    .ok_or(KernelError::TooLarge { what: "output" })?;
                let cut = self.pads_before[axis] + self.pads_after[axis];
                match full.checked_sub(cut) {
                    None | Some(0) => Err(KernelError::Crop { axis, cut, full }),
                    Some(size) => bounded("output", size),
                }
            })
            .collect();
        let output = output?;
        total("input", &[self.batch, self.in_channels], &self.input)?;
        total("output", &[self.batch, self.out_channels], &output)?;
        total("weights", &[self.out_channels, self.in_channels / self.groups], &self.kernel)?;
        Ok(output)
    }

    /// Number of weights.
    ///
    /// # Errors
    /// As [`ConvTransposeSpec::output`].
    pub fn weights_len(&self) -> Result<usize, KernelError> {
        self.output()?;
        total("weights", &[self.out_channels, self.in_channels / self.groups], &self.kernel)
    }
}

/// A matrix product `y[b, m, n] = sum_k x[b, m, k] * w[b, n, k]`: `x` is `[batch, rows, k]`, `y` is
/// `[batch, rows, n]`, `w` is `[batch, n, k]`, or `[n, k]` with `broadcast`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatMulSpec {
    /// Number of products.
    pub batch: usize,
    /// Whether one weight matrix serves all of them.
    pub broadcast: bool,
    /// Rows of activations in a product (m).
    pub rows: usize,
    /// Outputs of a row.
    pub n: usize,
    /// Inputs of a row.
    pub k: usize,
}

impl MatMulSpec {
    /// Elements of `x`, `w` and `y`.
    ///
    /// # Errors
    /// A size that is zero or too large.
    pub fn lens(&self) -> Result<[usize; 3], KernelError> {
        positive("matrix", &[self.batch, self.rows, self.n, self.k])?;
        let x = total("input", &[self.batch, self.rows], &[self.k])?;
        let w = total("weights", &[if self.broadcast { 1 } else { self.batch }, self.n], &[self.k])?;
        let y = total("output", &[self.batch, self.rows], &[self.n])?;
        Ok([x, w, y])
    }
}

/// One to three axes, one entry each, none beyond the largest size.
fn spatial(n: usize, lists: &[(&'static str, &Vec<usize>)]) -> Result<(), KernelError> {
    if !(1..=3).contains(&n) {
        return Err(KernelError::Axes { count: n });
    }
    for (what, list) in lists {
        if list.len() != n {
            return Err(KernelError::Entries { what, expected: n, found: list.len() });
        }
        for size in *list {
            bounded(what, *size)?;
        }
    }
    Ok(())
}

fn bounded(what: &'static str, size: usize) -> Result<usize, KernelError> {
    if size <= LARGEST { Ok(size) } else { Err(KernelError::TooLarge { what }) }
}

/// All at least 1 and none beyond the largest size.
fn positive(what: &'static str, sizes: &[usize]) -> Result<(), KernelError> {
    for size in sizes {
        bounded(what, *size)?;
        if *size == 0 {
            return Err(KernelError::Zero { what });
        }
    }
    Ok(())
}

fn channels(batch: usize, in_channels: usize, out_channels: usize, groups: usize) -> Result<(), KernelError> {
    positive("batch", &[batch])?;
    positive("channels", &[in_channels, out_channels])?;
    positive("groups", &[groups])?;
    if in_channels.is_multiple_of(groups) && out_channels.is_multiple_of(groups) {
        Ok(())
    } else {
        Err(KernelError::Groups { in_channels, out_channels, groups })
    }
}

/// The number of elements of a tensor of 64-bit words that memory can hold.
pub(crate) fn total(what: &'static str, leading: &[usize], sizes: &[usize]) -> Result<usize, KernelError> {
    leading
        .iter()
        .chain(sizes)
        .try_fold(1usize, |n, size| n.checked_mul(*size))
        .filter(|n| *n <= isize::MAX as usize / 16)
        .ok_or(KernelError::TooLarge { what })
}
