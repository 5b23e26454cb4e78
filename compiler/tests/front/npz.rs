//! Reads numpy files: `.npy`, and `.npz` without compression.

use std::collections::BTreeMap;

/// An array of `f32` (other number types are converted).
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

fn u16_at(b: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([b[at], b[at + 1]]))
}

fn u32_at(b: &[u8], at: usize) -> usize {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]) as usize
}

/// The array in a `.npy` file.
pub fn npy(bytes: &[u8]) -> Array {
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let (start, len) = if bytes[6] == 1 { (10, u16_at(bytes, 8)) } else { (12, u32_at(bytes, 8)) };
    let header = std::str::from_utf8(&bytes[start..start + len]).unwrap();
    let after = |key: &str| header.split_once(key).unwrap().1;
    let descr = after("'descr':").split('\'').nth(1).unwrap();
    assert!(after("'fortran_order':").trim_start().starts_with("False"));
    let dims = after("'shape':").split_once('(').unwrap().1.split_once(')').unwrap().0;
    let shape = dims.split(',').filter_map(|d| d.trim().parse().ok()).collect();
    let body = &bytes[start + len..];
    let data = match descr {
        "<f4" => body.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect(),
        "<f8" => body.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap()) as f32).collect(),
        "<i8" => body.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()) as f32).collect(),
        other => panic!("arrays of {other}"),
    };
    Array { shape, data }
}

/// The arrays in a `.npz` file, by name.
pub fn npz(bytes: &[u8]) -> BTreeMap<String, Array> {
    let end = (0..bytes.len() - 21).rev().find(|i| &bytes[*i..i + 4] == b"PK\x05\x06").unwrap();
    let (count, mut at) = (u16_at(bytes, end + 10), u32_at(bytes, end + 16));
    let mut arrays = BTreeMap::new();
    for _ in 0..count {
        assert_eq!(&bytes[at..at + 4], b"PK\x01\x02");
        assert_eq!(u16_at(bytes, at + 10), 0, "stored without compression");
        let (size, name_len) = (u32_at(bytes, at + 24), u16_at(bytes, at + 28));
        let (extra, comment, local) = (u16_at(bytes, at + 30), u16_at(bytes, at + 32), u32_at(bytes, at + 42));
        let name = std::str::from_utf8(&bytes[at + 46..at + 46 + name_len]).unwrap();
        let start = local + 30 + u16_at(bytes, local + 26) + u16_at(bytes, local + 28);
        arrays.insert(name.trim_end_matches(".npy").to_string(), npy(&bytes[start..start + size]));
        at += 46 + name_len + extra + comment;
    }
    arrays
}
