//! A walk over the wire form that counts messages before any of them is built.
//!
//! An empty message takes two bytes on the wire and up to about a hundred in memory. Counting first keeps the memory
//! that hostile bytes can claim near [`MAX_MESSAGES`] times that, plus eight bytes for each byte of packed numbers.

use super::error::FormatError;

/// Largest bundle in bytes. Weights and sub-models are not part of it; the bundle of ResNet-50 is near 100 kB.
pub const MAX_BYTES: usize = 16 << 20;

/// Largest number of messages in a bundle: ports, constants, operations, fields of operations and so on.
pub const MAX_MESSAGES: usize = 1 << 20;

/// The message-typed fields of a message: tag, and what that message holds in turn.
struct Nest(u64, &'static [Nest]);

const LEAF: &[Nest] = &[];
const FIELD: &[Nest] = &[Nest(2, LEAF), Nest(6, LEAF), Nest(9, LEAF)];
const OPERATION: &[Nest] = &[Nest(2, FIELD)];
const STEP: &[Nest] = &[Nest(1, OPERATION), Nest(2, LEAF)];
const PROGRAM: &[Nest] = &[Nest(2, LEAF), Nest(3, STEP)];
const BOUND: &[Nest] = &[Nest(5, LEAF)];
const RANGE: &[Nest] = &[Nest(1, BOUND)];
const MAP: &[Nest] = &[Nest(2, LEAF), Nest(3, OPERATION)];
const BUNDLE: &[Nest] = &[
    Nest(2, LEAF),
    Nest(3, LEAF),
    Nest(4, LEAF),
    Nest(5, LEAF),
    Nest(6, MAP),
    Nest(7, LEAF),
    Nest(8, RANGE),
    Nest(9, PROGRAM),
    Nest(10, LEAF),
];

/// Reads protobuf primitives and knows how far it is.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes, at: 0 }
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], FormatError> {
        let split = usize::try_from(n).ok().and_then(|n| self.rest.split_at_checked(n));
        let Some((head, rest)) = split else {
            let left = self.rest.len();
            return Err(FormatError::Corrupt(format!("a field at byte {} has {n} bytes, {left} are left", self.at)));
        };
        self.rest = rest;
        self.at += head.len();
        Ok(head)
    }

    /// A base-128 number of at most ten bytes.
    pub(super) fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FormatError::Corrupt(format!("an overlong number ends at byte {}", self.at)))
    }
}

/// Counts the messages inside a bundle message, itself not included.
///
/// # Errors
/// [`FormatError::TooLarge`] above the limits of this module, [`FormatError::Corrupt`] if the bytes are no protobuf.
pub(super) fn count(bytes: &[u8]) -> Result<usize, FormatError> {
    if bytes.len() > MAX_BYTES {
        let (found, limit) = (bytes.len() as u64, MAX_BYTES as u64);
        return Err(FormatError::TooLarge { what: "bytes of the bundle", found, limit });
    }
    let mut count = 0;
    walk(&mut Cursor::new(bytes), BUNDLE, &mut count)?;
    Ok(count)
}

fn walk(cursor: &mut Cursor<'_>, nests: &[Nest], count: &mut usize) -> Result<(), FormatError> {
    while !cursor.rest.is_empty() {
        let key = cursor.varint()?;
        match key & 7 {
            0 => {
                cursor.varint()?;
            }
            1 => {
                cursor.take(8)?;
            }
            2 => {
                let len = cursor.varint()?;
                let at = cursor.at;
                let body = cursor.take(len)?;
                let Some(Nest(_, inner)) = nests.iter().find(|nest| nest.0 == key >> 3) else {
                    continue;
                };
                *count += 1;
                if *count > MAX_MESSAGES {
                    let (found, limit) = (*count as u64, MAX_MESSAGES as u64);
                    return Err(FormatError::TooLarge { what: "entries of the bundle", found, limit });
                }
                walk(&mut Cursor { rest: body, at }, inner, count)?;
            }
            5 => {
                cursor.take(4)?;
            }
            kind => {
                return Err(FormatError::Corrupt(format!("a field of kind {kind} at byte {}", cursor.at)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::field::Attr;
    use crate::plan::Bundle;
    use crate::sample;
    use proptest::prelude::*;

    fn operation(fields: &[(&str, Attr)]) -> usize {
        let nested = |a: &Attr| matches!(a, Attr::Values(_) | Attr::MaybeConst(_) | Attr::Ints(_));
        1 + fields.iter().map(|(_, a)| 1 + usize::from(nested(a))).sum::<usize>()
    }

    /// The count by the types of the crate, from which the nesting table must not stray.
    fn expected(b: &Bundle) -> usize {
        let maps: usize = b
            .maps
            .iter()
            .map(|m| 1 + m.inputs.len() + m.ops.iter().map(|o| operation(&o.fields())).sum::<usize>())
            .sum();
        let ranges: usize = b.ranges.iter().map(|r| 1 + 2 * r.bounds.len()).sum();
        let steps = |p: &crate::plan::Program| -> usize {
            p.steps.iter().map(|s| 1 + operation(&s.op.fields()) + s.results.len()).sum()
        };
        let programs: usize = b.programs.iter().map(|p| 1 + p.params.len() + steps(p)).sum();
        2 + b.inputs.len() + b.outputs.len() + b.constants.len() + b.slots.len() + maps + ranges + programs
    }

    proptest! {
        #[test]
        fn every_message_is_counted(bundle in sample::bundle()) {
            prop_assert_eq!(count(&super::super::encode(&bundle)), Ok(expected(&bundle)));
        }
    }

    #[test]
    fn too_many_messages_are_refused_before_they_are_built() {
        // Empty slots: tag 7, kind 2, length 0.
        let bytes: Vec<u8> = [7 << 3 | 2, 0].repeat(MAX_MESSAGES + 1);
        assert!(matches!(count(&bytes), Err(FormatError::TooLarge { limit, .. }) if limit == MAX_MESSAGES as u64));
        assert_eq!(count(&bytes[2..]), Ok(MAX_MESSAGES));
    }

    #[test]
    fn too_many_bytes_are_refused() {
        let bytes = vec![0; MAX_BYTES + 1];
        assert!(matches!(count(&bytes), Err(FormatError::TooLarge { limit, .. }) if limit == MAX_BYTES as u64));
    }

    #[test]
    fn numbers_read_as_written() {
        assert_eq!(Cursor::new(&[0x96, 0x01]).varint(), Ok(150));
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&most).varint(), Ok(u64::MAX));
        assert!(Cursor::new(&[0xff; 11]).varint().is_err());
        assert!(Cursor::new(&[0x80]).varint().is_err());
    }
}
