//! Fields of operations, the joint between the operation tables and their text and binary forms.
//!
//! The tables in [`crate::op`] and [`crate::map`] list each operation's fields; every field type says here
//! how it becomes an [`Attr`] and back. Printing, parsing and encoding know attributes only, so
//! a new operation needs no line in them.

use crate::value::{ConstId, MapId, Role, SlotId, ValueId};

/// One field of an operation in neutral form.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// An operand.
    Value(ValueId),
    /// Several operands.
    Values(Vec<ValueId>),
    /// A slot.
    Slot(SlotId),
    /// A linear map.
    Map(MapId),
    /// A constant.
    Const(ConstId),
    /// A constant that may be absent.
    MaybeConst(Option<ConstId>),
    /// A role.
    Role(Role),
    /// A count or size.
    Int(u64),
    /// A list of sizes.
    Ints(Vec<u64>),
}

/// A type that an operation's field may have.
pub trait Field: Sized {
    /// The neutral form.
    fn attr(&self) -> Attr;
    /// The field again; `None` when the attribute is of another kind.
    fn from_attr(attr: Attr) -> Option<Self>;
    /// An attribute of this field's kind, which tells a parser what to expect.
    fn sample() -> Attr;
}

macro_rules! direct {
    ($($type:ty, $variant:ident, $sample:expr;)*) => {$(
        impl Field for $type {
            fn attr(&self) -> Attr {
                Attr::$variant(self.clone())
            }
            fn from_attr(attr: Attr) -> Option<Self> {
                match attr {
                    Attr::$variant(v) => Some(v),
                    _ => None,
                }
            }
            fn sample() -> Attr {
                Attr::$variant($sample)
            }
        }
    )*};
}

direct! {
    ValueId, Value, ValueId(0);
    Vec<ValueId>, Values, Vec::new();
    SlotId, Slot, SlotId(0);
    MapId, Map, MapId(0);
    ConstId, Const, ConstId(0);
    Option<ConstId>, MaybeConst, None;
    Role, Role, Role::Device;
    u64, Int, 0;
}

impl Field for usize {
    fn attr(&self) -> Attr {
        Attr::Int(*self as u64)
    }
    fn from_attr(attr: Attr) -> Option<Self> {
        match attr {
            Attr::Int(v) => usize::try_from(v).ok(),
            _ => None,
        }
    }
    fn sample() -> Attr {
        Attr::Int(0)
    }
}

impl Field for Vec<usize> {
    fn attr(&self) -> Attr {
        Attr::Ints(self.iter().map(|v| *v as u64).collect())
    }
    fn from_attr(attr: Attr) -> Option<Self> {
        match attr {
            Attr::Ints(v) => v.into_iter().map(|v| usize::try_from(v).ok()).collect(),
            _ => None,
        }
    }
    fn sample() -> Attr {
        Attr::Ints(Vec::new())
    }
}
