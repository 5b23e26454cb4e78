//! `stockpile`: the owner deals padded corrections for N requests and edge A stores them.
//!
//! Online it is `relay` without a second edge; the device keeps 32 bytes of key and a ledger.

use pponnx_plans::op::Op;
use pponnx_plans::value::{Role, ValueId};

use super::{MapIo, Scheme, UploadIo, Writer};

/// The scheme.
pub struct Stockpile;

impl Scheme for Stockpile {
    fn name(&self) -> &'static str {
        "stockpile"
    }

    fn deals_pairs(&self) -> bool {
        true
    }

    fn upload(&self, w: &mut Writer, upload: &mut UploadIo) {
        upload.drawn = Some(w.push(Role::Offline, Op::Draw { slot: upload.slot }, upload.ring()));
    }

    fn answer(&self, w: &mut Writer, map: &MapIo, upload: &UploadIo, masked: ValueId) {
        let inputs = upload.drawn.into_iter().collect();
        let u = w.push(Role::Offline, Op::Apply { map: map.map, inputs }, map.ring());
        let padded = w.push(Role::Offline, Op::Pad { slot: map.reply, x: u }, map.ring());
        w.push_many(Role::Offline, Op::Store { to: Role::EdgeA, slot: map.correction, x: padded }, Vec::new());
        let y = w.push(Role::EdgeA, Op::Apply { map: map.map, inputs: vec![masked] }, map.ring());
        let correction = w.push(Role::EdgeA, Op::Load { slot: map.correction }, map.ring());
        let d = w.push(Role::EdgeA, Op::Sub { a: y, b: correction }, map.ring());
        w.push_many(Role::EdgeA, Op::Send { to: Role::Device, slot: map.reply, x: d }, Vec::new());
    }

    fn reveal(&self, w: &mut Writer, map: &MapIo, reply: ValueId) -> ValueId {
        w.push(Role::Device, Op::Unpad { slot: map.reply, x: reply }, map.ring())
    }
}
