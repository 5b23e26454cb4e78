//! One interpreter for every role: runs a program until it needs a payload that is not there yet.
//!
//! No sockets, clocks or random sources: payloads come in through [`Execution::supply`] and go out through
//! [`Execution::outgoing`]. Two executions of one plan, request, session and inputs send the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pponnx_keys::{Mask, SessionKey, Side, StreamAt};
use pponnx_plans::op::Op;
use pponnx_plans::plan::Step;
use pponnx_plans::reference::scalar::Fp;
use pponnx_plans::value::{MapId, Role, SlotId, ValueId};

use crate::check::CheckMaterial;
use crate::decode::{self, Decoder};
use crate::encode;
use crate::error::EngineError;
use crate::fuse::{Close, Fused, Minus, Open, Run};
use crate::memory::{Payload, Value, Values};
use crate::plan::{LoadedPlan, Prepared};
use crate::profile::{Profile, Stage, Stages, Tools};
use crate::reveal::{Cover, reveal};
use crate::ring;
use crate::upload::upload;
use crate::value::TensorValue;

/// What a role must hold to run a request.
pub enum Secrets {
    /// The device.
    Device {
        /// The session, shared with edge B or the owner. Scheme `plain` never reads it.
        session: Arc<SessionKey>,
        /// The check vectors of this bundle.
        check: Arc<CheckMaterial>,
        /// Stored corrections of this request, packed, by slot (`one-time`); else empty.
        loaded: BTreeMap<SlotId, Vec<u8>>,
    },
    /// Edge A.
    EdgeA {
        /// Stored corrections of this request, packed, by slot (`stockpile`); else empty.
        loaded: BTreeMap<SlotId, Vec<u8>>,
    },
    /// Edge B.
    EdgeB {
        /// The session, shared with the device.
        session: Arc<SessionKey>,
    },
    /// The owner, dealing key pairs.
    Offline {
        /// The dealt session of the device.
        session: Arc<SessionKey>,
    },
}

impl Secrets {
    fn role(&self) -> Role {
        match self {
            Secrets::Device { .. } => Role::Device,
            Secrets::EdgeA { .. } => Role::EdgeA,
            Secrets::EdgeB { .. } => Role::EdgeB,
            Secrets::Offline { .. } => Role::Offline,
        }
    }

    fn session(&self) -> Option<&SessionKey> {
        match self {
            Secrets::Device { session, .. } | Secrets::EdgeB { session } | Secrets::Offline { session } => {
                Some(session)
            }
            Secrets::EdgeA { .. } => None,
        }
    }

    fn loaded(&self) -> Option<&BTreeMap<SlotId, Vec<u8>>> {
        match self {
            Secrets::Device { loaded, .. } | Secrets::EdgeA { loaded } => Some(loaded),
            Secrets::EdgeB { .. } | Secrets::Offline { .. } => None,
        }
    }

    fn loaded_mut(&mut self) -> Option<&mut BTreeMap<SlotId, Vec<u8>>> {
        match self {
            Secrets::Device { loaded, .. } | Secrets::EdgeA { loaded } => Some(loaded),
            Secrets::EdgeB { .. } | Secrets::Offline { .. } => None,
        }
    }

    fn check(&self) -> Option<&CheckMaterial> {
        match self {
            Secrets::Device { check, .. } => Some(check),
            Secrets::EdgeA { .. } | Secrets::EdgeB { .. } | Secrets::Offline { .. } => None,
        }
    }
}

/// Most bytes of masks and pads that wait to be used: few enough to stay in a second-level cache until then.
pub const AHEAD_BYTES: usize = 1 << 17;

/// How far an execution came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It needs the payload of this slot from this role.
    Wait {
        /// Who will send it.
        from: Role,
        /// For which slot.
        slot: SlotId,
    },
    /// The program ended.
    Done,
}

/// A payload that leaves the role: to be sent, or stored with a role (offline).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Who gets it.
    pub to: Role,
    /// The slot it belongs to.
    pub slot: SlotId,
    /// Packed elements, exactly [`pponnx_plans::plan::Slot::bytes`] of them.
    pub payload: Vec<u8>,
}

