#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

const DEVICE: [u8; 16] = [0x11; 16];
const BUNDLE: [u8; 32] = [0x22; 32];

fn header(first: u64, count: u64) -> PairHeader {
    let slots =
        vec![SlotBytes { slot: 1, bytes: 5 }, SlotBytes { slot: 4, bytes: 0 }, SlotBytes { slot: 9, bytes: 40 }];
    PairHeader { device: DEVICE, bundle: BUNDLE, first, count, slots }
}

fn content(request: u64) -> Vec<Vec<u8>> {
    let part = |slot: u64, n: usize| (0..n).map(|i| (request * 31 + slot * 7 + i as u64) as u8).collect();
    vec![part(1, 5), part(4, 0), part(9, 40)]
}

fn batch(dir: &Path, first: u64, count: u64) -> PathBuf {
    let mut writer = PairWriter::create(dir, header(first, count)).unwrap();
    for request in first..first + count {
        writer.push(request, &content(request)).unwrap();
    }
    writer.finish().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn open(dir: &Path) -> Result<PairStore, StoreError> {
    PairStore::open(dir, &DEVICE, &BUNDLE)
}

/// Made by `reference/keys_reference.py`.
#[test]
fn known_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let slots = vec![SlotBytes { slot: 4, bytes: 3 }];
    let header = PairHeader { device: DEVICE, bundle: BUNDLE, first: 5, count: 1, slots };
    let mut writer = PairWriter::create(dir.path(), header).unwrap();
    writer.push(5, &[vec![1, 2, 3]]).unwrap();
    let path = writer.finish().unwrap();
    let expected = "70706f6e6e782d5001000000\
        11111111111111111111111111111111\
        2222222222222222222222222222222222222222222222222222222222222222\
        0500000000000000010000000000000001000000040000000300000000000000\
        de3b98f75096cc6e13990d035e8991d3a717d945075487feb5e14fb4c99cca9c\
        010203\
        13c832f022c86f2198dc4c459e9377493ded44625d46a7bca1cb1614b431fc13";
    assert_eq!(crate::prf::Hex(&std::fs::read(&path).unwrap()).to_string(), expected);
}

#[test]
fn batches_are_read_by_request() {
    let dir = tempfile::tempdir().unwrap();
    let empty = open(dir.path()).unwrap();
    assert_eq!((empty.first(), empty.end(), empty.slots().len()), (0, 0, 0));
    assert!(matches!(empty.take(0), Err(PairError::OutOfPairs { request: 0, end: 0 })));
    batch(dir.path(), 9, 1);
    batch(dir.path(), 100, 3); // a gap between
    assert_eq!(batch(dir.path(), 2, 7).file_name().unwrap(), "2-9.pairs");
    let store = open(dir.path()).unwrap();
    assert_eq!((store.first(), store.end()), (2, 103));
    assert_eq!(store.slots(), header(0, 1).slots);
    assert_eq!([0, 4, 9, 10, 101, 103].map(|q| store.left_from(q)), [11, 9, 4, 3, 2, 0]);
    for request in (2..10).chain(100..103).rev() {
        let got = store.take(request).unwrap();
        let want: Vec<_> = [1, 4, 9].into_iter().zip(content(request)).collect();
        assert_eq!(got, want);
    }
    for request in [0, 1, 10, 99, 103, u64::MAX] {
        assert!(matches!(store.take(request), Err(PairError::OutOfPairs { end: 103, .. })), "{request}");
    }
    assert_eq!(names(dir.path()), ["100-103.pairs", "2-9.pairs", "9-10.pairs"]);
    assert!(!crate::atomic::readable_by_others(&dir.path().join("2-9.pairs")).unwrap());
}

