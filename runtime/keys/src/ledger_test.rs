#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::sim::{Dice, SimDisk, Tear};
use std::process::Command;

const OWNER: LedgerOwner = LedgerOwner { device: [0x11; 16], bundle: [0x22; 32], installation: [0x33; 16] };

fn open(path: &Path) -> Result<Ledger, StoreError> {
    Ledger::open(path, &OWNER.device, &OWNER.bundle)
}

fn open_on(disk: &SimDisk, path: &Path) -> Result<Ledger, StoreError> {
    Ledger::open_on(disk, path, &OWNER.device, &OWNER.bundle)
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    Ledger::create(&path, &OWNER, 5).unwrap();
    (dir, path)
}

/// Made by `reference/keys_reference.py`.
#[test]
fn known_bytes() {
    let (_dir, path) = fresh();
    let expected = "70706f6e6e782d4c010000000100000000000000\
        11111111111111111111111111111111\
        2222222222222222222222222222222222222222222222222222222222222222\
        33333333333333333333333333333333\
        0500000000000000\
        c2b6e359a80d7073f7ff77faec9a3cc7b69f54d8a5df8fb6d03b1fdf4c3cffff";
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(crate::prf::Hex(&bytes[4096..]).to_string(), expected);
}

#[test]
fn a_restart_burns_the_rest_of_the_block() {
    let (_dir, path) = fresh();
    let mut ledger = open(&path).unwrap();
    assert_eq!(ledger.owner(), &OWNER);
    assert_eq!(ledger.upcoming(), 5);
    assert_eq!([ledger.next_request().unwrap(), ledger.next_request().unwrap()], [5, 6]);
    assert_eq!(ledger.upcoming(), 7);
    // A range of the caller's own is never handed out a second time.
    assert_eq!(ledger.reserve(3).unwrap(), 13..16);
    let rest: Vec<_> = (0..7).map(|_| ledger.next_request().unwrap()).collect();
    assert_eq!(rest, [7, 8, 9, 10, 11, 12, 16]);
    drop(ledger);
    let mut ledger = open(&path).unwrap();
    ledger.set_block(1).unwrap();
    assert_eq!(ledger.next_request().unwrap(), 24);
    drop(ledger);
    assert_eq!(open(&path).unwrap().upcoming(), 25);
}

#[test]
fn the_limit_keeps_later_pairs() {
    let (_dir, path) = fresh();
    let mut ledger = open(&path).unwrap();
    ledger.set_limit(8);
    let got: Vec<_> = (0..3).map(|_| ledger.next_request().unwrap()).collect();
    assert_eq!(got, [5, 6, 7]);
    assert!(matches!(ledger.next_request(), Err(LedgerError::Spent { limit: 8 })));
    assert!(matches!(ledger.reserve(1), Err(LedgerError::Spent { limit: 8 })));
    drop(ledger);
    let mut ledger = open(&path).unwrap();
    ledger.set_limit(9);
    assert_eq!(ledger.next_request().unwrap(), 8);
    assert!(matches!(ledger.reserve(0), Err(LedgerError::Block { block: 0 })));
    assert!(matches!(ledger.reserve(9), Err(LedgerError::Block { block: 9 })));
    assert!(matches!(ledger.set_block(9), Err(LedgerError::Block { block: 9 })));
}

