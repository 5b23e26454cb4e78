//! The mask key of one device on disk: `device.key` on the device, `keys/<device>.key` at edge B.
//!
//! Content: device (16 bytes), bundle digest (32), epoch (u64), `K_e` (32). The device's file holds the key of its
//! current start; edge B's the key of the highest epoch it accepted. Both only ever move forward: the older key is
//! replaced before the newer one is used (an erased flash page may keep old bytes; the disk itself is not wiped).

use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::atomic::{read_kind, write_atomic_on};
use crate::container::{Builder, Parser};
use crate::disk::{Disk, RealDisk, open_locked};
use crate::error::{At, FileKind, StoreError};
use crate::prf::{EpochKey, Hex, RatchetError};

/// Largest jump between two epochs: about a tenth of a second of ratchets.
pub const MAX_JUMP: u64 = 1 << 20;
/// Epochs above this mean a damaged file; it leaves room for any jump.
const MAX_EPOCH: u64 = 1 << 62;
const LENGTH: u64 = 12 + 16 + 32 + 8 + 32 + 32;

/// A device's mask key with the names of the device and bundle it is for. Neither `Clone` nor `Debug`.
pub struct KeyFile {
    /// Identifier of the device.
    pub device: [u8; 16],
    /// Digest of the bundle the key was made for.
    pub bundle: [u8; 32],
    /// `K_e` and `e`.
    pub key: EpochKey,
}

