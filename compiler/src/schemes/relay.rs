//! `relay`: edge B computes padded corrections ahead of the request and leaves them with edge A.
//!
//! Online one edge, one upload and one download per segment; the device keeps 32 bytes of key. What is promised against
//! each edge stands in `docs/threat-model.md`.

use pponnx_plans::op::Op;
use pponnx_plans::value::{Role, ValueId};

use super::{MapIo, Scheme, UploadIo, Writer};

/// The scheme.
pub struct Relay;

impl Scheme for Relay {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn upload(&self, w: &mut Writer, upload: &mut UploadIo) {
        upload.drawn = Some(w.push(Role::EdgeB, Op::Draw { slot: upload.slot }, upload.ring()));
    }

    fn answer(&self, w: &mut Writer, map: &MapIo, upload: &UploadIo, masked: ValueId) {
        let inputs = upload.drawn.into_iter().collect();
        let u = w.push(Role::EdgeB, Op::Apply { map: map.map, inputs }, map.ring());
        let padded = w.push(Role::EdgeB, Op::Pad { slot: map.reply, x: u }, map.ring());
        let y = w.push(Role::EdgeA, Op::Apply { map: map.map, inputs: vec![masked] }, map.ring());
        let correction = w.transfer(Role::EdgeB, Role::EdgeA, map.correction, padded, map.ring());
        let d = w.push(Role::EdgeA, Op::Sub { a: y, b: correction }, map.ring());
        w.push_many(Role::EdgeA, Op::Send { to: Role::Device, slot: map.reply, x: d }, Vec::new());
    }

    fn reveal(&self, w: &mut Writer, map: &MapIo, reply: ValueId) -> ValueId {
        w.push(Role::Device, Op::Unpad { slot: map.reply, x: reply }, map.ring())
    }
}
