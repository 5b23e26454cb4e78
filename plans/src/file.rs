//! The plan file: all programs of a bundle and the constants that one role reads.
//!
//! Every role gets the same bundle, so that all compute the same digest, and only its own constants: the device gets
//! no weights. `FORMAT.md` has the layout.

use std::collections::BTreeMap;

use crate::binary::{self, FORMAT, Hex};
use crate::constant::{ConstStore, Digest};
use crate::plan::Bundle;
use crate::value::{ConstId, Role};

pub use crate::binary::FormatError;

/// The first eight bytes of a plan file.
pub const MAGIC: [u8; 8] = *b"PPONNXPL";

/// Bytes of the checksum at the end of the file: BLAKE3 over everything before it.
const TRAILER: usize = 32;

/// Magic, version, role, length of the file.
const HEAD: usize = 8 + 4 + 4 + 8;

/// What a plan file holds.
pub struct PlanFile {
    /// Whose file it is.
    pub role: Role,
    /// The whole bundle, not yet validated.
    pub bundle: Bundle,
    /// The constants that the role reads ([`Bundle::constants_of`]), no more and no fewer, each with the digest and
    /// the size that the bundle declares.
    pub constants: ConstStore,
}

/// The plan file of a role.
///
/// # Errors
/// [`FormatError::ConstantMissing`] if the store lacks a constant the role reads, [`FormatError::ConstantMismatch`] if
/// its size is not the declared one, [`FormatError::TooLarge`] if the bundle is above the limits of [`binary`].
pub fn write(bundle: &Bundle, role: Role, constants: &ConstStore) -> Result<Vec<u8>, FormatError> {
    let encoded = binary::encode(bundle);
    binary::check_limits(&encoded)?;
    let declared = declared(bundle, role)?;

    let mut blobs = Vec::with_capacity(declared.len());
    for (digest, (id, bytes)) in &declared {
        let missing = || FormatError::ConstantMissing { id: *id, digest: Hex(*digest) };
        let blob = constants.get(digest).ok_or_else(missing)?;
        check_size(digest, blob.len() as u64, *bytes)?;
        blobs.push((digest, blob));
    }

    let body: usize = blobs.iter().map(|(_, blob)| 32 + 8 + blob.len()).sum();
    let len = HEAD + 8 + encoded.len() + 8 + body + TRAILER;
    let mut out = Vec::with_capacity(len);
    out.extend(MAGIC);
    out.extend(FORMAT.to_le_bytes());
    out.extend(role_code(role).to_le_bytes());
    out.extend((len as u64).to_le_bytes());
    out.extend((encoded.len() as u64).to_le_bytes());
    out.extend(&encoded);
    out.extend((blobs.len() as u64).to_le_bytes());
    for (digest, blob) in blobs {
        out.extend(digest);
        out.extend((blob.len() as u64).to_le_bytes());
        out.extend(blob.as_slice());
    }
    out.extend(blake3::hash(&out).as_bytes());
    Ok(out)
}

/// Reads a plan file and verifies every byte of it: the checksum, the bundle's spelling, and digest and size of each
/// constant. Allocates no more than the input's length and what [`binary::decode`] allows.
///
/// # Errors
/// [`FormatError::NotAPlan`] for another kind of file, [`FormatError::Version`], [`FormatError::Truncated`],
/// [`FormatError::ConstantMismatch`], and [`FormatError::Corrupt`] or an error of [`binary::decode`] for the rest.
pub fn read(bytes: &[u8]) -> Result<PlanFile, FormatError> {
    let (sealed, role) = open(bytes)?;
    let mut reader = Reader { rest: sealed };
    let bundle_len = reader.u64()?;
    let bundle = binary::decode(reader.take(bundle_len)?)?;
    let declared = declared(&bundle, role)?;

    let count = reader.u64()?;
    if count != declared.len() as u64 {
        let wanted = declared.len();
        return Err(corrupt(format!("it holds {count} constants, and the role {role} reads {wanted}")));
    }
    let mut constants = ConstStore::new();
    for (digest, (id, size)) in &declared {
        let found: Digest = *reader.array()?;
        if found != *digest {
            let (found, digest) = (Hex(found), Hex(*digest));
            return Err(corrupt(format!("the constant {found} stands where {id}, {digest}, should")));
        }
        let len = reader.u64()?;
        check_size(digest, len, *size)?;
        if constants.insert(reader.take(len)?.to_vec()) != *digest {
            let what = "its bytes have another digest".into();
            return Err(FormatError::ConstantMismatch { digest: Hex(*digest), what });
        }
    }
    if !reader.rest.is_empty() {
        return Err(corrupt(format!("{} bytes stand behind the last constant", reader.rest.len())));
    }
    Ok(PlanFile { role, bundle, constants })
}

