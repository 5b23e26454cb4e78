//! Reads a model file without holding its weights: large initialisers stay in the file, and the ONNX reader fetches
//! each one when it builds its tensor.
//!
//! ONNX keeps weights either in the model file or in files beside it. A walk over the protobuf wire form hashes the
//! file and leaves large `raw_data` fields out; in their place the tensor says that its data is external, in the
//! place [`HERE`], which [`ModelData`] answers from the model file itself.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::pb;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::*;

use super::Message;

/// The external place that stands for the model file. No file has this name.
pub(super) const HERE: &str = ".";

/// Bytes from which on a `raw_data` field stays in the file.
const LARGE: u64 = 1 << 16;

/// Bytes read in one go.
const BUFFER: usize = 1 << 20;

/// A model file without its large initialisers.
pub(super) struct Slim {
    /// The model.
    pub(super) bytes: Vec<u8>,
    /// Hash of the whole file.
    pub(super) hasher: blake3::Hasher,
}

/// What holds fields: the way to initialisers.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Model,
    Graph,
    Tensor,
}

impl Level {
    /// The message in a field of this number, if the way goes on there.
    fn inside(self, field: u64) -> Option<Level> {
        match (self, field) {
            (Level::Model, 7) => Some(Level::Graph),
            (Level::Graph, 5) => Some(Level::Tensor),
            _ => None,
        }
    }
}

/// Walks over a model file. `None` if it is not of the plain form that this walk understands; the decoder then sees the
/// whole file and says what is wrong with it, if anything is.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn slim(file: &File) -> io::Result<Option<Slim>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        // A pipe can be read once only.
        return Ok(None);
    }
    let mut walk = Walk { from: BufReader::with_capacity(BUFFER, file), hasher: blake3::Hasher::new(), at: 0 };
    let mut bytes = Vec::new();
    let whole = walk.message(Level::Model, meta.len(), &mut bytes)? && walk.from.read(&mut [0])? == 0;
    Ok(whole.then_some(Slim { bytes, hasher: walk.hasher }))
}

struct Walk<'f> {
    from: BufReader<&'f File>,
    hasher: blake3::Hasher,
    at: u64,
}

