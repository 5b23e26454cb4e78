//! What is refused before a request starts.

use std::sync::Arc;

use pponnx_engine::offline::{deal_check, deal_pairs};
use pponnx_engine::{CheckMaterial, Elements, EngineError, Execution, LoadedPlan, Secrets, TensorValue};
use pponnx_kernels::Kernels;
use pponnx_keys::CheckSecret;
use pponnx_plans::constant::ConstStore;
use pponnx_plans::op::Op;
use pponnx_plans::valid::validate;
use pponnx_plans::value::Role;

use crate::nets::{net_chain, net_conv, net_depthwise, net_matmul, write};
use crate::rig::Rig;

/// A store with the constants of one role only.
fn part(rig: &Rig, role: Role) -> ConstStore {
    let mut store = ConstStore::new();
    for id in rig.bundle.constants_of(role) {
        let bytes = rig.written.constants.load(&rig.bundle.constants[id.index()].digest).unwrap();
        store.insert(bytes.to_vec());
    }
    store
}

#[test]
fn each_role_loads_with_its_own_constants_and_not_with_anothers() {
    let rig = Rig::new(&net_chain(), "relay", 32);
    for role in Role::ALL {
        LoadedPlan::load(Arc::clone(&rig.bundle), role, &part(&rig, role), Kernels::detect()).unwrap();
    }
    for (role, of) in [(Role::Device, Role::EdgeA), (Role::EdgeA, Role::Device), (Role::EdgeB, Role::Device)] {
        let loaded = LoadedPlan::load(Arc::clone(&rig.bundle), role, &part(&rig, of), Kernels::detect());
        assert!(matches!(loaded.err(), Some(EngineError::Constant { .. })), "{role} with constants of {of}");
    }
}

#[test]
fn constants_that_are_not_finite_are_refused() {
    let bad: [(&str, Vec<u8>); 2] =
        [("scale", f64::INFINITY.to_le_bytes().to_vec()), ("bias", f32::NAN.to_le_bytes().repeat(4))];
    for (which, bytes) in bad {
        let mut written = write(&net_conv(), "relay", 32);
        let steps = &written.bundle.programs.iter().find(|p| p.role == Role::Device).unwrap().steps;
        let id = steps.iter().find_map(|s| match &s.op {
            Op::Decode { scale, bias, .. } => Some(if which == "scale" { *scale } else { *bias }),
            _ => None,
        });
        written.bundle.constants[id.unwrap().index()].digest = written.constants.insert(bytes);
        let bundle = validate(written.bundle).unwrap();
        let loaded = LoadedPlan::load(bundle, Role::Device, &written.constants, Kernels::detect());
        assert!(matches!(loaded.err(), Some(EngineError::Constant { .. })), "{which}");
    }
}

#[test]
fn group_numbers_beyond_the_groups_are_refused() {
    let mut written = write(&net_depthwise(), "relay", 32);
    let steps = &written.bundle.programs.iter().find(|p| p.role == Role::Device).unwrap().steps;
    let id = steps.iter().find_map(|s| match &s.op {
        Op::Decode { group, .. } => *group,
        _ => None,
    });
    let list: Vec<u8> = [0u32, 1, 2, 3, 4, 6].into_iter().flat_map(u32::to_le_bytes).collect();
    written.bundle.constants[id.unwrap().index()].digest = written.constants.insert(list);
    let bundle = validate(written.bundle).unwrap();
    let loaded = LoadedPlan::load(bundle, Role::Device, &written.constants, Kernels::detect());
    assert!(matches!(loaded.err(), Some(EngineError::Constant { .. })));
}

#[test]
fn check_data_of_another_bundle_are_refused() {
    let rig = Rig::new(&net_conv(), "relay", 32);
    let other = Rig::new(&net_conv(), "relay", 40);
    let check = deal_check(&other.bundle, &other.written.constants, [1; 16], CheckSecret::new(&[9; 32])).unwrap();
    assert!(matches!(CheckMaterial::load(&rig.bundle, &check), Err(EngineError::PlanMismatch { .. })));
    let check = Arc::new(CheckMaterial::load(&other.bundle, &check).unwrap());
    let secrets = Secrets::Device { session: Arc::clone(&rig.session), check, loaded: Default::default() };
    let execution = Execution::new(rig.plan(Role::Device), 0, secrets, rig.inputs(1));
    assert!(matches!(execution.err(), Some(EngineError::PlanMismatch { .. })));
}

#[test]
fn check_vectors_of_another_secret_fail_honest_answers() {
    let rig = Rig::new(&net_matmul(), "relay", 32);
    let mut check = deal_check(&rig.bundle, &rig.written.constants, [1; 16], CheckSecret::new(&[8; 32])).unwrap();
    check.secret = CheckSecret::new(&[9; 32]);
    let simulation =
        pponnx_engine::Simulation::load(Arc::clone(&rig.bundle), &rig.written.constants, &check, Kernels::detect());
    let result = simulation.unwrap().run(&rig.session, 0, rig.inputs(1));
    assert!(matches!(result.err(), Some(EngineError::IntegrityCheckFailed { .. })));
}

#[test]
fn missing_pairs_are_noticed_before_the_request_starts() {
    for (scheme, role) in [("one-time", Role::Device), ("stockpile", Role::EdgeA)] {
        let rig = Rig::new(&net_conv(), scheme, 32);
        let pairs = deal_pairs(&rig.plan(Role::Offline), &rig.session, 5).unwrap();
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].to, role);
        let start = |loaded| match role {
            Role::EdgeA => Execution::new(rig.plan(role), 5, Secrets::EdgeA { loaded }, vec![]).err(),
            _ => rig.try_device(5, rig.inputs(1), loaded).err(),
        };
        let empty = start(Default::default());
        assert!(matches!(empty, Some(EngineError::OutOfPairs { request: 5, .. })), "{scheme}");
        assert!(start([(pairs[0].slot, pairs[0].payload.clone())].into()).is_none());
        let short = start([(pairs[0].slot, vec![0; 3])].into());
        assert!(matches!(short, Some(EngineError::PlanMismatch { .. })));
    }
    let relay = Rig::new(&net_conv(), "relay", 32);
    assert!(deal_pairs(&relay.plan(Role::Offline), &relay.session, 5).unwrap().is_empty());
}

#[test]
fn inputs_must_be_those_of_the_network() {
    let rig = Rig::new(&net_conv(), "relay", 32);
    let shape = rig.bundle.inputs[0].shape.clone();
    let flat = TensorValue::from_f32(vec![shape.len()], vec![0.0; shape.len()]).unwrap();
    let ints = TensorValue::new(shape.clone(), Elements::I64(vec![0; shape.len()])).unwrap();
    let good = || rig.inputs(1).remove(0);
    for inputs in [vec![], vec![flat], vec![ints], vec![good(), good()]] {
        let error = rig.try_device(0, inputs, Default::default()).err();
        assert!(matches!(&error, Some(EngineError::InvalidInput { name, .. }) if name == "input0"), "{error:?}");
    }
    assert!(rig.try_device(0, vec![good()], Default::default()).is_ok());
    let wrong = Execution::new(rig.plan(Role::EdgeB), 0, Secrets::EdgeA { loaded: Default::default() }, vec![]);
    assert!(matches!(wrong.err(), Some(EngineError::PlanMismatch { .. })));
}
