//! What can be wrong with bytes that claim to be a bundle or a plan file.

use std::fmt;

use crate::constant::Digest;
use crate::value::ConstId;

/// Why bytes were refused, or why a plan file could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The first bytes are not those of a plan file.
    #[error("not a plan file: it does not begin with `PPONNXPL`")]
    NotAPlan,
    /// Written in another version of the format.
    #[error(
        "the plan has format version {found}, this program reads version {supported}: compile the model again, or \
         use the version of pponnx that wrote the plan"
    )]
    Version {
        /// Version of the bytes.
        found: u32,
        /// Version this crate reads and writes.
        supported: u32,
    },
    /// The bytes end before the plan does.
    #[error("the plan ends early, after {at} bytes: copy the file again")]
    Truncated {
        /// Number of bytes present.
        at: usize,
    },
    /// The file system fails.
    #[error("the plan cannot be read: {0}")]
    Unreadable(String),
    /// The file system fails.
    #[error("the plan cannot be written: {what}")]
    Unwritable {
        /// The kind of failure.
        kind: std::io::ErrorKind,
        /// What the system says.
        what: String,
    },
    /// A size or count above what this crate is ready to hold.
    #[error("{what}: {found}, above the limit of {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The largest size admitted.
        limit: u64,
    },
    /// The bytes contradict themselves: damage on the way, or a faulty writer.
    #[error("damaged plan: {0}; copy the file again, or compile the model again")]
    Corrupt(String),
    /// The bytes mean a bundle, but are not the bytes this crate writes for it, so that its digest would be ambiguous.
    #[error("the bundle is not in canonical form: it does not encode to the same bytes again; compile the model again")]
    NotCanonical,
    /// A code without a meaning in this version.
    #[error("unknown {what} with code {code}: compile the model again with this version of pponnx")]
    Unknown {
        /// Kind of thing that the code stands for.
        what: &'static str,
        /// The code.
        code: u32,
    },
    /// A constant that the role reads is absent.
    #[error("constant {id} (digest {digest}) is missing: compile the model again")]
    ConstantMissing {
        /// The constant.
        id: ConstId,
        /// Its declared digest.
        digest: Hex,
    },
    /// A constant is not the one that the bundle declares.
    #[error("the constant with digest {digest} is not what the bundle declares: {what}; copy the file again")]
    ConstantMismatch {
        /// The digest under which the constant stands.
        digest: Hex,
        /// What differs.
        what: String,
    },
}

/// A digest that prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub Digest);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
