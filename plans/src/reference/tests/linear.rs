use super::Random;
use crate::map::{LinearMap, MapOp};
use crate::reference::EvalError;
use crate::reference::linear::{adjoint, apply, mult_adds, step};
use crate::reference::scalar::Fp;
use crate::reference::tensor::Tensor;
use crate::value::{Shape, ValueId};

const X: ValueId = ValueId(0);

type Map = LinearMap<Tensor<i32>>;

fn map(inputs: &[&[usize]], ops: Vec<MapOp<Tensor<i32>>>) -> Map {
    let output = ValueId((inputs.len() + ops.len() - 1) as u32);
    LinearMap { name: "m".into(), inputs: inputs.iter().map(|s| Shape(s.to_vec())).collect(), ops, output }
}

fn w(shape: &[usize], r: &mut Random) -> Tensor<i32> {
    r.tensor(shape, |r| r.between(-9, 9) as i32)
}

/// A map for every operation, with sizes that make off-by-one errors show.
fn maps(r: &mut Random) -> Vec<Map> {
    let conv = |w, strides: &[usize], dilations: &[usize], before: &[usize], after: &[usize], groups| MapOp::Conv {
        x: X,
        w,
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        pads_before: before.to_vec(),
        pads_after: after.to_vec(),
        groups,
    };
    let transpose =
        |w, strides: &[usize], dilations: &[usize], before: &[usize], after: &[usize], extra: &[usize], groups| {
            MapOp::ConvTranspose {
                x: X,
                w,
                strides: strides.to_vec(),
                dilations: dilations.to_vec(),
                pads_before: before.to_vec(),
                pads_after: after.to_vec(),
                output_padding: extra.to_vec(),
                groups,
            }
        };
    vec![
        map(&[&[2, 3, 7]], vec![conv(w(&[4, 3, 3], r), &[2], &[1], &[1], &[2], 1)]),
        map(&[&[2, 4, 6, 9]], vec![conv(w(&[6, 2, 3, 2], r), &[2, 3], &[1, 2], &[1, 0], &[2, 3], 2)]),
        map(&[&[1, 4, 5, 6]], vec![conv(w(&[4, 1, 3, 3], r), &[1, 1], &[2, 1], &[2, 1], &[2, 1], 4)]),
        map(&[&[2, 3, 5, 6]], vec![conv(w(&[4, 3, 1, 1], r), &[1, 1], &[1, 1], &[0, 0], &[0, 0], 1)]),
        map(&[&[1, 3, 5, 6]], vec![conv(w(&[4, 3, 1, 1], r), &[2, 2], &[1, 1], &[0, 0], &[0, 0], 1)]),
        // Padding wider than the kernel: whole taps read nothing but zeros.
        map(&[&[1, 1, 2, 2]], vec![conv(w(&[1, 1, 2, 5], r), &[1, 1], &[1, 1], &[3, 4], &[3, 6], 1)]),
        map(&[&[1, 2, 4, 5, 6]], vec![conv(w(&[3, 2, 2, 3, 2], r), &[1, 2, 1], &[1, 1, 2], &[1, 1, 0], &[0, 1, 2], 1)]),
        map(&[&[2, 3, 5]], vec![transpose(w(&[4, 3, 3], r), &[2], &[1], &[1], &[0], &[1], 1)]),
        map(&[&[1, 4, 3, 4]], vec![transpose(w(&[6, 2, 3, 2], r), &[2, 3], &[1, 2], &[1, 0], &[0, 2], &[1, 0], 2)]),
        map(
            &[&[1, 2, 2, 3, 2]],
            vec![transpose(w(&[2, 2, 2, 1, 3], r), &[1, 2, 3], &[1, 1, 1], &[0, 0, 1], &[1, 0, 1], &[0, 1, 2], 1)],
        ),
        map(&[&[19]], vec![MapOp::MatMul { x: X, w: w(&[5, 19], r) }]),
        map(&[&[2, 3, 11]], vec![MapOp::MatMul { x: X, w: w(&[4, 11], r) }]),
        map(&[&[2, 3, 4, 9]], vec![MapOp::MatMul { x: X, w: w(&[2, 3, 5, 9], r) }]),
        map(&[&[2, 3, 4, 9]], vec![MapOp::MatMul { x: X, w: w(&[1, 3, 5, 9], r) }]),
        map(
            &[&[2, 3, 7, 6]],
            vec![MapOp::SumPool {
                x: X,
                kernel: vec![3, 2],
                strides: vec![2, 1],
                dilations: vec![1, 2],
                pads_before: vec![1, 1],
                pads_after: vec![0, 1],
            }],
        ),
        map(&[&[2, 3], &[2, 3]], vec![MapOp::Add { a: X, b: ValueId(1) }]),
        map(&[&[2, 3], &[2, 3]], vec![MapOp::Sub { a: X, b: ValueId(1) }]),
        map(&[&[2, 3]], vec![MapOp::Add { a: X, b: X }]),
        map(
            &[&[2, 1, 2], &[2, 3, 2], &[2, 2, 2]],
            vec![MapOp::Concat { xs: vec![X, ValueId(1), ValueId(2)], axis: 1 }],
        ),
        map(&[&[2, 3]], vec![MapOp::Concat { xs: vec![X, X], axis: 0 }]),
        map(&[&[2, 6]], vec![MapOp::Reshape { x: X, shape: vec![3, 4] }]),
        map(&[&[2, 3, 4, 5]], vec![MapOp::Transpose { x: X, perm: vec![2, 0, 3, 1] }]),
        map(&[&[2, 3, 4]], vec![MapOp::PadZero { x: X, before: vec![0, 1, 2], after: vec![1, 0, 3] }]),
        map(
            &[&[5, 4, 9]],
            vec![MapOp::Slice { x: X, starts: vec![1, 0, 2], steps: vec![2, 1, 3], lens: vec![2, 4, 3] }],
        ),
        map(&[&[2, 4, 3]], vec![MapOp::Gather { x: X, axis: 1, indices: vec![3, 0, 3, 1, 2] }]),
        map(&[&[2, 1, 3, 1]], vec![MapOp::Expand { x: X, shape: vec![2, 4, 3, 2] }]),
        // A branch whose value is used twice, as in a residual block.
        map(
            &[&[1, 2, 4, 4]],
            vec![
                conv(w(&[2, 2, 3, 3], r), &[1, 1], &[1, 1], &[1, 1], &[1, 1], 1),
                MapOp::Add { a: X, b: ValueId(1) },
                MapOp::Concat { xs: vec![ValueId(2), ValueId(1)], axis: 1 },
            ],
        ),
    ]
}

