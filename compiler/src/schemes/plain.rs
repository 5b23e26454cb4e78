//! `plain`: no masks, no corrections, no privacy. The reference that the other schemes are tested against.

use pponnx_plans::op::Op;
use pponnx_plans::value::{Role, ValueId};

use super::{MapIo, Scheme, UploadIo, Writer};

/// The scheme.
pub struct Plain;

impl Scheme for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn corrects(&self) -> bool {
        false
    }

    fn hide(&self, w: &mut Writer, upload: &UploadIo, encoded: ValueId) -> ValueId {
        w.push(Role::Device, Op::Expose { x: encoded, k: upload.k as usize }, upload.ring())
    }

    fn upload(&self, _: &mut Writer, _: &mut UploadIo) {}

    fn answer(&self, w: &mut Writer, map: &MapIo, _: &UploadIo, masked: ValueId) {
        let y = w.push(Role::EdgeA, Op::Apply { map: map.map, inputs: vec![masked] }, map.ring());
        w.push_many(Role::EdgeA, Op::Send { to: Role::Device, slot: map.reply, x: y }, Vec::new());
    }

    fn reveal(&self, _: &mut Writer, _: &MapIo, reply: ValueId) -> ValueId {
        reply
    }
}
