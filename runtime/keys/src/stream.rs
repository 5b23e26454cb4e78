//! The stream suites: how 32 seed bytes become an endless uniform byte stream.
//!
//! The device and edge B must make the same stream, so the suite's name stands in the plan and is covered by the
//! bundle digest. This is the only file that names a cipher.

use chacha20::cipher::StreamCipherCore;
use chacha20::cipher::array::Array;
use chacha20::{ChaCha20LegacyCore, KeyIvInit, LegacyNonce};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of one cipher block.
const BLOCK: usize = 64;
/// Blocks of one chunk: 4 KiB, enough for the widest parallel back end and small beside a first-level cache.
const BLOCKS: usize = 64;

/// A stream suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// ChaCha20 (RFC 8439) with nonce zero and a 64-bit block counter from zero; the seed is the key.
    ChaCha20,
}

impl Suite {
    /// Every suite.
    pub const ALL: &'static [Suite] = &[Suite::ChaCha20];

    /// The name that plans use.
    pub fn name(self) -> &'static str {
        match self {
            Suite::ChaCha20 => "chacha20",
        }
    }

    /// The suite of that name, if this build has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|suite| suite.name() == name)
    }

    /// The stream of a seed.
    pub(crate) fn keystream(self, seed: &[u8; 32]) -> Keystream {
        match self {
            Suite::ChaCha20 => {
                let core = ChaCha20LegacyCore::new(Array::cast_from_core(seed), &LegacyNonce::default());
                Keystream { cipher: Cipher::ChaCha20(Box::new(core)), chunk: Chunk::new() }
            }
        }
    }
}

enum Cipher {
    ChaCha20(Box<ChaCha20LegacyCore>),
}

/// One chunk of the stream, and how much of it is used up. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Chunk {
    blocks: Box<[[u8; BLOCK]; BLOCKS]>,
    used: usize,
    filled: usize,
}

impl Chunk {
    fn new() -> Self {
        Self { blocks: Box::new([[0; BLOCK]; BLOCKS]), used: 0, filled: 0 }
    }
}

/// An unread rest of a stream. No position is ever handed out twice. Wiped when dropped.
pub(crate) struct Keystream {
    cipher: Cipher,
    chunk: Chunk,
}

impl Keystream {
    /// The next bytes of the stream: at least one and at most `want` (`want > 0`), a multiple of 8 if `want` and all
    /// earlier wants were, or of 4 likewise.
    pub(crate) fn next(&mut self, want: usize) -> &[u8] {
        if self.chunk.used == self.chunk.filled {
            let count = want.div_ceil(BLOCK).min(BLOCKS);
            let blocks = self.chunk.blocks.get_mut(..count).unwrap_or_default();
            match &mut self.cipher {
                Cipher::ChaCha20(core) => core.write_keystream_blocks(Array::cast_slice_from_core_mut(blocks)),
            }
            self.chunk.used = 0;
            self.chunk.filled = count * BLOCK;
        }
        let start = self.chunk.used;
        let end = self.chunk.filled.min(start.saturating_add(want));
        self.chunk.used = end;
        self.chunk.blocks.as_flattened().get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn bytes(seed: &[u8; 32], wants: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut stream = Suite::ChaCha20.keystream(seed);
        let mut out = Vec::new();
        for want in wants {
            let mut left = want;
            while left > 0 {
                let part = stream.next(left);
                assert!(!part.is_empty() && part.len() <= left);
                out.extend_from_slice(part);
                left -= part.len();
            }
        }
        out
    }

    /// RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce zero, blocks 0 and 1.
    #[test]
    fn rfc_8439_zero_key() {
        let expected = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
                        da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586\
                        9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed\
                        29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";
        assert_eq!(crate::prf::Hex(&bytes(&[0; 32], [128])).to_string(), expected);
    }

    #[test]
    fn equals_rand_chacha_however_it_is_read() {
        for (seed, wants) in [(1u8, vec![20_000]), (2, vec![4; 5000]), (3, vec![8, 4096, 16, 12, 72, 8192, 4, 4])] {
            let seed = [seed; 32];
            let total = wants.iter().sum::<usize>();
            let mut expected = vec![0; total];
            ChaCha20Rng::from_seed(seed).fill_bytes(&mut expected);
            assert_eq!(bytes(&seed, wants), expected);
        }
    }

    #[test]
    fn names_round_trip() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_name(suite.name()), Some(*suite));
        }
        assert_eq!(Suite::from_name("chacha12"), None);
    }
}
