//! `two-edge`: edge B computes the correction during the request and sends it to the device.
//!
//! After Tian, Njilla, Yuan and Yu (ePrint 2020/155), with a seed in place of the second ciphertext: edge B learns a
//! request number and nothing that depends on data.

use pponnx_plans::op::Op;
use pponnx_plans::value::{Role, ValueId};

use super::{MapIo, Scheme, UploadIo, Writer};

/// The scheme.
pub struct TwoEdge;

impl Scheme for TwoEdge {
    fn name(&self) -> &'static str {
        "two-edge"
    }

    fn upload(&self, w: &mut Writer, upload: &mut UploadIo) {
        upload.drawn = Some(w.push(Role::EdgeB, Op::Draw { slot: upload.slot }, upload.ring()));
    }

    fn answer(&self, w: &mut Writer, map: &MapIo, upload: &UploadIo, masked: ValueId) {
        let inputs = upload.drawn.into_iter().collect();
        let u = w.push(Role::EdgeB, Op::Apply { map: map.map, inputs }, map.ring());
        w.push_many(Role::EdgeB, Op::Send { to: Role::Device, slot: map.correction, x: u }, Vec::new());
        let y = w.push(Role::EdgeA, Op::Apply { map: map.map, inputs: vec![masked] }, map.ring());
        w.push_many(Role::EdgeA, Op::Send { to: Role::Device, slot: map.reply, x: y }, Vec::new());
    }

    fn reveal(&self, w: &mut Writer, map: &MapIo, reply: ValueId) -> ValueId {
        let u = w.push(Role::Device, Op::Recv { from: Role::EdgeB, slot: map.correction }, map.ring());
        w.push(Role::Device, Op::Sub { a: reply, b: u }, map.ring())
    }
}
