//! Owner-dealt key pairs: the corrections of every slot for a range of requests, in `pairs/` on the device
//! (`one-time`) or `stock/<device>/` at edge A (`stockpile`).
//!
//! One file `<first>-<end>.pairs` a batch, so that `keygen` adds requests by adding a file. Header: magic, version,
//! device (16 bytes), bundle (32), first (u64), count (u64), number of slots (u32), then slot (u32) and bytes (u64)
//! each, in rising order, and the header's BLAKE3. Then one record a request, all of one length: the packed ring
//! elements of each slot (k bits an element), and BLAKE3(header checksum || request || elements). Records are read one
//! at a time: a batch may be larger than memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::atomic::{create_temporary, discard, publish};
use crate::container::{Builder, Parser, TRAILER};
use crate::disk::{DiskFile, RealDisk};
use crate::error::{At, FileKind, StoreError};

/// Bytes of the header before the slots.
const FIXED: usize = 12 + 16 + 32 + 8 + 8 + 4;
/// Most slots of a header: as many segments no plan has.
const MAX_SLOTS: u32 = 1 << 16;
/// Most bytes of one request's corrections: 4 GiB.
const MAX_RECORD: u64 = 1 << 32;
/// Request numbers stay below this, as in the ledger.
const MAX_END: u64 = 1 << 62;

/// Length of the correction of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotBytes {
    /// Transfer slot of the plan.
    pub slot: u32,
    /// Bytes of its packed elements, `ceil(k n / 8)`.
    pub bytes: u64,
}

/// What a batch of key pairs is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairHeader {
    /// Identifier of the device.
    pub device: [u8; 16],
    /// Digest of the bundle.
    pub bundle: [u8; 32],
    /// First request number.
    pub first: u64,
    /// Number of requests.
    pub count: u64,
    /// The correction slots, by rising number.
    pub slots: Vec<SlotBytes>,
}

/// Why there is no key pair for a request.
#[derive(Debug, Error)]
pub enum PairError {
    /// No batch holds the request.
    #[error(
        "no key pair for request {request} (there are pairs up to request {end}): make more with `pponnx keygen DIR --requests N`"
    )]
    OutOfPairs {
        /// What was asked for.
        request: u64,
        /// First request after the last batch.
        end: u64,
    },
    /// A file of key pairs is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PairHeader {
    /// First request number after the batch.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Bytes of one request's corrections.
    fn payload(&self) -> Option<u64> {
        let sum = self.slots.iter().try_fold(0u64, |sum, slot| sum.checked_add(slot.bytes))?;
        (sum <= MAX_RECORD).then_some(sum)
    }

    /// What is wrong with it, if anything.
    fn fault(&self) -> Option<&'static str> {
        if !self.slots.is_sorted_by(|a, b| a.slot < b.slot) || self.slots.len() > MAX_SLOTS as usize {
            return Some("the slots are not in rising order, or too many");
        }
        if self.count == 0 || self.first.checked_add(self.count).is_none_or(|end| end > MAX_END) {
            return Some("the range of requests is empty or too large");
        }
        self.payload().is_none().then_some("the corrections of one request are too large")
    }

    fn encode(&self, at: At<'_>) -> Vec<u8> {
        let mut builder = Builder::new(at.kind.magic(), FIXED + 12 * self.slots.len());
        builder.bytes(&self.device);
        builder.bytes(&self.bundle);
        builder.u64(self.first);
        builder.u64(self.count);
        builder.u32(self.slots.len() as u32);
        for slot in &self.slots {
            builder.u32(slot.slot);
            builder.u64(slot.bytes);
        }
        builder.finish().to_vec()
    }
}

/// Where the records of a file lie, and what ties them to it.
struct Layout {
    start: u64,
    payload: u64,
    checksum: [u8; TRAILER],
}

impl Layout {
    fn new(at: At<'_>, header: &PairHeader, encoded: &[u8]) -> Result<Self, StoreError> {
        let checksum = *encoded.last_chunk().ok_or_else(|| at.truncated())?;
        let payload = header.payload().ok_or_else(|| at.corrupt("the corrections of one request are too large"))?;
        Ok(Self { start: encoded.len() as u64, payload, checksum })
    }

    fn record(&self) -> u64 {
        self.payload + TRAILER as u64
    }

    /// Offset of record `index`; the length of the file for `index = count`.
    fn offset(&self, index: u64) -> Option<u64> {
        index.checked_mul(self.record())?.checked_add(self.start)
    }

