//! Whole-file reads and writes that survive a crash: a reader sees the old content or the new, never a mixture.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::disk::{Disk, RealDisk};
use crate::error::{At, FileKind, StoreError};

/// Durably replaces (or creates) a file.
///
/// Written beside its place under a temporary name, synced, renamed, and the folder synced: after `Ok` the content
/// survives a power cut, and at no moment is the file half written. `private`: mode 0600. A symbolic link at `path` is
/// replaced, not followed.
///
/// # Errors
/// [`StoreError::Missing`] if the folder does not exist, [`StoreError::Io`] if it cannot be written; no temporary
/// file is left behind and the old content stays. (If only the last step, syncing the folder, fails, the new content
/// is in place but may not survive a power cut.)
pub fn write_atomic(path: &Path, bytes: &[u8], private: bool) -> Result<(), StoreError> {
    write_atomic_on(&RealDisk, At { path, kind: FileKind::Other }, bytes, private)
}

/// As [`write_atomic`], on any disk, with errors for a kind of file.
pub(crate) fn write_atomic_on(disk: &dyn Disk, at: At<'_>, bytes: &[u8], private: bool) -> Result<(), StoreError> {
    let (temporary, mut file) = create_temporary(disk, at, private)?;
    let written = file.write_all_at(bytes, 0).map_err(at.io("write"));
    let written = written.and_then(|()| file.sync().map_err(at.io("sync")));
    drop(file);
    written.inspect_err(|_| discard(disk, &temporary))?;
    publish(disk, at, &temporary)
}

/// Creates a file with a unique name beside `at.path`.
pub(crate) fn create_temporary(
    disk: &dyn Disk,
    at: At<'_>,
    private: bool,
) -> Result<(PathBuf, Box<dyn crate::disk::DiskFile>), StoreError> {
    loop {
        let temporary = temporary_name(at.path).ok_or_else(|| at.unwritable("the path has no file name"))?;
        match disk.create_new(&temporary, private) {
            Ok(file) => return Ok((temporary, file)),
            // Left by a dead process that had our process id: take the next name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at.io("create")(error)),
        }
    }
}

/// Gives a written and synced temporary file its name, durably.
pub(crate) fn publish(disk: &dyn Disk, at: At<'_>, temporary: &Path) -> Result<(), StoreError> {
    disk.rename(temporary, at.path).map_err(at.io("rename")).inspect_err(|_| discard(disk, temporary))?;
    disk.sync_dir(folder(at.path)).map_err(at.io("sync the folder of"))
}

/// Removes a temporary file on the way out of an error, which is the one to report.
pub(crate) fn discard(disk: &dyn Disk, temporary: &Path) {
    let _already_failing = disk.remove(temporary);
}

/// The folder that holds a file.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// `.NAME.PID.COUNT.tmp` beside the file.
fn temporary_name(path: &Path) -> Option<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(format!(".{}.{count}.tmp", std::process::id()));
    Some(path.with_file_name(name))
}

/// Reads a whole file of at most `max` bytes; the buffer is wiped when dropped.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::TooLarge`], [`StoreError::Io`].
pub fn read_limited(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    read_kind(At { path, kind: FileKind::Other }, max)
}

/// As [`read_limited`], with errors for a kind of file.
pub(crate) fn read_kind(at: At<'_>, max: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let file = File::open(at.path).map_err(at.io("open"))?;
    let length = file.metadata().map_err(at.io("read"))?.len();
    if length > max {
        return Err(at.too_large(max));
    }
    // Room for the whole file and one byte more: growing would leave copies of secrets behind.
    let capacity = usize::try_from(length.saturating_add(1)).map_err(|_| at.too_large(max))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(length.saturating_add(1)).read_to_end(&mut bytes).map_err(at.io("read"))?;
    if bytes.len() as u64 != length {
        return Err(at.truncated()); // it changed while it was read
    }
    Ok(bytes)
}

/// Whether other users of the machine may read or write this file (any permission bit of group or others): a reason
/// for a warning about a private file.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Io`].
pub fn readable_by_others(path: &Path) -> Result<bool, StoreError> {
    let at = At { path, kind: FileKind::Other };
    Ok(std::fs::metadata(path).map_err(at.io("read"))?.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&path, b"one", false).unwrap();
        write_atomic(&path, b"two", true).unwrap();
        assert_eq!(read_limited(&path, 3).unwrap().as_slice(), b"two");
        assert_eq!(names(dir.path()), ["a.bin"]);
        assert!(!readable_by_others(&path).unwrap());
        write_atomic(&path, b"", false).unwrap();
        assert!(read_limited(&path, 0).unwrap().is_empty());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(readable_by_others(&path).unwrap());
    }

    #[test]
    fn failures_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("no-folder/a.bin");
        assert!(matches!(write_atomic(&gone, b"x", true), Err(StoreError::Missing { .. })));
        // A folder has the name: the rename fails after everything was written (works as root as well).
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("inside"), b"").unwrap();
        assert!(matches!(write_atomic(&taken, b"x", true), Err(StoreError::Io { action: "rename", .. })));
        assert_eq!(names(dir.path()), ["taken"]);
        assert!(matches!(write_atomic(Path::new("/"), b"x", true), Err(StoreError::Unwritable { .. })));
    }

    #[test]
    fn a_failed_sync_leaves_no_temporary_file() {
        let disk = crate::sim::SimDisk::new(0, crate::sim::Tear::Mix);
        let at = At { path: Path::new("/d/a.bin"), kind: FileKind::Other };
        write_atomic_on(&disk, at, b"old", true).unwrap();
        disk.fail_syncs(Some(1));
        assert!(matches!(write_atomic_on(&disk, at, b"new", true), Err(StoreError::Io { action: "sync", .. })));
        assert_eq!(disk.files(), [at.path]);
        assert_eq!(disk.copy(at.path).unwrap(), b"old");
    }

    #[test]
    fn read_only_folder_is_an_error_and_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&path, b"old", true).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
        let result = write_atomic(&path, b"new", true);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // Root may write everywhere; for everyone else this is an error.
        let expected: &[u8] = if result.is_ok() { b"new" } else { b"old" };
        assert_eq!(read_limited(&path, 100).unwrap().as_slice(), expected);
        assert_eq!(names(dir.path()), ["a.bin"]);
        assert_eq!(result.is_ok(), rustix::process::geteuid().is_root());
    }

    #[test]
    fn a_long_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&path, &[0; 100], true).unwrap();
        assert!(matches!(read_limited(&path, 99), Err(StoreError::TooLarge { max: 99, .. })));
        assert!(matches!(read_limited(&dir.path().join("b"), 99), Err(StoreError::Missing { .. })));
    }
}
