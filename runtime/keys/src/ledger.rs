//! The ledger of used request numbers, for owner-dealt key pairs (`one-time`, `stockpile`; `protocol.md`, section 3).
//!
//! A dealt key pair is fixed to its request number, so no number may ever be handed out twice, whatever crashes in
//! between. Rules: the end of a block of numbers is written and synced *before* the first of them is used; a start
//! begins at the newest recorded end and burns the rest of the block; one process at a time; no sound record, no
//! start. A disk cannot prove that it was not restored from a backup: against that stands edge A's mark ([`crate::Marks`],
//! [`Ledger::require_ahead_of`]).
//!
//! File: two slots (`slots.rs`); body: device (16 bytes), bundle (32), installation (16), end (u64).
//!
//! A damaged slot may be a write that was cut (its numbers were never handed out) or a newer record that rotted (they
//! were). Blocks are small, so recovery assumes the latter and skips one largest block.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::atomic::{folder, write_atomic_on};
use crate::disk::{Disk, DiskFile, RealDisk, open_locked};
use crate::error::{At, FileKind, StoreError};
use crate::slots::{self, Record};

/// Largest block of one reservation: bounds what a crash burns.
pub const MAX_BLOCK: u64 = 8;
/// Ends above this mean a damaged file.
const MAX_END: u64 = 1 << 62;
const BODY: usize = 16 + 32 + 16 + 8;

/// Why there is no next request number.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// Every key pair is used.
    #[error("all key pairs up to request {limit} are used: make more with `pponnx keygen DIR --requests N`")]
    Spent {
        /// First request number without a key pair.
        limit: u64,
    },
    /// Edge A has seen later requests of this device than this ledger knows.
    #[error(
        "the ledger was restored or copied: edge A has seen request {mark} of this device, the ledger would hand out {next}; \
         reusing a number would reveal inputs: make new keys and key pairs with `pponnx keygen DIR --new-keys --requests N`"
    )]
    RolledBack {
        /// Highest request edge A has seen.
        mark: u64,
        /// Next request of the ledger.
        next: u64,
    },
    /// A block of no or too many numbers.
    #[error("a reservation of {block} requests: 1 to {MAX_BLOCK} are allowed")]
    Block {
        /// What was asked for.
        block: u64,
    },
    /// The ledger file itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whom a ledger belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerOwner {
    /// Identifier of the device.
    pub device: [u8; 16],
    /// Digest of the bundle that the key pairs are for.
    pub bundle: [u8; 32],
    /// Sixteen random bytes drawn when the ledger was made: tells two installations of one device apart.
    pub installation: [u8; 16],
}

/// An open ledger, locked against other processes until dropped.
pub struct Ledger {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    owner: LedgerOwner,
    newest: Record<BODY>,
    /// Recorded end: numbers from here on are not reserved yet.
    end: u64,
    /// Reserved and not handed out, in order.
    ready: VecDeque<u64>,
    block: u64,
    limit: u64,
    poisoned: bool,
}

impl Ledger {
    /// Writes a new ledger (mode 0600) whose first number is `first`.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is one, else as [`crate::atomic::write_atomic`].
    pub fn create(path: &Path, owner: &LedgerOwner, first: u64) -> Result<(), StoreError> {
        let at = At { path, kind: FileKind::Ledger };
        match path.symlink_metadata() {
            Ok(_) => Err(at.exists()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::create_on(&RealDisk, path, owner, first)
            }
            Err(error) => Err(at.io("read")(error)),
        }
    }

    pub(crate) fn create_on(disk: &dyn Disk, path: &Path, owner: &LedgerOwner, first: u64) -> Result<(), StoreError> {
        let at = At { path, kind: FileKind::Ledger };
        if first > MAX_END {
            return Err(at.unwritable("the first request number is out of range"));
        }
        write_atomic_on(disk, at, &slots::initial(at, &encode(owner, first)), true)
    }

    /// Opens and locks the ledger of a device and bundle; hands out numbers from the newest recorded end on.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process has it; [`StoreError::WrongDevice`], [`StoreError::WrongBundle`]; any
    /// other [`StoreError`] of a missing or damaged file: then no request may be made.
    pub fn open(path: &Path, device: &[u8; 16], bundle: &[u8; 32]) -> Result<Self, StoreError> {
        Self::open_on(&RealDisk, path, device, bundle)
    }

    pub(crate) fn open_on(
        disk: &dyn Disk,
        path: &Path,
        device: &[u8; 16],
        bundle: &[u8; 32],
    ) -> Result<Self, StoreError> {
        let at = At { path, kind: FileKind::Ledger };
        let mut file = open_locked(disk, path, false).map_err(at.io("open"))?.ok_or_else(|| at.busy())?;
        let recovered = slots::recover::<BODY>(file.as_mut(), at)?;
        // The ledger may have its name through a rename that is not durable yet.
        disk.sync_dir(folder(path)).map_err(at.io("sync the folder of"))?;
        let (owner, end) = decode(at, &recovered.newest)?;
        at.device(&owner.device, device)?;
        at.bundle(&owner.bundle, bundle)?;
        let newest = recovered.newest;
        let sound = match &recovered.older {
            Some(older) => {
                let (older_owner, older_end) = decode(at, older)?;
                older_owner == owner
                    && older.seq.checked_add(1) == Some(newest.seq)
                    && end.checked_sub(older_end).is_some_and(|step| step <= MAX_BLOCK)
            }
            None => false,
        };
        let mut ledger = Self {
            path: path.to_path_buf(),
            file,
            owner,
            newest,
            end,
            ready: VecDeque::new(),
            block: MAX_BLOCK,
            limit: MAX_END,
            poisoned: false,
        };
        if !sound {
            ledger.advance(MAX_BLOCK)?;
        }
        Ok(ledger)
    }