    fn checksum<'a>(&self, request: u64, parts: impl IntoIterator<Item = &'a [u8]>) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.checksum);
        hasher.update(&request.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// A batch being written: one [`Self::push`] a request, in order, then [`Self::finish`]. Dropped before that, it
/// leaves nothing.
pub struct PairWriter {
    path: PathBuf,
    temporary: Option<PathBuf>,
    file: Box<dyn DiskFile>,
    header: PairHeader,
    layout: Layout,
    written: u64,
}

impl PairWriter {
    /// Starts a batch in an existing folder.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the batch is there already, [`StoreError::Unwritable`] for a header that makes no
    /// sense, [`StoreError::Missing`] or [`StoreError::Io`] for the folder.
    pub fn create(dir: &Path, header: PairHeader) -> Result<Self, StoreError> {
        let path = dir.join(format!("{}-{}.pairs", header.first, header.end()));
        let at = At { path: &path, kind: FileKind::Pairs };
        if let Some(what) = header.fault() {
            return Err(at.unwritable(what));
        }
        if path.symlink_metadata().is_ok() {
            return Err(at.exists());
        }
        let encoded = header.encode(at);
        let layout = Layout::new(at, &header, &encoded)?;
        let (temporary, file) = create_temporary(&RealDisk, at, true)?;
        let mut writer = Self { path, temporary: Some(temporary), file, header, layout, written: 0 };
        let at = At { path: &writer.path, kind: FileKind::Pairs };
        writer.file.write_all_at(&encoded, 0).map_err(at.io("write"))?;
        Ok(writer)
    }

    /// Writes the corrections of one request, one for each slot of the header, in its order.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`] if the request is not the next one or a length differs from the header's,
    /// [`StoreError::Io`].
    pub fn push(&mut self, request: u64, corrections: &[Vec<u8>]) -> Result<(), StoreError> {
        let at = At { path: &self.path, kind: FileKind::Pairs };
        if self.written >= self.header.count || self.header.first.checked_add(self.written) != Some(request) {
            return Err(at.unwritable("the requests do not come in order, or there are too many"));
        }
        let lengths = self.header.slots.iter().map(|slot| slot.bytes);
        if !lengths.eq(corrections.iter().map(|c| c.len() as u64)) {
            return Err(at.unwritable("a correction has another length than its slot"));
        }
        let mut offset =
            self.layout.offset(self.written).ok_or_else(|| at.unwritable("the batch is too large for a file"))?;
        for part in corrections {
            self.file.write_all_at(part, offset).map_err(at.io("write"))?;
            offset += part.len() as u64;
        }
        let checksum = self.layout.checksum(request, corrections.iter().map(Vec::as_slice));
        self.file.write_all_at(checksum.as_bytes(), offset).map_err(at.io("write"))?;
        self.written += 1;
        Ok(())
    }

    /// Syncs the batch and gives it its name.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`] if requests are missing, [`StoreError::Exists`], [`StoreError::Io`].
    pub fn finish(mut self) -> Result<PathBuf, StoreError> {
        let at = At { path: &self.path, kind: FileKind::Pairs };
        if self.written != self.header.count {
            return Err(at.unwritable("fewer requests than the header promises"));
        }
        if self.path.symlink_metadata().is_ok() {
            return Err(at.exists());
        }
        self.file.sync().map_err(at.io("sync"))?;
        if let Some(temporary) = self.temporary.take() {
            publish(&RealDisk, at, &temporary)?;
        }
        Ok(self.path.clone())
    }
}

impl Drop for PairWriter {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            discard(&RealDisk, temporary);
        }
    }
}

/// The key pairs of one device and bundle: all batches of a folder.
pub struct PairStore {
    batches: Vec<Batch>,
}

struct Batch {
    path: PathBuf,
    file: File,
    header: PairHeader,
    layout: Layout,
}

impl PairStore {
    /// Opens every `*.pairs` file of a folder; reads headers only.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the folder does not exist; [`StoreError::WrongDevice`], [`StoreError::WrongBundle`];
    /// [`StoreError::Corrupt`] if two batches overlap or have different slots; any error of a damaged header.
    pub fn open(dir: &Path, device: &[u8; 16], bundle: &[u8; 32]) -> Result<Self, StoreError> {
        let at = At { path: dir, kind: FileKind::Pairs };
        let mut batches = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(at.io("read"))? {
            let path = entry.map_err(at.io("read"))?.path();
            if path.extension().is_some_and(|extension| extension == "pairs") {
                batches.push(Batch::open(path, device, bundle)?);
            }
        }
        batches.sort_by_key(|batch| batch.header.first);
        for (before, after) in batches.iter().zip(batches.iter().skip(1)) {
            let at = At { path: &after.path, kind: FileKind::Pairs };
            if after.header.first < before.header.end() {
                return Err(at.corrupt("two files hold key pairs of the same requests"));
            }
            if after.header.slots != before.header.slots {
                return Err(at.corrupt("two files of key pairs have different slots"));
            }
        }
        Ok(Self { batches })
    }

