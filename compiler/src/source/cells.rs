//! Constants as plain numbers and as ONNX initialisers.

use std::sync::Arc;

use pponnx_plans::value::{DType, Shape};
use tract_onnx::pb;
use tract_onnx::prelude::{Datum, DatumType, Tensor};

use super::{Constant, dtype_of, onnx_type};
use crate::ir::floats::{Floats, all_finite};

impl Constant {
    /// Element type; `None` for strings and other types without a number form.
    pub fn dtype(&self) -> Option<DType> {
        dtype_of(self.0.datum_type())
    }

    /// Shape.
    pub fn shape(&self) -> Shape {
        Shape(self.0.shape().to_vec())
    }

    /// The elements, if they are `f32` and finite. They are not copied.
    pub fn floats(&self) -> Option<Floats> {
        if self.0.datum_type() != DatumType::F32 {
            return None;
        }
        slice(&self.0).filter(|data| all_finite(data))?;
        Some(Floats::shared(Arc::new(Shared(Arc::clone(&self.0)))))
    }

    /// The elements of an integer tensor.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let integral = self.0.datum_type().is_integer() || self.0.datum_type() == DatumType::TDim;
        let cast = integral.then(|| self.0.cast_to::<i64>().ok()).flatten()?;
        plain(&cast)
    }

    /// As an initialiser of an ONNX graph.
    ///
    /// # Errors
    /// A sentence if the element type has no ONNX form here.
    pub fn initialiser(&self, name: &str) -> Result<pb::TensorProto, String> {
        let failed = |e: &dyn std::fmt::Display| format!("constant `{name}`: {e}");
        let cast = match self.0.datum_type() {
            DatumType::TDim => Some(self.0.cast_to::<i64>().map_err(|e| failed(&format_args!("{e:#}")))?.into_owned()),
            _ => None,
        };
        let t = cast.as_ref().unwrap_or(&self.0);
        let dims = t.shape().iter().map(|d| *d as i64).collect();
        let mut proto = pb::TensorProto { name: name.to_string(), dims, ..Default::default() };
        if t.datum_type() == DatumType::String {
            proto.data_type = pb::tensor_proto::DataType::String as i32;
            let strings: Vec<String> = plain(t).ok_or_else(|| failed(&"unreadable strings"))?;
            proto.string_data = strings.into_iter().map(String::into_bytes).collect();
        } else {
            let dtype = dtype_of(t.datum_type()).ok_or_else(|| failed(&format_args!("{:?}", t.datum_type())))?;
            proto.data_type = onnx_type(dtype);
            proto.raw_data = t.as_bytes().to_vec();
        }
        Ok(proto)
    }
}

fn slice<T: Datum>(t: &Tensor) -> Option<&[T]> {
    t.try_as_plain_ram().ok()?.as_slice::<T>().ok()
}

fn plain<T: Datum + Clone>(t: &Tensor) -> Option<Vec<T>> {
    slice(t).map(<[T]>::to_vec)
}

/// A tensor of `f32` whose elements others read.
struct Shared(Arc<Tensor>);

impl AsRef<[f32]> for Shared {
    fn as_ref(&self) -> &[f32] {
        // Whoever made it has looked.
        slice(&self.0).unwrap_or_default()
    }
}
