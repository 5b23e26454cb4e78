//! What can be wrong with a file of this crate, each message with the file and a remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::prf::Hex;

/// The kinds of files this crate reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A mask key: `device.key`, or edge B's copy of one.
    Key,
    /// Check secret and check vectors: `check.bin`.
    Check,
    /// Owner-dealt key pairs: `*.pairs`.
    Pairs,
    /// The ledger of used request numbers.
    Ledger,
    /// Edge A's high-water mark of one device.
    Mark,
    /// A file of another crate, read or written by the functions of [`crate::atomic`].
    Other,
}

impl FileKind {
    /// The first eight bytes of such a file.
    pub(crate) fn magic(self) -> [u8; 8] {
        match self {
            FileKind::Key => *b"pponnx-K",
            FileKind::Check => *b"pponnx-C",
            FileKind::Pairs => *b"pponnx-P",
            FileKind::Ledger => *b"pponnx-L",
            FileKind::Mark => *b"pponnx-M",
            FileKind::Other => [0; 8],
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            FileKind::Key => {
                "copy it again from the folder that `pponnx compile` wrote, or make new keys with `pponnx keygen`"
            }
            FileKind::Check => "copy check.bin again from the folder that `pponnx compile` wrote",
            FileKind::Pairs => "copy the folder of key pairs again, or make more with `pponnx keygen DIR --requests N`",
            FileKind::Ledger => {
                "never restore a ledger from a backup: make new keys and key pairs with `pponnx keygen DIR --new-keys --requests N`"
            }
            FileKind::Mark => {
                "make new keys and key pairs for this device with `pponnx keygen`, then remove the old mark"
            }
            FileKind::Other => "check the path in the configuration",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Key => "key file",
            FileKind::Check => "check file",
            FileKind::Pairs => "file of key pairs",
            FileKind::Ledger => "ledger",
            FileKind::Mark => "request mark",
            FileKind::Other => "file",
        })
    }
}

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No such file or folder.
    #[error("{}: no {kind} here; {}", path.display(), kind.remedy())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What was expected there.
        kind: FileKind,
    },
    /// The file begins with other bytes.
    #[error("{}: not a {kind}; {}", path.display(), kind.remedy())]
    NotThisKind {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        kind: FileKind,
    },
    /// A format version this program does not read.
    #[error("{}: {kind} of format version {found}, this program reads version {known}; use the pponnx that wrote it, or make it again", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        kind: FileKind,
        /// Version in the file.
        found: u32,
        /// Version of this program.
        known: u32,
    },
    /// The file ends early or is longer than its content.
    #[error("{}: {kind} of the wrong length (cut off?); {}", path.display(), kind.remedy())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        kind: FileKind,
    },
    /// Checksum or content is wrong.
    #[error("{}: damaged {kind}: {what}; {}", path.display(), kind.remedy())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        kind: FileKind,
        /// What is wrong.
        what: &'static str,
    },
    /// Larger than any such file can be.
    #[error("{}: {kind} larger than {max} bytes; {}", path.display(), kind.remedy())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        kind: FileKind,
        /// Largest accepted length in bytes.
        max: u64,
    },
    /// Made for another device.
    #[error("{}: {kind} of device {found}, expected device {expected}; {}", path.display(), kind.remedy())]
    WrongDevice {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
        /// Device in the file, in hexadecimal.
        found: String,
        /// Device expected, in hexadecimal.
        expected: String,
    },
    /// Made for another bundle.
    #[error("{}: {kind} for bundle {found}, the plan is of bundle {expected}; files of two compilations are mixed: {}", path.display(), kind.remedy())]
    WrongBundle {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
        /// Start of the digest in the file, in hexadecimal.
        found: String,
        /// Start of the digest expected, in hexadecimal.
        expected: String,
    },
    /// Another process holds the lock.
    #[error("{}: {kind} in use by another process; stop that one first (one writer at a time)", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// Refuses to overwrite.
    #[error("{}: this {kind} exists already; remove it only if everything made with it is thrown away too", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// An earlier write failed; what is on the disk is unknown.
    #[error("{}: an earlier write of this {kind} failed; start the program again", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// The caller gave content that the format cannot hold.
    #[error("{}: cannot write this {kind}: {what}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
        /// What is wrong.
        what: &'static str,
    },
    /// The operating system refused.
    #[error("{}: cannot {action} this {kind}: {source}; check that the disk has space and the folder may be written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
        /// What was tried.
        action: &'static str,
        /// The reason given.
        source: io::Error,
    },
}

/// A file and its kind, for making errors.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) path: &'a Path,
    pub(crate) kind: FileKind,
}

impl At<'_> {
    fn path(self) -> PathBuf {
        self.path.to_path_buf()
    }

    pub(crate) fn io(self, action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        let (path, kind) = (self.path(), self.kind);
        move |source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { path, kind },
            io::ErrorKind::UnexpectedEof => StoreError::Truncated { path, kind },
            _ => StoreError::Io { path, kind, action, source },
        }
    }

    pub(crate) fn truncated(self) -> StoreError {
        StoreError::Truncated { path: self.path(), kind: self.kind }
    }

    pub(crate) fn not_this_kind(self) -> StoreError {
        StoreError::NotThisKind { path: self.path(), kind: self.kind }
    }

    pub(crate) fn version(self, found: u32, known: u32) -> StoreError {
        StoreError::Version { path: self.path(), kind: self.kind, found, known }
    }

    pub(crate) fn corrupt(self, what: &'static str) -> StoreError {
        StoreError::Corrupt { path: self.path(), kind: self.kind, what }
    }

    pub(crate) fn too_large(self, max: u64) -> StoreError {
        StoreError::TooLarge { path: self.path(), kind: self.kind, max }
    }

    pub(crate) fn busy(self) -> StoreError {
        StoreError::Busy { path: self.path(), kind: self.kind }
    }

    pub(crate) fn exists(self) -> StoreError {
        StoreError::Exists { path: self.path(), kind: self.kind }
    }

    pub(crate) fn poisoned(self) -> StoreError {
        StoreError::Poisoned { path: self.path(), kind: self.kind }
    }

    pub(crate) fn unwritable(self, what: &'static str) -> StoreError {
        StoreError::Unwritable { path: self.path(), kind: self.kind, what }
    }

    /// An error if the file is of another device.
    pub(crate) fn device(self, found: &[u8; 16], expected: &[u8; 16]) -> Result<(), StoreError> {
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (Hex(found).to_string(), Hex(expected).to_string());
        Err(StoreError::WrongDevice { path: self.path(), kind: self.kind, found, expected })
    }

    /// An error if the file is of another bundle.
    pub(crate) fn bundle(self, found: &[u8; 32], expected: &[u8; 32]) -> Result<(), StoreError> {
        if found == expected {
            return Ok(());
        }
        let short = |digest: &[u8; 32]| Hex(digest.get(..8).unwrap_or_default()).to_string();
        let (found, expected) = (short(found), short(expected));
        Err(StoreError::WrongBundle { path: self.path(), kind: self.kind, found, expected })
    }
}
