//! The device's way down in one pass: unpack, take the correction or pad away, lift, check, decode.
//!
//! The integers of a result exist a chunk at a time. Real numbers are made from them as they come, and are released
//! only when the check over all of them has passed.

use pponnx_kernels::{DecodeRows, KernelError, Kernels, RankOne, packed_len};
use pponnx_keys::MaskParts;

use crate::check::{Tally, Verified};
use crate::decode::Decoder;
use crate::error::EngineError;
use crate::profile::{Stage, Tools};
use crate::ring::unfit;
use crate::site::CheckSite;

/// Elements handled at a time: few enough to stay in a first-level cache, and a multiple of 8, so that every chunk of
/// every ring width begins on a whole byte.
pub(crate) const CHUNK: usize = 512;

/// What stands between a reply and the residues of the result.
pub(crate) enum Cover<'a> {
    /// A pad to be added.
    Pad(MaskParts),
    /// A packed correction to be subtracted.
    Minus(&'a [u8]),
    /// Nothing (scheme `plain`).
    Bare,
}

/// Opens, checks and decodes a reply of `k` bits an element.
///
/// # Errors
/// [`EngineError::IntegrityCheckFailed`]; then nothing is released.
pub(crate) fn reveal(
    reply: &[u8],
    cover: Cover<'_>,
    k: u32,
    tally: Tally<'_>,
    decoder: &Decoder<'_>,
    site: &CheckSite,
    tools: Tools<'_>,
) -> Result<Verified<Vec<f32>>, EngineError> {
    if k <= 32 {
        opened::<i32>(reply, cover, k, tally, decoder, site, tools)
    } else {
        opened::<i64>(reply, cover, k, tally, decoder, site, tools)
    }
}

/// A signed integer of a result: the narrowest that holds every residue.
pub(crate) trait Lifted: Copy + Default {
    /// Bytes of the mask stream an element.
    const STREAM: usize;
    /// [`Kernels::download_i32`] and its like.
    fn download(kernels: &Kernels, payload: &[u8], pad: &[u8], k: u32, z: &mut [Self]) -> Result<(), KernelError>;
    /// [`Kernels::rank_one_p61_i32`] and its like.
    fn rank_one(kernels: &Kernels, v: &RankOne<'_>, start: usize, z: &[Self]) -> Result<u64, KernelError>;
    /// [`Kernels::decode_rows_i32`] and its like.
    fn decode(
        kernels: &Kernels,
        z: &[Self],
        start: usize,
        rows: &DecodeRows<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError>;
}

macro_rules! lifted {
    ($type:ty, $stream:literal, $download:ident, $rank_one:ident, $decode:ident) => {
        impl Lifted for $type {
            const STREAM: usize = $stream;
            fn download(k: &Kernels, payload: &[u8], pad: &[u8], bits: u32, z: &mut [Self]) -> Result<(), KernelError> {
                k.$download(payload, pad, bits, z)
            }
            fn rank_one(k: &Kernels, v: &RankOne<'_>, start: usize, z: &[Self]) -> Result<u64, KernelError> {
                k.$rank_one(v, start, z)
            }
            fn decode(
                k: &Kernels,
                z: &[Self],
                start: usize,
                rows: &DecodeRows<'_>,
                out: &mut [f32],
            ) -> Result<(), KernelError> {
                k.$decode(z, start, rows, out)
            }
        }
    };
}

lifted!(i32, 4, download_i32, rank_one_p61_i32, decode_rows_i32);
lifted!(i64, 8, download_i64, rank_one_p61_i64, decode_rows_i64);

fn opened<T: Lifted>(
    reply: &[u8],
    mut cover: Cover<'_>,
    k: u32,
    mut tally: Tally<'_>,
    decoder: &Decoder<'_>,
    site: &CheckSite,
    tools: Tools<'_>,
) -> Result<Verified<Vec<f32>>, EngineError> {
    let Tools { kernels, profile, buffers } = tools;
    let mut y = buffers.reals(tally.len());
    let mut z = [T::default(); CHUNK];
    let mut scratch = [0u8; 8 * CHUNK];
    for (i, y) in y.chunks_mut(CHUNK).enumerate() {
        let start = i * CHUNK;
        let z = &mut z[..y.len()];
        let stream = &mut scratch[..T::STREAM * y.len()];
        let pad = match &mut cover {
            Cover::Pad(pad) => profile.measure(Stage::Mask, || pad.lend(y.len())),
            Cover::Minus(correction) => {
                negated::<T>(kernels, part(correction, start, y.len(), k)?, k, stream).map_err(unfit)?;
                stream
            }
            // never written to: nothing is added
            Cover::Bare => stream,
        };
        let part = part(reply, start, y.len(), k)?;
        profile.measure(Stage::Pack, || T::download(kernels, part, pad, k, z)).map_err(unfit)?;
        profile.measure(Stage::Check, || tally.add(z, kernels))?;
        profile.measure(Stage::Decode, || decoder.decode(start, z, y, kernels))?;
    }
    if let Cover::Pad(pad) = cover {
        pad.finish().map_err(unfit)?;
    }
    tally.settle(y, site)
}

/// A packed correction as the pad that takes it away.
fn negated<T: Lifted>(kernels: &Kernels, correction: &[u8], k: u32, stream: &mut [u8]) -> Result<(), KernelError> {
    if T::STREAM == 4 {
        let (words, n) = (&mut [0u32; CHUNK], stream.len() / 4);
        kernels.unpack(correction, k, &mut words[..n])?;
        for (to, word) in stream.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.wrapping_neg().to_le_bytes();
        }
    } else {
        let (words, n) = (&mut [0u64; CHUNK], stream.len() / 8);
        kernels.unpack(correction, k, &mut words[..n])?;
        for (to, word) in stream.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *to = word.wrapping_neg().to_le_bytes();
        }
    }
    Ok(())
}

/// The bytes of `n` elements from number `start`, a multiple of 8.
fn part(bytes: &[u8], start: usize, n: usize, k: u32) -> Result<&[u8], EngineError> {
    let range = packed_len(start, k).zip(packed_len(n, k)).map(|(start, n)| start..start + n);
    range.and_then(|r| bytes.get(r)).ok_or_else(|| unfit("a payload that is too short"))
}
