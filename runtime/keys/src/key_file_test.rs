#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::prf::{SessionKey, SessionNonce};
use crate::sim::{Dice, SimDisk, Tear};
use std::collections::HashSet;

const DEVICE: [u8; 16] = [0x11; 16];
const BUNDLE: [u8; 32] = [0x22; 32];

fn key_file(seed: u8) -> KeyFile {
    KeyFile { device: DEVICE, bundle: BUNDLE, key: EpochKey::first(&[seed; 32]) }
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device.key");
    key_file(1).create(&path).unwrap();
    (dir, path)
}

/// Made by `reference/keys_reference.py`: `K_0` = 00 01 .. 1f, advanced once.
#[test]
fn known_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device.key");
    let first: Vec<u8> = (0..32).collect();
    let key = EpochKey::first(first.first_chunk().unwrap());
    KeyFile { device: DEVICE, bundle: BUNDLE, key }.create(&path).unwrap();
    KeyFile::advance(&path).unwrap();
    let expected = "70706f6e6e782d4b01000000\
        11111111111111111111111111111111\
        2222222222222222222222222222222222222222222222222222222222222222\
        0100000000000000\
        8c19bbdbe0148109f409815dfa1f19ef47cf37c3c8ff83702c5ef2006c62932d\
        aa8dfe67b24a7d0a6fefecd9da8837f9f343efcd708cd9d987cd1ebf31595458";
    assert_eq!(Hex(&std::fs::read(&path).unwrap()).to_string(), expected);
}

#[test]
fn device_and_edge_keep_step() {
    let (dir, device) = fresh();
    let edge = dir.path().join(KeyFile::name_for(&DEVICE));
    assert!(edge.ends_with("11111111111111111111111111111111.key"));
    key_file(1).create(&edge).unwrap();
    assert!(matches!(key_file(1).create(&edge), Err(StoreError::Exists { .. })));
    for epoch in 1..4 {
        let ours = KeyFile::advance(&device).unwrap();
        assert_eq!(ours.key.epoch(), epoch);
        if epoch == 2 {
            continue; // a start that never reached edge B
        }
        let theirs = KeyFile::accept(&edge, epoch).unwrap();
        assert_eq!((theirs.key.epoch(), theirs.key.bytes()), (epoch, ours.key.bytes()));
        let again = KeyFile::accept(&edge, epoch).err().unwrap();
        assert!(matches!(again, AcceptError::Behind { asked, highest } if asked == epoch && highest == epoch));
    }
    let read = KeyFile::read(&device).unwrap();
    assert_eq!(read.key.epoch(), 3);
    read.require(&device, &DEVICE, &BUNDLE).unwrap();
    assert!(matches!(read.require(&device, &[0; 16], &BUNDLE), Err(StoreError::WrongDevice { .. })));
    assert!(matches!(read.require(&device, &DEVICE, &[0; 32]), Err(StoreError::WrongBundle { .. })));
    assert!(!crate::atomic::readable_by_others(&device).unwrap());
}

#[test]
fn a_restored_device_catches_up() {
    let (dir, device) = fresh();
    let edge = dir.path().join("edge.key");
    key_file(1).create(&edge).unwrap();
    let backup = std::fs::read(&device).unwrap();
    for _ in 0..5 {
        let epoch = KeyFile::advance(&device).unwrap().key.epoch();
        KeyFile::accept(&edge, epoch).unwrap();
    }
    std::fs::write(&device, backup).unwrap();
    let stale = KeyFile::advance(&device).unwrap().key.epoch();
    let Err(AcceptError::Behind { highest, .. }) = KeyFile::accept(&edge, stale) else { panic!("accepted a replay") };
    let caught_up = KeyFile::advance_past(&device, highest).unwrap();
    assert_eq!(caught_up.key.epoch(), 6);
    assert_eq!(KeyFile::accept(&edge, 6).unwrap().key.bytes(), caught_up.key.bytes());
    assert!(matches!(KeyFile::advance_past(&device, 3), Err(AcceptError::Behind { asked: 4, highest: 6 })));
}

