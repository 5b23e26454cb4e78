//! The binary form of bundles: protobuf, in exactly one spelling.
//!
//! The bytes of a bundle are its name (see [`crate::digest`]), so a bundle has one encoding only: fields in the order
//! of their tags, defaults left out, lists packed, nothing unknown. [`decode`] refuses bytes that do not encode back to
//! themselves. Operations are written through their tables ([`crate::op`], [`crate::map`]), so that a new one needs
//! nothing here.

mod error;
mod limit;
mod message;
mod read;
mod write;

use prost::Message;

pub use error::{FormatError, Hex};
pub use limit::{MAX_BYTES, MAX_MESSAGES};

use crate::plan::Bundle;

/// Version of the binary form, the text form and the plan file.
pub const FORMAT: u32 = 1;

/// The canonical bytes of a bundle.
pub fn encode(bundle: &Bundle) -> Vec<u8> {
    write::bundle(bundle).encode_to_vec()
}

/// The bundle with these canonical bytes. Its meaning is not looked at: that is [`crate::valid::validate`]'s part.
///
/// Never panics. Memory is bounded by [`MAX_BYTES`] and [`MAX_MESSAGES`].
///
/// # Errors
/// [`FormatError::Version`], [`FormatError::TooLarge`], [`FormatError::Unknown`] or [`FormatError::Corrupt`] if the
/// bytes mean no bundle, [`FormatError::NotCanonical`] if they are not the bytes that [`encode`] gives for it.
pub fn decode(bytes: &[u8]) -> Result<Bundle, FormatError> {
    check_version(bytes)?;
    limit::count(bytes)?;
    let message = message::Bundle::decode(bytes).map_err(|e| FormatError::Corrupt(e.to_string()))?;
    let bundle = read::bundle(message)?;
    if encode(&bundle) != bytes {
        return Err(FormatError::NotCanonical);
    }
    Ok(bundle)
}

/// Whether a bundle's bytes keep the limits that [`decode`] sets.
///
/// # Errors
/// [`FormatError::TooLarge`].
pub(crate) fn check_limits(bytes: &[u8]) -> Result<(), FormatError> {
    limit::count(bytes).map(|_| ())
}

