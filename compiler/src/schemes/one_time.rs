//! `one-time`: the owner deals corrections for N requests and the device stores them.
//!
//! After Tian, Yuan, Yu, Hou and Song, "LEP-CNN" (arXiv 1901.04100): one edge, key pairs used once.

use pponnx_plans::op::Op;
use pponnx_plans::value::{Role, ValueId};

use super::{MapIo, Scheme, UploadIo, Writer};

/// The scheme.
pub struct OneTime;

impl Scheme for OneTime {
    fn name(&self) -> &'static str {
        "one-time"
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
        w.push_many(Role::Offline, Op::Store { to: Role::Device, slot: map.correction, x: u }, Vec::new());
        let y = w.push(Role::EdgeA, Op::Apply { map: map.map, inputs: vec![masked] }, map.ring());
        w.push_many(Role::EdgeA, Op::Send { to: Role::Device, slot: map.reply, x: y }, Vec::new());
    }

    fn reveal(&self, w: &mut Writer, map: &MapIo, reply: ValueId) -> ValueId {
        let u = w.push(Role::Device, Op::Load { slot: map.correction }, map.ring());
        w.push(Role::Device, Op::Sub { a: reply, b: u }, map.ring())
    }
}