fn at(shape: &Shape, index: &[usize]) -> usize {
    index.iter().zip(shape.strides()).map(|(i, s)| i * s).sum()
}

fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, d| {
        all.iter().flat_map(|i| (0..*d).map(move |j| [i.as_slice(), &[j]].concat())).collect()
    })
}

/// Every operation from its definition, one multi-index at a time.
fn oracle(op: &MapOp<Tensor<i32>>, xs: &[Tensor<i64>]) -> Tensor<i64> {
    let shapes: Vec<&Shape> = xs.iter().map(|x| &x.shape).collect();
    let shape = op.shape(&shapes, op.constant().map(|w| &w.shape)).unwrap();
    let mut y = Tensor { data: vec![0i64; shape.len()], shape };
    let x = &xs[0];
    match op {
        MapOp::Conv { w, strides, dilations, pads_before, groups, .. } => {
            let each = y.shape.0[1] / groups;
            for (i, o) in indices(&y.shape.0).iter().enumerate() {
                for t in indices(&w.shape.0[1..]) {
                    let channel = o[1] / each * w.shape.0[1] + t[0];
                    let mut index = vec![o[0], channel];
                    for a in 0..strides.len() {
                        let at = (o[a + 2] * strides[a] + t[a + 1] * dilations[a]).wrapping_sub(pads_before[a]);
                        index.push(at);
                    }
                    if index.iter().zip(&x.shape.0).all(|(i, d)| i < d) {
                        let w = w.data[at(&w.shape, &[&[o[1]], t.as_slice()].concat())];
                        y.data[i] += x.data[at(&x.shape, &index)] * i64::from(w);
                    }
                }
            }
        }
        MapOp::ConvTranspose { w, strides, dilations, pads_before, groups, .. } => {
            let (inputs_each, each) = (x.shape.0[1] / groups, y.shape.0[1] / groups);
            for (i, index) in indices(&x.shape.0).iter().enumerate() {
                for t in indices(&w.shape.0[2..]) {
                    for j in 0..each {
                        let o = index[1] / inputs_each * each + j;
                        let mut to = vec![index[0], o];
                        for a in 0..strides.len() {
                            let at = index[a + 2] * strides[a] + t[a] * dilations[a];
                            to.push(at.wrapping_sub(pads_before[a]));
                        }
                        if to.iter().zip(&y.shape.0).all(|(i, d)| i < d) {
                            let w = w.data[at(&w.shape, &[&[o, index[1] % inputs_each], t.as_slice()].concat())];
                            let to = at(&y.shape, &to);
                            y.data[to] += x.data[i] * i64::from(w);
                        }
                    }
                }
            }
        }
        MapOp::MatMul { w, .. } => {
            for (i, o) in indices(&y.shape.0).iter().enumerate() {
                let (n, lead) = o.split_last().unwrap();
                let batch: Vec<usize> = w.shape.0[..w.shape.rank() - 2]
                    .iter()
                    .zip(lead)
                    .map(|(d, i)| if *d == 1 { 0 } else { *i })
                    .collect();
                for k in 0..*x.shape.0.last().unwrap() {
                    let a = x.data[at(&x.shape, &[lead, &[k]].concat())];
                    let b = w.data[at(&w.shape, &[batch.as_slice(), &[*n, k]].concat())];
                    y.data[i] += a * i64::from(b);
                }
            }
        }
        MapOp::SumPool { kernel, strides, dilations, pads_before, .. } => {
            for (i, o) in indices(&y.shape.0).iter().enumerate() {
                for t in indices(kernel) {
                    let mut index = o[..2].to_vec();
                    for a in 0..strides.len() {
                        index.push((o[a + 2] * strides[a] + t[a] * dilations[a]).wrapping_sub(pads_before[a]));
                    }
                    if index.iter().zip(&x.shape.0).all(|(i, d)| i < d) {
                        y.data[i] += x.data[at(&x.shape, &index)];
                    }
                }
            }
        }
        MapOp::Add { .. } | MapOp::Sub { .. } => {
            let sign = if matches!(op, MapOp::Add { .. }) { 1 } else { -1 };
            for i in 0..y.data.len() {
                y.data[i] = x.data[i] + sign * xs[1].data[i];
            }
        }
        MapOp::Concat { axis, .. } => {
            let mut start = 0;
            for x in xs {
                for mut i in indices(&x.shape.0) {
                    let v = x.data[at(&x.shape, &i)];
                    i[*axis] += start;
                    let to = at(&y.shape, &i);
                    y.data[to] = v;
                }
                start += x.shape.0[*axis];
            }
        }
        MapOp::Reshape { .. } => y.data.clone_from(&x.data),
        MapOp::Transpose { perm, .. } => {
            for (i, o) in indices(&y.shape.0).iter().enumerate() {
                let mut index = vec![0; perm.len()];
                perm.iter().zip(o).for_each(|(p, i)| index[*p] = *i);
                y.data[i] = x.data[at(&x.shape, &index)];
            }
        }
        MapOp::PadZero { before, .. } => {
            for i in indices(&x.shape.0) {
                let to: Vec<usize> = i.iter().zip(before).map(|(i, b)| i + b).collect();
                let to = at(&y.shape, &to);
                y.data[to] = x.data[at(&x.shape, &i)];
            }
        }
        MapOp::Slice { starts, steps, .. } => {
            for (i, o) in indices(&y.shape.0).iter().enumerate() {
                let from: Vec<usize> = (0..o.len()).map(|a| starts[a] + steps[a] * o[a]).collect();
                y.data[i] = x.data[at(&x.shape, &from)];
            }
        }
        MapOp::Gather { axis, indices: picks, .. } => {
            for (i, mut o) in indices(&y.shape.0).into_iter().enumerate() {
                o[*axis] = picks[o[*axis]];
                y.data[i] = x.data[at(&x.shape, &o)];
            }
        }
        MapOp::Expand { .. } => {
            for (i, mut o) in indices(&y.shape.0).into_iter().enumerate() {
                o.iter_mut().zip(&x.shape.0).for_each(|(i, d)| *i %= d);
                y.data[i] = x.data[at(&x.shape, &o)];
            }
        }
    }
    y
}

