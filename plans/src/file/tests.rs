//! Tests of the plan file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::constant::ConstDecl;
use crate::op::Op;
use crate::sample;
use crate::value::{DType, Shape};
use proptest::prelude::*;

fn sample_file(role: Role) -> Vec<u8> {
    let (bundle, store) = sample::relay();
    write(&bundle, role, &store).unwrap()
}

fn refused(bytes: &[u8]) -> FormatError {
    read(bytes).err().expect("the bytes were read")
}

/// The file with its length and checksum made to fit again, as a faulty or hostile writer would.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&len.to_le_bytes());
    let sealed = bytes.len() - TRAILER;
    let checksum = blake3::hash(&bytes[..sealed]);
    bytes[sealed..].copy_from_slice(checksum.as_bytes());
    bytes
}

/// Where the constants begin: the position of their count.
fn count_at(bytes: &[u8]) -> usize {
    HEAD + 8 + u64::from_le_bytes(bytes[HEAD..HEAD + 8].try_into().unwrap()) as usize
}

#[test]
fn each_role_finds_its_own_constants() {
    let (bundle, store) = sample::relay();
    for role in Role::ALL {
        let file = read(&sample_file(role)).unwrap();
        assert_eq!((file.role, &file.bundle), (role, &bundle));
        let mut wanted: Vec<_> =
            bundle.constants_of(role).iter().map(|id| bundle.constants[id.index()].digest).collect();
        wanted.sort_unstable();
        assert_eq!(file.constants.iter().map(|(d, _)| *d).collect::<Vec<_>>(), wanted);
        for (digest, size) in file.constants.iter() {
            let blob = file.constants.load(digest).unwrap();
            assert_eq!((store.load(digest).unwrap(), blob.len() as u64), (blob, size));
        }
    }
}

#[test]
fn the_device_file_holds_no_weights() {
    let weights: Vec<u8> = [1i16, -2, 3, -4].iter().flat_map(|w| w.to_le_bytes()).collect();
    let has = |role| sample_file(role).windows(weights.len()).any(|w| w == weights);
    assert!(has(Role::EdgeA) && has(Role::EdgeB));
    assert!(!has(Role::Device));
}

#[test]
fn a_cut_file_is_truncated_at_any_length() {
    let bytes = sample_file(Role::Device);
    for at in 0..bytes.len() {
        assert_eq!(refused(&bytes[..at]), FormatError::Truncated { at }, "cut to {at} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(refused(&longer), FormatError::Corrupt(_)));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = sample_file(Role::EdgeA);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[at] ^= 1 << bit;
            let error = refused(&other);
            match at {
                0..8 => assert_eq!(error, FormatError::NotAPlan),
                8..12 => assert!(matches!(error, FormatError::Version { supported: FORMAT, .. })),
                16..24 => assert!(matches!(error, FormatError::Truncated { .. } | FormatError::Corrupt(_))),
                _ => assert_eq!(error, corrupt("its checksum does not fit".into())),
            }
        }
    }
}

#[test]
fn behind_a_fitting_checksum_nothing_is_believed_either() {
    let bytes = sample_file(Role::EdgeA);
    for at in HEAD..bytes.len() - TRAILER {
        let mut other = bytes.clone();
        other[at] ^= 1;
        // The bundle may still be one, with another name or width; constants and lengths may not change.
        match read(&resealed(other)) {
            Ok(file) => {
                assert!((HEAD + 8..count_at(&bytes)).contains(&at), "a change of byte {at} was read");
                assert_ne!(file.bundle, sample::relay().0);
            }
            Err(error) => assert!(!matches!(error, FormatError::Truncated { .. }), "byte {at}: {error}"),
        }
    }
}

#[test]
fn a_constant_with_other_bytes_or_size_is_refused() {
    let bytes = sample_file(Role::EdgeA);
    let blob = count_at(&bytes) + 8 + 32 + 8;
    let mut other = bytes.clone();
    other[blob] ^= 1;
    assert!(matches!(refused(&resealed(other)), FormatError::ConstantMismatch { what, .. } if what.contains("digest")));

    let mut longer = bytes.clone();
    longer.insert(blob, 0);
    longer[blob - 8] += 1;
    assert!(matches!(refused(&resealed(longer)), FormatError::ConstantMismatch { what, .. } if what.contains("25")));
}

#[test]
fn constants_too_many_or_of_another_role_are_refused() {
    let bytes = sample_file(Role::EdgeA);
    let mut more = bytes.clone();
    more[count_at(&bytes)] = 2;
    assert!(refused(&resealed(more)).to_string().contains("holds 2 constants, and the role edge-a reads 1"));

    // Offline reads what edge A reads: only the role differs, and that is a lawful file.
    let mut offline = bytes.clone();
    offline[12] = 0;
    assert_eq!(resealed(offline), sample_file(Role::Offline));
    let mut device = bytes.clone();
    device[12] = 1;
    assert!(refused(&resealed(device)).to_string().contains("holds 1 constants, and the role device reads 3"));
    let mut nobody = bytes.clone();
    nobody[12] = 4;
    assert_eq!(refused(&resealed(nobody)), FormatError::Unknown { what: "role", code: 4 });

    let mut tail = bytes.clone();
    let end = tail.len() - TRAILER;
    tail.insert(end, 0);
    assert!(refused(&resealed(tail)).to_string().contains("behind the last constant"));
}