#[test]
fn a_batch_that_is_not_finished_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let unwritable = |result: Result<_, StoreError>| matches!(result, Err(StoreError::Unwritable { .. }));
    let mut writer = PairWriter::create(dir.path(), header(3, 2)).unwrap();
    assert!(unwritable(writer.push(4, &content(4))));
    assert!(unwritable(writer.push(3, &content(3)[..2])));
    let mut wrong = content(3);
    wrong[0].push(0);
    assert!(unwritable(writer.push(3, &wrong)));
    writer.push(3, &content(3)).unwrap();
    assert_eq!(names(dir.path()).len(), 1);
    assert!(matches!(writer.finish(), Err(StoreError::Unwritable { .. })));
    assert_eq!(names(dir.path()).len(), 0);
    drop(PairWriter::create(dir.path(), header(3, 2)).unwrap());
    assert_eq!(names(dir.path()).len(), 0);
    batch(dir.path(), 3, 2);
    assert!(matches!(PairWriter::create(dir.path(), header(3, 2)), Err(StoreError::Exists { .. })));
    let missing = PairWriter::create(&dir.path().join("none"), header(3, 2));
    assert!(matches!(missing, Err(StoreError::Missing { .. })));
    let mut writer = PairWriter::create(dir.path(), header(7, 1)).unwrap();
    writer.push(7, &content(7)).unwrap();
    assert!(unwritable(writer.push(8, &content(8))));
}

#[test]
fn senseless_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut double = header(0, 1);
    double.slots[1].slot = 1;
    let mut huge = header(0, 1);
    huge.slots[0].bytes = u64::MAX;
    for header in [header(0, 0), header(u64::MAX, 2), header(1 << 62, 1), double, huge] {
        assert!(matches!(PairWriter::create(dir.path(), header), Err(StoreError::Unwritable { .. })));
    }
    assert_eq!(names(dir.path()).len(), 0);
}

#[test]
fn foreign_and_overlapping_batches_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    batch(dir.path(), 0, 4);
    let foreign = PairStore::open(dir.path(), &[0; 16], &BUNDLE);
    assert!(matches!(foreign, Err(StoreError::WrongDevice { .. })));
    let foreign = PairStore::open(dir.path(), &DEVICE, &[0; 32]);
    assert!(matches!(foreign, Err(StoreError::WrongBundle { .. })));
    batch(dir.path(), 3, 2);
    assert!(matches!(open(dir.path()), Err(StoreError::Corrupt { .. })));
    std::fs::remove_file(dir.path().join("3-5.pairs")).unwrap();
    let mut other = header(4, 1);
    other.slots.truncate(1);
    let mut writer = PairWriter::create(dir.path(), other).unwrap();
    writer.push(4, &content(4)[..1]).unwrap();
    writer.finish().unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Corrupt { .. })));
    assert!(matches!(open(&dir.path().join("none")), Err(StoreError::Missing { .. })));
}

/// Every changed byte is found when the folder is opened or when its request is read; the other requests stay good.
#[test]
fn every_cut_and_every_flip_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = batch(dir.path(), 5, 3);
    let good = std::fs::read(&path).unwrap();
    for cut in 0..good.len() {
        std::fs::write(&path, &good[..cut]).unwrap();
        assert!(open(dir.path()).is_err(), "cut at {cut}");
    }
    std::fs::write(&path, [good.as_slice(), &[0]].concat()).unwrap();
    assert!(open(dir.path()).is_err());
    let start = FIXED + 3 * 12 + 32;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        match open(dir.path()) {
            Err(_) => assert!(at < start, "flip at {at}"),
            Ok(store) => {
                let hit = 5 + ((at - start) / (45 + 32)) as u64;
                for request in 5..8 {
                    let corrupt = matches!(store.take(request), Err(PairError::Store(StoreError::Corrupt { .. })));
                    assert_eq!(corrupt, request == hit, "flip at {at}, request {request}");
                }
            }
        }
    }
}

/// A record moved to another request or another file does not pass.
#[test]
fn records_are_tied_to_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = batch(dir.path(), 5, 2);
    let mut bytes = std::fs::read(&path).unwrap();
    let (start, length) = (FIXED + 3 * 12 + 32, 45 + 32);
    let (first, second) = bytes[start..].split_at_mut(length);
    first.swap_with_slice(second);
    std::fs::write(&path, &bytes).unwrap();
    let store = open(dir.path()).unwrap();
    assert!(store.take(5).is_err() && store.take(6).is_err());
}
