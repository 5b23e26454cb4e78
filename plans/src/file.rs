//! The plan file: all programs of a bundle and the constants that one role reads.
//!
//! Every role gets the same bundle, so that all compute the same digest, and only its own constants: the device gets
//! no weights. `FORMAT.md` has the layout.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use crate::binary::{self, FORMAT, Hex};
use crate::constant::{ConstError, ConstStore, Digest, PIECE, ReadAt};
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
    /// the size that the bundle declares. They stay in the file until they are asked for.
    pub constants: ConstStore,
}

impl PlanFile {
    /// Reads every constant once and compares it with its digest. Whoever loads them all anyway does without.
    ///
    /// # Errors
    /// [`FormatError::ConstantMismatch`] if one has other bytes, [`FormatError::Unreadable`] if it cannot be read.
    pub fn verify(&self) -> Result<(), FormatError> {
        let mut digests = self.constants.iter().map(|(digest, _)| digest);
        digests.try_for_each(|digest| self.constants.load(digest).map(drop).map_err(|e| lost(digest, e)))
    }
}

fn lost(digest: &Digest, error: ConstError) -> FormatError {
    match error {
        ConstError::Unreadable(what) => FormatError::Unreadable(what),
        ConstError::Changed | ConstError::Missing => {
            FormatError::ConstantMismatch { digest: Hex(*digest), what: error.to_string() }
        }
    }
}

/// The plan file of a role.
///
/// # Errors
/// As [`write_to`].
pub fn write(bundle: &Bundle, role: Role, constants: &ConstStore) -> Result<Vec<u8>, FormatError> {
    let mut out = Vec::new();
    write_to(bundle, role, constants, &mut out)?;
    Ok(out)
}

/// Writes the plan file of a role, one constant after the other.
///
/// # Errors
/// [`FormatError::ConstantMissing`] if the store lacks a constant the role reads, [`FormatError::ConstantMismatch`] if
/// its size is not the declared one, [`FormatError::TooLarge`] if the bundle is above the limits of [`binary`],
/// [`FormatError::Unwritable`] if `out` fails. What was written then is of no use.
pub fn write_to(bundle: &Bundle, role: Role, constants: &ConstStore, out: &mut impl Write) -> Result<(), FormatError> {
    let encoded = binary::encode(bundle);
    binary::check_limits(&encoded)?;
    let declared = declared(bundle, role)?;
    let mut body = 0u64;
    for (digest, (id, size)) in &declared {
        let missing = || FormatError::ConstantMissing { id: *id, digest: Hex(*digest) };
        check_size(digest, constants.size(digest).ok_or_else(missing)?, *size)?;
        body = body.saturating_add(32 + 8).saturating_add(*size);
    }
    let len = (HEAD + 8 + encoded.len() + 8 + TRAILER) as u64;
    let len = len.saturating_add(body);

    let mut out = Sealing { out, hasher: blake3::Hasher::new() };
    out.put(&MAGIC)?;
    out.put(&FORMAT.to_le_bytes())?;
    out.put(&role_code(role).to_le_bytes())?;
    out.put(&len.to_le_bytes())?;
    out.put(&(encoded.len() as u64).to_le_bytes())?;
    out.put(&encoded)?;
    out.put(&(declared.len() as u64).to_le_bytes())?;
    for (digest, (_, size)) in &declared {
        let blob = constants.load(digest).map_err(|e| lost(digest, e))?;
        out.put(digest)?;
        out.put(&size.to_le_bytes())?;
        out.put(&blob)?;
    }
    let seal = out.hasher.finalize();
    out.out.write_all(seal.as_bytes()).and_then(|()| out.out.flush()).map_err(unwritable)
}

fn unwritable(e: io::Error) -> FormatError {
    FormatError::Unwritable { kind: e.kind(), what: e.to_string() }
}

fn unreadable(e: io::Error) -> FormatError {
    FormatError::Unreadable(e.to_string())
}

/// Hashes what passes.
struct Sealing<'a, W> {
    out: &'a mut W,
    hasher: blake3::Hasher,
}

impl<W: Write> Sealing<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        // In pieces, so that what was hashed is still in the cache when it is written.
        for piece in bytes.chunks(PIECE) {
            self.hasher.update(piece);
            self.out.write_all(piece).map_err(unwritable)?;
        }
        Ok(())
    }
}

/// Reads a plan file and verifies every byte of it: the checksum, the bundle's spelling, and digest and size of each
/// constant. Allocates no more than the input's length and what [`binary::decode`] allows.
///
/// # Errors
/// Those of [`open`] and of [`PlanFile::verify`].
pub fn read(bytes: &[u8]) -> Result<PlanFile, FormatError> {
    let file = open(Arc::new(bytes.to_vec()), bytes.len() as u64)?;
    file.verify()?;
    Ok(file)
}

