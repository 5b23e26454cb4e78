//! Edge A's durable memory of the highest request of each device, for owner-dealt key pairs (`protocol.md`,
//! section 3, rule 5): what notices a device that was restored from a backup.
//!
//! One file a device, `<device in hexadecimal>.mark`: two slots (`slots.rs`); body: device (16 bytes), mark
//! (u64). A file `lock` keeps a second edge process out of the folder.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::atomic::{folder, write_atomic_on};
use crate::disk::{Disk, DiskFile, RealDisk, open_locked};
use crate::error::{At, FileKind, StoreError};
use crate::prf::Hex;
use crate::slots::{self, Record};

const BODY: usize = 16 + 8;

/// Why edge A does not serve a request.
#[derive(Debug, Error)]
pub enum MarkError {
    /// The number was seen before, or a later one was.
    #[error(
        "request {request} is not above {mark}, the highest seen of this device: the device was restored or copied, or the \
         request is a replay; make new keys and key pairs with `pponnx keygen DIR --new-keys --requests N`"
    )]
    Stale {
        /// What the device asked for.
        request: u64,
        /// Highest request seen.
        mark: u64,
    },
    /// The mark file itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The marks of all devices, in one folder that this process has for itself. Threads may share it: each device's mark
/// is raised under a lock of its own.
pub struct Marks {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    devices: Mutex<HashMap<[u8; 16], Arc<Mutex<State>>>>,
    _lock: Box<dyn DiskFile>,
}

/// What this process knows of one device's file.
#[derive(Clone, Copy)]
enum State {
    /// Nothing: not read yet, or a write failed.
    Unknown,
    /// There is no file: no request was ever served.
    None,
    /// The durable record.
    At(Record<BODY>),
}

impl Marks {
    /// Makes the folder if it does not exist, and opens it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn create(dir: &Path) -> Result<Self, StoreError> {
        let at = At { path: dir, kind: FileKind::Mark };
        match std::fs::create_dir(dir) {
            Ok(()) => RealDisk.sync_dir(folder(dir)).map_err(at.io("sync the folder of"))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at.io("create")(error)),
        }
        Self::open(dir)
    }

    /// Opens the folder and locks it against other processes. It must exist: with a mistyped path every device would
    /// look new.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Busy`], [`StoreError::Io`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(RealDisk), dir)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let at = At { path: &path, kind: FileKind::Mark };
        match disk.create_new(&path, true) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at.io("create")(error)),
        }
        let lock = open_locked(disk.as_ref(), &path, false).map_err(at.io("lock"))?.ok_or_else(|| at.busy())?;
        Ok(Self { dir: dir.to_path_buf(), disk, devices: Mutex::default(), _lock: lock })
    }

    /// The highest request served of a device, told to it at start; `None` if there was none.
    ///
    /// # Errors
    /// Any [`StoreError`] of a damaged file: then the device must not be served.
    pub fn mark(&self, device: &[u8; 16]) -> Result<Option<u64>, StoreError> {
        let entry = self.entry(device);
        let mut state = guard(&entry);
        match self.load(device, &mut state)? {
            Some(record) => Ok(Some(mark_of(&record))),
            None => Ok(None),
        }
    }

    /// Raises a device's mark to `request`, durably before returning. Call it before the first reply of a request.
    ///
    /// # Errors
    /// [`MarkError::Stale`] if `request` is at or below the mark, or any [`StoreError`]: then the request is refused.
    pub fn check_and_raise(&self, device: &[u8; 16], request: u64) -> Result<(), MarkError> {
        let entry = self.entry(device);
        let mut state = guard(&entry);
        let path = self.path_of(device);
        let at = At { path: &path, kind: FileKind::Mark };
        let newest = self.load(device, &mut state)?;
        // Unknown until the write is durable: after an error the file is read again.
        *state = State::Unknown;
        let body = encode(device, request);
        let record = match newest {
            Some(newest) => {
                let mark = mark_of(&newest);
                if request <= mark {
                    *state = State::At(newest);
                    return Err(MarkError::Stale { request, mark });
                }
                let record = slots::next(at, &newest, body)?;
                let mut file = self.disk.open(&path).map_err(at.io("open"))?;
                slots::write(file.as_mut(), at, &record)?;
                record
            }
            None => {
                write_atomic_on(self.disk.as_ref(), at, &slots::initial(at, &body), true)?;
                Record { seq: 1, body }
            }
        };
        *state = State::At(record);
        Ok(())
    }

    fn path_of(&self, device: &[u8; 16]) -> PathBuf {
        self.dir.join(format!("{}.mark", Hex(device)))
    }

    fn entry(&self, device: &[u8; 16]) -> Arc<Mutex<State>> {
        let mut devices = guard(&self.devices);
        Arc::clone(devices.entry(*device).or_insert_with(|| Arc::new(Mutex::new(State::Unknown))))
    }

    /// The durable record, reading the file if need be.
    fn load(&self, device: &[u8; 16], state: &mut State) -> Result<Option<Record<BODY>>, StoreError> {
        match state {
            State::At(record) => return Ok(Some(*record)),
            State::None => return Ok(None),
            State::Unknown => {}
        }
        let path = self.path_of(device);
        let at = At { path: &path, kind: FileKind::Mark };
        let mut file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *state = State::None;
                return Ok(None);
            }
            Err(error) => return Err(at.io("open")(error)),
        };
        let recovered = slots::recover::<BODY>(file.as_mut(), at)?;
        let (found, _) = recovered.newest.body.split_first_chunk::<16>().ok_or_else(|| at.truncated())?;
        at.device(found, device)?;
        // The newest record may be in the file through a rename that is not durable yet.
        self.disk.sync_dir(&self.dir).map_err(at.io("sync the folder of"))?;
        *state = State::At(recovered.newest);
        Ok(Some(recovered.newest))
    }
}

/// A panic elsewhere does not spoil the state: it changes only after the disk has.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(device: &[u8; 16], mark: u64) -> [u8; BODY] {
    let mut body = [0; BODY];
    for (to, from) in body.iter_mut().zip(device.iter().copied().chain(mark.to_le_bytes())) {
        *to = from;
    }
    body
}

fn mark_of(record: &Record<BODY>) -> u64 {
    record.body.last_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
#[path = "marks_test.rs"]
mod tests;