/// Looks at the version alone, so that bytes of a later format are named as such and not called damaged.
fn check_version(bytes: &[u8]) -> Result<(), FormatError> {
    let mut cursor = limit::Cursor::new(bytes);
    // The first field is the version: tag 1, kind 0.
    if bytes.is_empty() || cursor.varint()? != 1 << 3 {
        return Err(FormatError::Corrupt("the bundle does not begin with its version".into()));
    }
    let found = cursor.varint()?;
    if found != u64::from(FORMAT) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(FormatError::Version { found, supported: FORMAT });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::map::MapOp;
    use crate::op::Op;
    use crate::plan::SlotKind;
    use crate::sample;
    use crate::value::{ConstId, DType, Role};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bundle_comes_back(bundle in sample::bundle()) {
            let bytes = encode(&bundle);
            prop_assert_eq!(decode(&bytes), Ok(bundle));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(bundle) = decode(&bytes) {
                prop_assert_eq!(&encode(&bundle), &bytes);
            }
            let behind_version = [&[8, 1][..], &bytes].concat();
            if let Ok(bundle) = decode(&behind_version) {
                prop_assert_eq!(encode(&bundle), behind_version);
            }
        }

        #[test]
        fn mutated_bundles_never_panic(
            bundle in sample::bundle(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
        ) {
            let mut bytes = encode(&bundle);
            for (at, byte, how) in edits {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes[at] ^= 1 << (byte % 8),
                    2 => bytes.insert(at, byte),
                    _ => { bytes.remove(at); }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            if let Ok(other) = decode(&bytes) {
                prop_assert_eq!(encode(&other), bytes);
            }
        }

        #[test]
        fn any_prefix_is_refused(bundle in sample::bundle(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&bundle);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    fn relay() -> Vec<u8> {
        encode(&sample::relay().0)
    }

    #[test]
    fn other_spellings_of_one_bundle_are_refused() {
        let bytes = relay();
        assert!(decode(&bytes).is_ok());
        // Version as 0x81 0x00: the same number, longer.
        let long = [&[8, 0x81, 0x00][..], &bytes[2..]].concat();
        assert_eq!(decode(&long), Err(FormatError::NotCanonical));
        // An unknown field behind the last.
        let unknown = [&bytes[..], &[11 << 3, 1]].concat();
        assert_eq!(decode(&unknown), Err(FormatError::NotCanonical));
        // The version twice.
        let twice = [&[8, 1][..], &bytes].concat();
        assert_eq!(decode(&twice), Err(FormatError::NotCanonical));
        // An empty cost merged into the one that is there.
        let merged = [&bytes[..], &[10 << 3 | 2, 0]].concat();
        assert_eq!(decode(&merged), Err(FormatError::NotCanonical));
    }

    #[test]
    fn versions_are_told_apart() {
        let mut bytes = relay();
        bytes[1] = 2;
        assert_eq!(decode(&bytes), Err(FormatError::Version { found: 2, supported: FORMAT }));
        assert!(matches!(decode(&[]), Err(FormatError::Corrupt(_))));
        assert!(matches!(decode(&relay()[2..]), Err(FormatError::Corrupt(_))));
    }

    /// Each row of the tables in the specification begins with code, name and fields.
    #[test]
    fn the_specification_lists_every_operation() {
        let spec = include_str!("../../FORMAT.md");
        let row = |code: u32, name: &str, fields: Vec<(&str, crate::field::Attr)>| {
            let fields: Vec<_> = fields.iter().map(|(field, _)| format!("`{field}`")).collect();
            let row = format!("\n| {code} | `{name}` | {} |", fields.join(", "));
            assert!(spec.contains(&row), "FORMAT.md lacks the row {row}");
        };
        Op::TABLE.iter().for_each(|(code, name)| row(*code, name, Op::signature(*code).unwrap()));
        MapOp::<ConstId>::TABLE.iter().for_each(|(c, name)| row(*c, name, MapOp::<ConstId>::signature(*c).unwrap()));
        let rows = spec.lines().filter(|line| line.starts_with("| ") && line.contains(" | `") && !line.contains("---"));
        let numbered = rows.filter(|line| line[2..].starts_with(|c: char| c.is_ascii_digit())).count();
        assert_eq!(numbered, Op::TABLE.len() + MapOp::<ConstId>::TABLE.len());
    }

    /// The codes of the binary form are positions in these lists: every variant stands in its list, once.
    #[test]
    fn codes_are_positions_in_the_lists() {
        let position = |role: Role| match role {
            Role::Offline => 0,
            Role::Device => 1,
            Role::EdgeA => 2,
            Role::EdgeB => 3,
        };
        assert_eq!(Role::ALL.map(position), [0, 1, 2, 3]);
        let position = |kind: SlotKind| match kind {
            SlotKind::Upload => 0,
            SlotKind::Download => 1,
            SlotKind::Correction => 2,
        };
        assert_eq!(SlotKind::ALL.map(position), [0, 1, 2]);
        let position = |dtype: DType| match dtype {
            DType::Bool => 0,
            DType::U8 => 1,
            DType::I8 => 2,
            DType::U16 => 3,
            DType::I16 => 4,
            DType::U32 => 5,
            DType::I32 => 6,
            DType::U64 => 7,
            DType::I64 => 8,
            DType::F16 => 9,
            DType::F32 => 10,
            DType::F64 => 11,
        };
        assert!(DType::ALL.map(position).into_iter().eq(0..12));
    }

    fn refused(change: impl FnOnce(&mut message::Bundle)) -> FormatError {
        let mut message = write::bundle(&sample::relay().0);
        change(&mut message);
        decode(&message.encode_to_vec()).err().unwrap()
    }

    #[test]
    fn unknown_codes_are_named() {
        let unknown = |what, code| FormatError::Unknown { what, code };
        assert_eq!(refused(|b| b.inputs[0].dtype = 12), unknown("element type", 12));
        assert_eq!(refused(|b| b.slots[0].kind = 3), unknown("kind of slot", 3));
        assert_eq!(refused(|b| b.programs[0].role = 4), unknown("role", 4));
        assert_eq!(refused(|b| b.programs[1].params[0].kind = 5), unknown("kind of value", 5));
        assert_eq!(refused(|b| b.programs[1].steps[0].op.as_mut().unwrap().code = 0), unknown("operation", 0));
        assert_eq!(refused(|b| b.maps[0].ops[0].code = 999), unknown("map operation", 999));
        let patch = |b: &mut message::Bundle| b.ranges[0].bounds[0].patch.as_mut().unwrap().kind = 3;
        assert_eq!(refused(patch), unknown("kind of patch", 3));
    }

    #[test]
    fn missing_and_ill_fitting_parts_are_refused() {
        let text = |e: FormatError| e.to_string();
        assert!(text(refused(|b| b.header = None)).contains("header is missing"));
        assert!(text(refused(|b| b.cost = None)).contains("cost is missing"));
        assert!(text(refused(|b| b.programs[1].steps[0].op = None)).contains("operation of a step is missing"));
        assert!(text(refused(|b| b.constants[0].digest.truncate(31))).contains("31 bytes"));
        assert!(text(refused(|b| drop(b.maps[0].ops[0].fields.pop()))).contains("map operation with code 3"));
        // A width on a type that has none is lost in reading, so the bytes do not come back.
        assert_eq!(refused(|b| b.programs[1].params[0].k = 7), FormatError::NotCanonical);
    }
}