#[test]
fn every_operation_is_what_its_definition_says() {
    let mut r = Random(1);
    for map in maps(&mut r) {
        let [op] = map.ops.as_slice() else { continue };
        let operands = op.operands();
        let inputs: Vec<Tensor<i64>> = map.inputs.iter().map(|s| r.tensor(&s.0, |r| r.between(-1000, 1000))).collect();
        let xs: Vec<Tensor<i64>> = operands.iter().map(|v| inputs[v.index()].clone()).collect();
        let want = oracle(op, &xs);
        assert_eq!(apply(&map, &inputs, Some).unwrap(), want, "{op:?}");
        // The same integers as ring words of both widths, and as reals, which are exact at this size.
        let low: Vec<_> = inputs.iter().map(|x| x.map(|v| *v as u32)).collect();
        assert_eq!(apply(&map, &low, Some).unwrap(), want.map(|v| *v as u32));
        let wide: Vec<_> = inputs.iter().map(|x| x.map(|v| *v as u64)).collect();
        assert_eq!(apply(&map, &wide, Some).unwrap(), want.map(|v| *v as u64));
        let real: Vec<_> = inputs.iter().map(|x| x.map(|v| *v as f64)).collect();
        assert_eq!(apply(&map, &real, Some).unwrap(), want.map(|v| *v as f64));
        let field: Vec<_> = inputs.iter().map(|x| x.map(|v| Fp::from_int(*v))).collect();
        assert_eq!(apply(&map, &field, Some).unwrap(), want.map(|v| Fp::from_int(*v)));
    }
}

