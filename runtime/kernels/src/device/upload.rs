//! Upload in one pass: encode, add the mask, pack.

use super::{exponent_scale, mask_bytes, width};
use crate::bits::{self, packed_len};
use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::portable::loops::quantise;
use crate::vector::{Level, Task};

/// Elements whose words wait to be packed: whole bytes for every ring width, and far less than a first-level cache.
pub(super) const STEP: usize = 64;

impl Kernels {
    /// `encoded = round_half_even(x * 2^exponent)`, and `payload = pack_k(encoded + mask mod 2^k)`: what
    /// [`Kernels::encode`], [`Kernels::embed`], the sum with the mask and [`Kernels::pack`] give one after the other.
    ///
    /// `mask` is the mask's stream: 4 bytes an element for `k <= 32`, 8 bytes above, little-endian, of which the low k
    /// bits count. A tensor may be sent in pieces of whole multiples of 8 elements: each starts on a byte then.
    ///
    /// # Errors
    /// `k` outside [1, 64]; lengths that do not fit each other; an exponent outside [-126, 126].
    pub fn upload(
        self,
        x: &[f32],
        exponent: i32,
        mask: &[u8],
        k: u32,
        encoded: &mut [i32],
        payload: &mut [u8],
    ) -> Result<(), KernelError> {
        width::<u64>(k)?;
        length("encode output", x.len(), encoded.len())?;
        length("mask bytes", mask_bytes(x.len(), k)?, mask.len())?;
        let bytes = packed_len(x.len(), k).ok_or(KernelError::TooLarge { what: "packed length" })?;
        length("packed bytes", bytes, payload.len())?;
        let scale = exponent_scale(exponent)?;
        self.run(Upload { x, scale, mask, k, encoded, payload });
        Ok(())
    }

    /// The second half of [`Kernels::upload`], for integers that are there already:
    /// `payload = pack_k(encoded + mask mod 2^k)`.
    ///
    /// # Errors
    /// `k` outside [1, 64]; lengths that do not fit each other.
    pub fn upload_integers(self, encoded: &[i32], mask: &[u8], k: u32, payload: &mut [u8]) -> Result<(), KernelError> {
        width::<u64>(k)?;
        length("mask bytes", mask_bytes(encoded.len(), k)?, mask.len())?;
        let bytes = packed_len(encoded.len(), k).ok_or(KernelError::TooLarge { what: "packed length" })?;
        length("packed bytes", bytes, payload.len())?;
        self.run(Integers { encoded, mask, k, payload });
        Ok(())
    }
}

struct Upload<'a> {
    x: &'a [f32],
    scale: f32,
    mask: &'a [u8],
    k: u32,
    encoded: &'a mut [i32],
    payload: &'a mut [u8],
}

impl Task for Upload<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let Upload { x, scale, mask, k, encoded, payload } = self;
        let one = |(x, encoded): (&f32, &mut i32)| {
            *encoded = quantise(*x, scale);
            *encoded
        };
        masked(x.iter().zip(encoded).map(one), mask, k, payload);
    }
}

struct Integers<'a> {
    encoded: &'a [i32],
    mask: &'a [u8],
    k: u32,
    payload: &'a mut [u8],
}

impl Task for Integers<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        masked(self.encoded.iter().copied(), self.mask, self.k, self.payload);
    }
}

/// `payload = pack_k(x + mask mod 2^k)`. Lengths have been checked.
#[inline(always)]
fn masked(mut x: impl ExactSizeIterator<Item = i32>, mask: &[u8], k: u32, payload: &mut [u8]) {
    if k == 32 {
        let words = mask.as_chunks::<4>().0.iter().zip(payload.as_chunks_mut::<4>().0);
        for (x, (r, word)) in x.zip(words) {
            *word = (x as u32).wrapping_add(u32::from_le_bytes(*r)).to_le_bytes();
        }
        return;
    }
    let pieces = payload.chunks_mut(STEP / 8 * k as usize);
    if k < 32 {
        for (payload, mask) in pieces.zip(mask.chunks(4 * STEP)) {
            let mut words = [0u32; STEP];
            let masks = mask.as_chunks::<4>().0;
            for ((word, r), x) in words.iter_mut().zip(masks).zip(x.by_ref()) {
                *word = (x as u32).wrapping_add(u32::from_le_bytes(*r));
            }
            bits::write(&words[..masks.len()], k, payload);
        }
    } else {
        for (payload, mask) in pieces.zip(mask.chunks(8 * STEP)) {
            let mut words = [0u64; STEP];
            let masks = mask.as_chunks::<8>().0;
            for ((word, r), x) in words.iter_mut().zip(masks).zip(x.by_ref()) {
                *word = (i64::from(x) as u64).wrapping_add(u64::from_le_bytes(*r));
            }
            bits::write(&words[..masks.len()], k, payload);
        }
    }
}
