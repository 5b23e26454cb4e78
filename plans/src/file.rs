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
mod tests;
