//! What the owner computes ahead of requests: check vectors of a device and key pairs of one-edge schemes.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_keys::{CheckData, CheckSecret, MapCheck, Part, SessionKey};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::map::{CheckForm, LinearMap, MapOp};
use pponnx_plans::op::Op;
use pponnx_plans::plan::Bundle;
use pponnx_plans::reference::linear;
use pponnx_plans::reference::scalar::{Fp, Scalar, Weighted};
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::{ConstId, MapId, Role};

use crate::check::{Layout, form_code, form_of};
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
    let a = secret.elements(digest, id.0, Part::Channels, layout.channels);
    let inputs = match (form, map.ops.as_slice()) {
        (CheckForm::ConvRankOne, [MapOp::Conv { w, groups, .. }]) => {
            vec![conv(&weights(bundle, constants, *w)?, *groups, &a)]
        }
        (CheckForm::MatMulRankOne, [MapOp::MatMul { w, .. }]) => vec![matmul(&weights(bundle, constants, *w)?, &a)],
        _ => {
            let beta = secret.elements(digest, id.0, Part::Positions, layout.positions());
            let v = Tensor { shape: out.clone(), data: layout.vector(&a, &beta) };
            full(bundle, constants, map, &v)?
        }
    };
    Ok(MapCheck { map: id.0, form: form_code(form), inputs })
}

fn weights(bundle: &Bundle, constants: &ConstStore, id: ConstId) -> Result<Tensor<i32>, EngineError> {
    let (decl, bytes) = constant_bytes(bundle, constants, id)?;
    Tensor::weights(decl, bytes).map_err(|e| EngineError::Constant { id, what: e.to_string() })
}

/// `sum_row a[row] * w[row]`, rows being the first axis.
fn combined(rows: &[i32], len: usize, a: &[u64]) -> Vec<Fp> {
    let mut sum = vec![Fp::ZERO; len];
    for (row, a) in rows.chunks(len.max(1)).zip(a) {
        let a = Fp::new(*a);
        sum.iter_mut().zip(row).for_each(|(s, w)| *s = s.mul_add(a, *w));
    }
    sum
}

/// `G[ci, k..] = sum of a_co W[co, ci', k..] over the rows co of ci's group`.
fn conv(w: &Tensor<i32>, groups: usize, a: &[u64]) -> Vec<u64> {
    let row: usize = w.shape.0.iter().skip(1).product();
    let rows = w.shape.0.first().copied().unwrap_or(0) / groups.max(1);
    let parts = w.data.chunks((rows * row).max(1)).zip(a.chunks(rows.max(1)));
    parts.flat_map(|(w, a)| combined(w, row, a)).map(Fp::value).collect()
}

/// `G[k] = sum_n a_n W[n, k]`.
fn matmul(w: &Tensor<i32>, a: &[u64]) -> Vec<u64> {
    let k = w.shape.0.last().copied().unwrap_or(0);
    combined(&w.data, k, a).into_iter().map(Fp::value).collect()
}

/// `c = L^T v`, one vector an input.
fn full(
    bundle: &Bundle,
    constants: &ConstStore,
    map: &LinearMap,
    v: &Tensor<Fp>,
) -> Result<Vec<Vec<u64>>, EngineError> {
    let mut tensors = BTreeMap::new();
    for id in map.ops.iter().filter_map(|op| op.constant()) {
        tensors.insert(*id, weights(bundle, constants, *id)?);
    }
    let c = linear::adjoint(map, v, |id| tensors.get(id)).map_err(|e| EngineError::mismatch(e.to_string()))?;
    Ok(c.into_iter().map(|c| c.data.into_iter().map(Fp::value).collect()).collect())
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
