//! Runs a split network in floating point: local segments by the ONNX reader's runtime, maps in double precision.

use std::sync::Arc;

use pponnx_compiler::ir::split::{Part, RealMap, RealTensor, SplitGraph};
use pponnx_compiler::source::{Sample, probe};
use pponnx_plans::reference::linear::apply;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{DType, Shape};

/// The network's outputs for these inputs.
pub fn run(split: &SplitGraph, inputs: &[Sample]) -> Vec<Sample> {
    let mut values: Vec<Option<Sample>> = vec![None; split.tensors.len()];
    for (id, sample) in split.input_tensors.iter().zip(inputs) {
        values[id.0] = Some(sample.clone());
    }
    for part in &split.parts {
        match part {
            Part::Local(segment) => {
                let inputs: Vec<Sample> = segment.inputs.iter().map(|t| values[t.0].clone().unwrap()).collect();
                let outputs = probe(&segment.onnx, &inputs).unwrap();
                assert_eq!(outputs.len(), segment.outputs.len());
                for (id, sample) in segment.outputs.iter().zip(outputs) {
                    assert_eq!(sample.shape, split.tensors[id.0].shape, "{}", split.tensors[id.0].name);
                    assert_eq!(sample.dtype, split.tensors[id.0].dtype, "{}", split.tensors[id.0].name);
                    values[id.0] = Some(sample);
                }
            }
            Part::Stage(stage) => {
                // All uploads of a stage leave before its first download arrives.
                let results: Vec<Sample> = stage
                    .maps
                    .iter()
                    .map(|map| {
                        let inputs: Vec<&Sample> = map.inputs.iter().map(|t| values[t.0].as_ref().unwrap()).collect();
                        evaluate(map, &inputs)
                    })
                    .collect();
                for (map, result) in stage.maps.iter().zip(results) {
                    assert_eq!(result.shape, split.tensors[map.output.0].shape);
                    values[map.output.0] = Some(result);
                }
            }
        }
    }
    split.output_tensors.iter().map(|t| values[t.0].clone().unwrap()).collect()
}

fn evaluate(map: &RealMap, inputs: &[&Sample]) -> Sample {
    let xs: Vec<Tensor<f64>> = inputs
        .iter()
        .map(|s| Tensor { shape: s.shape.clone(), data: s.data.iter().map(|v| f64::from(*v)).collect() })
        .collect();
    let weights = |w: &Arc<RealTensor>| Tensor { shape: w.shape.clone(), data: w.data.to_vec() };
    let constants: Vec<Tensor<f32>> = map.map.ops.iter().filter_map(|op| op.constant()).map(weights).collect();
    let mut numbered = map.map.clone();
    let mut next = 0usize;
    let ops = std::mem::take(&mut numbered.ops);
    let indexed = pponnx_plans::map::LinearMap {
        name: numbered.name,
        inputs: numbered.inputs,
        output: numbered.output,
        ops: ops
            .into_iter()
            .map(|op| {
                op.with_constant(|_| {
                    next += 1;
                    next - 1
                })
            })
            .collect(),
    };
    let y = apply(&indexed, &xs, |i: &usize| constants.get(*i)).unwrap();
    let full = |shape: &Shape, data: &[f64]| broadcast(shape, data, &y.shape);
    let post = map.post.as_ref().map_or(vec![1.0; y.data.len()], |(s, d)| full(s, d));
    let bias = map
        .bias
        .as_ref()
        .map_or(vec![0.0; y.data.len()], |b| full(&b.shape, &b.data.iter().map(|v| f64::from(*v)).collect::<Vec<_>>()));
    let data = y.data.iter().zip(post).zip(bias).map(|((y, p), b)| (y * p + b) as f32).collect();
    Sample { dtype: DType::F32, shape: y.shape, data }
}

fn broadcast(from: &Shape, data: &[f64], to: &Shape) -> Vec<f64> {
    assert_eq!(from.rank(), to.rank());
    let strides = from.strides();
    (0..to.len())
        .map(|i| {
            let mut offset = 0;
            let mut rest = i;
            for a in (0..to.rank()).rev() {
                let at = rest % to.0[a];
                rest /= to.0[a];
                assert!(from.0[a] == 1 || from.0[a] == to.0[a]);
                offset += if from.0[a] == 1 { 0 } else { at * strides[a] };
            }
            data[offset]
        })
        .collect()
}

/// Largest difference relative to the largest expected magnitude.
pub fn error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let top = expected.iter().fold(1e-30f64, |m, v| m.max(f64::from(v.abs())));
    got.iter().zip(expected).fold(0.0f64, |m, (g, e)| {
        let d = (f64::from(*g) - f64::from(*e)).abs() / top;
        if d.is_nan() { f64::INFINITY } else { m.max(d) }
    })
}
