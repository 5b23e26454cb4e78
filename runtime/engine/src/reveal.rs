//! The device's way down in one pass: unpack, take the correction or pad away, lift, check, decode.
//!
//! The integers of a result exist a chunk at a time. Real numbers are made from them as they come, and are released
//! only when the check over all of them has passed.

use pponnx_kernels::{Kernels, packed_len};
use pponnx_keys::MaskParts;

use crate::check::{Tally, Verified};
use crate::decode::Decoder;
use crate::error::EngineError;
use crate::ring::{RingWord, unfit};
use crate::site::CheckSite;

/// Elements handled at a time, see [`crate::upload`].
const CHUNK: usize = 1024;

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
    kernels: &Kernels,
) -> Result<Verified<Vec<f32>>, EngineError> {
    if k <= 32 {
        opened::<u32>(reply, cover, k, tally, decoder, site, kernels)
    } else {
        opened::<u64>(reply, cover, k, tally, decoder, site, kernels)
    }
}

fn opened<W: RingWord>(
    reply: &[u8],
    mut cover: Cover<'_>,
    k: u32,
    mut tally: Tally<'_>,
    decoder: &Decoder<'_>,
    site: &CheckSite,
    kernels: &Kernels,
) -> Result<Verified<Vec<f32>>, EngineError> {
    let n = tally.len();
    let mut y = vec![0f32; n];
    let (mut words, mut others, mut z) = ([W::default(); CHUNK], [W::default(); CHUNK], [0i64; CHUNK]);
    for (i, y) in y.chunks_mut(CHUNK).enumerate() {
        let (words, z) = (&mut words[..y.len()], &mut z[..y.len()]);
        kernels.unpack(part(reply, i, y.len(), k)?, k, words).map_err(unfit)?;
        match &mut cover {
            Cover::Pad(pad) => W::add_part(pad, words).map_err(unfit)?,
            Cover::Minus(correction) => {
                let others = &mut others[..y.len()];
                kernels.unpack(part(correction, i, y.len(), k)?, k, others).map_err(unfit)?;
                kernels.sub_assign(words, others).map_err(unfit)?;
            }
            Cover::Bare => {}
        }
        kernels.lift(words, k, z).map_err(unfit)?;
        tally.add(z, kernels)?;
        decoder.decode(i * CHUNK, z, y, kernels)?;
    }
    if let Cover::Pad(pad) = cover {
        pad.finish().map_err(unfit)?;
    }
    tally.settle(y, site)
}

/// Chunk `i` of a packed tensor.
fn part(bytes: &[u8], i: usize, n: usize, k: u32) -> Result<&[u8], EngineError> {
    let len = |n| packed_len(n, k);
    let range = len(i * CHUNK).zip(len(n)).map(|(start, n)| start..start + n);
    range.and_then(|r| bytes.get(r)).ok_or_else(|| unfit("a payload that is too short"))
}
