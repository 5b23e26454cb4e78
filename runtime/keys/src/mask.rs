//! One-time masks and pads: uniform elements of Z_2^k that are consumed by use.
//!
//! ```compile_fail,E0599
//! # fn f(mask: pponnx_keys::Mask) {
//! let twice = mask.clone(); // a mask cannot be copied
//! # }
//! ```
//! ```compile_fail,E0277
//! # fn f(mask: pponnx_keys::Mask) {
//! println!("{mask:?}"); // nor printed
//! # }
//! ```
//! ```compile_fail,E0382
//! # fn f(mask: pponnx_keys::Mask, a: &mut [u32], b: &mut [u32]) {
//! mask.add_to_u32(a).ok();
//! mask.add_to_u32(b).ok(); // nor used twice
//! # }
//! ```
//! ```compile_fail,E0382
//! # fn f(mask: pponnx_keys::Mask) {
//! let ahead = mask.expand();
//! let again = mask.expand(); // nor made twice
//! # }
//! ```
//! ```compile_fail,E0499
//! # fn f(mut parts: pponnx_keys::MaskParts) {
//! let first = parts.lend(8);
//! let second = parts.lend(8); // a lent part is gone when the next one comes
//! assert_ne!(first, second);
//! # }
//! ```

use thiserror::Error;
use zeroize::Zeroizing;

use crate::stream::{Expanded, Keystream};

/// Bytes asked of the stream at a time; the stream gives 4 KiB at most.
const STEP: usize = 4096;

/// Misuse of a mask: the caller's tensor does not fit it. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MaskError {
    /// Another number of elements.
    #[error("a mask of {mask} elements does not fit {values} values: the plan's slot shape and the tensor differ")]
    Length {
        /// Elements the mask has left.
        mask: usize,
        /// Elements of the tensor.
        values: usize,
    },
    /// Elements of `k > 32` bits in u32 words.
    #[error("a mask of {k} bits an element does not fit 32-bit words: use the functions for 64-bit words")]
    Width {
        /// Ring width in bits.
        k: u32,
    },
    /// Not every element of [`MaskParts`] was used.
    #[error("{left} elements of a mask were left unused: the plan's slot shape and the tensor differ")]
    Unused {
        /// Elements left.
        left: usize,
    },
}

/// A mask or pad of `n` elements of `k` bits, made by [`crate::SessionKey::mask`].
///
/// Neither `Clone` nor `Debug`; each way of using it consumes it. Results are always reduced to their low `k` bits, so
/// that no high bit of a sign-extended value can leave beside its masked part.
#[must_use = "a mask that is not added leaves the value bare"]
pub struct Mask(MaskParts);

impl Mask {
    pub(crate) fn new(stream: Keystream, n: usize, k: u32) -> Self {
        Self(MaskParts { stream: Source::Stream(stream), left: n, k })
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.0.left
    }

    /// Ring width `k` in bits.
    pub fn width(&self) -> u32 {
        self.0.k
    }

    /// `values[j] = (values[j] + mask[j]) mod 2^k`, for `k <= 32`.
    ///
    /// # Errors
    /// [`MaskError`] if lengths or widths do not fit; then nothing is changed.
    pub fn add_to_u32(self, values: &mut [u32]) -> Result<(), MaskError> {
        self.0.whole(values.len())?.add_to_u32(values)
    }

    /// `values[j] = (values[j] + mask[j]) mod 2^k`, for any `k`; with `k <= 32` the same mask as
    /// [`Self::add_to_u32`], in wider words.
    ///
    /// # Errors
    /// [`MaskError`] if lengths do not fit; then nothing is changed.
    pub fn add_to_u64(self, values: &mut [u64]) -> Result<(), MaskError> {
        self.0.whole(values.len())?.add_to_u64(values)
    }