    /// First request with a key pair; 0 if there is none.
    pub fn first(&self) -> u64 {
        self.batches.first().map_or(0, |batch| batch.header.first)
    }

    /// First request after the last batch; 0 if there is none. The limit of [`crate::Ledger::set_limit`].
    pub fn end(&self) -> u64 {
        self.batches.last().map_or(0, |batch| batch.header.end())
    }

    /// Number of key pairs for requests from `request` on.
    pub fn left_from(&self, request: u64) -> u64 {
        self.batches.iter().map(|b| b.header.end().saturating_sub(b.header.first.max(request))).sum()
    }

    /// The correction slots; empty if there is no batch.
    pub fn slots(&self) -> &[SlotBytes] {
        self.batches.first().map_or(&[], |batch| &batch.header.slots)
    }

    /// The corrections of one request: slot and packed elements, by rising slot. Reading does not use a request up:
    /// the ledger and the marks do.
    ///
    /// # Errors
    /// [`PairError::OutOfPairs`]; [`StoreError::Corrupt`] or [`StoreError::Truncated`] if the record is damaged.
    pub fn take(&self, request: u64) -> Result<Vec<(u32, Vec<u8>)>, PairError> {
        let after = self.batches.partition_point(|batch| batch.header.first <= request);
        let batch = after.checked_sub(1).and_then(|index| self.batches.get(index));
        match batch {
            Some(batch) if request < batch.header.end() => Ok(batch.read(request)?),
            Some(_) | None => Err(PairError::OutOfPairs { request, end: self.end() }),
        }
    }
}

impl Batch {
    fn open(path: PathBuf, device: &[u8; 16], bundle: &[u8; 32]) -> Result<Self, StoreError> {
        let at = At { path: &path, kind: FileKind::Pairs };
        let file = File::open(&path).map_err(at.io("open"))?;
        let length = file.metadata().map_err(at.io("read"))?.len();
        let (header, layout) = read_header(at, &file, length)?;
        at.device(&header.device, device)?;
        at.bundle(&header.bundle, bundle)?;
        if layout.offset(header.count) != Some(length) {
            return Err(at.truncated());
        }
        Ok(Self { path, file, header, layout })
    }

    fn read(&self, request: u64) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        let at = At { path: &self.path, kind: FileKind::Pairs };
        let index = request.checked_sub(self.header.first);
        let mut offset = index.and_then(|index| self.layout.offset(index)).ok_or_else(|| at.truncated())?;
        let mut corrections = Vec::with_capacity(self.header.slots.len());
        for slot in &self.header.slots {
            let length = usize::try_from(slot.bytes).map_err(|_| at.too_large(MAX_RECORD))?;
            let mut bytes = vec![0; length];
            self.file.read_exact_at(&mut bytes, offset).map_err(at.io("read"))?;
            offset += slot.bytes;
            corrections.push((slot.slot, bytes));
        }
        let mut checksum = [0; TRAILER];
        self.file.read_exact_at(&mut checksum, offset).map_err(at.io("read"))?;
        if self.layout.checksum(request, corrections.iter().map(|(_, bytes)| bytes.as_slice())) != checksum {
            return Err(at.corrupt("the checksum of a key pair does not match"));
        }
        Ok(corrections)
    }
}

fn read_header(at: At<'_>, file: &File, length: u64) -> Result<(PairHeader, Layout), StoreError> {
    let mut fixed = [0; FIXED];
    file.read_exact_at(&mut fixed, 0).map_err(at.io("read"))?;
    if fixed.first_chunk() != Some(&at.kind.magic()) {
        return Err(at.not_this_kind());
    }
    let slots = fixed.last_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
    if slots > MAX_SLOTS {
        return Err(at.corrupt("too many slots"));
    }
    let size = FIXED + 12 * slots as usize + TRAILER;
    if length < size as u64 {
        return Err(at.truncated());
    }
    let mut encoded = vec![0; size];
    file.read_exact_at(&mut encoded, 0).map_err(at.io("read"))?;
    let mut parser = Parser::open(at, &encoded)?;
    let (device, bundle) = (parser.array()?, parser.array()?);
    let (first, count, slots) = (parser.u64()?, parser.u64()?, parser.u32()?);
    let mut header = PairHeader { device, bundle, first, count, slots: Vec::new() };
    for _ in 0..slots {
        header.slots.push(SlotBytes { slot: parser.u32()?, bytes: parser.u64()? });
    }
    parser.finish()?;
    if let Some(what) = header.fault() {
        return Err(at.corrupt(what));
    }
    let layout = Layout::new(at, &header, &encoded)?;
    Ok((header, layout))
}

#[cfg(test)]
#[path = "pairs_test.rs"]
mod tests;
