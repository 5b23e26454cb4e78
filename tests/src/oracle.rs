//! The integer reference beside the runtime: the same bundle, keys, request and inputs through both.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_compiler::Compiled;
use pponnx_engine::offline::deal_check;
use pponnx_engine::{LocalModel, Outcome, Simulation, TensorValue};
use pponnx_kernels::Kernels;
use pponnx_keys::{CheckData, EpochKey, Part, SessionKey, StreamAt, Suite};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::op::Op;
use pponnx_plans::plan::Bundle;
use pponnx_plans::reference::linear;
use pponnx_plans::reference::number::{lift, low_bits};
use pponnx_plans::reference::run as reference;
use pponnx_plans::reference::scalar::Fp;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::{ConstId, MapId, Role, SlotId};

use crate::{check_secret, session};

/// Session keys and the check secret derive from this.
const SEED: u8 = 1;

/// A compiled model with keys, ready to run in either way.
pub struct Rig {
    /// The programs.
    pub bundle: Arc<ValidBundle>,
    /// Constants of all roles.
    pub constants: ConstStore,
    check: CheckData,
    session: Arc<SessionKey>,
}

impl Rig {
    /// Deals the check data.
    pub fn new(compiled: Compiled) -> Rig {
        let Compiled { bundle, constants, .. } = compiled;
        let check = deal_check(&bundle, &constants, [SEED; 16], check_secret(SEED)).unwrap();
        let dealt = bundle.program(Role::Offline).unwrap().steps.iter().any(|s| matches!(s.op, Op::Store { .. }));
        let session = if dealt { SessionKey::dealt(&EpochKey::first(&[SEED; 32])) } else { session(SEED) };
        Rig { bundle: Arc::new(bundle), constants, check, session: Arc::new(session) }
    }

    /// The runtime's roles with these kernels.
    pub fn simulation(&self, kernels: Kernels) -> Simulation {
        Simulation::load(Arc::clone(&self.bundle), &self.constants, &self.check, kernels).unwrap()
    }

    /// A request through the runtime.
    ///
    /// # Errors
    /// The message of the role that failed.
    pub fn run(&self, simulation: &Simulation, request: u64, inputs: &[TensorValue]) -> Result<Outcome, String> {
        simulation.run(&self.session, request, inputs.to_vec()).map_err(|e| e.to_string())
    }

    /// A request through the integer reference.
    ///
    /// # Errors
    /// The reference's message.
    pub fn reference(&self, request: u64, inputs: &[TensorValue]) -> Result<reference::Outcome, String> {
        let inputs: Vec<reference::Plain> = inputs.iter().map(plain).collect();
        let mut streams = Real { rig: self, request };
        reference::run(&self.bundle, &self.constants, &inputs, &mut streams, &mut Tract)
            .map_err(|e| format!("the reference fails: {e}"))
    }

    /// Fails where a request through the runtime differs in any bit from the reference: in a payload, stored ones
    /// included, in an output, or in what the plan declares that it costs.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, got: &Outcome, want: &reference::Outcome) -> Result<(), String> {
        if got.payloads.len() != want.sent.len() {
            return Err(format!("{} payloads, the reference sends {}", got.payloads.len(), want.sent.len()));
        }
        for payload in &got.payloads {
            let slot = &self.bundle.slots[payload.slot.index()];
            let got = residues(&payload.bytes, slot.k, slot.shape.len());
            if Some(&got) != want.sent.get(&payload.slot) {
                return Err(format!("the payload of slot {} ({}) differs from the reference", payload.slot, slot.name));
            }
        }
        if got.outputs.iter().map(plain).collect::<Vec<_>>() != want.outputs {
            return Err("the outputs differ from the reference".into());
        }
        let (t, c) = (got.traffic, self.bundle.cost);
        let counted = (t.rounds, t.bytes_up, t.bytes_down, t.bytes_edge_link);
        let declared = (c.rounds, c.bytes_up, c.bytes_down, c.bytes_edge_link);
        if counted != declared {
            return Err(format!("rounds and bytes {counted:?} are not the declared {declared:?}"));
        }
        Ok(())
    }

    /// The results of every map of a `plain` bundle, computed in 64 bits from the integers that were sent: equal to
    /// those in k bits unless something overflowed.
    pub fn wide_results(&self, sent: &BTreeMap<SlotId, Vec<u64>>) -> BTreeMap<MapId, Vec<Vec<i64>>> {
        let edge = self.bundle.program(Role::EdgeA).unwrap();
        let mut received: BTreeMap<u32, Tensor<u64>> = BTreeMap::new();
        let mut results: BTreeMap<MapId, Vec<Vec<i64>>> = BTreeMap::new();
        let mut next = edge.params.len() as u32;
        for step in &edge.steps {
            match &step.op {
                Op::Recv { slot, .. } => {
                    let declared = &self.bundle.slots[slot.index()];
                    let data = sent[slot].iter().map(|v| lift(*v, declared.k) as u64).collect();
                    received.insert(next, Tensor { shape: declared.shape.clone(), data });
                }
                Op::Apply { map, inputs } => {
                    let xs: Vec<Tensor<u64>> = inputs.iter().map(|v| received[&v.0].clone()).collect();
                    let weights = weights(&self.bundle, &self.constants, *map);
                    let y = linear::apply(&self.bundle.maps[map.index()], &xs, |c| weights.get(c)).unwrap();
                    results.entry(*map).or_default().push(y.data.iter().map(|v| *v as i64).collect());
                }
                Op::Send { .. } => {}
                other => panic!("edge A of scheme plain does {other:?}"),
            }
            next += step.results.len() as u32;
        }
        results
    }
}