#[test]
fn foreign_and_missing_ledgers_are_refused() {
    let (dir, path) = fresh();
    let wrong = Ledger::open(&path, &[9; 16], &OWNER.bundle).err().unwrap();
    assert!(matches!(wrong, StoreError::WrongDevice { .. }));
    let wrong = Ledger::open(&path, &OWNER.device, &[9; 32]).err().unwrap();
    assert!(matches!(wrong, StoreError::WrongBundle { .. }));
    assert!(matches!(open(&dir.path().join("none")), Err(StoreError::Missing { .. })));
    assert!(matches!(Ledger::create(&path, &OWNER, 0), Err(StoreError::Exists { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(open(&path), Err(StoreError::Truncated { .. })));
}

/// No cut is accepted; a changed byte is an error or costs one block, and never gives a used number again.
#[test]
fn cuts_and_flips() {
    let disk = SimDisk::new(0, Tear::Mix);
    let path = Path::new("/d/ledger");
    Ledger::create_on(&disk, path, &OWNER, 5).unwrap();
    let mut ledger = open_on(&disk, path).unwrap();
    let last = (0..9).map(|_| ledger.next_request().unwrap()).max().unwrap();
    drop(ledger);
    let good = disk.copy(path).unwrap();
    let open = |bytes: &[u8]| {
        disk.restore(path, bytes.to_vec());
        open_on(&disk, path)
    };
    for cut in 0..good.len() {
        assert!(matches!(open(&good[..cut]), Err(StoreError::Truncated { .. })), "cut at {cut}");
    }
    assert!(matches!(open(&[good.as_slice(), &[0]].concat()), Err(StoreError::Truncated { .. })));
    let slot = good.len() - 4096;
    let (mut refused, mut skipped) = (0, 0);
    for at in (0..slot).chain(4096..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        match open(&bad) {
            Ok(mut ledger) => {
                assert!(ledger.next_request().unwrap() > last, "flip at {at}");
                skipped += 1;
            }
            Err(_) => refused += 1,
        }
    }
    // The version bytes of both slots are refused, everything else is survived.
    assert_eq!((refused, skipped), (8, 2 * slot - 8));
    let mut bad = good.clone();
    bad[30] ^= 1;
    bad[4096 + 30] ^= 1;
    assert!(matches!(open(&bad), Err(StoreError::Corrupt { .. })));
}

/// Slots that do not follow each other: the disk lost a write that it had confirmed, so one block is skipped.
#[test]
fn a_gap_between_the_slots_costs_a_block() {
    let disk = SimDisk::new(0, Tear::Mix);
    let path = Path::new("/d/ledger");
    Ledger::create_on(&disk, path, &OWNER, 5).unwrap();
    let old = disk.copy(path).unwrap();
    let mut ledger = open_on(&disk, path).unwrap();
    let ends: Vec<u64> = (0..2).map(|_| ledger.reserve(1).unwrap().end).collect();
    drop(ledger);
    let new = disk.copy(path).unwrap();
    assert_eq!((ends, open_on(&disk, path).unwrap().upcoming()), (vec![6, 7], 7));
    disk.restore(path, [&old[..4096], &new[4096..]].concat());
    assert_eq!(open_on(&disk, path).unwrap().upcoming(), 15);
}

/// A ledger whose folder entry was not durable when it was made: opening makes it so, before any number goes out.
#[test]
fn opening_makes_the_name_durable() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed, Tear::Mix);
        let path = Path::new("/d/ledger");
        disk.light_fuse(None);
        let bytes = {
            Ledger::create_on(&disk, Path::new("/d/other"), &OWNER, 5).unwrap();
            disk.copy(Path::new("/d/other")).unwrap()
        };
        let mut file = disk.create_new(path, true).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        drop(file);
        assert!(open_on(&disk, path).unwrap().next_request().is_ok());
        disk.light_fuse(Some(0));
        assert!(disk.remove(Path::new("/d/other")).is_err());
        disk.kill();
        assert_eq!(open_on(&disk, path).unwrap().next_request().unwrap(), 13, "seed {seed}");
    }
}

/// Plays itself and a second process, which gets the path in the environment.
#[test]
fn two_processes_cannot_share_a_ledger() {
    const NAME: &str = "ledger::tests::two_processes_cannot_share_a_ledger";
    if let Some(path) = std::env::var_os("PPONNX_TEST_LEDGER") {
        let opened = open(Path::new(&path));
        let busy = matches!(opened, Err(StoreError::Busy { .. }));
        assert_eq!(busy, std::env::var_os("PPONNX_TEST_BUSY").is_some());
        assert!(busy || opened.is_ok());
        return;
    }
    let (_dir, path) = fresh();
    let child = |busy: bool| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME]).env("PPONNX_TEST_LEDGER", &path);
        if busy {
            command.env("PPONNX_TEST_BUSY", "1");
        }
        let output = command.output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    };
    let ledger = open(&path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Busy { .. })));
    child(true);
    drop(ledger);
    child(false);
}

/// One life story of a ledger on a disk that crashes. Returns whether a number came twice, or the error of an open
/// that no crash explains.
struct Story {
    repeated: bool,
    refused: bool,
    torn: u64,
    handed: u64,
    burnt: u64,
}

