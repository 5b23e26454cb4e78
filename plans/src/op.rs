//! The table of plan operations.
//!
//! Each line gives an operation's code in the binary form (never reused), its name in the text form and its
//! fields. What an operation means stands in [`crate::reference`], what it demands in [`crate::valid`].

use crate::field::{Attr, Field};
use crate::value::{ConstId, MapId, Role, SlotId, ValueId};

macro_rules! table {
    ($($(#[$doc:meta])* $code:literal $name:literal $variant:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        /// One operation of a program.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Op {
            $($(#[$doc])* $variant { $($(#[$fdoc])* $field: $type),* },)*
        }

        impl Op {
            /// Names and codes of all operations.
            pub const TABLE: &[(u32, &str)] = &[$(($code, $name)),*];

            /// The code of the binary form.
            pub fn code(&self) -> u32 {
                match self { $(Op::$variant { .. } => $code),* }
            }

            /// The name in text forms and messages.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$variant { .. } => $name),* }
            }

            /// The fields in order, each with its name.
            pub fn fields(&self) -> Vec<(&'static str, Attr)> {
                match self { $(Op::$variant { $($field),* } => vec![$((stringify!($field), $field.attr())),*]),* }
            }

            /// Name and sample attribute of each field of the operation with this code.
            pub fn signature(code: u32) -> Option<Vec<(&'static str, Attr)>> {
                match code { $($code => Some(vec![$((stringify!($field), <$type>::sample())),*]),)* _ => None }
            }

            /// The operation with this code and these fields; `None` if code, number or kinds do not fit.
            pub fn from_fields(code: u32, fields: Vec<Attr>) -> Option<Op> {
                let mut fields = fields.into_iter();
                let op = match code {
                    $($code => Op::$variant { $($field: <$type>::from_attr(fields.next()?)?),* },)*
                    _ => return None,
                };
                fields.next().is_none().then_some(op)
            }
        }
    };
}

table! {
    /// Device: real numbers to integers. Chooses one power-of-two exponent per group of the tensor's axis 1
    /// (`groups` equal parts; one part means one exponent for all) as large as the ranges in `ranges` allow.
    1 "encode" Encode { x: ValueId,
        /// Number of groups that axis 1 falls into.
        groups: usize,
        /// Index into the bundle's range table.
        range: usize }
    /// Device: adds the mask of an upload slot.
    2 "mask" Mask { slot: SlotId, x: ValueId }
    /// Device, scheme `plain` only: encoded integers as residues, unmasked.
    3 "expose" Expose { x: ValueId, k: usize }
    /// Device: removes the pad of a download slot from a reply.
    4 "unpad" Unpad { slot: SlotId, x: ValueId }
    /// Device: residues to signed integers.
    5 "lift" Lift { x: ValueId }
    /// Device: checks `z` against the encoded inputs of a linear map; fails the request if they disagree.
    6 "check" Check { map: MapId, inputs: Vec<ValueId>, z: ValueId }
    /// Device: checked integers to real numbers, `f32(f64(z) * scale * 2^-a + f64(bias))`. `a` is the exponent of
    /// the encoded value `source` for the group that `group` names (no `group`: the only one).
    7 "decode" Decode { z: ValueId, source: ValueId,
        /// f64, broadcast to the shape of `z`.
        scale: ConstId,
        /// f32, broadcast to the shape of `z`.
        bias: ConstId,
        /// u32 group numbers, broadcast to the shape of `z`.
        group: Option<ConstId> }
    /// Device: runs a local segment, an ONNX sub-model held in a constant; results in the sub-model's output order.
    8 "local" Local { model: ConstId, inputs: Vec<ValueId> }
    /// Device: the outputs of the request, in the order of the bundle's output table. Ends the program.
    9 "return" Return { outputs: Vec<ValueId> }
    /// Sends a tensor over a slot.
    10 "send" Send { to: Role, slot: SlotId, x: ValueId }
    /// Receives the tensor of a slot.
    11 "recv" Recv { from: Role, slot: SlotId }
    /// Edge B and offline: the mask of an upload slot as a value.
    12 "draw" Draw { slot: SlotId }
    /// Edge B and offline: adds the pad of a download slot.
    13 "pad" Pad { slot: SlotId, x: ValueId }
    /// Edges and offline: applies a linear map.
    14 "apply" Apply { map: MapId, inputs: Vec<ValueId> }
    /// Difference of residues.
    15 "sub" Sub { a: ValueId, b: ValueId }
    /// Offline: stores the correction of a slot for this request with a role.
    16 "store" Store { to: Role, slot: SlotId, x: ValueId }
    /// Device and edge A: takes the stored correction of a slot for this request.
    17 "load" Load { slot: SlotId }
    /// Offline: makes the check vectors of a linear map for the device.
    18 "deal-check" DealCheck { map: MapId }
}

impl Op {
    /// The values this operation reads.
    pub fn operands(&self) -> Vec<ValueId> {
        self.fields()
            .into_iter()
            .flat_map(|(_, a)| match a {
                Attr::Value(v) => vec![v],
                Attr::Values(v) => v,
                _ => Vec::new(),
            })
            .collect()
    }
}