/// One request on one role.
pub struct Execution {
    plan: Arc<LoadedPlan>,
    request: u64,
    secrets: Secrets,
    values: Values,
    pc: usize,
    inbox: BTreeMap<SlotId, Vec<u8>>,
    received: BTreeSet<SlotId>,
    outbox: Vec<Outgoing>,
    /// Right sides of checks, computed ahead of the replies.
    rights: BTreeMap<MapId, Fp>,
    /// Streams made ahead, each used once.
    ahead: BTreeMap<(SlotId, u8), Mask>,
    returned: Option<Vec<TensorValue>>,
    failed: bool,
    profile: Profile,
}

impl Execution {
    /// Prepares a request. `inputs` are the network's inputs on the device and empty elsewhere.
    ///
    /// The caller sees to it that no request number is used twice in a session (`protocol.md`, section 3).
    ///
    /// # Errors
    /// [`EngineError::PlanMismatch`] if the secrets are those of another role or bundle, [`EngineError::InvalidInput`]
    /// for inputs that do not fit, [`EngineError::OutOfPairs`] if a stored correction is missing.
    pub fn new(
        plan: Arc<LoadedPlan>,
        request: u64,
        secrets: Secrets,
        inputs: Vec<TensorValue>,
    ) -> Result<Execution, EngineError> {
        if secrets.role() != plan.role() {
            return Err(EngineError::mismatch(format!("secrets of {} for a plan of {}", secrets.role(), plan.role())));
        }
        if secrets.check().is_some_and(|c| c.digest() != plan.digest()) {
            return Err(EngineError::mismatch("the check data belong to another bundle; copy the device folder whole"));
        }
        plan.accepts(&inputs)?;
        for slot in plan.loads() {
            let bytes = secrets.loaded().and_then(|l| l.get(slot));
            let bytes = bytes.ok_or(EngineError::OutOfPairs { request, slot: *slot })?;
            if bytes.len() as u64 != plan.slot(*slot)?.bytes() {
                return Err(EngineError::mismatch(format!(
                    "the stored correction of slot {slot} has {} bytes; make the stock again with `pponnx keygen`",
                    bytes.len()
                )));
            }
        }
        let mut values = Values::new(plan.types().len(), matches!(plan.role(), Role::EdgeB | Role::Offline));
        for (i, input) in inputs.into_iter().enumerate() {
            values.set(ValueId(i as u32), Value::Tensor(input))?;
        }
        let profile = Profile::new(plan.clock());
        Ok(Execution {
            plan,
            request,
            secrets,
            values,
            profile,
            pc: 0,
            inbox: BTreeMap::new(),
            received: BTreeSet::new(),
            outbox: Vec::new(),
            rights: BTreeMap::new(),
            ahead: BTreeMap::new(),
            returned: None,
            failed: false,
        })
    }

    /// Where the time went so far; all zero unless the plan has a clock ([`LoadedPlan::with_clock`]).
    pub fn stages(&self) -> Stages {
        self.profile.stages()
    }

    /// The request's number.
    pub fn request(&self) -> u64 {
        self.request
    }

    /// Runs until a payload is missing or the program ends.
    ///
    /// # Errors
    /// Any [`EngineError`]; the execution is over then, and its request number burnt.
    pub fn resume(&mut self) -> Result<Progress, EngineError> {
        self.alive()?;
        let plan = Arc::clone(&self.plan);
        while let Some((step, prepared)) = plan.step(self.pc) {
            if let Some(fused) = plan.run_at(self.pc) {
                match (self.missing(fused), &fused.run) {
                    (None, _) => {
                        if let Err(error) = self.execute_run(&plan, fused) {
                            self.fail();
                            return Err(error);
                        }
                        let steps = self.pc..self.pc + fused.steps;
                        steps.filter_map(|at| plan.step(at)).for_each(|(_, p)| self.free(p));
                        self.pc += fused.steps;
                        continue;
                    }
                    (Some((from, slot)), Run::Upload { .. } | Run::Reveal { .. }) => {
                        return Ok(Progress::Wait { from, slot });
                    }
                    // the product need not wait for its correction
                    (Some(_), Run::Answer { .. }) => {}
                }
            }
            if let Op::Recv { from, slot } = step.op
                && !self.inbox.contains_key(&slot)
            {
                return Ok(Progress::Wait { from, slot });
            }
            let started = self.profile.start();
            let done = self.execute(&plan, step, prepared);
            self.profile.stop(Stage::of(&step.op), started);
            if let Err(error) = done {
                self.fail();
                return Err(error);
            }
            self.free(prepared);
            self.pc += 1;
        }
        Ok(Progress::Done)
    }