#[test]
fn a_far_jump_is_refused_and_changes_nothing() {
    let (_dir, path) = fresh();
    let before = std::fs::read(&path).unwrap();
    for epoch in [MAX_JUMP + 1, u64::MAX] {
        assert!(matches!(KeyFile::accept(&path, epoch), Err(AcceptError::TooFar { highest: 0, .. })));
    }
    assert!(matches!(KeyFile::advance_past(&path, u64::MAX), Err(AcceptError::TooFar { .. })));
    assert!(matches!(KeyFile::accept(&path, 0), Err(AcceptError::Behind { highest: 0, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(KeyFile::accept(&path, 1000).unwrap().key.epoch(), 1000);
}

#[test]
fn every_cut_and_every_flip_is_refused() {
    let (_dir, path) = fresh();
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good.len() as u64, LENGTH);
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        KeyFile::read(&path).is_err() && KeyFile::advance(&path).is_err() && KeyFile::accept(&path, 9).is_err()
    };
    for cut in 0..good.len() {
        assert!(refused(&good[..cut]), "cut at {cut}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(refused(&bad), "flip at {at}");
    }
    assert!(refused(&[good.as_slice(), &[0]].concat()));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(KeyFile::advance(&path), Err(StoreError::Missing { .. })));
}

#[test]
fn messages_name_the_file_and_hide_the_key() {
    let (_dir, path) = fresh();
    let mut bad = std::fs::read(&path).unwrap();
    bad[80] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let error = KeyFile::read(&path).err().unwrap();
    let text = format!("{error} {error:?}");
    assert!(text.contains("device.key") && text.contains("pponnx keygen"), "{text}");
    assert!(!text.contains("010101"), "{text}");
}

#[test]
fn threads_never_get_one_epoch_twice() {
    let (_dir, path) = fresh();
    let epochs: Vec<u64> = std::thread::scope(|scope| {
        let step = || (0..5).map(|_| KeyFile::advance(&path).unwrap().key.epoch()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(step)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = epochs;
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=20).collect::<Vec<_>>());
}

/// Device and edge B crash anywhere, the device is restored from backups, and its random source may be stuck: with an
/// honest edge B no session key comes twice, so no tuple masks two values. And with a working random source none
/// comes twice even if edge B's memory of epochs is restored from a backup.
#[test]
fn no_session_key_twice() {
    let (device_path, edge_path) = (Path::new("/d/device.key"), Path::new("/b/11.key"));
    let (mut opened, mut caught_up) = (0u64, 0u64);
    for seed in 0..25_000u64 {
        let mut dice = Dice::new(seed);
        let device = SimDisk::new(seed.wrapping_mul(2), Tear::Garbage);
        let edge = SimDisk::new(seed.wrapping_mul(2) + 1, Tear::Garbage);
        for (disk, path) in [(&device, device_path), (&edge, edge_path)] {
            key_file(1).replace(disk, At { path, kind: FileKind::Key }).unwrap();
        }
        let stuck = dice.one_in(2);
        let (mut device_backup, mut edge_backup) = (device.copy(device_path).unwrap(), edge.copy(edge_path).unwrap());
        let mut sids = HashSet::new();
        for start in 0..4u64 {
            device.light_fuse(dice.one_in(3).then(|| dice.below(6)));
            edge.light_fuse(dice.one_in(3).then(|| dice.below(6)));
            let mut nonce = SessionNonce([0; 32]);
            if !stuck {
                nonce.0[..8].copy_from_slice(&start.to_le_bytes());
            }
            let mut ours = KeyFile::advance_on(&device, device_path).ok();
            if let Some(file) = &ours {
                match KeyFile::accept_on(&edge, edge_path, file.key.epoch()) {
                    Ok(_) => {}
                    Err(AcceptError::Behind { highest, .. }) => {
                        ours = KeyFile::accept_on(&device, device_path, highest + 1).ok();
                        ours = ours.filter(|file| KeyFile::accept_on(&edge, edge_path, file.key.epoch()).is_ok());
                        caught_up += u64::from(ours.is_some());
                    }
                    Err(AcceptError::TooFar { .. } | AcceptError::Store(_)) => ours = None,
                }
            }
            if let Some(file) = ours {
                opened += 1;
                let sid = SessionKey::session(&file.key, &nonce).sid();
                assert!(sids.insert(sid), "seed {seed}, start {start}: a session key came twice");
            }
            device.kill();
            edge.kill();
            match dice.below(4) {
                0 => device_backup = device.copy(device_path).unwrap(),
                1 => device.restore(device_path, device_backup.clone()),
                2 if !stuck => edge_backup = edge.copy(edge_path).unwrap(),
                _ if !stuck => edge.restore(edge_path, edge_backup.clone()),
                _ => {}
            }
        }
        assert!(KeyFile::advance_on(&device, device_path).is_ok(), "seed {seed}: the device's key file is lost");
        assert!(KeyFile::accept_on(&edge, edge_path, 20).is_ok(), "seed {seed}: the edge's key file is lost");
    }
    assert!(opened > 40_000 && caught_up > 2_000, "too tame: {opened} opened, {caught_up} caught up");
}