/// Checks magic, version, length and checksum. Gives what stands between head and checksum, and the role.
fn open(bytes: &[u8]) -> Result<(&[u8], Role), FormatError> {
    // A file cut within its magic is still told from another kind of file.
    let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if !MAGIC.starts_with(magic) {
        return Err(FormatError::NotAPlan);
    }
    let truncated = FormatError::Truncated { at: bytes.len() };
    let head = bytes.get(MAGIC.len()..).unwrap_or_default();
    let mut reader = Reader { rest: head };
    let found = reader.u32().map_err(|_| truncated.clone())?;
    if found != FORMAT {
        return Err(FormatError::Version { found, supported: FORMAT });
    }
    let code = reader.u32().map_err(|_| truncated.clone())?;
    let len = reader.u64().map_err(|_| truncated.clone())?;
    if len > bytes.len() as u64 {
        return Err(truncated);
    }
    if len < bytes.len() as u64 {
        return Err(corrupt(format!("it should have {len} bytes and has {}", bytes.len())));
    }
    let (sealed, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or_else(|| truncated.clone())?;
    // `==` on BLAKE3 hashes takes constant time, which nobody needs here: the checksum is no secret.
    if blake3::hash(sealed) != *trailer {
        return Err(corrupt("its checksum does not fit".into()));
    }
    let role = Role::ALL.get(code as usize).copied().ok_or(FormatError::Unknown { what: "role", code })?;
    Ok((sealed.get(HEAD..).ok_or(truncated)?, role))
}

/// The constants that a role reads, by digest: a handle for messages and the size in bytes. Two constants with equal
/// bytes are stored once.
fn declared(bundle: &Bundle, role: Role) -> Result<BTreeMap<Digest, (ConstId, u64)>, FormatError> {
    let mut declared = BTreeMap::new();
    for id in bundle.constants_of(role) {
        let decl = bundle.constants.get(id.index());
        let decl = decl.ok_or_else(|| corrupt(format!("the {role} program reads {id}, which is not declared")))?;
        let size = decl.bytes() as u64;
        let (first, other) = *declared.entry(decl.digest).or_insert((id, size));
        if other != size {
            return Err(corrupt(format!("{first} and {id} have one digest, but {other} and {size} bytes")));
        }
    }
    Ok(declared)
}

fn role_code(role: Role) -> u32 {
    Role::ALL.iter().position(|other| *other == role).map_or(u32::MAX, |i| i as u32)
}

fn check_size(digest: &Digest, found: u64, declared: u64) -> Result<(), FormatError> {
    if found == declared {
        return Ok(());
    }
    let what = format!("it has {found} bytes, declared are {declared}");
    Err(FormatError::ConstantMismatch { digest: Hex(*digest), what })
}

fn corrupt(what: String) -> FormatError {
    FormatError::Corrupt(what)
}

/// Takes pieces off the front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn short(&self, wanted: u64) -> FormatError {
        corrupt(format!("{wanted} bytes are announced where {} are left", self.rest.len()))
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], FormatError> {
        let split = usize::try_from(n).ok().and_then(|n| self.rest.split_at_checked(n));
        let (head, rest) = split.ok_or_else(|| self.short(n))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], FormatError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short(N as u64))?;
        self.rest = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
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
            for (digest, blob) in file.constants.iter() {
                assert_eq!(store.get(digest), Some(blob));
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
}