/// Reads a plan file of `len` bytes: verifies its checksum and the bundle's spelling, and finds the constants, which
/// stay where they are. Each is compared with its digest when it is loaded ([`ConstStore::load`]). Memory: a buffer,
/// and what [`binary::decode`] allows.
///
/// # Errors
/// [`FormatError::NotAPlan`] for another kind of file, [`FormatError::Version`], [`FormatError::Truncated`],
/// [`FormatError::ConstantMismatch`] for one of another size, [`FormatError::Unreadable`], and
/// [`FormatError::Corrupt`] or an error of [`binary::decode`] for the rest.
pub fn open(from: Arc<dyn ReadAt>, len: u64) -> Result<PlanFile, FormatError> {
    let role = unseal(&*from, len)?;
    let mut reader = Reader { from: &*from, at: HEAD as u64, end: len - TRAILER as u64 };
    let bundle_len = reader.u64()?;
    let bundle = binary::decode(&reader.take(bundle_len)?)?;
    let declared = declared(&bundle, role)?;

    let count = reader.u64()?;
    if count != declared.len() as u64 {
        let wanted = declared.len();
        return Err(corrupt(format!("it holds {count} constants, and the role {role} reads {wanted}")));
    }
    let mut constants = ConstStore::new();
    for (digest, (id, size)) in &declared {
        let found: Digest = reader.array()?;
        if found != *digest {
            let (found, digest) = (Hex(found), Hex(*digest));
            return Err(corrupt(format!("the constant {found} stands where {id}, {digest}, should")));
        }
        let len = reader.u64()?;
        check_size(digest, len, *size)?;
        let offset = reader.skip(len)?;
        constants.insert_stored(*digest, Arc::clone(&from), offset, len);
    }
    if reader.at != reader.end {
        return Err(corrupt(format!("{} bytes stand behind the last constant", reader.end - reader.at)));
    }
    Ok(PlanFile { role, bundle, constants })
}

/// Checks magic, version, length and checksum. Gives the role.
fn unseal(from: &dyn ReadAt, len: u64) -> Result<Role, FormatError> {
    let mut head = vec![0; len.min(HEAD as u64) as usize];
    from.read_at(&mut head, 0).map_err(unreadable)?;
    // A file cut within its magic is still told from another kind of file.
    let magic = head.get(..MAGIC.len()).unwrap_or(&head);
    if !MAGIC.starts_with(magic) {
        return Err(FormatError::NotAPlan);
    }
    let truncated = || FormatError::Truncated { at: usize::try_from(len).unwrap_or(usize::MAX) };
    let word = |at: usize| head.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let found = word(8).ok_or_else(truncated)?;
    if found != FORMAT {
        return Err(FormatError::Version { found, supported: FORMAT });
    }
    let code = word(12).ok_or_else(truncated)?;
    let said = head.get(16..).and_then(<[u8]>::first_chunk).map(|bytes| u64::from_le_bytes(*bytes));
    let said = said.ok_or_else(truncated)?;
    if said > len || len < (HEAD + TRAILER) as u64 {
        return Err(truncated());
    }
    if said < len {
        return Err(corrupt(format!("it should have {said} bytes and has {len}")));
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE.min(len as usize)];
    let (mut at, end) = (0, len - TRAILER as u64);
    while at < end {
        let piece = &mut buffer[..PIECE.min((end - at) as usize)];
        from.read_at(piece, at).map_err(unreadable)?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    let mut trailer = [0; TRAILER];
    from.read_at(&mut trailer, end).map_err(unreadable)?;
    // `==` on BLAKE3 hashes takes constant time, which nobody needs here: the checksum is no secret.
    if hasher.finalize() != trailer {
        return Err(corrupt("its checksum does not fit".into()));
    }
    Role::ALL.get(code as usize).copied().ok_or(FormatError::Unknown { what: "role", code })
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
    from: &'a dyn ReadAt,
    at: u64,
    end: u64,
}

impl Reader<'_> {
    /// Passes over `n` bytes and gives the place of the first.
    fn skip(&mut self, n: u64) -> Result<u64, FormatError> {
        let left = self.end.saturating_sub(self.at);
        if n > left {
            return Err(corrupt(format!("{n} bytes are announced where {left} are left")));
        }
        let at = self.at;
        self.at += n;
        Ok(at)
    }

    fn take(&mut self, n: u64) -> Result<Vec<u8>, FormatError> {
        let at = self.skip(n)?;
        if n > binary::MAX_BYTES as u64 {
            let limit = binary::MAX_BYTES as u64;
            return Err(FormatError::TooLarge { what: "bytes of the bundle", found: n, limit });
        }
        let mut bytes = vec![0; n as usize];
        self.from.read_at(&mut bytes, at).map_err(unreadable)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let at = self.skip(N as u64)?;
        let mut bytes = [0; N];
        self.from.read_at(&mut bytes, at).map_err(unreadable)?;
        Ok(bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
