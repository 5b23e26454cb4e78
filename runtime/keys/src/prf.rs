//! Keys and how they derive from one another (`protocol.md`, section 3).
//!
//! Every derivation is BLAKE3 `derive_key` (BLAKE3 specification, section 2.3) with a context string of its own; the
//! inputs have fixed widths, so that no two uses share an input.

use std::fmt;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::mask::Mask;
use crate::stream::Suite;

const CONTEXT_RATCHET: &str = "pponnx ratchet 1";
const CONTEXT_SESSION: &str = "pponnx session 1";
const CONTEXT_DEALT: &str = "pponnx dealt 1";
const CONTEXT_SID: &str = "pponnx sid 1";
const CONTEXT_STREAM: &str = "pponnx stream 1";

/// Thirty-two secret bytes on the heap, so that moving the owner leaves no copies on the stack; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret32(Box<[u8; 32]>);

impl Secret32 {
    /// Copies the bytes; the caller wipes its own.
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
        let mut secret = Self(Box::new([0; 32]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// The bytes themselves.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// `BLAKE3.derive_key(context, parts[0] || parts[1] || ..)`, 32 bytes.
pub(crate) fn kdf(context: &'static str, parts: &[&[u8]]) -> Secret32 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let mut hash = hasher.finalize();
    let secret = Secret32::new(hash.as_bytes());
    hash.zeroize();
    hasher.zeroize();
    secret
}

/// The mask key `K_e` of one device at epoch `e`, shared with edge B (or held by the owner for dealt key pairs).
///
/// `K_(e+1) = KDF("pponnx ratchet 1", K_e)`: the older key cannot be computed from the newer one, so a later thief
/// does not open earlier sessions. Neither `Clone` nor `Debug`; wiped when dropped.
pub struct EpochKey {
    epoch: u64,
    key: Secret32,
}

impl EpochKey {
    /// `K_0` from 32 random bytes (drawn by `keygen`).
    pub fn first(random: &[u8; 32]) -> Self {
        Self::at(0, random)
    }

    /// The key of a known epoch, as read from a key file.
    pub(crate) fn at(epoch: u64, key: &[u8; 32]) -> Self {
        Self { epoch, key: Secret32::new(key) }
    }

    /// The epoch `e`.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The 32 bytes, for key files only.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        self.key.bytes()
    }

    /// A second copy of this key: `keygen` writes the same key for the device and for edge B. Deliberately not
    /// `Clone`, so that a copy is visible where it is made.
    pub fn duplicate(&self) -> Self {
        Self::at(self.epoch, self.bytes())
    }

    /// The key of the next epoch; this one is wiped. The epoch number saturates, and a saturated one is never
    /// accepted twice ([`crate::KeyFile::accept`] refuses an epoch that is not above the last).
    pub fn ratchet(self) -> Self {
        Self { epoch: self.epoch.saturating_add(1), key: kdf(CONTEXT_RATCHET, &[self.bytes()]) }
    }

    /// The key of `epoch`, which must not lie behind, by at most `max_steps` ratchets (each about 100 ns).
    ///
    /// # Errors
    /// [`RatchetError`] if `epoch` lies behind this key or too far ahead of it.
    pub fn ratchet_to(self, epoch: u64, max_steps: u64) -> Result<Self, RatchetError> {
        let Some(steps) = epoch.checked_sub(self.epoch) else {
            return Err(RatchetError::Behind { at: self.epoch, asked: epoch });
        };
        if steps > max_steps {
            return Err(RatchetError::TooFar { at: self.epoch, asked: epoch, max_steps });
        }
        let mut key = self;
        for _ in 0..steps {
            key = key.ratchet();
        }
        Ok(key)
    }
}

/// Why a key cannot be brought to an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RatchetError {
    /// Ratchets go forward only.
    #[error("epoch {asked} lies behind the key's epoch {at}: the earlier key is erased; advance the device past {at}")]
    Behind {
        /// Epoch of the key.
        at: u64,
        /// Epoch that was asked for.
        asked: u64,
    },
    /// The jump would cost more work than allowed.
    #[error("epoch {asked} is more than {max_steps} ahead of the key's epoch {at}: make new keys with `pponnx keygen`")]
    TooFar {
        /// Epoch of the key.
        at: u64,
        /// Epoch that was asked for.
        asked: u64,
        /// Largest allowed number of ratchets.
        max_steps: u64,
    },
}

/// The nonce `N` of one start of the device: 32 fresh random bytes, told to edge B inside TLS. With `K_e` it opens
/// the session, so it is treated as a secret.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SessionNonce(pub [u8; 32]);

/// The key `S` that all streams of a session derive from. Neither `Clone` nor `Debug`; wiped when dropped.
pub struct SessionKey {
    key: Secret32,
}

impl SessionKey {
    /// `relay`, `two-edge`: `S = KDF("pponnx session 1", K_e || N)`.
    pub fn session(key: &EpochKey, nonce: &SessionNonce) -> Self {
        Self { key: kdf(CONTEXT_SESSION, &[key.bytes(), &nonce.0]) }
    }

    /// `one-time`, `stockpile`: `S = KDF("pponnx dealt 1", K_e)`. No nonce refreshes it: the ledger must.
    pub fn dealt(key: &EpochKey) -> Self {
        Self { key: kdf(CONTEXT_DEALT, &[key.bytes()]) }
    }

    /// The public name of the session, told to edge A: `KDF("pponnx sid 1", S)[..16]`.
    pub fn sid(&self) -> [u8; 16] {
        let full = kdf(CONTEXT_SID, &[self.key.bytes()]);
        let mut sid = [0; 16];
        for (to, from) in sid.iter_mut().zip(full.bytes()) {
            *to = *from;
        }
        sid
    }

    /// The mask or pad of `n` elements of `k` bits at a position of the protocol. `suite` is the one that the bundle of
    /// `at.digest` names: the name is part of the digest, so that no two suites share a stream seed.
    ///
    /// Words are u32 if `k <= 32`, else u64, each reduced to its low `k` bits (`k` in 1..=64; 60 is the widest ring in
    /// use). The stream is expanded as it is used, so that no buffer of `n` elements exists. Two calls with equal
    /// arguments give equal masks: the caller sends one value a tuple, ever (`protocol.md`, section 3, burning).
    pub fn mask(&self, suite: Suite, at: &StreamAt, n: usize, k: u32) -> Mask {
        let seed = at.seed(self);
        Mask::new(suite.keystream(seed.bytes()), n, k)
    }
}

/// Which of the two streams of a slot: masks belong to upload slots, pads to download slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// The mask `r`, on the input side.
    Mask = 0,
    /// The pad `t`, on the output side.
    Pad = 1,
}

/// Position of one stream; public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamAt {
    /// Digest `D` of the bundle: a new model has new streams.
    pub digest: [u8; 32],
    /// Request number `q`.
    pub request: u64,
    /// Transfer slot of the plan.
    pub slot: u32,
    /// Mask or pad.
    pub side: Side,
}

impl StreamAt {
    /// `KDF("pponnx stream 1", S || D || q:u64le || slot:u32le || side:u8)`.
    fn seed(&self, session: &SessionKey) -> Secret32 {
        kdf(
            CONTEXT_STREAM,
            &[
                session.key.bytes(),
                &self.digest,
                &self.request.to_le_bytes(),
                &self.slot.to_le_bytes(),
                &[self.side as u8],
            ],
        )
    }
}

/// Lower-case hexadecimal of an identifier, for messages and file names.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
#[path = "prf_test.rs"]
mod tests;
