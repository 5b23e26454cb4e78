//! The device's steps: scan, encode, embed, pack, lift, check, decode.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod check;
mod decode;
mod download;
mod range;
mod upload;

pub use check::RankOne;
pub use decode::{Activation, DecodeRows};

use crate::bits::packed_len;
use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::portable::loops;
use crate::word::Word;

/// Bit pattern of the largest finite f32.
const LARGEST: u32 = 0x7f7f_ffff;
const SIGN: u32 = 1 << 31;

/// `Err` unless `1 <= k <= W::BITS`.
fn width<W: Word>(k: u32) -> Result<(), KernelError> {
    if (1..=W::BITS).contains(&k) { Ok(()) } else { Err(KernelError::Width { k, bits: W::BITS }) }
}

/// `2^exponent`, from exponent bits: `powi` promises no precision.
fn exponent_scale(exponent: i32) -> Result<f32, KernelError> {
    if !(-126..=126).contains(&exponent) {
        return Err(KernelError::Exponent { exponent });
    }
    Ok(f32::from_bits(((exponent + 127) as u32) << 23))
}

/// Bytes of a mask's stream for `n` elements of `k` bits.
fn mask_bytes(n: usize, k: u32) -> Result<usize, KernelError> {
    n.checked_mul(if k <= 32 { 4 } else { 8 }).ok_or(KernelError::TooLarge { what: "mask length" })
}

/// `Err` unless the bits behind the last of `n` packed elements are zero.
fn padding_is_zero(packed: &[u8], n: usize, k: u32) -> Result<(), KernelError> {
    let used = ((n as u128 * u128::from(k)) % 8) as u32;
    if used > 0 && packed.last().is_some_and(|last| last >> used != 0) {
        return Err(KernelError::PaddingBits);
    }
    Ok(())
}

impl Kernels {
    /// Range of a tensor: the largest positive value and the magnitude of the most negative one, 0 where there is
    /// none (-0.0 is not negative). `None` if an element is NaN or infinite.
    pub fn scan(self, x: &[f32]) -> Option<(f32, f32)> {
        // Bit patterns order like magnitudes, and NaN and infinity come out above every finite number.
        let (hi, lo) = loops::scan(self, x);
        let hi = hi.max(0) as u32;
        let lo = lo.saturating_sub(SIGN);
        (hi <= LARGEST && lo <= LARGEST).then(|| (f32::from_bits(hi), f32::from_bits(lo)))
    }

    /// `out = round_half_even(x * 2^exponent)`. The caller has chosen the exponent so that results stay below 2^31;
    /// others saturate, and NaN becomes 0.
    ///
    /// # Errors
    /// Slices of different lengths; an exponent outside [-126, 126].
    pub fn encode(self, x: &[f32], exponent: i32, out: &mut [i32]) -> Result<(), KernelError> {
        length("encode output", x.len(), out.len())?;
        loops::encode(self, x, exponent_scale(exponent)?, out);
        Ok(())
    }

    /// Signed values as ring words.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn embed<W: Word>(self, x: &[i32], out: &mut [W]) -> Result<(), KernelError> {
        length("embed output", x.len(), out.len())?;
        W::embed(self, x, out);
        Ok(())
    }

    /// `x += other`, wrapping.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn add_assign<W: Word>(self, x: &mut [W], other: &[W]) -> Result<(), KernelError> {
        length("addend", x.len(), other.len())?;
        W::add_assign(self, x, other);
        Ok(())
    }

    /// `x -= other`, wrapping.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn sub_assign<W: Word>(self, x: &mut [W], other: &[W]) -> Result<(), KernelError> {
        length("subtrahend", x.len(), other.len())?;
        W::sub_assign(self, x, other);
        Ok(())
    }

    /// Appends the low `k` bits of each word to `out`: exactly k bits an element, little-endian, the first element in
    /// the lowest bits, zero bits up to a whole byte. See [`packed_len`].
    ///
    /// # Errors
    /// A width that the word cannot hold.
    pub fn pack<W: Word>(self, x: &[W], k: u32, out: &mut Vec<u8>) -> Result<(), KernelError> {
        width::<W>(k)?;
        let bytes = packed_len(x.len(), k).ok_or(KernelError::TooLarge { what: "packed length" })?;
        out.try_reserve(bytes).map_err(|_| KernelError::Memory { bytes })?;
        W::pack(x, k, out);
        Ok(())
    }

    /// Reads elements of `k` bits, the inverse of [`Kernels::pack`]. Bytes that [`Kernels::pack`] could not have
    /// written are refused.
    ///
    /// # Errors
    /// A width that the word cannot hold; a number of bytes that is not exactly the packed length of `out`; padding
    /// bits that are not zero.
    pub fn unpack<W: Word>(self, bytes: &[u8], k: u32, out: &mut [W]) -> Result<(), KernelError> {
        width::<W>(k)?;
        let expected = packed_len(out.len(), k).ok_or(KernelError::TooLarge { what: "packed length" })?;
        length("packed bytes", expected, bytes.len())?;
        padding_is_zero(bytes, out.len(), k)?;
        W::unpack(bytes, k, out);
        Ok(())
    }

    /// The signed value of the low `k` bits of each word, in `[-2^(k-1), 2^(k-1))`.
    ///
    /// # Errors
    /// Slices of different lengths; a width that the word cannot hold.
    pub fn lift<W: Word>(self, x: &[W], k: u32, out: &mut [i64]) -> Result<(), KernelError> {
        width::<W>(k)?;
        length("lift output", x.len(), out.len())?;
        W::lift(self, x, k, out);
        Ok(())
    }

    /// `out = f32(f64(z) * scale + f64(bias))`: one product, one sum, one rounding to f32, never fused.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn decode_row(self, z: &[i64], scale: f64, bias: f32, out: &mut [f32]) -> Result<(), KernelError> {
        length("decode output", z.len(), out.len())?;
        loops::decode_row(self, z, scale, f64::from(bias), out);
        Ok(())
    }
}
