//! Mask streams, session keys, key pairs and the ledger.
//!
//! Everything a role keeps secret or must remember across a restart lives here: the keys and streams that masks come
//! from ([`prf`], [`stream`], [`mask`]), the owner's check secret ([`check`]), and the files that hold them
//! ([`key_file`], [`check_file`], [`pairs`], [`ledger`], [`marks`]). The algebra and the rules behind it are in
//! `protocol.md`, sections 3 and 4.
//!
//! **Invariant**: no clock, no random source, no network. Random bytes are always an argument.
//!
//! **Invariant**: no (session key, bundle digest, request, slot, side) masks two values. Inside a process a [`Mask`]
//! is consumed by use; across restarts the nonce and the epoch (`relay`, `two-edge`) or the [`Ledger`] (`one-time`,
//! `stockpile`) keep the tuples apart.
//!
//! **Invariant**: secrets have neither `Debug` nor `Clone`, and are wiped when dropped.
#![forbid(unsafe_code)]

pub mod atomic;
pub mod check;
pub mod check_file;
mod container;
mod disk;
pub mod error;
pub mod key_file;
pub mod ledger;
pub mod marks;
pub mod mask;
pub mod pairs;
pub mod prf;
mod slots;
pub mod stream;

#[cfg(test)]
mod sim;

pub use check::{CheckSecret, P61, Part};
pub use check_file::{CheckData, MapCheck};
pub use error::{FileKind, StoreError};
pub use key_file::{AcceptError, KeyFile};
pub use ledger::{Ledger, LedgerError, LedgerOwner};
pub use marks::{MarkError, Marks};
pub use mask::{Mask, MaskError, MaskParts};
pub use pairs::{PairError, PairHeader, PairStore, PairWriter, SlotBytes};
pub use prf::{EpochKey, RatchetError, SessionKey, SessionNonce, Side, StreamAt};
pub use stream::Suite;
