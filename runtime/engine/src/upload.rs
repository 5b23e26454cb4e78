//! The device's way up in one pass: encode, mask, pack, straight into the payload.

use pponnx_kernels::packed_len;
use pponnx_keys::Mask;
use pponnx_plans::plan::{Range, Slot};

use crate::encode::{Exponents, exponents};
use crate::error::EngineError;
use crate::memory::Encoded;
use crate::plan::Prepared;
use crate::profile::{Stage, Tools};
use crate::reveal::CHUNK;
use crate::ring::unfit;
use crate::value::TensorValue;

/// Encodes a tensor and packs it for its slot, masked unless there is no mask (scheme `plain`). Equal to `encode`,
/// `mask` or `expose`, and `pack` one after the other.
///
/// # Errors
/// As [`exponents`]; a mask of another size than the slot, which a valid plan never has.
pub(crate) fn upload(
    x: &TensorValue,
    groups: usize,
    range: &Range,
    mask: Option<Mask>,
    slot: &Slot,
    tools: Tools<'_>,
    step: &Prepared,
) -> Result<(Encoded, Vec<u8>), EngineError> {
    let Tools { kernels, profile, buffers } = tools;
    let scanned = profile.measure(Stage::Encode, || exponents(x, groups, range, kernels, step))?;
    let Exponents { data, all: exponents, block } = scanned;
    let k = slot.k;
    let bytes = packed_len(data.len(), k).ok_or_else(|| unfit("a payload beyond memory"))?;
    let (mut encoded, mut payload) = (buffers.integers(data.len()), buffers.bytes(bytes));
    let mut parts = mask.map(Mask::into_parts);
    // scheme `plain`: nothing is added
    let bare = [0u8; 8 * CHUNK];
    let width = if k <= 32 { 4 } else { 8 };
    let mut rest = payload.as_mut_slice();
    for (i, (x, encoded)) in data.chunks(CHUNK).zip(encoded.chunks_mut(CHUNK)).enumerate() {
        let (now, later) = rest.split_at_mut(packed_len(x.len(), k).unwrap_or_default().min(rest.len()));
        rest = later;
        let stream = match &mut parts {
            Some(parts) => profile.measure(Stage::Mask, || parts.lend(x.len())),
            None => &bare[..width * x.len()],
        };
        let started = profile.start();
        let (start, end) = (i * CHUNK, i * CHUNK + x.len() - 1);
        let of = |at: usize| exponents.get(at / block % exponents.len().max(1)).copied().unwrap_or(0);
        if start / block == end / block {
            kernels.upload(x, of(start), stream, k, encoded, now).map_err(unfit)?;
        } else {
            // several exponents in one chunk: encode part by part, then send the integers
            let (mut at, mut x, mut to) = (start, x, &mut *encoded);
            while !x.is_empty() {
                let len = (block - at % block).min(x.len());
                let (x_now, x_later) = x.split_at(len);
                let (to_now, to_later) = to.split_at_mut(len);
                kernels.encode(x_now, of(at), to_now).map_err(unfit)?;
                (at, x, to) = (at + len, x_later, to_later);
            }
            kernels.upload_integers(encoded, stream, k, now).map_err(unfit)?;
        }
        profile.stop(Stage::Encode, started);
    }
    if let Some(parts) = parts {
        parts.finish().map_err(unfit)?;
    }
    Ok((Encoded { x: encoded, exponents, shape: x.shape().clone() }, payload))
}