#[test]
fn the_adjoint_has_the_same_inner_products() {
    let mut r = Random(2);
    for map in maps(&mut r) {
        let xs: Vec<Tensor<i64>> = map.inputs.iter().map(|s| r.tensor(&s.0, |r| r.between(-1000, 1000))).collect();
        let y = apply(&map, &xs, Some).unwrap();
        let v = r.tensor(&y.shape.0, |r| r.between(-1000, 1000));
        let us = adjoint(&map, &v, Some).unwrap();
        let inner = |a: &Tensor<i64>, b: &Tensor<i64>| -> i64 { a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum() };
        assert!(us.iter().zip(&map.inputs).all(|(u, s)| u.shape == *s));
        assert_eq!(inner(&v, &y), us.iter().zip(&xs).map(|(u, x)| inner(u, x)).sum::<i64>(), "{:?}", map.ops);
    }
}

#[test]
fn a_value_read_by_nobody_has_a_zero_adjoint() {
    let map = Map { output: X, ..map(&[&[2], &[3]], vec![MapOp::Reshape { x: X, shape: vec![1, 2] }]) };
    let v = Tensor { shape: Shape(vec![2]), data: vec![5i64, 6] };
    let us = adjoint(&map, &v, Some).unwrap();
    assert_eq!((us[0].data.as_slice(), us[1].data.as_slice()), ([5, 6].as_slice(), [0, 0, 0].as_slice()));
}

#[test]
fn mult_adds_count_products_with_weights() {
    let mut r = Random(3);
    let count = |ops| mult_adds(&map(&[&[2, 4, 5, 5]], ops), |w: &Tensor<i32>| Some(&w.shape)).unwrap();
    let conv = MapOp::Conv {
        x: X,
        w: w(&[6, 2, 3, 3], &mut r),
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads_before: vec![1, 1],
        pads_after: vec![1, 1],
        groups: 2,
    };
    assert_eq!(count(vec![conv]), 2 * 6 * 3 * 3 * 2 * 9);
    let transpose = MapOp::ConvTranspose {
        x: X,
        w: w(&[6, 2, 2, 2], &mut r),
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads_before: vec![0, 0],
        pads_after: vec![0, 0],
        output_padding: vec![0, 0],
        groups: 2,
    };
    assert_eq!(count(vec![transpose]), 2 * 4 * 5 * 5 * 3 * 4);
    assert_eq!(count(vec![MapOp::MatMul { x: X, w: w(&[7, 5], &mut r) }]), 2 * 4 * 5 * 7 * 5);
    assert_eq!(count(vec![MapOp::Add { a: X, b: X }]), 0);
}

#[test]
fn unfit_operands_are_errors_and_not_panics() {
    let x = Tensor { shape: Shape(vec![2, 3]), data: vec![1u32; 6] };
    let short = Tensor { shape: Shape(vec![2, 3]), data: vec![1u32; 5] };
    let op: MapOp<()> = MapOp::Add { a: X, b: X };
    assert!(matches!(step::<_, u32, i32>(&op, &[&x, &short], None), Err(EvalError::Length { len: 5, .. })));
    assert!(matches!(step::<_, u32, i32>(&op, &[&x], None), Err(EvalError::Shape { .. })));
    let product: MapOp<()> = MapOp::MatMul { x: X, w: () };
    assert!(step::<_, u32, i32>(&product, &[&x], None).is_err());
    let late = map(&[&[2]], vec![MapOp::Reshape { x: ValueId(1), shape: vec![2] }]);
    let input = Tensor { shape: Shape(vec![2]), data: vec![1i64; 2] };
    assert!(matches!(apply(&late, &[input], Some), Err(EvalError::Undefined { .. })));
}