impl Walk<'_> {
    /// Copies a message that ends at `end`, without what is large; `false` if it is not well formed.
    fn message(&mut self, level: Level, end: u64, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut data = None;
        let mut external = false;
        while self.at < end {
            let Some(key) = self.varint(end)? else { return Ok(false) };
            let field = key >> 3;
            // External data, or the place of data.
            external |= level == Level::Tensor && matches!(field, 13 | 14);
            let body = match key & 7 {
                0 => {
                    let Some(value) = self.varint(end)? else { return Ok(false) };
                    put_varint(out, key);
                    put_varint(out, value);
                    continue;
                }
                1 => 8,
                2 => match self.varint(end)? {
                    Some(len) if len <= end - self.at => len,
                    _ => return Ok(false),
                },
                5 => 4,
                _ => return Ok(false),
            };
            if body > end - self.at {
                return Ok(false);
            }
            match (level.inside(field), key & 7) {
                (Some(inside), 2) => {
                    let mut inner = Vec::new();
                    if !self.message(inside, self.at + body, &mut inner)? {
                        return Ok(false);
                    }
                    put_varint(out, key);
                    put_varint(out, inner.len() as u64);
                    out.append(&mut inner);
                }
                (None, 2) if level == Level::Tensor && field == 9 && body >= LARGE && data.is_none() => {
                    data = Some((self.at, body));
                    self.pass(body, None)?;
                }
                _ => {
                    put_varint(out, key);
                    if key & 7 == 2 {
                        put_varint(out, body);
                    }
                    self.pass(body, Some(out))?;
                }
            }
        }
        if let Some((offset, len)) = data {
            // A tensor that names a place besides is for the decoder to judge.
            if external {
                return Ok(false);
            }
            let entry = |key: &str, value: String| pb::StringStringEntryProto { key: key.into(), value };
            let place = pb::TensorProto {
                external_data: vec![
                    entry("location", HERE.into()),
                    entry("offset", offset.to_string()),
                    entry("length", len.to_string()),
                ],
                data_location: Some(pb::tensor_proto::DataLocation::External as i32),
                ..Default::default()
            };
            // Messages one after the other merge.
            out.extend(place.encode_to_vec());
        }
        Ok(self.at == end)
    }

    /// A base-128 number that ends before `end`.
    fn varint(&mut self, end: u64) -> io::Result<Option<u64>> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.at >= end {
                return Ok(None);
            }
            let mut byte = [0];
            self.from.read_exact(&mut byte)?;
            self.hasher.update(&byte);
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Hashes the next `n` bytes, and copies them if asked to.
    fn pass(&mut self, n: u64, mut out: Option<&mut Vec<u8>>) -> io::Result<()> {
        let mut left = n;
        while left > 0 {
            let buffer = io::BufRead::fill_buf(&mut self.from)?;
            if buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.hasher.update(&buffer[..taken]);
            if let Some(out) = &mut out {
                out.extend_from_slice(&buffer[..taken]);
            }
            io::BufRead::consume(&mut self.from, taken);
            left -= taken as u64;
        }
        self.at += n;
        Ok(())
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Gives the ONNX reader the data of initialisers: from the model file, or from files beside it.
pub(super) struct ModelData {
    /// The model file.
    pub(super) file: File,
    /// Its folder, without links: what the reader makes of [`HERE`].
    pub(super) folder: PathBuf,
}

impl ModelDataResolver for ModelData {
    fn read_bytes_from_path(
        &self,
        buf: &mut Vec<u8>,
        path: &Path,
        offset: usize,
        length: Option<usize>,
    ) -> TractResult<()> {
        let other = if path == self.folder { None } else { Some(File::open(path)?) };
        let mut file = other.as_ref().unwrap_or(&self.file);
        let rest = file.metadata()?.len().saturating_sub(offset as u64);
        let length = length.map_or(rest, |n| n as u64);
        ensure!(length <= rest, "external data has {length} bytes at {offset}, the file has {rest} there");
        file.seek(SeekFrom::Start(offset as u64))?;
        buf.reserve_exact(length as usize);
        ensure!(file.take(length).read_to_end(buf)? as u64 == length, "the file ends early");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn model(tensors: Vec<pb::TensorProto>) -> pb::ModelProto {
        let node = pb::NodeProto { name: "n".into(), op_type: "Relu".into(), ..Default::default() };
        let graph = pb::GraphProto { initializer: tensors, node: vec![node], ..Default::default() };
        pb::ModelProto { ir_version: 8, graph: Some(graph), ..Default::default() }
    }

    fn tensor(n: usize) -> pb::TensorProto {
        let raw_data = (0..n).map(|i| (i % 253) as u8).collect();
        pb::TensorProto { name: format!("w{n}"), dims: vec![n as i64], data_type: 2, raw_data, ..Default::default() }
    }

    fn slimmed(bytes: &[u8]) -> (File, Option<Slim>) {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let slim = slim(&file).unwrap();
        (file, slim)
    }

    #[test]
    fn large_data_stays_in_the_file_and_is_found_there() {
        let whole = model(vec![tensor(100), tensor(70_000), tensor(3_000_000)]);
        let bytes = whole.encode_to_vec();
        let (file, slim) = slimmed(&bytes);
        let Slim { bytes: small, hasher } = slim.unwrap();
        assert!(small.len() < 1000);
        assert_eq!(hasher.finalize(), blake3::hash(&bytes));
        let mut got = pb::ModelProto::decode(&small[..]).unwrap();
        let data = ModelData { file, folder: "/".into() };
        for t in &mut got.graph.as_mut().unwrap().initializer {
            let of = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.clone());
            if t.data_location.is_none() {
                continue;
            }
            assert_eq!(of("location").as_deref(), Some(HERE));
            let number = |key| of(key).unwrap().parse::<usize>().unwrap();
            let mut buf = Vec::new();
            data.read_bytes_from_path(&mut buf, Path::new("/"), number("offset"), Some(number("length"))).unwrap();
            assert!(data.read_bytes_from_path(&mut Vec::new(), Path::new("/"), 5, Some(usize::MAX)).is_err());
            t.raw_data = buf;
            t.external_data.clear();
            t.data_location = None;
        }
        assert_eq!(got, whole);
    }

    #[test]
    fn other_forms_are_left_to_the_decoder() {
        let placed = pb::TensorProto { data_location: Some(0), ..tensor(70_000) };
        assert!(slimmed(&model(vec![placed]).encode_to_vec()).1.is_none());
        let bytes = model(vec![tensor(70_000)]).encode_to_vec();
        for cut in [1, 5, 100, bytes.len() - 1] {
            assert!(slimmed(&bytes[..cut]).1.is_none(), "{cut}");
        }
        assert!(slimmed(b"plain text, not a model").1.is_none());
        assert!(slimmed(&[0xff; 40]).1.is_none());
    }
}