    /// Whom the ledger belongs to.
    pub fn owner(&self) -> &LedgerOwner {
        &self.owner
    }

    /// The number that [`Self::next_request`] gives next (unless the limit is reached).
    pub fn upcoming(&self) -> u64 {
        self.ready.front().copied().unwrap_or(self.end)
    }

    /// Never reserve at or beyond `limit`, the end of the key pairs there are, so that pairs made later are not burnt
    /// before they exist.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit.min(MAX_END);
    }

    /// How many numbers [`Self::next_request`] reserves at a time: fewer burn less at a crash, more sync less often
    /// (4 ms a sync on a common disk).
    ///
    /// # Errors
    /// [`LedgerError::Block`] unless `block` is in 1..=[`MAX_BLOCK`].
    pub fn set_block(&mut self, block: u64) -> Result<(), LedgerError> {
        self.block = checked(block)?;
        Ok(())
    }

    /// Compares with edge A's mark, told at start.
    ///
    /// # Errors
    /// [`LedgerError::RolledBack`] if edge A has seen the next number of this ledger or a later one.
    pub fn require_ahead_of(&self, mark: Option<u64>) -> Result<(), LedgerError> {
        match mark {
            Some(mark) if mark >= self.upcoming() => Err(LedgerError::RolledBack { mark, next: self.upcoming() }),
            Some(_) | None => Ok(()),
        }
    }

    /// Durably reserves up to `block` numbers for the caller, fewer only where the limit cuts them. The range is the
    /// caller's: [`Self::next_request`] never gives one of it.
    ///
    /// # Errors
    /// [`LedgerError`]; then no number may be used.
    pub fn reserve(&mut self, block: u64) -> Result<Range<u64>, LedgerError> {
        let block = checked(block)?.min(self.limit.saturating_sub(self.end));
        if block == 0 {
            return Err(LedgerError::Spent { limit: self.limit });
        }
        let first = self.end;
        self.advance(block)?;
        Ok(first..self.end)
    }

    /// The next request number, never given before and never again. Burnt from now on, whatever becomes of it.
    ///
    /// # Errors
    /// [`LedgerError::Spent`] at the limit; [`StoreError`] if the reservation cannot be made durable.
    pub fn next_request(&mut self) -> Result<u64, LedgerError> {
        if self.ready.is_empty() {
            let range = self.reserve(self.block)?;
            self.ready.extend(range);
        }
        self.ready.pop_front().ok_or(LedgerError::Spent { limit: self.limit })
    }

    /// Records and syncs an end `by` further on. After an error the file's state is unknown, so nothing more is handed
    /// out until it is opened again.
    fn advance(&mut self, by: u64) -> Result<(), StoreError> {
        let at = At { path: &self.path, kind: FileKind::Ledger };
        if self.poisoned {
            return Err(at.poisoned());
        }
        let end = self.end.saturating_add(by);
        let record = slots::next(at, &self.newest, encode(&self.owner, end))?;
        self.poisoned = true;
        slots::write(self.file.as_mut(), at, &record)?;
        self.poisoned = false;
        self.newest = record;
        self.end = end;
        Ok(())
    }
}

fn checked(block: u64) -> Result<u64, LedgerError> {
    if (1..=MAX_BLOCK).contains(&block) { Ok(block) } else { Err(LedgerError::Block { block }) }
}

fn encode(owner: &LedgerOwner, end: u64) -> [u8; BODY] {
    let mut body = [0; BODY];
    let parts = owner.device.iter().chain(&owner.bundle).chain(&owner.installation);
    for (to, from) in body.iter_mut().zip(parts.copied().chain(end.to_le_bytes())) {
        *to = from;
    }
    body
}

fn decode(at: At<'_>, record: &Record<BODY>) -> Result<(LedgerOwner, u64), StoreError> {
    fn cut<'a, const N: usize>(at: At<'_>, rest: &mut &'a [u8]) -> Result<&'a [u8; N], StoreError> {
        let (head, tail) = rest.split_first_chunk().ok_or_else(|| at.truncated())?;
        *rest = tail;
        Ok(head)
    }
    let mut rest = record.body.as_slice();
    let owner =
        LedgerOwner { device: *cut(at, &mut rest)?, bundle: *cut(at, &mut rest)?, installation: *cut(at, &mut rest)? };
    let end = u64::from_le_bytes(*cut(at, &mut rest)?);
    if end > MAX_END {
        return Err(at.corrupt("the request number is out of range"));
    }
    Ok((owner, end))
}

#[cfg(test)]
#[path = "ledger_test.rs"]
mod tests;
