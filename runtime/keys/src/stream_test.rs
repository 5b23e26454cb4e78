#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::prf::Hex;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_chacha::{ChaCha12Rng, ChaCha20Rng};

fn bytes(suite: Suite, seed: &[u8; 32], wants: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let mut stream = suite.keystream(seed);
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

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce zero, blocks 0 and 1.
#[test]
fn rfc_8439_zero_key() {
    let expected = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
                    da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586\
                    9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed\
                    29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";
    assert_eq!(Hex(&bytes(Suite::ChaCha20, &[0; 32], [128])).to_string(), expected);
}

/// draft-strombergson-chacha-test-vectors-01, TC1, 256-bit key, 12 rounds: key and nonce zero, blocks 0 and 1.
#[test]
fn strombergson_zero_key_of_twelve_rounds() {
    let expected = "9bf49a6a0755f953811fce125f2683d50429c3bb49e074147e0089a52eae155f\
                    0564f879d27ae3c02ce82834acfa8c793a629f2ca0de6919610be82f411326be";
    assert_eq!(Hex(&bytes(Suite::ChaCha12, &[0; 32], [64])).to_string(), expected);
}

/// NIST SP 800-38A, F.5.1 (CTR-AES128.Encrypt): the output blocks.
#[test]
fn sp_800_38a_counter_mode() {
    let mut seed = [0; 32];
    seed.copy_from_slice(&hex("2b7e151628aed2a6abf7158809cf4f3c f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
    let expected = "ec8cdf7398607cb0f2d21675ea9ea1e4\
                    362b7c3c6773516318a077d7fc5073ae\
                    6a2cc3787889374fbeb4c81b17ba6c44\
                    e89c399ff0f198c6d40a31db156cabfe";
    assert_eq!(Hex(&bytes(Suite::Aes128Ctr, &seed, [64])).to_string(), expected);
}

/// Counter blocks wrap as one 128-bit number, in the middle of a chunk too.
#[test]
fn counter_blocks_count_past_every_byte() {
    let key = [7; 16];
    let cipher = Aes128::new(&Array(key));
    for first in [u128::MAX - 3, u128::from(u64::MAX) - 300, (1 << 32) - 2, 0] {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&key);
        seed[16..].copy_from_slice(&first.to_be_bytes());
        let expected: Vec<u8> = (0..600)
            .flat_map(|i| {
                let mut block = Array(first.wrapping_add(i).to_be_bytes());
                cipher.encrypt_block(&mut block);
                block
            })
            .collect();
        assert_eq!(bytes(Suite::Aes128Ctr, &seed, [8, 5000, 1392, 3200]), expected);
    }
}

#[test]
fn equals_rand_chacha_however_it_is_read() {
    for (seed, wants) in [(1u8, vec![20_000]), (2, vec![4; 5000]), (3, vec![8, 4096, 16, 12, 72, 8192, 4, 4])] {
        let seed = [seed; 32];
        let mut expected = vec![0; wants.iter().sum::<usize>()];
        ChaCha20Rng::from_seed(seed).fill_bytes(&mut expected);
        assert_eq!(bytes(Suite::ChaCha20, &seed, wants.clone()), expected);
        ChaCha12Rng::from_seed(seed).fill_bytes(&mut expected);
        assert_eq!(bytes(Suite::ChaCha12, &seed, wants), expected);
    }
}

#[test]
fn an_expanded_stream_is_the_stream() {
    for suite in Suite::ALL {
        for n in [0, 1, 64, 4096, 4100, 20_000] {
            let mut expanded = suite.keystream(&[5; 32]).expand(n);
            let mut got = expanded.next(n / 3).to_vec();
            got.extend_from_slice(expanded.next(usize::MAX));
            assert_eq!(got, bytes(*suite, &[5; 32], [n]), "{suite:?} {n}");
            assert!(expanded.next(1).is_empty());
        }
    }
}

#[test]
fn suites_differ() {
    let all: Vec<_> = Suite::ALL.iter().map(|suite| bytes(*suite, &[9; 32], [4096])).collect();
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a[..16] != b[..16]));
    }
}

#[test]
fn names_round_trip() {
    for suite in Suite::ALL {
        assert_eq!(Suite::from_name(suite.name()), Some(*suite));
    }
    assert_eq!(Suite::from_name("chacha8"), None);
    assert!(Suite::ChaCha20.is_available() && Suite::ChaCha12.is_available());
}
