//! Steps on ring elements: masks and pads, packing, differences, lifting.
//!
//! Words above bit k may hold anything between steps; `pack`, `lift` and the mask functions reduce.

use pponnx_kernels::{KernelError, Kernels, Word};
use pponnx_keys::{Mask, MaskError};
use pponnx_plans::plan::Slot;
use pponnx_plans::reference::scalar::Weighted;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::Shape;

use crate::error::EngineError;
use crate::memory::{Encoded, Value};

/// A word of the ring values: `u32` for k <= 32, `u64` above.
pub(crate) trait RingWord: Word + Weighted<i32> {
    /// The value that holds such a tensor.
    fn value(tensor: Tensor<Self>) -> Value;
    /// The tensor in a value, if its words are these.
    fn of(value: &Value) -> Option<&Tensor<Self>>;
    /// Adds a mask, reducing to its width.
    fn add_mask(mask: Mask, words: &mut [Self]) -> Result<(), MaskError>;
}

impl RingWord for u32 {
    fn value(tensor: Tensor<u32>) -> Value {
        Value::Ring32(tensor)
    }
    fn of(value: &Value) -> Option<&Tensor<u32>> {
        match value {
            Value::Ring32(t) => Some(t),
            _ => None,
        }
    }
    fn add_mask(mask: Mask, words: &mut [u32]) -> Result<(), MaskError> {
        mask.add_to_u32(words)
    }
}

impl RingWord for u64 {
    fn value(tensor: Tensor<u64>) -> Value {
        Value::Ring64(tensor)
    }
    fn of(value: &Value) -> Option<&Tensor<u64>> {
        match value {
            Value::Ring64(t) => Some(t),
            _ => None,
        }
    }
    fn add_mask(mask: Mask, words: &mut [u64]) -> Result<(), MaskError> {
        mask.add_to_u64(words)
    }
}

/// What kernels and masks refuse only if the plan was not validated.
pub(crate) fn unfit(error: impl std::fmt::Display) -> EngineError {
    EngineError::mismatch(format!("{error}: the plan was not validated"))
}

fn ill_typed() -> EngineError {
    unfit("ring elements expected")
}

/// Encoded integers as words, plus the mask of an upload.
pub(crate) fn mask(x: &Encoded, mask: Mask, kernels: &Kernels) -> Result<Value, EngineError> {
    fn masked<W: RingWord>(x: &Encoded, mask: Mask, kernels: &Kernels) -> Result<Value, EngineError> {
        let mut data = vec![W::default(); x.x.len()];
        kernels.embed(&x.x, &mut data).map_err(unfit)?;
        W::add_mask(mask, &mut data).map_err(unfit)?;
        Ok(W::value(Tensor { shape: x.shape.clone(), data }))
    }
    if mask.width() <= 32 { masked::<u32>(x, mask, kernels) } else { masked::<u64>(x, mask, kernels) }
}

/// Encoded integers as words, unmasked (scheme `plain`).
pub(crate) fn expose(x: &Encoded, k: usize, kernels: &Kernels) -> Result<Value, EngineError> {
    fn exposed<W: RingWord>(x: &Encoded, kernels: &Kernels) -> Result<Value, EngineError> {
        let mut data = vec![W::default(); x.x.len()];
        kernels.embed(&x.x, &mut data).map_err(unfit)?;
        Ok(W::value(Tensor { shape: x.shape.clone(), data }))
    }
    if k <= 32 { exposed::<u32>(x, kernels) } else { exposed::<u64>(x, kernels) }
}

/// Adds a pad in place.
pub(crate) fn add(value: Value, pad: Mask) -> Result<Value, EngineError> {
    match value {
        Value::Ring32(mut t) => {
            pad.add_to_u32(&mut t.data).map_err(unfit)?;
            Ok(Value::Ring32(t))
        }
        Value::Ring64(mut t) => {
            pad.add_to_u64(&mut t.data).map_err(unfit)?;
            Ok(Value::Ring64(t))
        }
        Value::Tensor(_) | Value::Encoded(_) | Value::Payload(_) | Value::Lifted(_) | Value::Checked(_) => Err(ill_typed()),
    }
}

