//! The few file operations whose order a crash may cut, behind a trait, so that tests can cut them anywhere.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A file system. All writes are volatile until the matching sync returns.
pub(crate) trait Disk: Send + Sync {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file that must not exist; `private`: readable by its owner only.
    fn create_new(&self, path: &Path, private: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Atomically gives `from` the name `to`, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes renames, creations and removals in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether `path` still names this open file.
    fn names(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    /// Takes the exclusive lock, held until the file is dropped; with `wait` false, `Ok(false)` if another holds it.
    fn lock(&mut self, wait: bool) -> io::Result<bool>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`; an error if the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&mut self) -> io::Result<()>;
    /// What identifies the file on its disk (device, inode).
    fn identity(&self) -> io::Result<(u64, u64)>;
}

/// The machine's file system.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create_new(&self, path: &Path, private: bool) -> io::Result<Box<dyn DiskFile>> {
        let mode = if private { 0o600 } else { 0o644 };
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
        if private {
            // The mode of `open` is cut by the umask but never widened; this guards against an inherited ACL default.
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn names(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        let named = std::fs::metadata(path)?;
        Ok((named.dev(), named.ino()) == file.identity()?)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn lock(&mut self, wait: bool) -> io::Result<bool> {
        let operation = if wait { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
        loop {
            match flock(&self.0, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if !wait => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.0, buf, offset)
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.0.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

/// Opens a file and takes its exclusive lock. `Ok(None)` if another holds it and `wait` is false. Starts over when
/// the name was given to another file meanwhile (an atomic replacement by the former holder of the lock).
pub(crate) fn open_locked(disk: &dyn Disk, path: &Path, wait: bool) -> io::Result<Option<Box<dyn DiskFile>>> {
    loop {
        let mut file = disk.open(path)?;
        if !file.lock(wait)? {
            return Ok(None);
        }
        if disk.names(path, file.as_ref())? {
            return Ok(Some(file));
        }
    }
}
