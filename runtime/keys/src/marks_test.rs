#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::ledger::{Ledger, LedgerOwner};
use crate::sim::{Dice, SimDisk, Tear};
use std::collections::HashSet;

const A: [u8; 16] = [0xaa; 16];
const B: [u8; 16] = [0xbb; 16];

#[test]
fn marks_only_rise_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("marks");
    assert!(matches!(Marks::open(&dir), Err(StoreError::Missing { .. })));
    let marks = Marks::create(&dir).unwrap();
    assert_eq!(marks.mark(&A).unwrap(), None);
    marks.check_and_raise(&A, 0).unwrap();
    marks.check_and_raise(&A, 7).unwrap();
    marks.check_and_raise(&B, 3).unwrap();
    for stale in [0, 6, 7] {
        let error = marks.check_and_raise(&A, stale).unwrap_err();
        assert!(matches!(error, MarkError::Stale { request, mark: 7 } if request == stale));
    }
    assert!(matches!(Marks::open(&dir), Err(StoreError::Busy { .. })));
    drop(marks);
    let marks = Marks::open(&dir).unwrap();
    assert_eq!((marks.mark(&A).unwrap(), marks.mark(&B).unwrap()), (Some(7), Some(3)));
    assert!(marks.check_and_raise(&A, 7).is_err());
    marks.check_and_raise(&A, 8).unwrap();
    assert_eq!(marks.mark(&A).unwrap(), Some(8));
}

#[test]
fn threads_never_pass_one_request_twice() {
    let dir = tempfile::tempdir().unwrap();
    let marks = Marks::create(dir.path()).unwrap();
    let passed: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..30).filter(|&q| marks.check_and_raise(&A, q).is_ok()).collect::<Vec<u64>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: HashSet<_> = passed.iter().collect();
    assert_eq!(distinct.len(), passed.len());
    assert_eq!(marks.mark(&A).unwrap(), Some(29));
}

/// A changed byte is an error or leaves the record before it; a cut is an error.
#[test]
fn cuts_and_flips() {
    let disk = SimDisk::new(0, Tear::Mix);
    let dir = Path::new("/a/marks");
    let path = dir.join(format!("{}.mark", Hex(&A)));
    let marks = Marks::open_on(Arc::new(disk.clone()), dir).unwrap();
    marks.check_and_raise(&A, 10).unwrap();
    marks.check_and_raise(&A, 20).unwrap();
    drop(marks);
    let good = disk.copy(&path).unwrap();
    let read = |bytes: &[u8]| {
        disk.restore(&path, bytes.to_vec());
        Marks::open_on(Arc::new(disk.clone()), dir).unwrap().mark(&A)
    };
    for cut in 0..good.len() {
        assert!(matches!(read(&good[..cut]), Err(StoreError::Truncated { .. })), "cut at {cut}");
    }
    for at in (0..good.len() - 4096).chain(4096..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let version = matches!(at % 4096, 8..12);
        match read(&bad) {
            Ok(Some(mark)) => assert_eq!((mark, version), (if at < 4096 { 10 } else { 20 }, false), "flip at {at}"),
            Ok(None) => panic!("flip at {at}: the mark is forgotten"),
            Err(_) => assert!(version, "flip at {at}"),
        }
    }
    disk.restore(&dir.join(format!("{}.mark", Hex(&B))), good);
    let marks = Marks::open_on(Arc::new(disk), dir).unwrap();
    assert!(matches!(marks.mark(&B), Err(StoreError::WrongDevice { .. })));
    assert!(matches!(marks.check_and_raise(&B, 100), Err(MarkError::Store(StoreError::WrongDevice { .. }))));
}

/// Edge A crashes anywhere, the device's ledger crashes and is restored from backups: edge A never serves one
/// request twice.
#[test]
fn no_request_is_served_twice() {
    let owner = LedgerOwner { device: A, bundle: [2; 32], installation: [3; 16] };
    let (path, dir) = (Path::new("/d/ledger"), Path::new("/a/marks"));
    let (mut served_in_all, mut stale) = (0, 0);
    for seed in 0..20_000u64 {
        let mut dice = Dice::new(seed);
        let device = SimDisk::new(seed.wrapping_mul(2), Tear::Mix);
        let edge = SimDisk::new(seed.wrapping_mul(2) + 1, Tear::Mix);
        Ledger::create_on(&device, path, &owner, 0).unwrap();
        let mut backup = device.copy(path).unwrap();
        let mut served = HashSet::new();
        for _ in 0..4 {
            device.light_fuse(dice.one_in(2).then(|| dice.below(10)));
            edge.light_fuse(dice.one_in(2).then(|| dice.below(20)));
            edge.fail_syncs(dice.one_in(4).then_some(3));
            let ledger = Ledger::open_on(&device, path, &owner.device, &owner.bundle);
            let marks = Marks::open_on(Arc::new(edge.clone()), dir);
            if let (Ok(mut ledger), Ok(marks)) = (ledger, marks) {
                for _ in 0..dice.below(12) {
                    let Ok(request) = ledger.next_request() else { break };
                    match marks.check_and_raise(&owner.device, request) {
                        Ok(()) => assert!(served.insert(request), "seed {seed}: request {request} served twice"),
                        Err(MarkError::Stale { .. }) => stale += 1,
                        Err(MarkError::Store(_)) => {}
                    }
                }
            }
            device.kill();
            edge.kill();
            match dice.below(4) {
                0 => backup = device.copy(path).unwrap(),
                1 => device.restore(path, backup.clone()),
                _ => {}
            }
        }
        served_in_all += served.len();
        edge.light_fuse(None);
        edge.fail_syncs(None);
        let marks = Marks::open_on(Arc::new(edge.clone()), dir).unwrap();
        assert!(marks.mark(&owner.device).unwrap() >= served.iter().max().copied(), "seed {seed}");
    }
    assert!(served_in_all > 50_000 && stale > 5_000, "too tame: {served_in_all} served, {stale} stale");
}
