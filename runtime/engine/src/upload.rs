//! The device's way up in one pass: encode, mask, pack, straight into the payload.

use pponnx_kernels::{Kernels, packed_len};
use pponnx_keys::Mask;
use pponnx_plans::plan::{Range, Slot};

use crate::encode;
use crate::error::EngineError;
use crate::memory::Encoded;
use crate::plan::Prepared;
use crate::ring::{RingWord, unfit};
use crate::value::TensorValue;

/// Elements handled at a time: few enough to stay in a first-level cache, and a multiple of 8, so that every chunk of
/// every ring width begins on a whole byte.
const CHUNK: usize = 1024;

/// Encodes a tensor and packs it for its slot, masked unless there is no mask (scheme `plain`). Equal to `encode`,
/// `mask` or `expose`, and `pack` one after the other.
///
/// # Errors
/// As [`encode::encode`]; a mask of another size than the slot, which a valid plan never has.
pub(crate) fn upload(
    x: &TensorValue,
    groups: usize,
    range: &Range,
    mask: Option<Mask>,
    slot: &Slot,
    kernels: &Kernels,
    step: &Prepared,
) -> Result<(Encoded, Vec<u8>), EngineError> {
    let encoded = encode::encode(x, groups, range, kernels, step)?;
    let payload = if slot.k <= 32 {
        hidden::<u32>(&encoded.x, mask, slot.k, kernels)?
    } else {
        hidden::<u64>(&encoded.x, mask, slot.k, kernels)?
    };
    Ok((encoded, payload))
}

fn hidden<W: RingWord>(x: &[i32], mask: Option<Mask>, k: u32, kernels: &Kernels) -> Result<Vec<u8>, EngineError> {
    let mut payload = Vec::with_capacity(packed_len(x.len(), k).unwrap_or_default());
    let mut words = [W::default(); CHUNK];
    let mut parts = mask.map(Mask::into_parts);
    for x in x.chunks(CHUNK) {
        let words = &mut words[..x.len()];
        kernels.embed(x, words).map_err(unfit)?;
        if let Some(parts) = &mut parts {
            W::add_part(parts, words).map_err(unfit)?;
        }
        kernels.pack(words, k, &mut payload).map_err(unfit)?;
    }
    match parts {
        Some(parts) => parts.finish().map_err(unfit)?,
        None => {}
    }
    Ok(payload)
}
