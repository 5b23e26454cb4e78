//! Soundness of the bounds: the worst input for each output element stays below what the bound says.

use std::sync::Arc;

use pponnx_plans::constant::{read_i16, read_i32};
use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::reference::linear::adjoint;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{Shape, ValueId};

use super::*;
use crate::ir::split::TensorId;

/// A fixed stream of numbers in [-1, 1], some of them large: heavy-tailed weights are the hard case.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let v = ((self.0 >> 40) as f32) / (1u64 << 23) as f32 - 1.0;
        if self.0 >> 60 == 3 { v * 40.0 } else { v }
    }
    fn tensor(&mut self, shape: &[usize]) -> Arc<RealTensor> {
        let data = (0..shape.iter().product::<usize>()).map(|_| self.next()).collect();
        Arc::new(RealTensor { shape: shape.into(), data })
    }
}

fn conv(x: u32, w: Arc<RealTensor>, groups: usize, stride: usize, pad: usize) -> MapOp<Arc<RealTensor>> {
    MapOp::Conv {
        x: ValueId(x),
        w,
        strides: vec![stride; 2],
        dilations: vec![1, 1],
        pads_before: vec![pad, pad],
        pads_after: vec![0, pad],
        groups,
    }
}

fn real(input: &[usize], ops: Vec<MapOp<Arc<RealTensor>>>) -> RealMap {
    let output = ValueId(ops.len() as u32);
    let map = LinearMap { name: "m".into(), inputs: vec![input.into()], ops, output };
    RealMap { map, inputs: vec![TensorId(0)], output: TensorId(1), post: None, bias: None, nodes: Vec::new() }
}

fn cases() -> Vec<(&'static str, RealMap, usize)> {
    let mut n = Numbers(7);
    let pool = |x: u32| MapOp::SumPool {
        x: ValueId(x),
        kernel: vec![2, 3],
        strides: vec![2, 1],
        dilations: vec![1, 1],
        pads_before: vec![0, 1],
        pads_after: vec![1, 0],
    };
    vec![
        ("conv", real(&[1, 3, 5, 4], vec![conv(0, n.tensor(&[4, 3, 3, 3]), 1, 2, 1)]), 1),
        ("depthwise", real(&[2, 4, 5, 4], vec![conv(0, n.tensor(&[4, 1, 3, 3]), 4, 1, 1)]), 4),
        ("two rows a group", real(&[1, 4, 4, 4], vec![conv(0, n.tensor(&[4, 2, 2, 3]), 2, 1, 0)]), 2),
        ("matmul", real(&[3, 6], vec![MapOp::MatMul { x: ValueId(0), w: n.tensor(&[5, 6]) }]), 1),
        ("batched matmul", real(&[2, 3, 6], vec![MapOp::MatMul { x: ValueId(0), w: n.tensor(&[2, 5, 6]) }]), 1),
        ("pool behind conv", real(&[1, 2, 6, 5], vec![conv(0, n.tensor(&[3, 2, 3, 3]), 1, 1, 1), pool(1)]), 1),
        (
            "difference of branches",
            real(
                &[1, 2, 5, 5],
                vec![
                    conv(0, n.tensor(&[3, 2, 3, 3]), 1, 1, 1),
                    conv(0, n.tensor(&[3, 2, 3, 3]), 1, 1, 1),
                    MapOp::Sub { a: ValueId(1), b: ValueId(2) },
                ],
            ),
            1,
        ),
        (
            "concatenation, moved",
            real(
                &[1, 2, 4, 4],
                vec![
                    conv(0, n.tensor(&[3, 2, 1, 1]), 1, 1, 0),
                    conv(0, n.tensor(&[2, 2, 1, 1]), 1, 1, 0),
                    MapOp::Concat { xs: vec![ValueId(1), ValueId(2)], axis: 1 },
                    MapOp::Transpose { x: ValueId(3), perm: vec![0, 2, 3, 1] },
                ],
            ),
            1,
        ),
        (
            "transposed convolution",
            real(
                &[1, 3, 3, 4],
                vec![MapOp::ConvTranspose {
                    x: ValueId(0),
                    w: n.tensor(&[4, 3, 3, 2]),
                    strides: vec![2, 2],
                    dilations: vec![1, 1],
                    pads_before: vec![1, 0],
                    pads_after: vec![0, 0],
                    output_padding: vec![1, 0],
                    groups: 1,
                }],
            ),
            1,
        ),
    ]
}