#[test]
fn announced_lengths_do_not_allocate() {
    for at in [HEAD, count_at(&sample_file(Role::EdgeA)), count_at(&sample_file(Role::EdgeA)) + 8 + 32] {
        let mut bytes = sample_file(Role::EdgeA);
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(refused(&resealed(bytes)), FormatError::Corrupt(_) | FormatError::ConstantMismatch { .. }));
    }
}

#[test]
fn other_files_are_told_apart() {
    assert_eq!(refused(b"\x08\x01 an ONNX file"), FormatError::NotAPlan);
    assert_eq!(refused(b"PPONNXPX"), FormatError::NotAPlan);
    assert_eq!(refused(b""), FormatError::Truncated { at: 0 });
    let mut later = sample_file(Role::Device);
    later[8] = 2;
    assert_eq!(refused(&later), FormatError::Version { found: 2, supported: FORMAT });
}

#[test]
fn writing_names_what_the_store_lacks() {
    let (bundle, _) = sample::relay();
    let error = write(&bundle, Role::EdgeB, &ConstStore::new()).unwrap_err();
    assert!(matches!(error, FormatError::ConstantMissing { id: ConstId(0), .. }), "{error}");
}

#[test]
fn writing_checks_what_the_bundle_declares() {
    let (mut bundle, store) = sample::relay();
    bundle.constants[0].shape = Shape(vec![3, 5]);
    let error = write(&bundle, Role::EdgeB, &store).unwrap_err();
    assert!(matches!(&error, FormatError::ConstantMismatch { what, .. } if what.contains("30")), "{error}");
    // An absurd shape saturates and stays refused.
    bundle.constants[0].shape = Shape(vec![usize::MAX, 4]);
    assert!(write(&bundle, Role::EdgeB, &store).is_err());
    bundle.constants.clear();
    assert!(matches!(write(&bundle, Role::EdgeB, &store), Err(FormatError::Corrupt(_))));
}

#[test]
fn equal_constants_are_stored_once() {
    let (mut bundle, store) = sample::relay();
    let twin = ConstDecl { dtype: DType::U8, shape: Shape(vec![24]), ..bundle.constants[1] };
    bundle.constants.push(twin);
    let device = bundle.programs.iter_mut().find(|p| p.role == Role::Device).unwrap();
    let local = device.steps.iter_mut().find(|s| matches!(s.op, Op::Local { .. })).unwrap();
    local.op = Op::Local { model: ConstId(4), inputs: Vec::new() };
    let file = read(&write(&bundle, Role::Device, &store).unwrap()).unwrap();
    assert_eq!((file.bundle.constants_of(Role::Device).len(), file.constants.len()), (3, 2));

    // One digest cannot have two sizes.
    bundle.constants[4].shape = Shape(vec![23]);
    assert!(matches!(write(&bundle, Role::Device, &store), Err(FormatError::Corrupt(_))));
}

/// A file whose bytes change, or that ends, after it was opened.
struct Shifty(Vec<u8>, std::sync::Mutex<Option<usize>>);

impl ReadAt for Shifty {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let mut bytes = self.0.clone();
        match *self.1.lock().unwrap() {
            Some(at) if at >= bytes.len() => bytes.truncate(at - bytes.len()),
            Some(at) => bytes[at] ^= 1,
            None => {}
        }
        bytes.read_at(buf, offset)
    }
}

#[test]
fn what_changes_behind_the_first_look_is_noticed() {
    let bytes = sample_file(Role::EdgeA);
    let blob = count_at(&bytes) + 8 + 32 + 8;
    for (change, wanted) in [(blob, ConstError::Changed), (bytes.len() + blob, ConstError::Unreadable(String::new()))] {
        let shifty = Arc::new(Shifty(bytes.clone(), std::sync::Mutex::new(None)));
        let file = open(Arc::clone(&shifty) as Arc<dyn ReadAt>, bytes.len() as u64).unwrap();
        assert!(file.verify().is_ok());
        *shifty.1.lock().unwrap() = Some(change);
        let digest = *file.constants.iter().next().unwrap().0;
        let error = file.constants.load(&digest).unwrap_err();
        assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&wanted), "{error}");
        assert!(file.verify().is_err());
        assert!(write(&file.bundle, Role::EdgeA, &file.constants).is_err());
    }
}

#[test]
fn large_constants_are_read_in_pieces() {
    let mut store = ConstStore::new();
    let bytes: Vec<u8> = (0..2 * PIECE + 3).map(|i| (i % 251) as u8).collect();
    let digest = store.insert(bytes.clone());
    let mut stored = ConstStore::new();
    let place = [&[7; 5][..], &bytes].concat();
    stored.insert_stored(digest, Arc::new(place), 5, bytes.len() as u64);
    assert_eq!(stored.load(&digest), Ok(Arc::new(bytes)));
    assert_eq!(stored.load(&[0; 32]), Err(ConstError::Missing));
    stored.merge(store);
    assert_eq!((stored.len(), stored.size(&digest)), (1, Some(2 * PIECE as u64 + 3)));
}

proptest! {
    #[test]
    fn sealed_garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..200), role in 0..6u32) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(role.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes.extend([0; TRAILER]);
        prop_assert!(read(&resealed(bytes)).is_err());
    }

    #[test]
    fn bundles_of_any_content_come_back_or_are_refused(bundle in sample::bundle()) {
        for role in Role::ALL {
            if let Ok(bytes) = write(&bundle, role, &ConstStore::new()) {
                let file = read(&bytes).ok().unwrap();
                prop_assert_eq!((file.role, &file.bundle), (role, &bundle));
            }
        }
    }
}
