//! Tensors of scalars, row-major.

use super::EvalError;
use crate::constant::{ConstDecl, read_i16, read_i32};
use crate::value::{DType, Shape};

/// A dense tensor, row-major.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Tensor<S> {
    /// Sizes of the axes.
    pub shape: Shape,
    /// Elements; as many as the shape says.
    pub data: Vec<S>,
}

impl<S> Tensor<S> {
    /// A tensor of these elements.
    ///
    /// # Errors
    /// [`EvalError::Length`] if there are not as many as the shape says.
    pub fn new(shape: impl Into<Shape>, data: Vec<S>) -> Result<Tensor<S>, EvalError> {
        let tensor = Tensor { shape: shape.into(), data };
        tensor.checked()?;
        Ok(tensor)
    }

    /// Fails unless the tensor holds as many elements as its shape says.
    pub(crate) fn checked(&self) -> Result<(), EvalError> {
        if self.shape.checked_len() == Some(self.data.len()) {
            return Ok(());
        }
        Err(EvalError::Length { shape: self.shape.clone(), len: self.data.len() })
    }

    /// The same shape with each element replaced.
    pub fn map<T>(&self, f: impl FnMut(&S) -> T) -> Tensor<T> {
        Tensor { shape: self.shape.clone(), data: self.data.iter().map(f).collect() }
    }
}

impl Tensor<i32> {
    /// Integer weights from a constant's bytes (`i16` or `i32`, little-endian).
    ///
    /// # Errors
    /// [`EvalError`] if the type is another or the bytes are not as many as the declaration says.
    pub fn weights(decl: &ConstDecl, bytes: &[u8]) -> Result<Tensor<i32>, EvalError> {
        let data = match decl.dtype {
            DType::I16 => read_i16(bytes).into_iter().map(i32::from).collect(),
            DType::I32 => read_i32(bytes),
            other => {
                let reason = format!("they are {}, not i16 or i32", other.name());
                return Err(EvalError::Shape { op: "weights", reason });
            }
        };
        Tensor::new(decl.shape.clone(), data)
    }
}
