//! The digest that names a bundle. Mask streams, key files and sessions are bound to it.

use crate::binary;
use crate::constant::Digest;
use crate::plan::Bundle;

/// Context of the BLAKE3 key derivation that makes digests of bundles.
pub const CONTEXT: &str = "pponnx bundle 1";

/// The name of a bundle: BLAKE3 `derive_key` over its canonical bytes ([`binary::encode`]). Weights count through
/// the digests of the constants.
pub fn bundle_digest(bundle: &Bundle) -> Digest {
    blake3::derive_key(CONTEXT, &binary::encode(bundle))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sample;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_digest_outlives_encoding(bundle in sample::bundle()) {
            let once = binary::decode(&binary::encode(&bundle)).unwrap();
            let twice = binary::decode(&binary::encode(&once)).unwrap();
            prop_assert_eq!(bundle_digest(&once), bundle_digest(&bundle));
            prop_assert_eq!(bundle_digest(&twice), bundle_digest(&bundle));
        }

        #[test]
        fn different_bundles_have_different_digests(a in sample::bundle(), b in sample::bundle()) {
            prop_assert_eq!(a == b, bundle_digest(&a) == bundle_digest(&b));
        }
    }

    /// Bundles on disk, mask streams and key files hang on these 32 bytes: a change of this value is a new format.
    #[test]
    fn the_digest_of_the_sample_is_frozen() {
        let digest = binary::Hex(bundle_digest(&sample::relay().0)).to_string();
        assert_eq!(digest, "fd5fcd9eddadfeca62ae801f231b89bb508a5979ecb07b6a04c258cb11213e4e");
        assert!(include_str!("../FORMAT.md").contains(&format!("Its digest is `{digest}`")));
    }
}