fn weights(bundle: &Bundle, constants: &ConstStore, map: MapId) -> BTreeMap<ConstId, Tensor<i32>> {
    let ids = bundle.maps[map.index()].ops.iter().filter_map(|op| op.constant());
    ids.map(|id| {
        let decl = &bundle.constants[id.index()];
        (*id, Tensor::weights(decl, &constants.load(&decl.digest).unwrap()).unwrap())
    })
    .collect()
}

/// The streams of a real session, for the reference.
struct Real<'a> {
    rig: &'a Rig,
    request: u64,
}

impl reference::Streams for Real<'_> {
    fn words(&mut self, slot: SlotId, side: reference::Side, len: usize) -> Vec<u64> {
        let side = match side {
            reference::Side::Mask => pponnx_keys::Side::Mask,
            reference::Side::Pad => pponnx_keys::Side::Pad,
        };
        let at = StreamAt { digest: *self.rig.bundle.digest(), request: self.request, slot: slot.0, side };
        let k = self.rig.bundle.slots[slot.index()].k;
        let suite = Suite::from_name(&self.rig.bundle.header.suite).unwrap();
        self.rig.session.mask(suite, &at, len, k).into_words_u64().unwrap().to_vec()
    }

    fn field(&mut self, map: MapId, part: u8, len: usize) -> Vec<Fp> {
        let part = if part == 0 { Part::Channels } else { Part::Positions };
        check_secret(SEED).elements(self.rig.bundle.digest(), map.0, part, len).iter().map(|e| Fp::new(*e)).collect()
    }
}

/// Local segments of the reference, run by the runtime's back end: floating point is outside of the comparison.
struct Tract;

impl reference::Locals for Tract {
    fn run(&mut self, _: ConstId, bytes: &[u8], inputs: &[&reference::Plain]) -> Result<Vec<reference::Plain>, String> {
        let inputs: Vec<TensorValue> =
            inputs.iter().map(|p| TensorValue::from_le_bytes(p.dtype, p.shape.clone(), &p.bytes).unwrap()).collect();
        let outputs = LocalModel::load(bytes).and_then(|m| m.run(&inputs.iter().collect::<Vec<_>>()));
        Ok(outputs.map_err(|e| e.to_string())?.iter().map(plain).collect())
    }
}

fn plain(t: &TensorValue) -> reference::Plain {
    reference::Plain { dtype: t.dtype(), shape: t.shape().clone(), bytes: t.elements().to_le_bytes() }
}

/// Elements of a payload: k bits each, lowest first.
fn residues(bytes: &[u8], k: u32, n: usize) -> Vec<u64> {
    let byte = |i: usize| u128::from(bytes.get(i).copied().unwrap_or(0));
    let word = |bit: usize| (0..9).fold(0u128, |w, i| w | byte(bit / 8 + i) << (8 * i)) >> (bit % 8);
    (0..n).map(|e| word(e * k as usize) as u64 & low_bits(k)).collect()
}

/// Does something with each item, on two threads; the complaints in the order of the items.
pub fn each<T: Sync>(items: &[T], job: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(item) = items.get(i) else { return found };
            found.extend(job(item).err().map(|e| (i, e)));
        }
    };
    let mut found: Vec<(usize, String)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    found.sort();
    found.into_iter().map(|(_, e)| e).collect()
}

/// Fails with all complaints.
pub fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} failures:\n{}", complaints.len(), complaints.join("\n"));
}
