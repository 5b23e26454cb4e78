//! A small record that is overwritten often and survives any crash: two slots in one file, the older overwritten.
//!
//! Slot: magic (8 bytes), version (u32), sequence number (u64), body, checksum (32). Record `seq` lives in slot
//! `seq mod 2`; the slots lie 4096 bytes apart, so that one torn sector or page hits one of them. A write that was cut
//! leaves a damaged slot beside the previous record.
//!
//! A failed sync leaves the page cache ahead of the disk, and the next sync reports success (`fsync(2)`, Linux). So
//! recovery writes the newest record once more into its own slot and syncs, before anything builds upon it: if it was
//! on the disk already this changes nothing, and if not, the other slot still holds the record before.

use crate::container::{Builder, Parser, TRAILER};
use crate::disk::DiskFile;
use crate::error::{At, StoreError};

/// Distance of the slots in bytes.
const SPACING: u64 = 4096;

/// Bytes of a slot with a body of `body` bytes.
const fn slot_length(body: usize) -> usize {
    12 + 8 + body + TRAILER
}

fn encode<const N: usize>(at: At<'_>, seq: u64, body: &[u8; N]) -> Vec<u8> {
    let mut builder = Builder::new(at.kind.magic(), 8 + N);
    builder.u64(seq);
    builder.bytes(body);
    builder.finish().to_vec()
}

fn decode<const N: usize>(at: At<'_>, bytes: &[u8], slot: u64) -> Result<Record<N>, StoreError> {
    let mut parser = Parser::open(at, bytes)?;
    let record = Record { seq: parser.u64()?, body: parser.array()? };
    parser.finish()?;
    if record.seq % 2 != slot {
        return Err(at.corrupt("a record in the wrong slot"));
    }
    Ok(record)
}

/// One record.
#[derive(Clone, Copy)]
pub(crate) struct Record<const N: usize> {
    /// Sequence number; the slot is its lowest bit.
    pub(crate) seq: u64,
    /// Content.
    pub(crate) body: [u8; N],
}

/// What a file holds after a restart.
pub(crate) struct Recovered<const N: usize> {
    /// The newest sound record, durable.
    pub(crate) newest: Record<N>,
    /// The record before it; `None` if its slot is damaged.
    pub(crate) older: Option<Record<N>>,
}

/// The whole content of a new file: the same body in both slots, sequence numbers 0 and 1.
pub(crate) fn initial<const N: usize>(at: At<'_>, body: &[u8; N]) -> Vec<u8> {
    let mut bytes = encode(at, 0, body);
    bytes.resize(SPACING as usize, 0);
    bytes.extend_from_slice(&encode(at, 1, body));
    bytes
}

/// Writes a record into its slot and syncs.
pub(crate) fn write<const N: usize>(file: &mut dyn DiskFile, at: At<'_>, record: &Record<N>) -> Result<(), StoreError> {
    let offset = (record.seq % 2) * SPACING;
    file.write_all_at(&encode(at, record.seq, &record.body), offset).map_err(at.io("write"))?;
    file.sync().map_err(at.io("sync"))
}

/// Reads both slots and makes the newest record durable.
pub(crate) fn recover<const N: usize>(file: &mut dyn DiskFile, at: At<'_>) -> Result<Recovered<N>, StoreError> {
    let length = slot_length(N);
    if file.len().map_err(at.io("read"))? != SPACING + length as u64 {
        return Err(at.truncated());
    }
    let read = |slot: u64| -> Result<Result<Record<N>, StoreError>, StoreError> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, slot * SPACING).map_err(at.io("read"))?;
        match decode(at, &bytes, slot) {
            // Written by another program version: whatever the other slot says, it may be out of date.
            Err(error @ StoreError::Version { .. }) => Err(error),
            other => Ok(other),
        }
    };
    let (newest, older) = match (read(0)?, read(1)?) {
        (Ok(a), Ok(b)) if a.seq > b.seq => (a, Some(b)),
        (Ok(a), Ok(b)) => (b, Some(a)),
        (Ok(record), Err(_)) | (Err(_), Ok(record)) => (record, None),
        (Err(error), Err(_)) => return Err(error),
    };
    write(file, at, &newest)?;
    Ok(Recovered { newest, older })
}

/// The next record after `record`.
pub(crate) fn next<const N: usize>(at: At<'_>, record: &Record<N>, body: [u8; N]) -> Result<Record<N>, StoreError> {
    let seq = record.seq.checked_add(1).ok_or_else(|| at.corrupt("the sequence number is used up"))?;
    Ok(Record { seq, body })
}
