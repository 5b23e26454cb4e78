#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::prf::{EpochKey, SessionKey, SessionNonce, Side, StreamAt};
use crate::stream::Suite;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const CHACHA: Suite = Suite::ChaCha20;

fn rising(from: u8) -> [u8; 32] {
    std::array::from_fn(|i| from + i as u8)
}

fn session() -> SessionKey {
    SessionKey::session(&EpochKey::first(&rising(0)).ratchet().ratchet(), &SessionNonce(rising(32)))
}

fn at(side: Side) -> StreamAt {
    StreamAt { digest: rising(64), request: 0x0102_0304_0506_0708, slot: 0x0a0b_0c0d, side }
}

/// Words 0, 1 and 999, made by `reference/keys_reference.py`. Frozen: a change breaks every stored key pair.
#[test]
fn known_answers() {
    let dealt = SessionKey::dealt(&EpochKey::first(&rising(0)));
    let cases: [(&SessionKey, Side, u32, [u64; 3]); 14] = [
        (&session(), Side::Mask, 1, [0x1, 0x0, 0x1]),
        (&session(), Side::Mask, 20, [0x71f89, 0x92fd0, 0xb70a1]),
        (&session(), Side::Mask, 32, [0xf5e71f89, 0xddd92fd0, 0xcb1b70a1]),
        (&session(), Side::Mask, 40, [0xd0f5e71f89, 0x1d5b84b290, 0x5e1a463e20]),
        (&session(), Side::Mask, 52, [0x92fd0f5e71f89, 0xf351d5b84b290, 0xc2c5e1a463e20]),
        (&session(), Side::Mask, 60, [0xdd92fd0f5e71f89, 0x24f351d5b84b290, 0x40c2c5e1a463e20]),
        (&session(), Side::Pad, 20, [0x17374, 0x2fb84, 0x7a395]),
        (&session(), Side::Pad, 32, [0x7fa17374, 0xf792fb84, 0xe5b7a395]),
        (&session(), Side::Pad, 40, [0x847fa17374, 0xcaa54c5465, 0x314c54db6d]),
        (&session(), Side::Pad, 52, [0x2fb847fa17374, 0x8a6caa54c5465, 0xcbe314c54db6d]),
        (&dealt, Side::Mask, 32, [0xb7e0b141, 0x540f3590, 0x55605819]),
        (&dealt, Side::Mask, 52, [0xf3590b7e0b141, 0x35fa6a412172c, 0xbc22ee901206]),
        (&dealt, Side::Pad, 32, [0x824e5f11, 0xfad37e98, 0x3228c409]),
        (&dealt, Side::Pad, 60, [0xad37e98824e5f11, 0x8f0fbd294eea68a, 0xc15e2aad65bbef3]),
    ];
    for (session, side, k, expected) in cases {
        let words = session.mask(CHACHA, &at(side), 1000, k).into_words_u64().unwrap();
        assert_eq!([words[0], words[1], words[999]], expected, "{side:?} {k}");
        if k <= 32 {
            let narrow = session.mask(CHACHA, &at(side), 1000, k).into_words_u32().unwrap();
            assert!(narrow.iter().map(|&w| u64::from(w)).eq(words.iter().copied()));
        }
    }
}

#[test]
fn equals_rand_chacha() {
    let seed = crate::prf::kdf(
        "pponnx stream 1",
        &[
            // S of `session()`, derived here by hand.
            crate::prf::kdf(
                "pponnx session 1",
                &[EpochKey::first(&rising(0)).ratchet().ratchet().bytes(), &rising(32)],
            )
            .bytes(),
            &rising(64),
            &0x0102_0304_0506_0708u64.to_le_bytes(),
            &0x0a0b_0c0du32.to_le_bytes(),
            &[1],
        ],
    );
    let n = 5000;
    let mut rng = ChaCha20Rng::from_seed(*seed.bytes());
    let wide: Vec<u64> = (0..n).map(|_| rng.next_u64() & ((1 << 52) - 1)).collect();
    assert_eq!(session().mask(CHACHA, &at(Side::Pad), n, 52).into_words_u64().unwrap().as_slice(), wide);
    let mut rng = ChaCha20Rng::from_seed(*seed.bytes());
    let narrow: Vec<u32> = (0..n).map(|_| rng.next_u32() & ((1 << 31) - 1)).collect();
    assert_eq!(session().mask(CHACHA, &at(Side::Pad), n, 31).into_words_u32().unwrap().as_slice(), narrow);
}

