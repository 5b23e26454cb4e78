//! All roles of one request in one process, without a network: for conformance tests and `verify --in-process`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_kernels::Kernels;
use pponnx_keys::{CheckData, SessionKey};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::{Role, SlotId};

use crate::check::CheckMaterial;
use crate::error::EngineError;
use crate::interp::{Execution, Outgoing, Progress, Secrets};
use crate::offline::deal_pairs;
use crate::plan::LoadedPlan;
use crate::value::TensorValue;

/// A payload on its way between two roles. `from` is [`Role::Offline`] for stored corrections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Who made it.
    pub from: Role,
    /// Who gets it.
    pub to: Role,
    /// The slot it belongs to.
    pub slot: SlotId,
    /// Packed elements.
    pub bytes: Vec<u8>,
}

/// What a request cost, counted and not declared. Payload bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Waits of the device for answers to something it sent.
    pub rounds: u64,
    /// Bytes, device to edges.
    pub bytes_up: u64,
    /// Bytes, edges to device.
    pub bytes_down: u64,
    /// Bytes, edge B to edge A.
    pub bytes_edge_link: u64,
}

/// A finished request.
pub struct Outcome {
    /// The outputs, in the order of the bundle's output table.
    pub outputs: Vec<TensorValue>,
    /// What it cost.
    pub traffic: Traffic,
    /// Every payload, in the order of sending, as delivered.
    pub payloads: Vec<Payload>,
}

/// The loaded plans of all roles of a bundle.
pub struct Simulation {
    plans: BTreeMap<Role, Arc<LoadedPlan>>,
    check: Arc<CheckMaterial>,
}

impl Simulation {
    /// Loads every role that the bundle has. `constants` must hold the constants of all of them.
    ///
    /// # Errors
    /// As [`LoadedPlan::load`] and [`CheckMaterial::load`].
    pub fn load(
        bundle: impl Into<Arc<ValidBundle>>,
        constants: &ConstStore,
        check: &CheckData,
        kernels: Kernels,
    ) -> Result<Simulation, EngineError> {
        Simulation::load_with(bundle, constants, check, kernels, |plan| plan)
    }

    /// As [`Simulation::load`], with each plan changed by `prepare`: see [`LoadedPlan::stepwise`].
    ///
    /// # Errors
    /// As [`Simulation::load`].
    pub fn load_with(
        bundle: impl Into<Arc<ValidBundle>>,
        constants: &ConstStore,
        check: &CheckData,
        kernels: Kernels,
        prepare: impl Fn(LoadedPlan) -> LoadedPlan,
    ) -> Result<Simulation, EngineError> {
        let bundle: Arc<ValidBundle> = bundle.into();
        let check = Arc::new(CheckMaterial::load(&bundle, check)?);
        let mut plans = BTreeMap::new();
        for role in Role::ALL {
            let plan = LoadedPlan::load(Arc::clone(&bundle), role, constants, kernels)?;
            plans.insert(role, Arc::new(prepare(plan)));
        }
        Ok(Simulation { plans, check })
    }

    /// Runs one request.
    ///
    /// # Errors
    /// The first [`EngineError`] of any role.
    pub fn run(
        &self,
        session: &Arc<SessionKey>,
        request: u64,
        inputs: Vec<TensorValue>,
    ) -> Result<Outcome, EngineError> {
        self.run_with(session, request, inputs, |_| {})
    }

    /// Runs one request; `tamper` sees each payload before it is delivered and may change its bytes.
    ///
    /// # Errors
    /// The first [`EngineError`] of any role.
    pub fn run_with(
        &self,
        session: &Arc<SessionKey>,
        request: u64,
        inputs: Vec<TensorValue>,
        mut tamper: impl FnMut(&mut Payload),
    ) -> Result<Outcome, EngineError> {
        let mut payloads = Vec::new();
        let mut stored: BTreeMap<Role, BTreeMap<SlotId, Vec<u8>>> = BTreeMap::new();
        for pair in deal_pairs(self.plan(Role::Offline)?, session, request)? {
            let payload = delivered(Role::Offline, pair, &mut tamper);
            stored.entry(payload.to).or_default().insert(payload.slot, payload.bytes.clone());
            payloads.push(payload);
        }
        let mut loaded = |role| stored.remove(&role).unwrap_or_default();
        let device = Secrets::Device {
            session: Arc::clone(session),
            check: Arc::clone(&self.check),
            loaded: loaded(Role::Device),
        };
        let edge_a = Secrets::EdgeA { loaded: loaded(Role::EdgeA) };
        let edge_b = Secrets::EdgeB { session: Arc::clone(session) };
        let mut parties = [
            Party::new(Role::EdgeB, Execution::new(Arc::clone(self.plan(Role::EdgeB)?), request, edge_b, Vec::new())?),
            Party::new(Role::EdgeA, Execution::new(Arc::clone(self.plan(Role::EdgeA)?), request, edge_a, Vec::new())?),
            Party::new(Role::Device, Execution::new(Arc::clone(self.plan(Role::Device)?), request, device, inputs)?),
        ];
        let mut traffic = Traffic::default();
        while parties.iter().any(|p| !p.done) {
            let mut moved = false;
            let mut mail = Vec::new();
            for party in parties.iter_mut().filter(|p| !p.done) {
                party.done = party.execution.resume()? == Progress::Done;
                let sent = party.execution.outgoing();
                if party.role == Role::Device && !party.done && !sent.is_empty() {
                    traffic.rounds += 1;
                }
                moved |= party.done || !sent.is_empty();
                mail.extend(sent.into_iter().map(|o| (party.role, o)));
            }
            if let Some(device) = parties.iter_mut().find(|p| p.role == Role::Device && !p.done) {
                device.execution.prepare_ahead()?;
            }
            for (from, outgoing) in mail {
                let payload = delivered(from, outgoing, &mut tamper);
                traffic.count(&payload);
                if let Some(party) = parties.iter_mut().find(|p| p.role == payload.to) {
                    party.execution.supply(from, payload.slot, payload.bytes.clone())?;
                }
                payloads.push(payload);
            }
            if !moved {
                return Err(EngineError::mismatch("every role waits for another"));
            }
        }
        let [_, _, device] = parties;
        Ok(Outcome { outputs: device.execution.finish()?, traffic, payloads })
    }

    fn plan(&self, role: Role) -> Result<&Arc<LoadedPlan>, EngineError> {
        self.plans.get(&role).ok_or_else(|| EngineError::mismatch(format!("no plan of {role}")))
    }
}

struct Party {
    role: Role,
    execution: Execution,
    done: bool,
}

impl Party {
    fn new(role: Role, execution: Execution) -> Party {
        Party { role, execution, done: false }
    }
}

fn delivered(from: Role, outgoing: Outgoing, tamper: &mut impl FnMut(&mut Payload)) -> Payload {
    let mut payload = Payload { from, to: outgoing.to, slot: outgoing.slot, bytes: outgoing.payload };
    tamper(&mut payload);
    payload
}

impl Traffic {
    fn count(&mut self, payload: &Payload) {
        let bytes = payload.bytes.len() as u64;
        match (payload.from, payload.to) {
            (Role::Device, _) => self.bytes_up += bytes,
            (_, Role::Device) => self.bytes_down += bytes,
            _ => self.bytes_edge_link += bytes,
        }
    }
}