#[test]
fn the_worst_input_stays_within_the_bound() {
    for precision in Precision::ALL {
        for (name, real, groups) in cases() {
            let (int, found) = quantise_map(real, precision).unwrap();
            assert_eq!(found, groups, "{name}");
            let weights: Vec<(Arc<IntWeights>, Tensor<i32>)> = int
                .map
                .ops
                .iter()
                .filter_map(MapOp::constant)
                .map(|w| {
                    let data = match w.dtype {
                        DType::I16 => read_i16(&w.bytes).into_iter().map(i32::from).collect(),
                        _ => read_i32(&w.bytes),
                    };
                    (Arc::clone(w), Tensor { shape: w.shape.clone(), data })
                })
                .collect();
            let find = |w: &Arc<IntWeights>| weights.iter().find(|(v, _)| Arc::ptr_eq(v, w)).map(|(_, t)| t);
            let shapes: Vec<Shape> = pponnx_plans::reference::linear::shapes(&int.map, |w| Some(&w.shape)).unwrap();
            let out = &shapes[int.map.output.index()];
            let input = &int.map.inputs[0];
            let per_part: usize = input.0[2..].iter().product::<usize>() * input.0[1] / groups;
            let mut reached = 0.0f64;
            for j in 0..out.len() {
                let mut unit = Tensor { shape: out.clone(), data: vec![0i64; out.len()] };
                unit.data[j] = 1;
                let row = &adjoint(&int.map, &unit, find).unwrap()[0].data;
                let parts: std::collections::BTreeSet<usize> =
                    row.iter().enumerate().filter(|(_, w)| **w != 0).map(|(i, _)| i / per_part % groups).collect();
                assert!(groups == 1 || parts.len() <= 1, "{name}: an output reads two groups");
                let g = parts.into_iter().next().unwrap_or(0);
                let p: u64 = row.iter().filter(|w| **w > 0).map(|w| w.unsigned_abs()).sum();
                let n: u64 = row.iter().filter(|w| **w < 0).map(|w| w.unsigned_abs()).sum();
                let squares: u64 = row.iter().map(|w| w.unsigned_abs().pow(2)).sum();
                let b = &int.bound;
                assert!(p.max(n) <= b.major[g] && p.min(n) <= b.minor[g], "{name}: element {j} reaches {p}, {n}");
                assert!(b.square.is_empty() || squares <= b.square[g], "{name}: element {j} has squares {squares}");
                reached = reached.max(p.max(n) as f64 / b.major[g] as f64);
            }
            // sound alone would be easy: some element must come near
            assert!(reached > 0.4, "{name}: the bound is {:.1} times too large", 1.0 / reached);
        }
    }
}

#[test]
fn rows_of_zeros_and_tiny_weights_quantise() {
    let zeros = Arc::new(RealTensor { shape: Shape(vec![2, 3]), data: vec![0.0, 0.0, 0.0, 1e-38, -1e-40, 0.0].into() });
    let (int, _) =
        quantise_map(real(&[1, 3], vec![MapOp::MatMul { x: ValueId(0), w: zeros }]), Precision::Balanced).unwrap();
    assert!(int.scale.data.iter().all(|s| s.is_finite() && *s > 0.0));
}

#[test]
fn two_heavy_operations_on_a_path_are_refused() {
    let mut n = Numbers(3);
    let two =
        real(&[1, 2, 4, 4], vec![conv(0, n.tensor(&[2, 2, 1, 1]), 1, 1, 0), conv(1, n.tensor(&[2, 2, 1, 1]), 1, 1, 0)]);
    assert!(quantise_map(two, Precision::Fast).unwrap_err().contains("two heavy operations"));
}
