//! The owner's check secret and the field elements it expands to (`protocol.md`, section 4).
//!
//! It is drawn independently of every mask key: edge B holds those and could aim a wrong correction at a check vector
//! that derives from them.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::prf::{Secret32, kdf};
use crate::stream::Suite;

const CONTEXT_CHECK: &str = "pponnx check 1";

/// The prime of the check field, `2^61 - 1`.
pub const P61: u64 = (1 << 61) - 1;

/// Which factor of the check vector `v = a (x) beta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Part {
    /// `a`, one element a channel.
    Channels = 0,
    /// `beta`, one element a position.
    Positions = 1,
}

/// The secret behind all check vectors of one device: for the owner and the device only, never for an edge. Neither
/// `Clone` nor `Debug`; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CheckSecret(Secret32);

impl CheckSecret {
    /// From 32 fresh random bytes (drawn by `keygen`, of their own) or the bytes of a check file.
    pub fn new(random: &[u8; 32]) -> Self {
        Self(Secret32::new(random))
    }

    /// The 32 bytes, for the check file only.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }

    /// `n` uniform elements of F_p, p = `2^61 - 1`, for one part of the check vector of one map.
    ///
    /// Seed `KDF("pponnx check 1", secret || D || map:u32le || part:u8)`, ChaCha20 with nonce 0, u64 little-endian
    /// words, their low 61 bits; the one value that is not below p is skipped.
    pub fn elements(&self, digest: &[u8; 32], map: u32, part: Part, n: usize) -> Zeroizing<Vec<u64>> {
        let seed = kdf(CONTEXT_CHECK, &[self.bytes(), digest, &map.to_le_bytes(), &[part as u8]]);
        let mut stream = Suite::ChaCha20.keystream(seed.bytes());
        let mut out = Zeroizing::new(Vec::with_capacity(n));
        while out.len() < n {
            let (words, _) = stream.next((n - out.len()).saturating_mul(8)).as_chunks::<8>();
            out.extend(words.iter().filter_map(|word| accept(u64::from_le_bytes(*word))));
        }
        out
    }
}

/// The low 61 bits of a word, unless they are p itself: rejection keeps the rest uniform.
fn accept(word: u64) -> Option<u64> {
    let low = word & P61;
    (low != P61).then_some(low)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    /// Made by `reference/keys_reference.py`.
    fn known_answer() {
        let secret = CheckSecret::new(&[7; 32]);
        let got = secret.elements(&[9; 32], 3, Part::Positions, 4);
        assert_eq!(
            got.as_slice(),
            [436_013_785_122_147_898, 433_942_623_062_980_306, 452_245_616_125_596_105, 1_777_995_904_522_640_017]
        );
    }

    #[test]
    fn rejects_only_p() {
        assert_eq!(accept(P61), None);
        assert_eq!(accept(u64::MAX), None);
        assert_eq!(accept(P61 | (5 << 61)), None);
        assert_eq!(accept(P61 - 1), Some(P61 - 1));
        assert_eq!(accept(1 << 61), Some(0));
    }

    #[test]
    fn every_input_changes_the_elements() {
        let secret = CheckSecret::new(&[1; 32]);
        let base = secret.elements(&[2; 32], 3, Part::Channels, 1000);
        assert!(base.iter().all(|&x| x < P61));
        let others = [
            CheckSecret::new(&[3; 32]).elements(&[2; 32], 3, Part::Channels, 1000),
            secret.elements(&[4; 32], 3, Part::Channels, 1000),
            secret.elements(&[2; 32], 4, Part::Channels, 1000),
            secret.elements(&[2; 32], 3, Part::Positions, 1000),
        ];
        for other in others {
            assert!(base.iter().zip(other.iter()).all(|(a, b)| a != b));
        }
        let shorter = secret.elements(&[2; 32], 3, Part::Channels, 700);
        assert_eq!(shorter.as_slice(), &base[..700]);
    }
}
