#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

fn rising(from: u8) -> [u8; 32] {
    std::array::from_fn(|i| from + i as u8)
}

/// Made by `reference/keys_reference.py`, a second implementation of BLAKE3 and ChaCha20.
#[test]
fn known_answers() {
    let first = EpochKey::first(&rising(0));
    let dealt = SessionKey::dealt(&first);
    assert_eq!(Hex(&dealt.sid()).to_string(), "31edb7e02d0ee9f1095fc96c8c64074d");
    let one = first.ratchet();
    assert_eq!(one.epoch(), 1);
    assert_eq!(Hex(one.bytes()).to_string(), "8c19bbdbe0148109f409815dfa1f19ef47cf37c3c8ff83702c5ef2006c62932d");
    let two = one.ratchet();
    assert_eq!(Hex(two.bytes()).to_string(), "a6f1abe24aaa773a2aec9c0471efbec4e92f26b024b11c5c3e65db5c646bc3ca");
    let session = SessionKey::session(&two, &SessionNonce(rising(32)));
    assert_eq!(Hex(&session.sid()).to_string(), "b952a6ac6a89520dae7cffe10974810d");
}

#[test]
fn ratchet_to_goes_forward_only() {
    let key = EpochKey::first(&rising(0)).ratchet_to(2, 2).unwrap();
    assert_eq!((key.epoch(), Hex(key.bytes()).to_string().get(..8)), (2, Some("a6f1abe2")));
    let same = key.duplicate().ratchet_to(2, 0).unwrap();
    assert_eq!(same.bytes(), key.bytes());
    assert_eq!(key.duplicate().ratchet_to(1, 9).err(), Some(RatchetError::Behind { at: 2, asked: 1 }));
    let far = RatchetError::TooFar { at: 2, asked: 5, max_steps: 2 };
    assert_eq!(key.ratchet_to(5, 2).err(), Some(far));
}

#[test]
fn every_input_of_a_session_changes_it() {
    let key = || EpochKey::first(&rising(0));
    let nonce = SessionNonce(rising(1));
    let sids = [
        SessionKey::session(&key(), &nonce).sid(),
        SessionKey::session(&key().ratchet(), &nonce).sid(),
        SessionKey::session(&EpochKey::first(&rising(9)), &nonce).sid(),
        SessionKey::session(&key(), &SessionNonce(rising(2))).sid(),
        SessionKey::dealt(&key()).sid(),
        SessionKey::dealt(&key().ratchet()).sid(),
    ];
    for (i, a) in sids.iter().enumerate() {
        assert!(sids[i + 1..].iter().all(|b| a != b), "{i}");
    }
}

#[test]
fn secrets_are_wiped() {
    let mut secret = Secret32::new(&rising(1));
    secret.zeroize();
    assert_eq!(secret.bytes(), &[0; 32]);
    assert!(std::mem::needs_drop::<Secret32>());
}

/// `Type: !Trait`, at compile time: two candidates make the call ambiguous if the type has the trait.
macro_rules! assert_not {
    ($($kind:ty),* ; $bound:path) => {$(
        const _: fn() = || {
            trait Ambiguous<A> {
                fn probe() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct Other;
            impl<T: ?Sized + $bound> Ambiguous<Other> for T {}
            let _ = <$kind as Ambiguous<_>>::probe;
        };
    )*};
}

use crate::{CheckData, CheckSecret, KeyFile, MapCheck, MaskParts};

assert_not!(EpochKey, SessionNonce, SessionKey, Secret32, Mask, MaskParts, CheckSecret, CheckData, MapCheck, KeyFile; Clone);
assert_not!(EpochKey, SessionNonce, SessionKey, Secret32, Mask, MaskParts, CheckSecret, CheckData, MapCheck, KeyFile; fmt::Debug);
