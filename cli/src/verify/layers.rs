//! `verify --layers`: every segment beside an evaluation of the same real-valued map in f64.
//!
//! A plan is a program, so the segments' inputs and results are had by returning them: the bundle is extended by
//! outputs, validated again, and run like any other. Nothing else of the runtime changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_compiler::ir::split::{Part, RealMap, RealTensor, SplitGraph};
use pponnx_engine::TensorValue;
use pponnx_plans::op::Op;
use pponnx_plans::plan::{Bundle, Port};
use pponnx_plans::reference::linear;
use pponnx_plans::reference::number::Broadcast;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::valid::{ValidBundle, validate};
use pponnx_plans::value::{Role, Shape, ValueId, ValueType};
use serde_json::{Value, json};

use crate::compare::number;
use crate::failure::{Failure, Outcome};

/// Where a tensor is found once the extended bundle has run.
#[derive(Clone, Copy)]
enum Place {
    Input(usize),
    Output(usize),
}

struct Site {
    inputs: Vec<Place>,
    result: Place,
}

/// A bundle that also returns what goes into each segment and comes out of it.
pub struct Probe {
    /// The bundle to run instead.
    pub bundle: Arc<ValidBundle>,
    /// Outputs of the original bundle: the first ones of the extended one.
    pub outputs: usize,
    sites: Vec<Option<Site>>,
}

/// One segment beside f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Segment name.
    pub name: String,
    /// Shape of its result.
    pub shape: Shape,
    /// Largest absolute difference over the largest absolute value in f64.
    pub max_rel_err: f64,
}

impl Layer {
    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({ "segment": self.name, "shape": self.shape.0, "max_rel_err": number(self.max_rel_err) })
    }
}

fn internal(what: impl std::fmt::Display) -> Box<Failure> {
    Box::new(Failure::internal(format!("--layers: {what}")))
}

/// Extends a bundle by the segments' inputs and results as outputs.
pub fn probe(bundle: &Bundle) -> Outcome<Probe> {
    let mut extended = bundle.clone();
    let program = extended.programs.iter_mut().find(|p| p.role == Role::Device);
    let program = program.ok_or_else(|| internal("the bundle has no device program"))?;
    let types = program.types();
    let params = program.params.len();

    // Which value each encode reads, and which the decode of each check makes.
    let (mut encoded, mut checked) = (BTreeMap::new(), BTreeMap::new());
    let mut found: BTreeMap<usize, (Vec<ValueId>, ValueId)> = BTreeMap::new();
    let mut next = params as u32;
    for step in &program.steps {
        let result = ValueId(next);
        match &step.op {
            Op::Encode { x, .. } => {
                encoded.insert(result, *x);
            }
            Op::Check { map, inputs, .. } => {
                let xs = inputs.iter().filter_map(|i| encoded.get(i).copied()).collect();
                checked.insert(result, (map.index(), xs));
            }
            Op::Decode { z, .. } => {
                if let Some((map, xs)) = checked.remove(z) {
                    found.insert(map, (xs, result));
                }
            }
            _ => {}
        }
        next += step.results.len() as u32;
    }

    let Some(Op::Return { outputs }) = program.steps.last_mut().map(|s| &mut s.op) else {
        return Err(internal("the device program does not end in a return"));
    };
    let original = outputs.len();
    let mut ports = extended.outputs;
    let mut place = |value: ValueId, name: String| -> Option<Place> {
        if value.index() < params {
            return Some(Place::Input(value.index()));
        }
        if let Some(at) = outputs.iter().position(|o| *o == value) {
            return Some(Place::Output(at));
        }
        let ValueType::Tensor(dtype, shape) = types.get(value.index())? else { return None };
        outputs.push(value);
        ports.push(Port { name, dtype: *dtype, shape: shape.clone() });
        Some(Place::Output(outputs.len() - 1))
    };
    let mut sites = Vec::new();
    for (index, map) in bundle.maps.iter().enumerate() {
        let site = found.remove(&index).and_then(|(xs, y)| {
            let inputs: Option<Vec<Place>> = xs
                .into_iter()
                .enumerate()
                .map(|(i, x)| place(x, format!("{}: ${index} input {i}", map.name)))
                .collect();
            Some(Site { inputs: inputs?, result: place(y, format!("{}: ${index} result", map.name))? })
        });
        sites.push(site);
    }
    extended.outputs = ports;
    let bundle =
        validate(extended).map_err(|v| internal(v.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    Ok(Probe { bundle: Arc::new(bundle), outputs: original, sites })
}

impl Probe {
    /// Compares each segment's result with f64, given the request's inputs and the extended outputs.
    pub fn compare(&self, split: &SplitGraph, inputs: &[TensorValue], outputs: &[TensorValue]) -> Outcome<Vec<Layer>> {
        let stages = split.parts.iter().filter_map(|p| match p {
            Part::Stage(stage) => Some(&stage.maps),
            Part::Local(_) => None,
        });
        let maps: Vec<&RealMap> = stages.flatten().collect();
        if maps.len() != self.sites.len() {
            return Err(internal(format!("{} real maps for {} segments", maps.len(), self.sites.len())));
        }
        let find = |place: Place| match place {
            Place::Input(i) => inputs.get(i),
            Place::Output(i) => outputs.get(i),
        };
        let mut layers = Vec::new();
        for (map, site) in maps.into_iter().zip(&self.sites) {
            let Some(site) = site else { continue };
            let xs: Option<Vec<&TensorValue>> = site.inputs.iter().map(|p| find(*p)).collect();
            let (Some(xs), Some(y)) = (xs, find(site.result)) else {
                return Err(internal("a tensor that the bundle should return is missing"));
            };
            let exact = evaluate(map, &xs)?;
            let ours = y.elements().to_f64();
            let largest = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let worst = ours.iter().zip(&exact).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            layers.push(Layer {
                name: map.map.name.clone(),
                shape: y.shape().clone(),
                max_rel_err: if largest > 0.0 { worst / largest } else { worst },
            });
        }
        Ok(layers)
    }
}

/// `post * L(x) + bias` in f64.
fn evaluate(map: &RealMap, xs: &[&TensorValue]) -> Outcome<Vec<f64>> {
    let inputs: Vec<Tensor<f64>> = xs
        .iter()
        .map(|x| Tensor::new(x.shape().clone(), x.elements().to_f64()).map_err(internal))
        .collect::<Outcome<_>>()?;
    // Weights by address: the map shares them.
    let weights: BTreeMap<*const RealTensor, Tensor<f32>> = map
        .map
        .ops
        .iter()
        .filter_map(|op| op.constant())
        .map(|w| (Arc::as_ptr(w), Tensor { shape: w.shape.clone(), data: w.data.to_vec() }))
        .collect();
    let result = linear::apply(&map.map, &inputs, |w: &Arc<RealTensor>| weights.get(&Arc::as_ptr(w)));
    let result = result.map_err(internal)?;
    let post = match &map.post {
        Some((shape, data)) => Broadcast { shape, data }.to(&result.shape).map_err(internal)?,
        None => vec![1.0; result.data.len()],
    };
    let bias = match &map.bias {
        Some(b) => Broadcast { shape: &b.shape, data: &b.data }.to(&result.shape).map_err(internal)?,
        None => vec![0.0; result.data.len()],
    };
    Ok(result.data.iter().zip(post.iter().zip(&bias)).map(|(v, (p, b))| v * p + f64::from(*b)).collect())
}
