//! Constants: declared in the bundle by digest, stored beside it by the roles that read them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::value::{DType, Shape};

/// BLAKE3 hash of a constant's bytes.
pub type Digest = [u8; 32];

/// Bytes that are read and hashed in one go.
pub(crate) const PIECE: usize = 1 << 20;

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

/// Bytes that stay where they are until somebody asks for a part of them, as those of a file do.
pub trait ReadAt: Send + Sync {
    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// If there are not as many, or they cannot be read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Why a constant cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstError {
    /// The store does not know it.
    #[error("missing")]
    Missing,
    /// The place it lies at cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Its bytes are not those that the digest names.
    #[error("its bytes have another digest")]
    Changed,
}

#[derive(Clone)]
enum Blob {
    Held(Arc<Vec<u8>>),
    Stored { from: Arc<dyn ReadAt>, offset: u64, len: u64 },
}

/// Constants by digest: little-endian elements, row-major. Each is either held here, or read from where it lies
/// whenever it is asked for, so that loading a plan takes the memory of one constant and not of all.
#[derive(Clone, Default)]
pub struct ConstStore {
    blobs: BTreeMap<Digest, Blob>,
}

impl ConstStore {
    /// An empty store.
    pub fn new() -> ConstStore {
        ConstStore::default()
    }

    /// Adds a constant and returns its digest; equal bytes are stored once.
    pub fn insert(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = *blake3::hash(&bytes).as_bytes();
        self.blobs.entry(digest).or_insert_with(|| Blob::Held(Arc::new(bytes)));
        digest
    }

    /// Adds a constant that lies elsewhere. Its bytes are compared with the digest each time they are read.
    pub fn insert_stored(&mut self, digest: Digest, from: Arc<dyn ReadAt>, offset: u64, len: u64) {
        self.blobs.entry(digest).or_insert(Blob::Stored { from, offset, len });
    }

    /// Adds what the other store has.
    pub fn merge(&mut self, other: ConstStore) {
        for (digest, blob) in other.blobs {
            self.blobs.entry(digest).or_insert(blob);
        }
    }

    /// The bytes with this digest. Those that lie elsewhere are read and verified here; whoever asks holds the only
    /// copy.
    ///
    /// # Errors
    /// [`ConstError`] if the store has no such constant, or what lies at its place is not it.
    pub fn load(&self, digest: &Digest) -> Result<Arc<Vec<u8>>, ConstError> {
        match self.blobs.get(digest).ok_or(ConstError::Missing)? {
            Blob::Held(bytes) => Ok(Arc::clone(bytes)),
            Blob::Stored { from, offset, len } => {
                let len = usize::try_from(*len).map_err(|e| ConstError::Unreadable(e.to_string()))?;
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(len).map_err(|e| ConstError::Unreadable(e.to_string()))?;
                let mut hasher = blake3::Hasher::new();
                // Hashed while it is in the cache.
                let mut at = *offset;
                while bytes.len() < len {
                    let start = bytes.len();
                    bytes.resize(len.min(start + PIECE), 0);
                    let piece = &mut bytes[start..];
                    from.read_at(piece, at).map_err(|e| ConstError::Unreadable(e.to_string()))?;
                    hasher.update(piece);
                    at = at.saturating_add(piece.len() as u64);
                }
                if hasher.finalize() != *digest {
                    return Err(ConstError::Changed);
                }
                Ok(Arc::new(bytes))
            }
        }
    }

    /// Size in bytes of the constant with this digest.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).map(Blob::len)
    }

    /// Digests and sizes of all constants, ordered by digest.
    pub fn iter(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.blobs.iter().map(|(digest, blob)| (digest, blob.len()))
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

impl Blob {
    fn len(&self) -> u64 {
        match self {
            Blob::Held(bytes) => bytes.len() as u64,
            Blob::Stored { len, .. } => *len,
        }
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
