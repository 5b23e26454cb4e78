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

use thiserror::Error;
use zeroize::Zeroizing;

use crate::stream::Keystream;

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
        Self(MaskParts { stream, left: n, k })
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

    /// The mask for use piece by piece, in order (fused encode, mask and pack).
    pub fn into_parts(self) -> MaskParts {
        self.0
    }
}

/// A mask in use: each call consumes the next elements. Call [`Self::finish`] after the last.
#[must_use = "a mask that is not added leaves the value bare"]
pub struct MaskParts {
    stream: Keystream,
    left: usize,
    k: u32,
}

impl MaskParts {
    /// Elements not used yet.
    pub fn left(&self) -> usize {
        self.left
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
