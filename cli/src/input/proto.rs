//! `.pb`: ONNX `TensorProto`, as in the test data of the ONNX model zoo (`test_data_set_0/input_0.pb`).

use pponnx_engine::value::{Elements, TensorValue};
use pponnx_plans::value::{DType, Shape};
use prost::Message;

/// The fields of `onnx.TensorProto` that hold numbers (onnx.proto, IR version 3 on).
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// Sizes of the axes.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// `TensorProto.DataType`.
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// f32.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// i32, i16, i8, u16, u8, bool, and bit patterns of f16.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// i64.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Tensor name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Little-endian elements.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    /// f64.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// u64, u32.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// 1 for data in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// Reads a `TensorProto`: its name, which may be empty, and its value.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub fn tensor(bytes: &[u8]) -> Result<(String, TensorValue), String> {
    let proto = TensorProto::decode(bytes).map_err(|e| format!("not an ONNX TensorProto: {e}"))?;
    if proto.data_location != 0 {
        return Err("its data lies in another file, which is not supported here".into());
    }
    let dtype = match proto.data_type {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        0 => return Err("not an ONNX TensorProto: it has no element type".into()),
        other => return Err(format!("element type {other} is not supported")),
    };
    let dims: Option<Vec<usize>> = proto.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = Shape(dims.ok_or("an axis has a negative size")?);
    let elements = if proto.raw_data.is_empty() {
        typed(&proto, dtype)?
    } else if proto.raw_data.len().is_multiple_of(dtype.bytes()) {
        Elements::from_le_bytes(dtype, &proto.raw_data)
    } else {
        return Err(format!("{} bytes are no whole number of {} elements", proto.raw_data.len(), dtype.name()));
    };
    let count = elements.len();
    let value = TensorValue::new(shape.clone(), elements)
        .map_err(|_| format!("its shape is {shape}, but it holds {count} elements"))?;
    Ok((proto.name, value))
}

fn typed(proto: &TensorProto, dtype: DType) -> Result<Elements, String> {
    fn narrow<S: Copy, T: TryFrom<S>>(from: &[S]) -> Result<Vec<T>, String> {
        let all: Option<Vec<T>> = from.iter().map(|v| T::try_from(*v).ok()).collect();
        all.ok_or_else(|| "an element does not fit its type".into())
    }
    Ok(match dtype {
        DType::F32 => Elements::F32(proto.float_data.clone()),
        DType::F64 => Elements::F64(proto.double_data.clone()),
        DType::I64 => Elements::I64(proto.int64_data.clone()),
        DType::U64 => Elements::U64(proto.uint64_data.clone()),
        DType::U32 => Elements::U32(narrow(&proto.uint64_data)?),
        DType::I32 => Elements::I32(proto.int32_data.clone()),
        DType::I16 => Elements::I16(narrow(&proto.int32_data)?),
        DType::I8 => Elements::I8(narrow(&proto.int32_data)?),
        DType::U16 => Elements::U16(narrow(&proto.int32_data)?),
        DType::U8 => Elements::U8(narrow(&proto.int32_data)?),
        DType::F16 => Elements::F16(narrow(&proto.int32_data)?),
        DType::Bool => Elements::Bool(proto.int32_data.iter().map(|v| *v != 0).collect()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn raw_and_typed_data_agree() {
        let raw = TensorProto {
            dims: vec![2],
            data_type: 1,
            raw_data: [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat(),
            name: "x".into(),
            ..TensorProto::default()
        };
        let typed = TensorProto { raw_data: vec![], float_data: vec![1.0, -2.0], ..raw.clone() };
        let (name, value) = tensor(&raw.encode_to_vec()).unwrap();
        assert_eq!((name.as_str(), value.as_f32().unwrap()), ("x", &[1.0, -2.0][..]));
        assert_eq!(tensor(&typed.encode_to_vec()).unwrap().1, value);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = TensorProto { dims: vec![1], data_type: 2, int32_data: vec![7], ..TensorProto::default() };
        assert!(tensor(&good.encode_to_vec()).is_ok());
        for bad in [
            TensorProto { dims: vec![2], ..good.clone() },
            TensorProto { dims: vec![-1], ..good.clone() },
            TensorProto { dims: vec![i64::MAX, 4], ..good.clone() },
            TensorProto { int32_data: vec![256], ..good.clone() },
            TensorProto { data_type: 8, ..good.clone() },
            TensorProto { data_location: 1, ..good.clone() },
            TensorProto { data_type: 1, raw_data: vec![0; 5], ..good.clone() },
        ] {
            assert!(tensor(&bad.encode_to_vec()).is_err(), "{bad:?}");
        }
        assert!(tensor(b"").is_err() && tensor(b"hello, not a tensor").is_err());
    }
}
