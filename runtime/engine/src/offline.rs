//! What the owner computes ahead of requests: check vectors of a device and key pairs of one-edge schemes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pponnx_keys::{CheckData, CheckSecret, MapCheck, Part, SessionKey};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::map::{CheckForm, MapOp};
use pponnx_plans::op::Op;
use pponnx_plans::plan::Bundle;
use pponnx_plans::reference::scalar::{Fp, P61};
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::reference::{EvalError, check, linear};
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::{ConstId, DType, MapId, Role};

use crate::check::{Layout, elements, form_code, form_of};
use crate::error::EngineError;
use crate::interp::{Execution, Outgoing, Progress, Secrets};
use crate::plan::{LoadedPlan, constant_bytes};

/// Makes the check data of one device: runs the `deal-check` operations of the offline program.
///
/// `secret` must be fresh random bytes of the owner's, never derived from a key that edge B holds. `constants` must
/// hold the weights of every checked map.
///
/// # Errors
/// [`EngineError::Constant`] if weights are missing or have another size.
pub fn deal_check(
    bundle: &ValidBundle,
    constants: &ConstStore,
    device: [u8; 16],
    secret: CheckSecret,
) -> Result<CheckData, EngineError> {
    let steps = bundle.program(Role::Offline).map(|p| p.steps.as_slice()).unwrap_or_default();
    let mut ids: Vec<MapId> = steps
        .iter()
        .filter_map(|s| match s.op {
            Op::DealCheck { map } => Some(map),
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let digest = *bundle.digest();
    let maps = ids.into_iter().map(|id| deal(bundle, constants, &digest, &secret, id)).collect::<Result<_, _>>()?;
    Ok(CheckData { device, bundle: digest, secret, maps })
}

fn deal(
    bundle: &Bundle,
    constants: &ConstStore,
    digest: &[u8; 32],
    secret: &CheckSecret,
    id: MapId,
) -> Result<MapCheck, EngineError> {
    let lost = |what: String| EngineError::mismatch(format!("map {id}: {what}"));
    let map = bundle.maps.get(id.index()).ok_or_else(|| lost("not in the bundle".into()))?;
    let form = form_of(bundle, map);
    let shapes = linear::shapes(map, |c| bundle.constants.get(c.index()).map(|d| &d.shape));
    let shapes = shapes.map_err(|e| lost(e.to_string()))?;
    let out = shapes.get(map.output.index()).ok_or_else(|| lost("no result".into()))?;
    let layout = Layout::new(form, out);
    let a = elements(&secret.elements(digest, id.0, Part::Channels, layout.channels));
    let unfit = |e: EvalError| lost(e.to_string());
    let vectors = match (form, map.ops.as_slice()) {
        (CheckForm::ConvRankOne, [MapOp::Conv { w, groups, .. }]) => {
            vec![rank_one(bundle, constants, *w, *groups, &a)?]
        }
        (CheckForm::MatMulRankOne, [MapOp::MatMul { w, .. }]) => vec![rank_one(bundle, constants, *w, 1, &a)?],
        _ => {
            let beta = elements(&secret.elements(digest, id.0, Part::Positions, layout.positions()));
            let v = check::outer(form, out, &a, &beta).map_err(unfit)?;
            let ids: BTreeSet<ConstId> = map.ops.iter().filter_map(|op| op.constant()).copied().collect();
            let load = |id: ConstId| Ok((id, weights(bundle, constants, id)?));
            let weights = ids.into_iter().map(load).collect::<Result<BTreeMap<_, _>, EngineError>>()?;
            let full = check::full(map, &v, |id| weights.get(id)).map_err(unfit)?;
            full.into_iter().map(|c| c.data.into_iter().map(Fp::value).collect()).collect()
        }
    };
    Ok(MapCheck { map: id.0, form: form_code(form), inputs: vectors })
}

/// [`check::rank_one`] straight from a constant's bytes, which are not widened. Sums are reduced at the end: with
/// elements below 2^61 and weights of 32 bits, 128 bits hold more terms than a tensor can have.
fn rank_one(
    bundle: &Bundle,
    constants: &ConstStore,
    id: ConstId,
    groups: usize,
    a: &[Fp],
) -> Result<Vec<u64>, EngineError> {
    let (decl, bytes) = constant_bytes(bundle, constants, id)?;
    let wrong = |what: String| EngineError::Constant { id, what };
    let outputs = decl.shape.0.first().copied().unwrap_or(0);
    if outputs != a.len() || groups == 0 || outputs == 0 || !outputs.is_multiple_of(groups) || bytes.is_empty() {
        return Err(wrong(format!("{} do not fit a check of {} channels", decl.shape, a.len())));
    }
    match decl.dtype {
        DType::I16 => Ok(combine(bytes.as_chunks().0, groups, a, i16::from_le_bytes)),
        DType::I32 => Ok(combine(bytes.as_chunks().0, groups, a, i32::from_le_bytes)),
        other => Err(wrong(format!("weights are {} and not i16 or i32", other.name()))),
    }
}

/// For each group, the sum of its rows of weights, each times its element of `a`.
fn combine<W: Into<i64>, const N: usize>(
    weights: &[[u8; N]],
    groups: usize,
    a: &[Fp],
    word: impl Fn([u8; N]) -> W,
) -> Vec<u64> {
    let row = (weights.len() / a.len()).max(1);
    let mut sums = vec![0i128; row * groups];
    let each = (a.len() / groups).max(1);
    let parts = a.chunks_exact(each).zip(weights.chunks(each * row));
    for ((a, weights), to) in parts.zip(sums.chunks_mut(row)) {
        for (a, weights) in a.iter().zip(weights.chunks_exact(row)) {
            let a = i128::from(a.value());
            to.iter_mut().zip(weights).for_each(|(sum, w)| *sum += a * i128::from(word(*w).into()));
        }
    }
    sums.into_iter().map(|sum| sum.rem_euclid(i128::from(P61)) as u64).collect()
}

fn weights(bundle: &Bundle, constants: &ConstStore, id: ConstId) -> Result<Tensor<i32>, EngineError> {
    let (decl, bytes) = constant_bytes(bundle, constants, id)?;
    Tensor::weights(decl, &bytes).map_err(|e| EngineError::Constant { id, what: e.to_string() })
}

/// Makes the key pairs of one request: runs the offline program and returns what it stores with whom, packed, in the
/// order of the program. Empty for schemes without dealt pairs.
///
/// # Errors
/// [`EngineError`] as for any execution.
pub fn deal_pairs(
    plan: &Arc<LoadedPlan>,
    session: &Arc<SessionKey>,
    request: u64,
) -> Result<Vec<Outgoing>, EngineError> {
    let secrets = Secrets::Offline { session: Arc::clone(session) };
    let mut execution = Execution::new(Arc::clone(plan), request, secrets, Vec::new())?;
    match execution.resume()? {
        Progress::Done => Ok(execution.outgoing()),
        Progress::Wait { from, slot } => {
            Err(EngineError::mismatch(format!("the offline program waits for {from} at slot {slot}")))
        }
    }
}