/// Why edge B refuses to open a session at an epoch.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// Not above the highest epoch seen: a replay, or a device restored from a backup. Told to the device, which
    /// ratchets past `highest`.
    #[error("epoch {asked} is not above {highest}, the highest seen of this device: the device must advance past it")]
    Behind {
        /// Epoch that was asked for.
        asked: u64,
        /// Highest epoch accepted so far.
        highest: u64,
    },
    /// Further ahead than a device gets by starting.
    #[error(
        "epoch {asked} is more than {MAX_JUMP} above {highest}, the highest seen of this device: make new keys with `pponnx keygen`"
    )]
    TooFar {
        /// Epoch that was asked for.
        asked: u64,
        /// Highest epoch accepted so far.
        highest: u64,
    },
    /// The key file itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyFile {
    /// The file name of a device's key at edge B: `<device in hexadecimal>.key`.
    pub fn name_for(device: &[u8; 16]) -> PathBuf {
        PathBuf::from(format!("{}.key", Hex(device)))
    }

    /// Writes a new key file (mode 0600), as `keygen` does.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is one: a device that lost its epoch would be refused by edge B. Else as
    /// [`crate::atomic::write_atomic`].
    pub fn create(&self, path: &Path) -> Result<(), StoreError> {
        let at = At { path, kind: FileKind::Key };
        match path.symlink_metadata() {
            Ok(_) => Err(at.exists()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.replace(&RealDisk, at),
            Err(error) => Err(at.io("read")(error)),
        }
    }

    /// Reads a key file. A device that starts a session calls [`Self::advance`] instead.
    ///
    /// # Errors
    /// Any [`StoreError`] of a missing, foreign or damaged file.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let at = At { path, kind: FileKind::Key };
        Self::parse(at, &read_kind(at, LENGTH)?)
    }

    /// An error if the key is of another device or bundle; `path` is for the message.
    ///
    /// # Errors
    /// [`StoreError::WrongDevice`], [`StoreError::WrongBundle`].
    pub fn require(&self, path: &Path, device: &[u8; 16], bundle: &[u8; 32]) -> Result<(), StoreError> {
        let at = At { path, kind: FileKind::Key };
        at.device(&self.device, device)?;
        at.bundle(&self.bundle, bundle)
    }

    /// The device's step at every start of `relay` and `two-edge`: ratchets one epoch, durably replaces the file, and
    /// only then returns the new key.
    ///
    /// # Errors
    /// Any [`StoreError`]; then no session may be opened.
    pub fn advance(path: &Path) -> Result<Self, StoreError> {
        Self::advance_on(&RealDisk, path)
    }

    /// The device's step when edge B has already seen a higher epoch: ratchets to `past + 1`, durably, by at most
    /// [`MAX_JUMP`].
    ///
    /// # Errors
    /// [`AcceptError::Behind`] if the device is past it already (a confused or lying edge), [`AcceptError::TooFar`],
    /// or any [`StoreError`].
    pub fn advance_past(path: &Path, past: u64) -> Result<Self, AcceptError> {
        let asked = past.saturating_add(1);
        Self::accept_on(&RealDisk, path, asked)
    }

    /// Edge B's step when a device opens a session at `epoch`: refuses any epoch at or below the highest seen, else
    /// ratchets to it and durably replaces the file, and only then returns the key.
    ///
    /// # Errors
    /// [`AcceptError`]; then nothing is sent to edge A and no session exists.
    pub fn accept(path: &Path, epoch: u64) -> Result<Self, AcceptError> {
        Self::accept_on(&RealDisk, path, epoch)
    }

    pub(crate) fn advance_on(disk: &dyn Disk, path: &Path) -> Result<Self, StoreError> {
        let at = At { path, kind: FileKind::Key };
        let (old, _lock) = Self::read_locked(disk, at)?;
        let new = Self { device: old.device, bundle: old.bundle, key: old.key.ratchet() };
        new.replace(disk, at)?;
        Ok(new)
    }

    pub(crate) fn accept_on(disk: &dyn Disk, path: &Path, epoch: u64) -> Result<Self, AcceptError> {
        let at = At { path, kind: FileKind::Key };
        let (old, _lock) = Self::read_locked(disk, at)?;
        let highest = old.key.epoch();
        if epoch <= highest {
            return Err(AcceptError::Behind { asked: epoch, highest });
        }
        let key = old.key.ratchet_to(epoch, MAX_JUMP).map_err(|error| match error {
            RatchetError::Behind { .. } => AcceptError::Behind { asked: epoch, highest },
            RatchetError::TooFar { .. } => AcceptError::TooFar { asked: epoch, highest },
        })?;
        let new = Self { device: old.device, bundle: old.bundle, key };
        new.replace(disk, at)?;
        Ok(new)
    }

    /// The file and the lock that keeps other processes from stepping at the same time.
    fn read_locked(disk: &dyn Disk, at: At<'_>) -> Result<(Self, Box<dyn crate::disk::DiskFile>), StoreError> {
        let file = open_locked(disk, at.path, true).map_err(at.io("open"))?.ok_or_else(|| at.busy())?;
        if file.len().map_err(at.io("read"))? > LENGTH {
            return Err(at.too_large(LENGTH));
        }
        let length = file.len().map_err(at.io("read"))?.min(LENGTH);
        let mut bytes = Zeroizing::new(vec![0; length as usize]);
        file.read_exact_at(&mut bytes, 0).map_err(at.io("read"))?;
        Ok((Self::parse(at, &bytes)?, file))
    }

    fn parse(at: At<'_>, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut parser = Parser::open(at, bytes)?;
        let (device, bundle, epoch) = (parser.array()?, parser.array()?, parser.u64()?);
        let key = EpochKey::at(epoch, parser.secret()?);
        parser.finish()?;
        if epoch > MAX_EPOCH {
            return Err(at.corrupt("the epoch is out of range"));
        }
        Ok(Self { device, bundle, key })
    }

    pub(crate) fn replace(&self, disk: &dyn Disk, at: At<'_>) -> Result<(), StoreError> {
        let mut builder = Builder::new(at.kind.magic(), LENGTH as usize);
        builder.bytes(&self.device);
        builder.bytes(&self.bundle);
        builder.u64(self.key.epoch());
        builder.bytes(self.key.bytes());
        write_atomic_on(disk, at, &builder.finish(), true)
    }
}

#[cfg(test)]
#[path = "key_file_test.rs"]
mod tests;
