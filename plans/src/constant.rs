//! Constants: declared in the bundle by digest, stored beside it by the roles that read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::value::{DType, Shape};

/// BLAKE3 hash of a constant's bytes.
pub type Digest = [u8; 32];

/// A constant of the bundle. `u8` constants of rank 1 also serve for ONNX sub-models.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstDecl {
    /// Hash of the little-endian bytes.
    pub digest: Digest,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
}

impl ConstDecl {
    /// Size in bytes; saturates.
    pub fn bytes(&self) -> usize {
        self.shape.len().saturating_mul(self.dtype.bytes())
    }
}

/// Bytes of constants by digest: little-endian elements, row-major.
#[derive(Clone, Default)]
pub struct ConstStore {
    blobs: BTreeMap<Digest, Arc<Vec<u8>>>,
}

impl ConstStore {
    /// An empty store.
    pub fn new() -> ConstStore {
        ConstStore::default()
    }

    /// Adds a constant and returns its digest; equal bytes are stored once.
    pub fn insert(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = *blake3::hash(&bytes).as_bytes();
        self.blobs.entry(digest).or_insert_with(|| Arc::new(bytes));
        digest
    }

    /// The bytes with this digest.
    pub fn get(&self, digest: &Digest) -> Option<&Arc<Vec<u8>>> {
        self.blobs.get(digest)
    }

    /// All constants, ordered by digest.
    pub fn iter(&self) -> impl Iterator<Item = (&Digest, &Arc<Vec<u8>>)> {
        self.blobs.iter()
    }

    /// Number of constants.
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }
}

macro_rules! read {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(bytes: &[u8]) -> Vec<$type> {
            let (chunks, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
            chunks.iter().map(|c| <$type>::from_le_bytes(*c)).collect()
        }
    )*};
}

read! {
    /// Little-endian bytes as `i16`; a ragged end is dropped (lengths are the validator's business).
    read_i16: i16;
    /// Little-endian bytes as `i32`.
    read_i32: i32;
    /// Little-endian bytes as `u32`.
    read_u32: u32;
    /// Little-endian bytes as `f32`.
    read_f32: f32;
    /// Little-endian bytes as `f64`.
    read_f64: f64;
}