/// The mask of an upload slot as a value (edge B and the owner).
pub(crate) fn draw(mask: Mask, slot: &Slot) -> Result<Value, EngineError> {
    fn drawn<W: RingWord>(mask: Mask, shape: &Shape) -> Result<Value, EngineError> {
        let mut data = vec![W::default(); mask.elements()];
        W::add_mask(mask, &mut data).map_err(unfit)?;
        Ok(W::value(Tensor { shape: shape.clone(), data }))
    }
    if slot.k <= 32 { drawn::<u32>(mask, &slot.shape) } else { drawn::<u64>(mask, &slot.shape) }
}

/// `a - b`, in place.
pub(crate) fn sub(a: Value, b: &Value, kernels: &Kernels) -> Result<Value, EngineError> {
    match (a, b) {
        (Value::Ring32(mut a), Value::Ring32(b)) => {
            kernels.sub_assign(&mut a.data, &b.data).map_err(unfit)?;
            Ok(Value::Ring32(a))
        }
        (Value::Ring64(mut a), Value::Ring64(b)) => {
            kernels.sub_assign(&mut a.data, &b.data).map_err(unfit)?;
            Ok(Value::Ring64(a))
        }
        _ => Err(ill_typed()),
    }
}

/// The signed integers in `[-2^(k-1), 2^(k-1))` of residues of `k` bits.
pub(crate) fn lift(value: &Value, k: u32, kernels: &Kernels) -> Result<Vec<i64>, EngineError> {
    fn lifted<W: RingWord>(t: &Tensor<W>, k: u32, kernels: &Kernels) -> Result<Vec<i64>, EngineError> {
        let mut out = vec![0i64; t.data.len()];
        kernels.lift(&t.data, k, &mut out).map_err(unfit)?;
        Ok(out)
    }
    match value {
        Value::Ring32(t) => lifted(t, k, kernels),
        Value::Ring64(t) => lifted(t, k, kernels),
        Value::Tensor(_) | Value::Encoded(_) | Value::Payload(_) | Value::Lifted(_) | Value::Checked(_) => Err(ill_typed()),
    }
}

/// The payload of a slot: `k` bits an element.
pub(crate) fn pack(value: &Value, slot: &Slot, kernels: &Kernels) -> Result<Vec<u8>, EngineError> {
    let mut out = Vec::new();
    match value {
        Value::Ring32(t) => kernels.pack(&t.data, slot.k, &mut out),
        Value::Ring64(t) => kernels.pack(&t.data, slot.k, &mut out),
        Value::Tensor(_) | Value::Encoded(_) | Value::Payload(_) | Value::Lifted(_) | Value::Checked(_) => return Err(ill_typed()),
    }
    .map_err(unfit)?;
    Ok(out)
}

/// The tensor of a slot from its payload.
///
/// # Errors
/// [`KernelError`] if the payload has another length or bits behind the last element.
pub(crate) fn unpack(payload: &[u8], slot: &Slot, kernels: &Kernels) -> Result<Value, KernelError> {
    fn unpacked<W: RingWord>(payload: &[u8], slot: &Slot, kernels: &Kernels) -> Result<Value, KernelError> {
        let mut data = vec![W::default(); slot.shape.len()];
        kernels.unpack(payload, slot.k, &mut data)?;
        Ok(W::value(Tensor { shape: slot.shape.clone(), data }))
    }
    if slot.k <= 32 { unpacked::<u32>(payload, slot, kernels) } else { unpacked::<u64>(payload, slot, kernels) }
}

/// Fails if bits behind the last element of a payload are set; its length is checked where it arrives.
///
/// # Errors
/// [`KernelError::PaddingBits`].
pub(crate) fn canonical(payload: &[u8], slot: &Slot) -> Result<(), KernelError> {
    let used = ((slot.shape.len() as u128 * u128::from(slot.k)) % 8) as u32;
    if used > 0 && payload.last().is_some_and(|last| last >> used != 0) {
        return Err(KernelError::PaddingBits);
    }
    Ok(())
}