#[test]
fn every_field_of_the_tuple_changes_the_stream() {
    let base = at(Side::Mask);
    let words = |session: &SessionKey, at: &StreamAt| session.mask(CHACHA, at, 256, 32).into_words_u32().unwrap();
    let mut others = vec![
        words(&SessionKey::session(&EpochKey::first(&rising(0)), &SessionNonce(rising(32))), &base),
        words(&session(), &StreamAt { side: Side::Pad, ..base }),
    ];
    for bit in 0..64 {
        others.push(words(&session(), &StreamAt { request: base.request ^ (1 << bit), ..base }));
    }
    for bit in 0..32 {
        others.push(words(&session(), &StreamAt { slot: base.slot ^ (1 << bit), ..base }));
    }
    for bit in 0..256 {
        let mut digest = base.digest;
        digest[bit / 8] ^= 1 << (bit % 8);
        others.push(words(&session(), &StreamAt { digest, ..base }));
    }
    let base = words(&session(), &base);
    for (i, other) in others.iter().enumerate() {
        // Two independent streams agree in none of 256 words but with probability 2^-24.
        assert!(base.iter().zip(other.iter()).all(|(a, b)| a != b), "other {i}");
    }
}

#[test]
fn adding_and_subtracting_are_inverse_and_reduced() {
    for n in [0, 1, 15, 16, 17, 1023, 1024, 1025, 5000] {
        for k in [1, 7, 31, 32] {
            let low = u32::MAX >> (32 - k);
            let values: Vec<u32> = (0..n).map(|i| (i as u32).wrapping_mul(0x9e37_79b9) | 0x8000_0001).collect();
            let mut masked = values.clone();
            session().mask(CHACHA, &at(Side::Mask), n, k).add_to_u32(&mut masked).unwrap();
            assert!(masked.iter().all(|m| *m <= low));
            session().mask(CHACHA, &at(Side::Mask), n, k).subtract_from_u32(&mut masked).unwrap();
            assert!(masked.iter().zip(&values).all(|(m, v)| *m == v & low), "n {n}, k {k}");
        }
        for k in [5, 32, 33, 40, 52, 60, 64] {
            let low = u64::MAX >> (64 - k);
            let values: Vec<u64> = (0..n).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63).collect();
            let mut masked = values.clone();
            session().mask(CHACHA, &at(Side::Mask), n, k).add_to_u64(&mut masked).unwrap();
            assert!(masked.iter().all(|m| *m <= low));
            session().mask(CHACHA, &at(Side::Mask), n, k).subtract_from_u64(&mut masked).unwrap();
            assert!(masked.iter().zip(&values).all(|(m, v)| *m == v & low), "n {n}, k {k}");
        }
    }
}

#[test]
fn parts_make_the_whole() {
    for (k, sizes) in [(32, vec![1, 2, 1000, 1024, 0, 7, 3000]), (52, vec![3, 509, 1, 1024, 2000]), (20, vec![1; 1500])]
    {
        let n = sizes.iter().sum();
        let whole = session().mask(CHACHA, &at(Side::Pad), n, k).into_words_u64().unwrap();
        let mut pieces = vec![0; n];
        let mut parts = session().mask(CHACHA, &at(Side::Pad), n, k).into_parts();
        let mut rest = pieces.as_mut_slice();
        for size in sizes {
            let (now, later) = rest.split_at_mut(size);
            parts.add_to_u64(now).unwrap();
            rest = later;
        }
        parts.finish().unwrap();
        assert_eq!(pieces, whole.as_slice(), "k {k}");
    }
}

/// Lent bytes are the words of the mask, in order, each once, streamed or expanded ahead.
#[test]
fn lent_parts_make_the_whole() {
    for suite in Suite::ALL {
        for (n, k) in [(0, 32), (5, 7), (3000, 32), (5000, 52), (1024, 33)] {
            let bytes = if k <= 32 { 4 } else { 8 };
            let low = u64::MAX >> (64 - k);
            let whole = session().mask(*suite, &at(Side::Pad), n, k).into_words_u64().unwrap();
            for (ahead, most) in [(false, 8), (true, 8), (false, 1024), (true, 1024), (false, 24), (true, 100_000)] {
                let mask = session().mask(*suite, &at(Side::Pad), n, k);
                let mut parts = if ahead { mask.expand().into_parts() } else { mask.into_parts() };
                let mut words = Vec::new();
                while parts.left() > 0 {
                    let lent = parts.lend(most);
                    assert!(!lent.is_empty() && lent.len() <= most * bytes);
                    let word = |word: &[u8]| word.iter().rev().fold(0, |w, byte| w << 8 | u64::from(*byte)) & low;
                    words.extend(lent.chunks(bytes).map(word));
                    assert!(words.len() % 8 == 0 || parts.left() == 0);
                    assert_eq!(parts.left(), n - words.len());
                }
                assert!(parts.lend(most).is_empty());
                parts.finish().unwrap();
                assert_eq!(words, whole.as_slice(), "{suite:?} {n} {k} {ahead} {most}");
            }
        }
    }
}

