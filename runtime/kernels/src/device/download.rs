//! Download in one pass: unpack, add the pad, take the signed value.

use super::upload::STEP;
use super::{mask_bytes, padding_is_zero, width};
use crate::bits::{self, packed_len};
use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::portable::loops::signed;
use crate::vector::{Level, Task};

impl Kernels {
    /// `z = lift_k(unpack_k(payload) + pad mod 2^k)` for `k <= 32`: what [`Kernels::unpack`], the sum with the pad and
    /// [`Kernels::lift`] give one after the other. `pad` is the pad's stream, 4 bytes an element.
    ///
    /// # Errors
    /// `k` outside [1, 32]; lengths that do not fit each other; padding bits that are not zero.
    pub fn download_i32(self, payload: &[u8], pad: &[u8], k: u32, z: &mut [i32]) -> Result<(), KernelError> {
        width::<u32>(k)?;
        check(payload, pad, k, z.len())?;
        self.run(Narrow { payload, pad, k, z });
        Ok(())
    }

    /// As [`Kernels::download_i32`], for `k` up to 64: `pad` has 4 bytes an element for `k <= 32` and 8 above.
    ///
    /// # Errors
    /// `k` outside [1, 64]; lengths that do not fit each other; padding bits that are not zero.
    pub fn download_i64(self, payload: &[u8], pad: &[u8], k: u32, z: &mut [i64]) -> Result<(), KernelError> {
        width::<u64>(k)?;
        check(payload, pad, k, z.len())?;
        self.run(Wide { payload, pad, k, z });
        Ok(())
    }
}

fn check(payload: &[u8], pad: &[u8], k: u32, n: usize) -> Result<(), KernelError> {
    let bytes = packed_len(n, k).ok_or(KernelError::TooLarge { what: "packed length" })?;
    length("packed bytes", bytes, payload.len())?;
    length("pad bytes", mask_bytes(n, k)?, pad.len())?;
    padding_is_zero(payload, n, k)
}

struct Narrow<'a> {
    payload: &'a [u8],
    pad: &'a [u8],
    k: u32,
    z: &'a mut [i32],
}

impl Task for Narrow<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let Narrow { payload, pad, k, z } = self;
        if k == 32 {
            let words = payload.as_chunks::<4>().0.iter().zip(pad.as_chunks::<4>().0);
            for (z, (word, t)) in z.iter_mut().zip(words) {
                *z = u32::from_le_bytes(*word).wrapping_add(u32::from_le_bytes(*t)) as i32;
            }
            return;
        }
        let pieces = z.chunks_mut(STEP).zip(payload.chunks(STEP / 8 * k as usize)).zip(pad.chunks(4 * STEP));
        for ((z, payload), pad) in pieces {
            let mut words = [0u32; STEP];
            bits::unpack(payload, k, &mut words[..z.len()]);
            for ((z, t), word) in z.iter_mut().zip(pad.as_chunks::<4>().0).zip(&words) {
                *z = (word.wrapping_add(u32::from_le_bytes(*t)) << (32 - k)) as i32 >> (32 - k);
            }
        }
    }
}

struct Wide<'a> {
    payload: &'a [u8],
    pad: &'a [u8],
    k: u32,
    z: &'a mut [i64],
}

impl Task for Wide<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let Wide { payload, pad, k, z } = self;
        let bytes = if k <= 32 { 4 } else { 8 };
        let pieces = z.chunks_mut(STEP).zip(payload.chunks(STEP / 8 * k as usize)).zip(pad.chunks(bytes * STEP));
        for ((z, payload), pad) in pieces {
            let mut words = [0u64; STEP];
            bits::unpack(payload, k, &mut words[..z.len()]);
            if k <= 32 {
                for ((z, t), word) in z.iter_mut().zip(pad.as_chunks::<4>().0).zip(&words) {
                    *z = signed(word.wrapping_add(u32::from_le_bytes(*t).into()), k);
                }
            } else {
                for ((z, t), word) in z.iter_mut().zip(pad.as_chunks::<8>().0).zip(&words) {
                    *z = signed(word.wrapping_add(u64::from_le_bytes(*t)), k);
                }
            }
        }
    }
}