    /// Payloads that became ready since the last call, in the order of the program.
    pub fn outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outbox)
    }

    /// Takes back the payload of an [`Outgoing`] that is on its way, so that its memory serves again.
    pub fn recycle(&self, payload: Vec<u8>) {
        self.plan.buffers().keep_bytes(payload);
    }

    /// Hands in the payload of a slot; it may come before the program asks for it.
    ///
    /// # Errors
    /// [`EngineError::PeerMisbehaved`] for a slot that this role never receives from `from`, a second payload of
    /// one slot, or a wrong length. The execution is over then.
    pub fn supply(&mut self, from: Role, slot: SlotId, payload: Vec<u8>) -> Result<(), EngineError> {
        self.alive()?;
        let blame = |what: String| EngineError::PeerMisbehaved { role: from, slot, what };
        let result = match self.plan.expects(from, slot) {
            None => Err(blame("it sends nothing on this slot".into())),
            Some(_) if self.received.contains(&slot) => Err(blame("second payload of one slot".into())),
            Some(bytes) if payload.len() as u64 != bytes => {
                Err(blame(format!("{} bytes where the plan says {bytes}", payload.len())))
            }
            Some(_) => Ok(()),
        };
        if result.is_err() {
            self.fail();
            return result;
        }
        self.received.insert(slot);
        self.inbox.insert(slot, payload);
        Ok(())
    }

    /// The outputs of the request, in the order of the bundle's output table.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] on roles other than the device and before [`Progress::Done`].
    pub fn finish(self) -> Result<Vec<TensorValue>, EngineError> {
        let done = !self.failed && self.plan.step(self.pc).is_none();
        let mut this = self;
        match this.returned.take() {
            Some(outputs) if done => Ok(outputs),
            _ => Err(EngineError::Misuse { what: "finish() before the device program was done".into() }),
        }
    }

    fn alive(&self) -> Result<(), EngineError> {
        if self.failed {
            return Err(EngineError::Misuse { what: "this request has failed; start a new one".into() });
        }
        Ok(())
    }

    /// Ends the execution: nothing computed so far may leave any more.
    fn fail(&mut self) {
        self.failed = true;
        self.outbox.clear();
        self.inbox.clear();
        self.returned = None;
        self.rights.clear();
        self.ahead.clear();
        self.values.clear();
    }

    fn free(&mut self, step: &Prepared) {
        let plan = Arc::clone(&self.plan);
        step.frees.iter().for_each(|v| self.values.free(*v, plan.buffers()));
    }

    /// Work of the device that needs no reply: for the time in which the network and the edges are busy. Expands the pads
    /// of the replies it waits for and the mask of the upload after them, as far as [`AHEAD_BYTES`] go, and computes the
    /// sides of the checks that depend on what was sent.
    ///
    /// # Errors
    /// As [`Execution::resume`].
    pub fn prepare_ahead(&mut self) -> Result<(), EngineError> {
        self.alive()?;
        let plan = Arc::clone(&self.plan);
        let mut pc = self.pc;
        while plan.step(pc).is_some() {
            match plan.run_at(pc) {
                Some(Fused { run: Run::Reveal { map, inputs, open, .. }, steps }) => {
                    if !self.rights.contains_key(map) && inputs.iter().all(|v| self.values.encoded(*v).is_ok()) {
                        let right = self.right(&plan, *map, inputs)?;
                        self.rights.insert(*map, right);
                    }
                    if let Open::Pad(slot) = open {
                        self.expand(&plan, *slot, Side::Pad)?;
                    }
                    pc += steps;
                }
                Some(Fused { run: Run::Upload { mask, .. }, .. }) => {
                    if let Some(slot) = mask {
                        self.expand(&plan, *slot, Side::Mask)?;
                    }
                    return Ok(());
                }
                Some(Fused { run: Run::Answer { .. }, steps }) => pc += steps,
                None => pc += 1,
            }
        }
        Ok(())
    }

    /// Makes a stream now, if it fits beside those that wait already.
    fn expand(&mut self, plan: &LoadedPlan, slot: SlotId, side: Side) -> Result<(), EngineError> {
        if self.ahead.contains_key(&(slot, side as u8)) {
            return Ok(());
        }
        let bytes = |m: &Mask| m.elements() * if m.width() <= 32 { 4 } else { 8 };
        let mask = self.stream(plan, slot, side)?;
        let there: usize = self.ahead.values().map(bytes).sum();
        if there + bytes(&mask) <= AHEAD_BYTES {
            let made = self.profile.measure(Stage::Mask, || mask.expand());
            self.ahead.insert((slot, side as u8), made);
        }
        Ok(())
    }

    fn right(&self, plan: &LoadedPlan, map: MapId, inputs: &[ValueId]) -> Result<Fp, EngineError> {
        let inputs = inputs.iter().map(|v| self.values.encoded(*v)).collect::<Result<Vec<_>, _>>()?;
        let right = || self.check_material()?.right(map, &inputs, plan.kernels());
        self.profile.measure(Stage::Check, right)
    }

    fn check_material(&self) -> Result<&CheckMaterial, EngineError> {
        self.secrets.check().ok_or_else(|| EngineError::mismatch("no check data"))
    }

    /// The payload that a run still needs.
    fn missing(&self, fused: &Fused) -> Option<(Role, SlotId)> {
        let (reply, minus) = match &fused.run {
            Run::Upload { .. } => (None, None),
            Run::Reveal { from, slot, open: Open::Minus(minus), .. } => (Some((*from, *slot)), Some(minus)),
            Run::Reveal { from, slot, open: Open::Pad(_) | Open::Bare, .. } => (Some((*from, *slot)), None),
            Run::Answer { close: Close::Minus(minus), .. } => (None, Some(minus)),
            Run::Answer { close: Close::Pad(_) | Close::Bare, .. } => (None, None),
        };
        let minus = minus.and_then(|m| if let Minus::Recv(from, slot) = m { Some((*from, *slot)) } else { None });
        [reply, minus].into_iter().flatten().find(|(_, slot)| !self.inbox.contains_key(slot))
    }

    /// A payload that has come, proven to be one that packing can write.
    fn payload(&mut self, plan: &LoadedPlan, from: Role, slot: SlotId) -> Result<Vec<u8>, EngineError> {
        let payload = self.inbox.remove(&slot).unwrap_or_default();
        ring::canonical(&payload, plan.slot(slot)?).map_err(|what| EngineError::PeerMisbehaved {
            role: from,
            slot,
            what: what.to_string(),
        })?;
        Ok(payload)
    }

    /// The bytes of a correction, which are used once.
    fn correction(&mut self, plan: &LoadedPlan, minus: Minus) -> Result<Vec<u8>, EngineError> {
        match minus {
            Minus::Recv(from, slot) => self.payload(plan, from, slot),
            Minus::Load(slot) => {
                let bytes = self.secrets.loaded_mut().and_then(|l| l.remove(&slot));
                let bytes = bytes.ok_or(EngineError::OutOfPairs { request: self.request, slot })?;
                ring::canonical(&bytes, plan.slot(slot)?).map_err(|what| {
                    EngineError::mismatch(format!("stored correction of slot {slot}: {what}; make the stock again"))
                })?;
                Ok(bytes)
            }
        }
    }

    fn execute_run(&mut self, plan: &LoadedPlan, fused: &Fused) -> Result<(), EngineError> {
        match &fused.run {
            Run::Upload { x, groups, range, encoded, mask, to, slot } => {
                let mask = mask.map(|slot| self.made(plan, slot, Side::Mask)).transpose()?;
                let x = self.values.tensor(*x)?;
                let (_, prepared) = plan.step(self.pc).ok_or_else(|| EngineError::mismatch("no such step"))?;
                let tools = Tools { kernels: plan.kernels(), profile: &self.profile, buffers: plan.buffers() };
                let (made, payload) =
                    upload(x, *groups, plan.range(*range)?, mask, plan.slot(*slot)?, tools, prepared)?;
                self.values.set(*encoded, Value::Encoded(made))?;
                self.outbox.push(Outgoing { to: *to, slot: *slot, payload });
            }
            Run::Reveal { from, slot, open, check, map, inputs, decode, source, y } => {
                let right = match self.rights.remove(map) {
                    Some(right) => right,
                    None => self.right(plan, *map, inputs)?,
                };
                let reply = self.payload(plan, *from, *slot)?;
                let k = plan.slot(*slot)?.k;
                let pad = match open {
                    Open::Pad(slot) => Some(self.made(plan, *slot, Side::Pad)?),
                    Open::Minus(_) | Open::Bare => None,
                };
                let correction = match open {
                    Open::Minus(minus) => Some(self.correction(plan, *minus)?),
                    Open::Pad(_) | Open::Bare => None,
                };
                let cover = match (pad, &correction) {
                    (Some(pad), _) => Cover::Pad(pad.into_parts()),
                    (None, Some(bytes)) => Cover::Minus(bytes),
                    (None, None) => Cover::Bare,
                };
                let step = |at| plan.step(at).map(|(_, p)| p).ok_or_else(|| EngineError::mismatch("no such step"));
                let decoder = Decoder::new(step(*decode)?.decode_table()?, &self.values.encoded(*source)?.exponents)?;
                let tally = self.check_material()?.tally(*map, right)?;
                let tools = Tools { kernels: plan.kernels(), profile: &self.profile, buffers: plan.buffers() };
                let made = reveal(&reply, cover, k, tally, &decoder, step(*check)?.check_site()?, tools)?;
                plan.buffers().keep_bytes(reply);
                let tensor = TensorValue::from_f32(decoder.shape().clone(), made.into_value())?;
                self.values.set(*y, Value::Tensor(tensor))?;
            }
            Run::Answer { map, inputs, close, to, slot } => {
                let pad = match close {
                    Close::Pad(slot) => Some(self.stream(plan, *slot, Side::Pad)?),
                    Close::Minus(_) | Close::Bare => None,
                };
                let correction = match close {
                    Close::Minus(minus) => Some(self.correction(plan, *minus)?),
                    Close::Pad(_) | Close::Bare => None,
                };
                let inputs = inputs.iter().map(|v| self.values.get(*v)).collect::<Result<Vec<_>, _>>()?;
                let payload = self.profile.measure(Stage::Apply, || {
                    let slot = plan.slot(*slot)?;
                    plan.answer(*map, &inputs, correction.as_deref(), pad, slot)
                })?;
                correction.into_iter().for_each(|bytes| plan.buffers().keep_bytes(bytes));
                self.outbox.push(Outgoing { to: *to, slot: *slot, payload });
            }
        }
        Ok(())
    }

    fn execute(&mut self, plan: &LoadedPlan, step: &Step, prepared: &Prepared) -> Result<(), EngineError> {
        let mut results = Vec::with_capacity(1);
        match &step.op {
            Op::Encode { x, groups, range } => {
                let range = plan.range(*range)?;
                let x = self.values.tensor(*x)?;
                results.push(Value::Encoded(encode::encode(x, *groups, range, plan.kernels(), prepared)?));
            }
            Op::Mask { slot, x } => {
                let x = self.values.encoded(*x)?;
                results.push(ring::mask(x, self.stream(plan, *slot, Side::Mask)?, plan.kernels())?);
            }
            Op::Expose { x, k } => {
                results.push(ring::expose(self.values.encoded(*x)?, *k, plan.kernels())?);
            }
            Op::Unpad { slot, x } => {
                let pad = self.stream(plan, *slot, Side::Pad)?;
                results.push(ring::add(self.values.take(*x, prepared)?, pad)?);
            }
            Op::Lift { x } => {
                let k = plan.ring_width(*x)?;
                results.push(Value::Lifted(ring::lift(self.values.get(*x)?, k, plan.kernels())?));
            }
            Op::Check { map, inputs, z } => {
                let check = self.secrets.check().ok_or_else(|| EngineError::mismatch("no check data"))?;
                let z = self.values.take_lifted(*z, prepared)?;
                let inputs = inputs.iter().map(|v| self.values.encoded(*v)).collect::<Result<Vec<_>, _>>()?;
                let site = prepared.check_site()?;
                results.push(Value::Checked(check.check(*map, &inputs, z, site, plan.kernels())?));
            }
            Op::Decode { z, source, .. } => {
                let z = self.values.checked(*z)?;
                let source = self.values.encoded(*source)?;
                results.push(Value::Tensor(decode::decode(z, source, prepared.decode_table()?, plan.kernels())?));
            }
            Op::Local { inputs, .. } => {
                // what no later step reads is given away, so that the segment may work on it in place
                let taken: Vec<_> = inputs.iter().map(|v| self.values.take_tensor(*v, prepared)).collect();
                let given = inputs.iter().zip(taken).map(|(v, taken)| match taken {
                    Some(tensor) => Ok(Cow::Owned(tensor)),
                    None => self.values.tensor(*v).map(Cow::Borrowed),
                });
                let outputs = prepared.local()?.run(given.collect::<Result<_, _>>()?, &step.results)?;
                results.extend(outputs.into_iter().map(Value::Tensor));
            }
            Op::Return { outputs } => {
                let outputs = outputs.iter().map(|v| self.values.tensor(*v).cloned()).collect::<Result<_, _>>()?;
                self.returned = Some(outputs);
            }
            Op::Send { to, slot, x } | Op::Store { to, slot, x } => {
                let payload = ring::pack(self.values.get(*x)?, plan.slot(*slot)?, plan.kernels())?;
                self.outbox.push(Outgoing { to: *to, slot: *slot, payload });
            }
            Op::Recv { from, slot } if prepared.packed => {
                let (bytes, decl) = (self.payload(plan, *from, *slot)?, plan.slot(*slot)?);
                results.push(Value::Payload(Payload { bytes, k: decl.k, shape: decl.shape.clone() }));
            }
            Op::Recv { from, slot } => {
                let payload = self.inbox.remove(slot).unwrap_or_default();
                let value = ring::unpack(&payload, plan.slot(*slot)?, plan.kernels());
                results.push(value.map_err(|what| EngineError::PeerMisbehaved {
                    role: *from,
                    slot: *slot,
                    what: what.to_string(),
                })?);
            }
            Op::Draw { slot } => {
                results.push(ring::draw(self.stream(plan, *slot, Side::Mask)?, plan.slot(*slot)?)?);
            }
            Op::Pad { slot, x } => {
                let pad = self.stream(plan, *slot, Side::Pad)?;
                results.push(ring::add(self.values.take(*x, prepared)?, pad)?);
            }
            Op::Apply { map, inputs } => {
                let inputs = inputs.iter().map(|v| self.values.get(*v)).collect::<Result<Vec<_>, _>>()?;
                results.push(plan.apply(*map, prepared.first_result, &inputs)?);
            }
            Op::Sub { a, b } => {
                let a = self.values.take(*a, prepared)?;
                results.push(ring::sub(a, self.values.get(*b)?, plan.kernels())?);
            }
            Op::Load { slot } => {
                let bytes = self.secrets.loaded().and_then(|l| l.get(slot));
                let bytes = bytes.ok_or(EngineError::OutOfPairs { request: self.request, slot: *slot })?;
                let value = ring::unpack(bytes, plan.slot(*slot)?, plan.kernels());
                results.push(value.map_err(|what| {
                    EngineError::mismatch(format!("stored correction of slot {slot}: {what}; make the stock again"))
                })?);
            }
            // Dealt by `offline::deal_check`, once a device and not once a request.
            Op::DealCheck { .. } => {}
        }
        for (i, value) in results.into_iter().enumerate() {
            self.values.set(ValueId((prepared.first_result + i) as u32), value)?;
        }
        Ok(())
    }

    /// The mask or pad of a slot, made ahead or now.
    fn made(&mut self, plan: &LoadedPlan, slot: SlotId, side: Side) -> Result<Mask, EngineError> {
        match self.ahead.remove(&(slot, side as u8)) {
            Some(mask) => Ok(mask),
            None => self.stream(plan, slot, side),
        }
    }

    /// The mask or pad of a slot for this request.
    fn stream(&self, plan: &LoadedPlan, slot: SlotId, side: Side) -> Result<Mask, EngineError> {
        let session = self.secrets.session().ok_or_else(|| EngineError::mismatch("this role holds no session key"))?;
        let at = StreamAt { digest: *plan.digest(), request: self.request, slot: slot.0, side };
        let decl = plan.slot(slot)?;
        Ok(session.mask(plan.suite(), &at, decl.shape.len(), decl.k))
    }
}
