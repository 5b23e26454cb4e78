//! Values of a running program, freed after their last use.

use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{Shape, ValueId};
use zeroize::Zeroize;

use crate::buffers::Buffers;
use crate::check::Verified;
use crate::error::EngineError;
use crate::plan::Prepared;
use crate::value::TensorValue;

/// Integers made from a real tensor, with the exponent of each group.
pub(crate) struct Encoded {
    /// Integers, row-major.
    pub(crate) x: Vec<i32>,
    /// One exponent a group.
    pub(crate) exponents: Vec<i32>,
    /// Shape of the tensor.
    pub(crate) shape: Shape,
}

/// A received tensor as it came.
pub(crate) struct Payload {
    /// Packed elements.
    pub(crate) bytes: Vec<u8>,
    /// Ring width.
    pub(crate) k: u32,
    /// Shape of the tensor.
    pub(crate) shape: Shape,
}

/// One value.
pub(crate) enum Value {
    /// A plain tensor.
    Tensor(TensorValue),
    /// Integers of `encode`.
    Encoded(Encoded),
    /// Residues of at most 32 bits.
    Ring32(Tensor<u32>),
    /// Residues of 33 to 60 bits.
    Ring64(Tensor<u64>),
    /// Residues as they came, which only linear maps read.
    Payload(Payload),
    /// Signed integers, unchecked.
    Lifted(Vec<i64>),
    /// Signed integers that passed the check.
    Checked(Verified<Vec<i64>>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Tensor(_) => "a plain tensor",
            Value::Encoded(_) => "an encoded tensor",
            Value::Ring32(_) => "residues of 32 bits",
            Value::Ring64(_) => "residues of 64 bits",
            Value::Payload(_) => "packed residues",
            Value::Lifted(_) => "lifted integers",
            Value::Checked(_) => "checked integers",
        }
    }

    /// Overwrites residues.
    fn wipe(&mut self) {
        match self {
            Value::Ring32(t) => t.data.zeroize(),
            Value::Ring64(t) => t.data.zeroize(),
            Value::Payload(p) => p.bytes.zeroize(),
            Value::Tensor(_) | Value::Encoded(_) | Value::Lifted(_) | Value::Checked(_) => {}
        }
    }
}

/// The value table of one execution.
pub(crate) struct Values {
    places: Vec<Option<Value>>,
    /// Whether freed residues are overwritten: where they are masks and bare corrections. On the device and edge A
    /// they are masked, or the device's own data, which the ONNX back end copies as it likes.
    wipe: bool,
}

/// What a program without a fault cannot cause: the validator has checked order and types.
fn ill_typed(id: ValueId, wanted: &str, have: Option<&Value>) -> EngineError {
    let have = have.map_or("not there", Value::kind);
    EngineError::mismatch(format!("value {id} should be {wanted} and is {have}: the plan was not validated"))
}

impl Values {
    pub(crate) fn new(n: usize, wipe: bool) -> Values {
        Values { places: (0..n).map(|_| None).collect(), wipe }
    }

    pub(crate) fn set(&mut self, id: ValueId, value: Value) -> Result<(), EngineError> {
        let place = self.places.get_mut(id.index()).ok_or_else(|| ill_typed(id, "in the table", None))?;
        *place = Some(value);
        Ok(())
    }

    pub(crate) fn get(&self, id: ValueId) -> Result<&Value, EngineError> {
        self.places.get(id.index()).and_then(Option::as_ref).ok_or_else(|| ill_typed(id, "defined", None))
    }

    pub(crate) fn tensor(&self, id: ValueId) -> Result<&TensorValue, EngineError> {
        match self.get(id)? {
            Value::Tensor(t) => Ok(t),
            other => Err(ill_typed(id, "a plain tensor", Some(other))),
        }
    }

    pub(crate) fn encoded(&self, id: ValueId) -> Result<&Encoded, EngineError> {
        match self.get(id)? {
            Value::Encoded(e) => Ok(e),
            other => Err(ill_typed(id, "an encoded tensor", Some(other))),
        }
    }

    pub(crate) fn checked(&self, id: ValueId) -> Result<&Verified<Vec<i64>>, EngineError> {
        match self.get(id)? {
            Value::Checked(z) => Ok(z),
            other => Err(ill_typed(id, "checked integers", Some(other))),
        }
    }

    /// Residues for an operation that works in place: moved out if this step is their last use, else copied.
    pub(crate) fn take(&mut self, id: ValueId, step: &Prepared) -> Result<Value, EngineError> {
        if step.takes.contains(&id)
            && let Some(value) = self.places.get_mut(id.index()).and_then(Option::take)
        {
            return Ok(value);
        }
        match self.get(id)? {
            Value::Ring32(t) => Ok(Value::Ring32(t.clone())),
            Value::Ring64(t) => Ok(Value::Ring64(t.clone())),
            other => Err(ill_typed(id, "residues", Some(other))),
        }
    }

    /// A plain tensor, moved out if this step is its last use; else `None`.
    pub(crate) fn take_tensor(&mut self, id: ValueId, step: &Prepared) -> Option<TensorValue> {
        let place = self.places.get_mut(id.index()).filter(|_| step.takes.contains(&id))?;
        match place.take_if(|v| matches!(v, Value::Tensor(_)))? {
            Value::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// As [`Values::take`], for lifted integers.
    pub(crate) fn take_lifted(&mut self, id: ValueId, step: &Prepared) -> Result<Vec<i64>, EngineError> {
        if step.takes.contains(&id)
            && let Some(Value::Lifted(z)) =
                self.places.get_mut(id.index()).and_then(|v| v.take_if(|v| matches!(v, Value::Lifted(_))))
        {
            return Ok(z);
        }
        match self.get(id)? {
            Value::Lifted(z) => Ok(z.clone()),
            other => Err(ill_typed(id, "lifted integers", Some(other))),
        }
    }

    pub(crate) fn free(&mut self, id: ValueId, buffers: &Buffers) {
        let value = self.places.get_mut(id.index()).and_then(Option::take);
        match value {
            Some(mut value) if self.wipe => value.wipe(),
            Some(Value::Tensor(tensor)) => tensor.into_f32().into_iter().for_each(|v| buffers.keep_reals(v)),
            Some(Value::Encoded(encoded)) => buffers.keep_integers(encoded.x),
            Some(Value::Payload(payload)) => buffers.keep_bytes(payload.bytes),
            _ => {}
        }
    }

    pub(crate) fn clear(&mut self) {
        for mut value in self.places.iter_mut().filter_map(Option::take) {
            if self.wipe {
                value.wipe();
            }
        }
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        self.clear();
        if self.wipe {
            pponnx_kernels::wipe_scratch();
        }
    }
}
