//! Constants as plain numbers and as ONNX initialisers.

use pponnx_plans::value::{DType, Shape};
use tract_onnx::pb;
use tract_onnx::prelude::{DatumType, Tensor};

use super::{Constant, dtype_of, onnx_type};

impl Constant {
    /// Element type; `None` for strings and other types without a number form.
    pub fn dtype(&self) -> Option<DType> {
        dtype_of(self.0.datum_type())
    }

    /// Shape.
    pub fn shape(&self) -> Shape {
        Shape(self.0.shape().to_vec())
    }

    /// The elements, if they are `f32` and finite.
    pub fn floats(&self) -> Option<Vec<f32>> {
        if self.0.datum_type() != DatumType::F32 {
            return None;
        }
        let data = plain(&self.0)?;
        data.iter().all(|v: &f32| v.is_finite()).then_some(data)
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

fn plain<T: tract_onnx::prelude::Datum + Clone>(t: &Tensor) -> Option<Vec<T>> {
    let view = t.try_as_plain_ram().ok()?;
    Some(view.as_slice::<T>().ok()?.to_vec())
}