#[test]
fn an_expanded_mask_is_the_mask() {
    for (n, k) in [(0, 32), (700, 31), (2000, 52)] {
        let mask = || session().mask(Suite::ChaCha12, &at(Side::Mask), n, k);
        assert_eq!(mask().expand().expand().into_words_u64().unwrap(), mask().into_words_u64().unwrap());
        assert_eq!((mask().expand().elements(), mask().expand().width()), (n, k));
        assert_eq!(mask().expand().add_to_u64(&mut vec![0; n + 1]), Err(MaskError::Length { mask: n, values: n + 1 }));
    }
}

#[test]
fn a_lent_part_is_used() {
    let mut parts = session().mask(CHACHA, &at(Side::Mask), 10, 32).into_parts();
    assert!(parts.lend(0).is_empty());
    assert_eq!(parts.lend(8).len(), 32);
    assert_eq!(parts.add_to_u32(&mut [0; 3]), Err(MaskError::Length { mask: 2, values: 3 }));
    assert_eq!(parts.lend(8).len(), 8);
    assert_eq!(parts.finish(), Ok(()));
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let mask = |n, k| session().mask(CHACHA, &at(Side::Mask), n, k);
    let mut values = [7u32; 4];
    assert_eq!(mask(5, 32).add_to_u32(&mut values), Err(MaskError::Length { mask: 5, values: 4 }));
    assert_eq!(mask(3, 32).subtract_from_u32(&mut values), Err(MaskError::Length { mask: 3, values: 4 }));
    assert_eq!(mask(4, 33).add_to_u32(&mut values), Err(MaskError::Width { k: 33 }));
    assert_eq!(mask(4, 33).into_words_u32().err(), Some(MaskError::Width { k: 33 }));
    assert_eq!(values, [7; 4]);
    let mut wide = [7u64; 4];
    assert_eq!(mask(5, 52).add_to_u64(&mut wide), Err(MaskError::Length { mask: 5, values: 4 }));
    assert_eq!(wide, [7; 4]);
    let mut parts = mask(5, 32).into_parts();
    parts.add_to_u32(&mut values).unwrap();
    assert_eq!(parts.left(), 1);
    assert_eq!(parts.add_to_u32(&mut [0; 2]), Err(MaskError::Length { mask: 1, values: 2 }));
    assert_eq!(parts.finish(), Err(MaskError::Unused { left: 1 }));
}

/// Chi-square over 256 bins, 255 degrees of freedom. By the Wilson-Hilferty approximation a uniform source falls
/// outside 161..378 with probability below 2.1e-6; the seeds are fixed, so this is no matter of luck from run to run.
fn assert_uniform(bytes: impl Iterator<Item = u8>, what: &str) {
    let mut bins = [0u32; 256];
    bytes.for_each(|byte| bins[usize::from(byte)] += 1);
    let expected = f64::from(bins.iter().sum::<u32>()) / 256.0;
    let chi: f64 = bins.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
    assert!((161.0..378.0).contains(&chi), "{what}: chi-square {chi}");
}

/// 42 tests: a false alarm in a fresh choice of seeds has probability below 1e-4.
#[test]
fn masked_values_look_uniform() {
    let n = 1 << 17;
    for (k, request) in [(8, 1), (20, 2), (32, 3), (33, 4), (40, 5), (52, 6), (60, 7)] {
        for value in [0u64, u64::MAX] {
            let at = StreamAt { request, ..at(Side::Mask) };
            let mut masked = vec![value; n];
            session().mask(CHACHA, &at, n, k).add_to_u64(&mut masked).unwrap();
            for (name, shift) in [("low", 0), ("middle", (k - 8) / 2), ("high", k - 8)] {
                assert_uniform(masked.iter().map(|m| (m >> shift) as u8), &format!("{k} {value} {name}"));
            }
        }
    }
}
