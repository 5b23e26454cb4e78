//! Plain tensors: what goes into a request and comes out of it.

use pponnx_plans::value::{DType, Shape, ValueType};

use crate::error::EngineError;

macro_rules! elements {
    ($($variant:ident: $type:ty;)*) => {
        /// Elements of a plain tensor, row-major.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Elements {
            /// Truth values.
            Bool(Vec<bool>),
            /// Bit patterns of IEEE half floats.
            F16(Vec<u16>),
            $($variant(Vec<$type>),)*
        }

        impl Elements {
            /// The element type.
            pub fn dtype(&self) -> DType {
                match self {
                    Elements::Bool(_) => DType::Bool,
                    Elements::F16(_) => DType::F16,
                    $(Elements::$variant(_) => DType::$variant,)*
                }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self {
                    Elements::Bool(v) => v.len(),
                    Elements::F16(v) => v.len(),
                    $(Elements::$variant(v) => v.len(),)*
                }
            }

            /// Whether there is no element.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Little-endian bytes.
            pub fn to_le_bytes(&self) -> Vec<u8> {
                match self {
                    Elements::Bool(v) => v.iter().map(|b| u8::from(*b)).collect(),
                    Elements::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
                    $(Elements::$variant(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),)*
                }
            }

            /// Elements of this type from little-endian bytes; a ragged end is dropped. Any byte but 0 is `true`.
            pub fn from_le_bytes(dtype: DType, bytes: &[u8]) -> Elements {
                match dtype {
                    DType::Bool => Elements::Bool(bytes.iter().map(|b| *b != 0).collect()),
                    DType::F16 => Elements::F16(bytes.as_chunks().0.iter().map(|c| u16::from_le_bytes(*c)).collect()),
                    $(DType::$variant => {
                        Elements::$variant(bytes.as_chunks().0.iter().map(|c| <$type>::from_le_bytes(*c)).collect())
                    })*
                }
            }

            /// The elements as f64, for comparisons and pictures. 64-bit integers may round.
            pub fn to_f64(&self) -> Vec<f64> {
                match self {
                    Elements::Bool(v) => v.iter().map(|b| f64::from(u8::from(*b))).collect(),
                    Elements::F16(v) => v.iter().map(|b| half_to_f64(*b)).collect(),
                    $(Elements::$variant(v) => v.iter().map(|x| *x as f64).collect(),)*
                }
            }
        }
    };
}

elements! {
    U8: u8;
    I8: i8;
    U16: u16;
    I16: i16;
    U32: u32;
    I32: i32;
    U64: u64;
    I64: i64;
    F32: f32;
    F64: f64;
}

/// The value of an IEEE half float.
fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    sign * magnitude
}

/// A plain tensor: shape and elements that agree in number.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorValue {
    shape: Shape,
    elements: Elements,
}

impl TensorValue {
    /// A tensor of this shape.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] when the number of elements is not that of the shape.
    pub fn new(shape: impl Into<Shape>, elements: Elements) -> Result<TensorValue, EngineError> {
        let shape = shape.into();
        if shape.checked_len() != Some(elements.len()) {
            return Err(EngineError::Misuse { what: format!("{} elements for a tensor {shape}", elements.len()) });
        }
        Ok(TensorValue { shape, elements })
    }

    /// A tensor of f32.
    ///
    /// # Errors
    /// As [`TensorValue::new`].
    pub fn from_f32(shape: impl Into<Shape>, data: Vec<f32>) -> Result<TensorValue, EngineError> {
        TensorValue::new(shape, Elements::F32(data))
    }

    /// A tensor from little-endian bytes.
    ///
    /// # Errors
    /// As [`TensorValue::new`], when the bytes are not exactly those of the shape.
    pub fn from_le_bytes(dtype: DType, shape: impl Into<Shape>, bytes: &[u8]) -> Result<TensorValue, EngineError> {
        if !bytes.len().is_multiple_of(dtype.bytes()) {
            return Err(EngineError::Misuse { what: format!("{} bytes of {}", bytes.len(), dtype.name()) });
        }
        TensorValue::new(shape, Elements::from_le_bytes(dtype, bytes))
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.elements.dtype()
    }

    /// The elements, row-major.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The elements if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.elements {
            Elements::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The elements if they are f32; nothing is copied.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        match self.elements {
            Elements::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The type a plan gives this value.
    pub fn value_type(&self) -> ValueType {
        ValueType::Tensor(self.dtype(), self.shape.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn bytes_round_trip_for_every_type() {
        for dtype in DType::ALL {
            let bytes: Vec<u8> =
                (0..3 * dtype.bytes() as u8).map(|b| if dtype == DType::Bool { b % 2 } else { b }).collect();
            let tensor = TensorValue::from_le_bytes(dtype, vec![3], &bytes).unwrap();
            assert_eq!(tensor.dtype(), dtype);
            assert_eq!(tensor.elements().to_le_bytes(), bytes, "{}", dtype.name());
        }
    }

    #[test]
    fn a_wrong_number_of_elements_is_refused() {
        assert!(TensorValue::from_f32(vec![2, 2], vec![0.0; 3]).is_err());
        assert!(TensorValue::from_le_bytes(DType::F32, vec![1], &[0; 5]).is_err());
        assert!(TensorValue::from_f32(vec![usize::MAX, 4], vec![]).is_err());
    }

    #[test]
    fn half_floats_have_their_values() {
        let v = Elements::F16(vec![0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00]).to_f64();
        assert_eq!(v, [1.0, -2.0, 2f64.powi(-24), 65504.0, f64::INFINITY]);
    }
}
