//! `.npy` and `.npz`, read defensively: a header cannot make us reserve more than the file holds.
//!
//! Format: numpy, `numpy/lib/_format_impl.py`, versions 1.0 to 3.0.

use std::io::{Cursor, Read};

use pponnx_engine::value::TensorValue;
use pponnx_plans::value::{DType, Shape};

/// Largest `.npz` member that is unpacked, in bytes.
const MEMBER_LIMIT: u64 = 4 << 30;

/// Reads one `.npy` array.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub fn array(bytes: &[u8]) -> Result<TensorValue, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not an .npy file: the magic bytes are missing")?;
    let (version, rest) = rest.split_at_checked(2).ok_or("the file is cut off in its header")?;
    let (length, rest) = match version {
        [1, _] => rest.split_first_chunk::<2>().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest)),
        [2 | 3, _] => rest.split_first_chunk::<4>().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest)),
        _ => return Err(format!("npy format version {} is not supported (1 to 3 are)", version[0])),
    }
    .ok_or("the file is cut off in its header")?;
    let (header, data) = rest.split_at_checked(length).ok_or("the file is cut off in its header")?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;

    let dtype = element_type(quoted(field(header, "descr")?).ok_or("structured element types are not supported")?)?;
    let fortran = field(header, "fortran_order")?.starts_with("True");
    let shape = Shape(dimensions(field(header, "shape")?)?);
    let expected = shape.checked_len().and_then(|n| n.checked_mul(dtype.bytes()));
    if expected != Some(data.len()) {
        let expected = expected.map_or("more than memory can hold".into(), |n| n.to_string());
        return Err(format!(
            "the header says {shape} of {}, {expected} bytes, but {} follow",
            dtype.name(),
            data.len()
        ));
    }
    let c_order = if fortran && shape.rank() > 1 { Some(from_fortran(data, &shape, dtype.bytes())) } else { None };
    TensorValue::from_le_bytes(dtype, shape, c_order.as_deref().unwrap_or(data)).map_err(|e| e.to_string())
}

/// Reads all arrays of an `.npz` file, with their names, in file order.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub fn archive(bytes: &[u8]) -> Result<Vec<(String, TensorValue)>, String> {
    arrays(bytes, |_| true)
}

/// Reads those arrays of an `.npz` file whose name is wanted; the others may be of any element type.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub fn arrays(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, TensorValue)>, String> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("not a readable .npz file: {e}"))?;
    let mut arrays = Vec::new();
    for index in 0..zip.len() {
        let mut member = zip.by_index(index).map_err(|e| format!("cannot unpack member {index}: {e}"))?;
        let name = member.name().strip_suffix(".npy").unwrap_or(member.name()).to_owned();
        if !wanted(&name) {
            continue;
        }
        let mut data = Vec::new();
        member
            .by_ref()
            .take(MEMBER_LIMIT)
            .read_to_end(&mut data)
            .map_err(|e| format!("cannot unpack `{name}`: {e}"))?;
        arrays.push((name.clone(), array(&data).map_err(|e| format!("array `{name}`: {e}"))?));
    }
    Ok(arrays)
}

/// What follows the key in the header's dictionary.
fn field<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("the header has no `{key}`");
    let at = header.find(&format!("'{key}'")).or_else(|| header.find(&format!("\"{key}\""))).ok_or_else(missing)?;
    let rest = header.get(at + key.len() + 2..).ok_or_else(missing)?;
    rest.trim_start().strip_prefix(':').map(str::trim_start).ok_or_else(missing)
}

fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text.get(1..)?.split(quote).next()
}

fn element_type(descr: &str) -> Result<DType, String> {
    Ok(match descr.trim_start_matches(['<', '|', '=']) {
        "b1" | "?" => DType::Bool,
        "u1" => DType::U8,
        "i1" => DType::I8,
        "u2" => DType::U16,
        "i2" => DType::I16,
        "u4" => DType::U32,
        "i4" => DType::I32,
        "u8" => DType::U64,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => {
            return Err(format!(
                "element type `{descr}` is not supported; save little-endian numbers, such as float32"
            ));
        }
    })
}

fn dimensions(text: &str) -> Result<Vec<usize>, String> {
    let inner = text.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or("the header's shape is not a tuple")?.0;
    inner
        .split(',')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .map(|d| d.trim_end_matches('L').parse().map_err(|_| format!("the header's shape has an axis of `{d}`")))
        .collect()
}

/// Elements in row-major order, from column-major order.
fn from_fortran(data: &[u8], shape: &Shape, size: usize) -> Vec<u8> {
    let mut strides = Vec::with_capacity(shape.rank());
    let mut step = size;
    for d in &shape.0 {
        strides.push(step);
        step *= d;
    }
    let mut index = vec![0usize; shape.rank()];
    let mut out = Vec::with_capacity(data.len());
    for _ in 0..data.len() / size {
        let at: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        out.extend_from_slice(data.get(at..at + size).unwrap_or_default());
        for (i, d) in index.iter_mut().zip(&shape.0).rev() {
            *i += 1;
            if *i < *d {
                break;
            }
            *i = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use ndarray::{Array2, ShapeBuilder};
    use ndarray_npy::{NpzWriter, WriteNpyExt};

    fn written<T: WriteNpyExt>(array: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        array.write_npy(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn both_orders_give_the_same_tensor() {
        let c = Array2::from_shape_fn((2, 3), |(i, j)| (10 * i + j) as f32);
        let mut f = Array2::<f32>::zeros((2, 3).f());
        f.assign(&c);
        let (a, b) = (array(&written(&c)).unwrap(), array(&written(&f)).unwrap());
        assert_ne!(written(&c), written(&f));
        assert_eq!(a, b);
        assert_eq!(a.as_f32().unwrap(), [0., 1., 2., 10., 11., 12.]);
    }

    #[test]
    fn element_types_are_told_apart() {
        assert_eq!(array(&written(&ndarray::arr1(&[1i64, -2]))).unwrap().dtype(), DType::I64);
        assert_eq!(array(&written(&ndarray::arr1(&[true]))).unwrap().dtype(), DType::Bool);
        assert_eq!(array(&written(&ndarray::arr0(0.5f64))).unwrap().shape().rank(), 0);
    }

    #[test]
    fn damaged_files_are_refused_without_reserving_memory() {
        let good = written(&ndarray::arr1(&[1f32, 2.0]));
        for cut in 0..good.len() {
            assert!(array(&good[..cut]).is_err(), "cut at {cut}");
        }
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967295, 4294967295, 4294967295), }";
        for shape in ["(4294967295, 4294967295, 4294967295)", "(99999999999,)", "(-1,)", "(1, x)", "2"] {
            let text = header.replace("(4294967295, 4294967295, 4294967295)", shape);
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(&[0; 8]);
            assert!(array(&bytes).is_err(), "{shape}");
        }
        assert!(array(&[good.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn archives_keep_names() {
        let mut writer = NpzWriter::new_compressed(Cursor::new(Vec::new()));
        writer.add_array("a", &ndarray::arr1(&[1u8, 2])).unwrap();
        writer.add_array("b/c:0", &ndarray::arr1(&[0.5f32])).unwrap();
        let bytes = writer.finish().unwrap().into_inner();
        let arrays = archive(&bytes).unwrap();
        let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["a", "b/c:0"]);
        assert_eq!(super::arrays(&bytes, |n| n == "a").unwrap(), arrays[..1]);
        assert!(archive(&bytes[..bytes.len() - 30]).is_err());
    }
}