fn play(seed: u64, tear: Tear, failing_syncs: bool, rot: bool, lies: bool) -> Story {
    let mut dice = Dice::new(seed ^ 0xabcd);
    let disk = SimDisk::new(seed, tear);
    let path = Path::new("/d/ledger");
    let first = dice.below(20);
    Ledger::create_on(&disk, path, &OWNER, first).unwrap();
    if lies {
        disk.lie();
    }
    let mut next = first;
    let mut story = Story { repeated: false, refused: false, torn: 0, handed: 0, burnt: 0 };
    let mut hand_out = |story: &mut Story, number: u64| {
        story.repeated |= number < next;
        story.handed += 1;
        story.burnt = story.burnt.max((number + 1 - first).saturating_sub(story.handed));
        next = next.max(number + 1);
    };
    for _ in 0..2 + dice.below(5) {
        disk.light_fuse((!dice.one_in(4)).then(|| dice.below(14)));
        disk.fail_syncs((failing_syncs && dice.one_in(2)).then_some(3));
        if let Ok(mut ledger) = open_on(&disk, path) {
            assert!(ledger.set_block(1 + dice.below(MAX_BLOCK)).is_ok());
            for _ in 0..dice.below(24) {
                if dice.one_in(5) {
                    if let Ok(range) = ledger.reserve(1 + dice.below(MAX_BLOCK)) {
                        // The order of the two sources may interleave: number by number, not by maximum.
                        drop(ledger);
                        range.for_each(|number| hand_out(&mut story, number));
                        break;
                    }
                } else if let Ok(number) = ledger.next_request() {
                    hand_out(&mut story, number);
                }
            }
        }
        disk.kill();
        if rot && dice.one_in(3) {
            let slot = 4096 * dice.below(2) as usize;
            disk.rot(path, slot + dice.below(124) as usize, 1 << dice.below(8));
        }
    }
    disk.light_fuse(None);
    disk.fail_syncs(None);
    match open_on(&disk, path) {
        Ok(mut ledger) => hand_out(&mut story, ledger.next_request().unwrap()),
        Err(_) => story.refused = true,
    }
    story.torn = disk.world().torn;
    story
}

/// Crashes before, inside and after every write and sync, with torn slots: no number twice, and the ledger always
/// opens again.
#[test]
fn no_number_twice_over_crashes() {
    let (mut torn, mut handed) = (0, 0);
    for seed in 0..20_000 {
        let story = play(seed, Tear::Mix, false, false, false);
        assert!(!story.repeated && !story.refused, "seed {seed}");
        assert!(story.burnt <= 8 * 3 * 7, "seed {seed}: {} burnt", story.burnt);
        (torn, handed) = (torn + story.torn, handed + story.handed);
    }
    assert!(torn > 2_000 && handed > 200_000, "the schedules are too tame: {torn} torn, {handed} handed out");
}

/// The same with syncs that fail, garbage in torn slots, and a slot that rots at rest: it may refuse to open, and
/// still never gives a number twice.
#[test]
fn no_number_twice_over_worse_disks() {
    let mut refused = 0;
    for seed in 0..20_000 {
        let story = play(seed, Tear::Garbage, seed % 2 == 0, seed % 3 == 0, false);
        assert!(!story.repeated, "seed {seed}");
        refused += u64::from(story.refused);
    }
    assert!(refused < 4_000, "{refused}");
}

#[test]
fn failing_syncs_alone_never_lose_the_ledger() {
    for seed in 0..5_000 {
        let story = play(seed, Tear::Mix, true, false, false);
        assert!(!story.repeated && !story.refused, "seed {seed}");
    }
}

/// The simulation can fail: on a disk that says it synced and did not, numbers repeat.
#[test]
fn a_lying_disk_is_found_out() {
    let repeated = (0..2_000).filter(|&seed| play(seed, Tear::Mix, false, false, true).repeated).count();
    assert!(repeated > 100, "{repeated}");
}

#[test]
fn after_a_failed_write_nothing_is_handed_out() {
    let disk = SimDisk::new(1, Tear::Mix);
    let path = Path::new("/d/ledger");
    Ledger::create_on(&disk, path, &OWNER, 0).unwrap();
    let mut ledger = open_on(&disk, path).unwrap();
    disk.fail_syncs(Some(1));
    assert!(matches!(ledger.next_request(), Err(LedgerError::Store(StoreError::Io { action: "sync", .. }))));
    disk.fail_syncs(None);
    assert!(matches!(ledger.next_request(), Err(LedgerError::Store(StoreError::Poisoned { .. }))));
    disk.kill();
    assert!(open_on(&disk, path).unwrap().next_request().is_ok());
}

#[test]
fn a_mark_ahead_of_the_ledger_is_a_rollback() {
    let (_dir, path) = fresh();
    let backup = std::fs::read(&path).unwrap();
    let mut ledger = open(&path).unwrap();
    let served = ledger.next_request().unwrap();
    assert!(ledger.require_ahead_of(None).is_ok());
    assert!(ledger.require_ahead_of(Some(served)).is_ok());
    drop(ledger);
    std::fs::write(&path, backup).unwrap();
    let ledger = open(&path).unwrap();
    let error = ledger.require_ahead_of(Some(served)).unwrap_err();
    assert!(matches!(error, LedgerError::RolledBack { mark: 5, next: 5 }));
}