    /// `values[j] = (values[j] - mask[j]) mod 2^k`, for `k <= 32`.
    ///
    /// # Errors
    /// [`MaskError`] if lengths or widths do not fit; then nothing is changed.
    pub fn subtract_from_u32(self, values: &mut [u32]) -> Result<(), MaskError> {
        self.0.whole(values.len())?.subtract_from_u32(values)
    }

    /// `values[j] = (values[j] - mask[j]) mod 2^k`, for any `k`.
    ///
    /// # Errors
    /// [`MaskError`] if lengths do not fit; then nothing is changed.
    pub fn subtract_from_u64(self, values: &mut [u64]) -> Result<(), MaskError> {
        self.0.whole(values.len())?.subtract_from_u64(values)
    }

    /// The elements themselves (edge B and the owner, who compute `L(r)`), for `k <= 32`.
    ///
    /// # Errors
    /// [`MaskError::Width`] if `k > 32`.
    pub fn into_words_u32(self) -> Result<Zeroizing<Vec<u32>>, MaskError> {
        let mut words = Zeroizing::new(vec![0; self.elements()]);
        self.add_to_u32(&mut words)?;
        Ok(words)
    }

    /// The elements themselves in 64-bit words, for any `k`.
    ///
    /// # Errors
    /// None in practice: the words are made to fit.
    pub fn into_words_u64(self) -> Result<Zeroizing<Vec<u64>>, MaskError> {
        let mut words = Zeroizing::new(vec![0; self.elements()]);
        self.add_to_u64(&mut words)?;
        Ok(words)
    }

    /// The same mask with its stream made now, all of it, and kept in memory until used: for the time in which its user
    /// has nothing else to do. Takes 4 bytes an element for `k <= 32` and 8 above, wiped when dropped.
    pub fn expand(self) -> Mask {
        let MaskParts { stream, left, k } = self.0;
        let stream = match stream {
            Source::Stream(stream) => Source::Expanded(stream.expand(left.saturating_mul(stream_bytes(k)))),
            Source::Expanded(expanded) => Source::Expanded(expanded),
        };
        Mask(MaskParts { stream, left, k })
    }

    /// The mask for use piece by piece, in order (fused encode, mask and pack).
    pub fn into_parts(self) -> MaskParts {
        self.0
    }
}

/// Where the bytes of a mask come from.
enum Source {
    Stream(Keystream),
    Expanded(Expanded),
}

impl Source {
    /// The next bytes, at most `want`: see [`Keystream::next`].
    fn next(&mut self, want: usize) -> &[u8] {
        match self {
            Source::Stream(stream) => stream.next(want),
            Source::Expanded(expanded) => expanded.next(want),
        }
    }
}

/// Bytes of the stream that an element of `k` bits takes.
fn stream_bytes(k: u32) -> usize {
    if k <= 32 { 4 } else { 8 }
}

/// A mask in use: each call consumes the next elements. Call [`Self::finish`] after the last.
#[must_use = "a mask that is not added leaves the value bare"]
pub struct MaskParts {
    stream: Source,
    left: usize,
    k: u32,
}

impl MaskParts {
    /// Elements not used yet.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Ring width `k` in bits.
    pub fn width(&self) -> u32 {
        self.k
    }

    /// The stream of the next elements, for a kernel that adds them itself: 4 bytes an element for `k <= 32`, 8 above,
    /// little-endian, **of which only the low k bits are the mask**; the kernel must reduce its sums to k bits.
    ///
    /// At least one element and at most `most` (none if `most` is 0 or nothing is left); as many multiples of 8 as
    /// are left if every call asked for multiples of 8. What is lent counts as used and is never lent again.
    pub fn lend(&mut self, most: usize) -> &[u8] {
        let want = most.min(self.left).min(STEP / stream_bytes(self.k)) * stream_bytes(self.k);
        if want == 0 {
            return &[];
        }
        let bytes = self.stream.next(want);
        self.left -= bytes.len() / stream_bytes(self.k);
        bytes
    }

