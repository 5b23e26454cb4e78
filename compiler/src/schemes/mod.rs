//! Schemes: who corrects a masked result, and where the correction waits.
//!
//! A scheme places linear maps on roles and names no operator; it is one file that implements [`Scheme`]. What
//! all schemes share (encode, apply, lift, check, decode, the check vectors) is written once, in
//! [`crate::lower`].

mod one_time;
mod plain;
mod relay;
mod stockpile;
mod two_edge;

use pponnx_plans::op::Op;
use pponnx_plans::plan::{Program, Slot, SlotKind};
use pponnx_plans::value::{MapId, Role, Shape, SlotId, ValueId, ValueType};

/// Every scheme, the default first.
pub const ALL: &[&dyn Scheme] =
    &[&relay::Relay, &two_edge::TwoEdge, &one_time::OneTime, &stockpile::Stockpile, &plain::Plain];

/// The scheme with this name.
pub fn by_name(name: &str) -> Option<&'static dyn Scheme> {
    ALL.iter().copied().find(|s| s.name() == name)
}

/// A way to hide uploads and to correct results.
pub trait Scheme: Sync {
    /// The name on the command line and in plans.
    fn name(&self) -> &'static str;

    /// Whether the owner deals corrections for a fixed number of requests.
    fn deals_pairs(&self) -> bool {
        false
    }

    /// Whether replies are corrected at all; without, no correction slots are declared.
    fn corrects(&self) -> bool {
        true
    }

    /// The device's step from encoded integers to what it sends.
    fn hide(&self, w: &mut Writer, upload: &UploadIo, encoded: ValueId) -> ValueId {
        w.push(Role::Device, Op::Mask { slot: upload.slot, x: encoded }, upload.ring())
    }

    /// What is done about one upload besides the device sending it to edge A: who draws its mask.
    fn upload(&self, w: &mut Writer, upload: &mut UploadIo);

    /// What the edges and the owner do for one map, once edge A holds the masked upload. `masked` is that value at
    /// edge A.
    fn answer(&self, w: &mut Writer, map: &MapIo, upload: &UploadIo, masked: ValueId);

    /// The device's step from edge A's reply to residues of the true result.
    fn reveal(&self, w: &mut Writer, map: &MapIo, reply: ValueId) -> ValueId;
}

/// An upload, seen by a scheme.
#[derive(Clone, Debug)]
pub struct UploadIo {
    /// Its slot.
    pub slot: SlotId,
    /// Ring width.
    pub k: u32,
    /// Shape.
    pub shape: Shape,
    /// The mask as a value of the role that computes corrections.
    pub drawn: Option<ValueId>,
}

impl UploadIo {
    /// The type of the masked tensor.
    pub fn ring(&self) -> ValueType {
        ValueType::Ring(self.k, self.shape.clone())
    }
}

/// A map, seen by a scheme.
#[derive(Clone, Debug)]
pub struct MapIo {
    /// Which map.
    pub map: MapId,
    /// Slot of the correction; the reply's own slot in a scheme that does not correct.
    pub correction: SlotId,
    /// Slot of edge A's reply, which also names the pad.
    pub reply: SlotId,
    /// Ring width.
    pub k: u32,
    /// Shape of the result.
    pub shape: Shape,
}

impl MapIo {
    /// The type of the result as residues.
    pub fn ring(&self) -> ValueType {
        ValueType::Ring(self.k, self.shape.clone())
    }
}

/// The four programs and the slots while they are written.
pub struct Writer {
    /// Programs, in the order of [`Role::ALL`].
    pub programs: Vec<Program>,
    /// Slots.
    pub slots: Vec<Slot>,
}

impl Writer {
    /// Empty programs for all roles.
    pub fn new() -> Writer {
        Writer { programs: Role::ALL.into_iter().map(Program::new).collect(), slots: Vec::new() }
    }

    fn program(&mut self, role: Role) -> &mut Program {
        let at = match role {
            Role::Offline => 0,
            Role::Device => 1,
            Role::EdgeA => 2,
            Role::EdgeB => 3,
        };
        &mut self.programs[at]
    }

    /// Appends a step with one result.
    pub fn push(&mut self, role: Role, op: Op, result: ValueType) -> ValueId {
        self.program(role).push(op, vec![result])
    }

    /// Appends a step with any number of results and returns the first.
    pub fn push_many(&mut self, role: Role, op: Op, results: Vec<ValueType>) -> ValueId {
        self.program(role).push(op, results)
    }

    /// Declares a slot.
    pub fn slot(&mut self, kind: SlotKind, k: u32, shape: &Shape, name: &str) -> SlotId {
        self.slots.push(Slot { kind, k, shape: shape.clone(), name: name.to_string() });
        SlotId(self.slots.len() as u32 - 1)
    }

    /// Appends `send` to one program and `recv` to the other; returns the received value.
    pub fn transfer(&mut self, from: Role, to: Role, slot: SlotId, x: ValueId, ty: ValueType) -> ValueId {
        self.push_many(from, Op::Send { to, slot, x }, Vec::new());
        self.push(to, Op::Recv { from, slot }, ty)
    }
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new()
    }
}
