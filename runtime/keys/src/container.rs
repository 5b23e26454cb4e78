//! The frame of every file of this crate: magic (8 bytes), version (u32), content, BLAKE3 of everything before
//! (32 bytes). All integers little-endian.

use zeroize::Zeroizing;

use crate::error::{At, StoreError};

/// Bytes of the checksum at the end.
pub(crate) const TRAILER: usize = 32;
/// The format version of every kind so far.
pub(crate) const VERSION: u32 = 1;

/// A file being put together; wiped when dropped.
pub(crate) struct Builder(Zeroizing<Vec<u8>>);

impl Builder {
    /// Starts a file with `content` bytes of content; giving the right number keeps the buffer from moving, which
    /// would leave copies of secrets behind.
    pub(crate) fn new(magic: [u8; 8], content: usize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(content.saturating_add(12 + TRAILER)));
        bytes.extend_from_slice(&magic);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        Self(bytes)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Adds the checksum.
    pub(crate) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let checksum = blake3::hash(&self.0);
        self.0.extend_from_slice(checksum.as_bytes());
        self.0
    }
}

/// The content of a file whose frame is sound, read from the front.
pub(crate) struct Parser<'a> {
    at: At<'a>,
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// Verifies magic, version and checksum.
    pub(crate) fn open(at: At<'a>, bytes: &'a [u8]) -> Result<Self, StoreError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| at.truncated())?;
        if *magic != at.kind.magic() {
            return Err(at.not_this_kind());
        }
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| at.truncated())?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(at.version(version, VERSION));
        }
        let (content, checksum) = rest.split_last_chunk::<TRAILER>().ok_or_else(|| at.truncated())?;
        let covered = bytes.get(..bytes.len() - TRAILER).ok_or_else(|| at.truncated())?;
        if blake3::hash(covered) != *checksum {
            return Err(at.corrupt("the checksum does not match (cut off or changed)"));
        }
        Ok(Self { at, rest: content })
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.at.truncated())?;
        self.rest = rest;
        Ok(*head)
    }

    /// Borrows instead of copying: for secrets.
    pub(crate) fn secret(&mut self) -> Result<&'a [u8; 32], StoreError> {
        let (head, rest) = self.rest.split_first_chunk::<32>().ok_or_else(|| self.at.truncated())?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, StoreError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, StoreError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `count` pieces of `N` bytes; nothing is allocated by a count alone.
    pub(crate) fn arrays<const N: usize>(&mut self, count: u64) -> Result<&'a [[u8; N]], StoreError> {
        let bytes = count.checked_mul(N as u64).and_then(|b| usize::try_from(b).ok());
        let (head, rest) = bytes.and_then(|b| self.rest.split_at_checked(b)).ok_or_else(|| self.at.truncated())?;
        self.rest = rest;
        Ok(head.as_chunks().0)
    }

    /// Ends the reading.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.at.corrupt("bytes after the end of the content")) }
    }
}