    /// As [`Mask::add_to_u32`], on the next `values.len()` elements.
    ///
    /// # Errors
    /// [`MaskError`] if fewer elements are left or `k > 32`; then nothing is changed.
    pub fn add_to_u32(&mut self, values: &mut [u32]) -> Result<(), MaskError> {
        self.each_u32(values, u32::wrapping_add)
    }

    /// As [`Mask::add_to_u64`], on the next `values.len()` elements.
    ///
    /// # Errors
    /// [`MaskError`] if fewer elements are left; then nothing is changed.
    pub fn add_to_u64(&mut self, values: &mut [u64]) -> Result<(), MaskError> {
        self.each_u64(values, u64::wrapping_add)
    }

    /// As [`Mask::subtract_from_u32`], on the next `values.len()` elements.
    ///
    /// # Errors
    /// [`MaskError`] if fewer elements are left or `k > 32`; then nothing is changed.
    pub fn subtract_from_u32(&mut self, values: &mut [u32]) -> Result<(), MaskError> {
        self.each_u32(values, u32::wrapping_sub)
    }

    /// As [`Mask::subtract_from_u64`], on the next `values.len()` elements.
    ///
    /// # Errors
    /// [`MaskError`] if fewer elements are left; then nothing is changed.
    pub fn subtract_from_u64(&mut self, values: &mut [u64]) -> Result<(), MaskError> {
        self.each_u64(values, u64::wrapping_sub)
    }

    /// Ends the use.
    ///
    /// # Errors
    /// [`MaskError::Unused`] if elements are left: the caller has masked less than the slot holds.
    pub fn finish(self) -> Result<(), MaskError> {
        if self.left == 0 { Ok(()) } else { Err(MaskError::Unused { left: self.left }) }
    }

    fn whole(self, values: usize) -> Result<Self, MaskError> {
        if self.left == values { Ok(self) } else { Err(MaskError::Length { mask: self.left, values }) }
    }

    fn take(&mut self, values: usize) -> Result<(), MaskError> {
        self.left = self.left.checked_sub(values).ok_or(MaskError::Length { mask: self.left, values })?;
        Ok(())
    }

    /// Low `k` bits set.
    fn low(&self) -> u64 {
        match self.k {
            0..=63 => (1 << self.k) - 1,
            _ => u64::MAX,
        }
    }

    #[inline(always)]
    fn each_u32(&mut self, values: &mut [u32], combine: impl Fn(u32, u32) -> u32) -> Result<(), MaskError> {
        if self.k > 32 {
            return Err(MaskError::Width { k: self.k });
        }
        self.take(values.len())?;
        let low = self.low() as u32;
        let mut rest = values;
        while !rest.is_empty() {
            let (words, _) = self.stream.next(rest.len().saturating_mul(4).min(STEP)).as_chunks::<4>();
            let (now, later) = rest.split_at_mut(words.len());
            for (value, word) in now.iter_mut().zip(words) {
                *value = combine(*value, u32::from_le_bytes(*word)) & low;
            }
            rest = later;
        }
        Ok(())
    }

    #[inline(always)]
    fn each_u64(&mut self, values: &mut [u64], combine: impl Fn(u64, u64) -> u64) -> Result<(), MaskError> {
        self.take(values.len())?;
        let low = self.low();
        let mut rest = values;
        while !rest.is_empty() {
            if self.k <= 32 {
                let (words, _) = self.stream.next(rest.len().saturating_mul(4).min(STEP)).as_chunks::<4>();
                let (now, later) = rest.split_at_mut(words.len());
                for (value, word) in now.iter_mut().zip(words) {
                    *value = combine(*value, u64::from(u32::from_le_bytes(*word))) & low;
                }
                rest = later;
            } else {
                let (words, _) = self.stream.next(rest.len().saturating_mul(8).min(STEP)).as_chunks::<8>();
                let (now, later) = rest.split_at_mut(words.len());
                for (value, word) in now.iter_mut().zip(words) {
                    *value = combine(*value, u64::from_le_bytes(*word)) & low;
                }
                rest = later;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "mask_test.rs"]
mod tests;
