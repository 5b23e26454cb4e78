//! What a caller can get wrong.

/// Why a kernel refused: arguments that do not fit together, bytes that do not decode, or too little memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The number of spatial axes is not one to three.
    #[error("{count} spatial axes; kernels know 1, 2 and 3")]
    Axes {
        /// How many there are.
        count: usize,
    },
    /// A list does not have one entry an axis.
    #[error("{what} has {found} entries where {expected} axes need one each")]
    Entries {
        /// The list.
        what: &'static str,
        /// Number of spatial axes.
        expected: usize,
        /// Number of entries.
        found: usize,
    },
    /// A size, stride, dilation or count is zero.
    #[error("{what} is zero; it must be at least 1")]
    Zero {
        /// The argument.
        what: &'static str,
    },
    /// A size is beyond what the kernels address.
    #[error("{what} is too large")]
    TooLarge {
        /// The argument or the derived size.
        what: &'static str,
    },
    /// Channels do not divide into groups.
    #[error("{in_channels} input and {out_channels} output channels do not divide into {groups} groups")]
    Groups {
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Groups.
        groups: usize,
    },
    /// A window does not fit its padded axis.
    #[error("axis {axis}: a window of {window} does not fit {padded} padded elements")]
    Window {
        /// Spatial axis, from 0.
        axis: usize,
        /// Extent of the dilated window.
        window: usize,
        /// Elements with padding.
        padded: usize,
    },
    /// The padding of a transposed convolution crops all there is.
    #[error("axis {axis}: padding crops {cut} of {full} elements; at least one must stay")]
    Crop {
        /// Spatial axis, from 0.
        axis: usize,
        /// Elements cropped.
        cut: usize,
        /// Elements before cropping.
        full: usize,
    },
    /// A slice has the wrong length.
    #[error("{what} has {found} elements, expected {expected}")]
    Length {
        /// The argument.
        what: &'static str,
        /// Expected elements (bytes for packed data).
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// The ring width does not fit the word.
    #[error("ring width {k} does not fit words of {bits} bits")]
    Width {
        /// Ring width.
        k: u32,
        /// Bits of the word.
        bits: u32,
    },
    /// The exponent of an encoding is outside [-126, 126].
    #[error("exponent {exponent} is outside [-126, 126]")]
    Exponent {
        /// The exponent.
        exponent: i32,
    },
    /// The bits after the last element are not zero.
    #[error("packed elements end in padding bits that are not zero")]
    PaddingBits,
    /// More threads than the kernels support.
    #[error("{threads} threads; the most is {most}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The largest number.
        most: usize,
    },
    /// Memory for scratch space could not be had.
    #[error("no memory for {bytes} bytes of scratch space")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
}

/// `Err` unless `found == expected`.
pub(crate) fn length(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::Length { what, expected, found }) }
}

/// `n` copies of `value`, or an error instead of an abort where memory is short.
pub(crate) fn filled<T: Copy>(value: T, n: usize) -> Result<Vec<T>, KernelError> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| KernelError::Memory { bytes: n.saturating_mul(size_of::<T>()) })?;
    v.resize(n, value);
    Ok(v)
}
