//! A folder that appears whole or not at all: written beside its place, synced, renamed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};

/// A folder in the making. Dropped without [`Staging::publish`], it leaves nothing.
pub struct Staging {
    target: PathBuf,
    force: bool,
    dir: TempDir,
}

impl Staging {
    /// Starts beside `target`. An existing target is refused, unless `force` is given and it is empty or a folder that
    /// pponnx wrote: nothing else is ever replaced.
    pub fn start(target: &Path, force: bool) -> Outcome<Staging> {
        refuse_existing(target, force)?;
        let parent = parent(target);
        std::fs::create_dir_all(parent).map_err(|e| Box::new(file_failure("make", parent, &e)))?;
        let dir = tempfile::Builder::new().prefix(".pponnx-").tempdir_in(parent);
        let dir = dir.map_err(|e| Box::new(file_failure("make a folder in", parent, &e)))?;
        Ok(Staging { target: target.to_owned(), force, dir })
    }

    /// Where a file goes for now. Its folder is made.
    pub fn path(&self, name: impl AsRef<Path>) -> Outcome<PathBuf> {
        let path = self.dir.path().join(name);
        let folder = parent(&path);
        std::fs::create_dir_all(folder).map_err(|e| Box::new(file_failure("make", folder, &e)))?;
        Ok(path)
    }

    /// Makes a folder.
    pub fn folder(&self, name: impl AsRef<Path>) -> Outcome<PathBuf> {
        self.path(name.as_ref().join("x")).map(|p| parent(&p).to_owned())
    }

    /// Writes a file; a private one can be read by its owner only.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8], private: bool) -> Outcome<()> {
        let path = self.path(name)?;
        write_synced(&path, bytes, private).map_err(|e| Box::new(file_failure("write", &self.shown(&path), &e)))
    }

    /// Writes a file that others may read, piece by piece.
    pub fn stream<E>(
        &self,
        name: impl AsRef<Path>,
        write: impl FnOnce(&mut File) -> Result<(), E>,
        failed: impl FnOnce(E) -> Box<Failure>,
    ) -> Outcome<()> {
        let path = self.path(name)?;
        let fail = |e| Box::new(file_failure("write", &self.shown(&path), &e));
        let mut file = create(&path, false).map_err(fail)?;
        write(&mut file).map_err(failed)?;
        file.sync_all().map_err(fail)
    }

    /// Syncs everything and gives the folder its name.
    pub fn publish(self) -> Outcome<()> {
        let fail = |e: std::io::Error| Box::new(file_failure("write", &self.target, &e));
        sync_folders(self.dir.path()).map_err(fail)?;
        open_up(self.dir.path()).map_err(fail)?;
        refuse_existing(&self.target, self.force)?;
        let parent = parent(&self.target).to_owned();
        // With --force the old folder steps aside first, and goes once the new one has its place.
        let aside = match self.target.symlink_metadata() {
            Ok(_) => {
                let aside = tempfile::Builder::new().prefix(".pponnx-old-").tempdir_in(&parent).map_err(fail)?;
                std::fs::rename(&self.target, aside.path().join("old")).map_err(fail)?;
                Some(aside)
            }
            Err(_) => None,
        };
        if let Err(e) = std::fs::rename(self.dir.path(), &self.target) {
            if let Some(aside) = &aside {
                // Put the old one back; the error to report is the first.
                let _ = std::fs::rename(aside.path().join("old"), &self.target);
            }
            return Err(fail(e));
        }
        // The name is gone, so there is nothing left to remove.
        let _ = self.dir.keep();
        File::open(&parent).and_then(|d| d.sync_all()).map_err(|e| Box::new(file_failure("sync", &parent, &e)))
    }

    /// The path as the user will know it.
    fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.dir.path()).map_or_else(|_| path.to_owned(), |rest| self.target.join(rest))
    }
}

fn refuse_existing(target: &Path, force: bool) -> Outcome<()> {
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    let refuse = |message: String, help: &str| {
        Err(Box::new(Failure::new(Exit::Configuration, "pponnx::output::exists", message).help(help)))
    };
    if !force {
        return refuse(
            format!("`{}` exists already", target.display()),
            "choose another folder, or replace it with --force: its keys are then gone",
        );
    }
    let empty = std::fs::read_dir(target).is_ok_and(|mut d| d.next().is_none());
    let ours = target.join("report.json").is_file() && target.join("device").is_dir();
    if empty || ours {
        return Ok(());
    }
    refuse(
        format!("`{}` is not a folder that pponnx wrote, so --force does not replace it", target.display()),
        "choose another folder",
    )
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn create(path: &Path, private: bool) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if private { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = private;
    options.open(path)
}

fn write_synced(path: &Path, bytes: &[u8], private: bool) -> std::io::Result<()> {
    let mut file = create(path, private)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folders(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Temporary folders are private; the finished one gets the usual mode.
#[cfg(unix)]
fn open_up(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn open_up(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn staged(target: &Path, force: bool, text: &str) -> Outcome<()> {
        let staging = Staging::start(target, force)?;
        staging.write("report.json", text.as_bytes(), false)?;
        staging.write("device/identity", b"secret", true)?;
        staging.publish()
    }

    #[test]
    fn an_existing_folder_is_kept_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/out");
        staged(&target, false, "1").unwrap();
        assert_eq!(staged(&target, false, "2").unwrap_err().code, "pponnx::output::exists");
        assert_eq!(std::fs::read(target.join("report.json")).unwrap(), b"1");
        staged(&target, true, "2").unwrap();
        assert_eq!(std::fs::read(target.join("report.json")).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn force_does_not_delete_foreign_folders() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("photos");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("cat.jpg"), b"meow").unwrap();
        assert_eq!(staged(&target, true, "1").unwrap_err().exit, Exit::Configuration);
        assert!(target.join("cat.jpg").exists());
    }

    #[test]
    fn giving_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::start(&dir.path().join("out"), false).unwrap();
        staging.write("x", b"1", false).unwrap();
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        staged(&target, false, "1").unwrap();
        let mode = |p: &str| target.join(p).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("device/identity"), mode("report.json"), mode("")), (0o600, 0o644, 0o755));
    }
}
