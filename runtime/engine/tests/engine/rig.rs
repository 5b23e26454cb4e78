//! What tests share: a validated bundle with keys, ready to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_engine::offline::deal_check;
use pponnx_engine::{CheckMaterial, EngineError, Execution, LoadedPlan, Outcome, Secrets, Simulation, TensorValue};
use pponnx_kernels::Kernels;
use pponnx_keys::{CheckSecret, EpochKey, SessionKey, SessionNonce};
use pponnx_plans::valid::{ValidBundle, validate};
use pponnx_plans::value::{Role, SlotId};

use crate::nets::{Dice, Net, Written, write};

pub struct Rig {
    pub bundle: Arc<ValidBundle>,
    pub written: Written,
    pub simulation: Simulation,
    pub session: Arc<SessionKey>,
}

/// A session of the kind the scheme uses.
pub fn session(scheme: &str, nonce: u8) -> Arc<SessionKey> {
    let key = EpochKey::first(&[5; 32]);
    Arc::new(match scheme {
        "one-time" | "stockpile" => SessionKey::dealt(&key),
        _ => SessionKey::session(&key, &SessionNonce([nonce; 32])),
    })
}

impl Rig {
    pub fn new(net: &Net, scheme: &str, k: u32) -> Rig {
        Rig::on(net, scheme, k, Kernels::detect())
    }

    pub fn on(net: &Net, scheme: &str, k: u32, kernels: Kernels) -> Rig {
        let written = write(net, scheme, k);
        let bundle = match validate(written.bundle.clone()) {
            Ok(bundle) => Arc::new(bundle),
            Err(violations) => panic!("{scheme} {k}: {violations:#?}"),
        };
        let check = deal_check(&bundle, &written.constants, [1; 16], CheckSecret::new(&[9; 32])).unwrap();
        let simulation = Simulation::load(Arc::clone(&bundle), &written.constants, &check, kernels).unwrap();
        Rig { bundle, written, simulation, session: session(scheme, 3) }
    }

    /// The same, with programs evaluated step by step.
    pub fn stepwise(net: &Net, scheme: &str, k: u32) -> Rig {
        let mut rig = Rig::new(net, scheme, k);
        let check = deal_check(&rig.bundle, &rig.written.constants, [1; 16], CheckSecret::new(&[9; 32])).unwrap();
        let constants = &rig.written.constants;
        let load =
            Simulation::load_with(Arc::clone(&rig.bundle), constants, &check, Kernels::detect(), LoadedPlan::stepwise);
        rig.simulation = load.unwrap();
        rig
    }

    /// Inputs of the network, with magnitudes that differ from channel to channel.
    pub fn inputs(&self, seed: u64) -> Vec<TensorValue> {
        let mut dice = Dice(seed);
        let tensors = self.bundle.inputs.iter().map(|port| {
            let mut data = dice.reals(port.shape.len());
            let run = port.shape.0[2..].iter().product::<usize>().max(1);
            data.iter_mut().enumerate().for_each(|(i, v)| *v *= [1.0, 0.01, 7.0][i / run % 3]);
            TensorValue::from_f32(port.shape.clone(), data).unwrap()
        });
        tensors.collect()
    }

    pub fn run(&self, request: u64, seed: u64) -> Result<Outcome, EngineError> {
        self.simulation.run(&self.session, request, self.inputs(seed))
    }
}

impl Rig {
    pub fn plan(&self, role: Role) -> Arc<LoadedPlan> {
        let plan = LoadedPlan::load(Arc::clone(&self.bundle), role, &self.written.constants, Kernels::detect());
        Arc::new(plan.unwrap())
    }

    pub fn try_device(
        &self,
        request: u64,
        inputs: Vec<TensorValue>,
        loaded: BTreeMap<SlotId, Vec<u8>>,
    ) -> Result<Execution, EngineError> {
        let check = deal_check(&self.bundle, &self.written.constants, [1; 16], CheckSecret::new(&[9; 32])).unwrap();
        let check = Arc::new(CheckMaterial::load(&self.bundle, &check).unwrap());
        let secrets = Secrets::Device { session: Arc::clone(&self.session), check, loaded };
        Execution::new(self.plan(Role::Device), request, secrets, inputs)
    }

    pub fn device(&self, request: u64, inputs: Vec<TensorValue>) -> Execution {
        self.try_device(request, inputs, BTreeMap::new()).unwrap()
    }
}
