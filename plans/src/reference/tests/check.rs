use super::Random;
use crate::map::{CheckForm, LinearMap, MapOp};
use crate::reference::check::{channel_axis, dot, expand, full, holds, lengths, outer, rank_one};
use crate::reference::linear::apply;
use crate::reference::scalar::{Fp, P61};
use crate::reference::tensor::Tensor;
use crate::value::{Shape, ValueId};

fn field(r: &mut Random, n: usize) -> Vec<Fp> {
    (0..n).map(|_| Fp::new(r.word() % P61)).collect()
}

fn conv(
    x: &[usize],
    w: Tensor<i32>,
    stride: usize,
    dilation: usize,
    pad: usize,
    groups: usize,
) -> LinearMap<Tensor<i32>> {
    let n = x.len() - 2;
    let op = MapOp::Conv {
        x: ValueId(0),
        w,
        strides: vec![stride; n],
        dilations: vec![dilation; n],
        pads_before: vec![pad; n],
        pads_after: vec![0; n],
        groups,
    };
    LinearMap { name: "conv".into(), inputs: vec![Shape(x.to_vec())], ops: vec![op], output: ValueId(1) }
}

fn matmul(x: &[usize], w: Tensor<i32>) -> LinearMap<Tensor<i32>> {
    let ops = vec![MapOp::MatMul { x: ValueId(0), w }];
    LinearMap { name: "fc".into(), inputs: vec![Shape(x.to_vec())], ops, output: ValueId(1) }
}

fn weights(r: &mut Random, shape: &[usize]) -> Tensor<i32> {
    r.tensor(shape, |r| r.between(-(1 << 25), 1 << 25) as i32)
}

#[test]
fn expanding_the_compact_vector_gives_the_full_one() {
    let mut r = Random(8);
    let maps = [
        conv(&[2, 3, 6, 7], weights(&mut r, &[4, 3, 3, 3]), 1, 1, 1, 1),
        conv(&[1, 4, 9, 8], weights(&mut r, &[6, 2, 3, 2]), 2, 2, 2, 2),
        conv(&[1, 5, 6, 6], weights(&mut r, &[5, 1, 3, 3]), 1, 1, 1, 5),
        conv(&[2, 3, 4, 4], weights(&mut r, &[2, 3, 1, 1]), 1, 1, 0, 1),
        conv(&[1, 3, 11], weights(&mut r, &[4, 3, 5]), 3, 1, 0, 1),
        conv(&[1, 2, 4, 5, 4], weights(&mut r, &[3, 2, 2, 2, 3]), 1, 1, 1, 1),
        matmul(&[13], weights(&mut r, &[4, 13])),
        matmul(&[2, 3, 13], weights(&mut r, &[4, 13])),
    ];
    for map in maps {
        let w = map.ops[0].constant().unwrap();
        let form = map.check_form(|w| Some(&w.shape));
        assert_ne!(form, CheckForm::Full);
        let y = map.ops[0].shape(&[&map.inputs[0]], Some(&w.shape)).unwrap();
        let (na, nb) = lengths(form, &y);
        assert_eq!(na, w.shape.0[0]);
        let (a, beta) = (field(&mut r, na), field(&mut r, nb));
        let v = outer(form, &y, &a, &beta).unwrap();
        let want = full(&map, &v, Some).unwrap();
        let g = rank_one(&map, &a, w).unwrap();
        assert!(g.data.len() <= w.data.len());
        assert_eq!(expand(&map, &w.shape, &g, &beta).unwrap(), want[0], "{}", map.name);
        // Wrong lengths are errors.
        assert!(expand(&map, &w.shape, &g, &beta[1..]).is_err());
        assert!(rank_one(&map, &a[1..], w).is_err());
        assert!(outer(form, &y, &a, &beta[1..]).is_err());
    }
}

#[test]
fn right_results_pass_and_each_wrong_one_fails() {
    let mut r = Random(9);
    let map = conv(&[1, 3, 6, 6], weights(&mut r, &[4, 3, 3, 3]), 1, 1, 1, 1);
    let x = r.tensor(&[1, 3, 6, 6], |r| r.between(-(1 << 20), 1 << 20) as i32);
    let z = apply(&map, &[x.map(|v| i64::from(*v))], Some).unwrap();
    let (na, nb) = lengths(CheckForm::Full, &z.shape);
    let v = outer(CheckForm::Full, &z.shape, &field(&mut r, na), &field(&mut r, nb)).unwrap();
    let c = full(&map, &v, Some).unwrap();
    let test = |z: &[i64]| holds(&v.data, z, &[(&c[0].data, &x.data)]);
    assert!(test(&z.data));
    for j in 0..z.data.len() {
        for delta in [1, -1, 1 << 31, -(1 << 51)] {
            let mut wrong = z.data.clone();
            wrong[j] += delta;
            assert!(!test(&wrong));
        }
    }
    let mut swapped = z.data.clone();
    swapped.swap(0, 1);
    assert!(!test(&swapped));
    assert!(!test(&z.data[1..]));
}

#[test]
fn several_inputs_add_up() {
    let mut r = Random(10);
    let inputs = vec![Shape(vec![2, 3]), Shape(vec![2, 3])];
    let ops = vec![MapOp::Sub { a: ValueId(0), b: ValueId(1) }];
    let map: LinearMap<Tensor<i32>> = LinearMap { name: "sub".into(), inputs, ops, output: ValueId(2) };
    let xs: Vec<Tensor<i32>> = (0..2).map(|_| r.tensor(&[2, 3], |r| r.between(-99, 99) as i32)).collect();
    let z: Vec<i64> = xs[0].data.iter().zip(&xs[1].data).map(|(a, b)| i64::from(a - b)).collect();
    let v = outer(CheckForm::Full, &Shape(vec![2, 3]), &field(&mut r, 3), &field(&mut r, 2)).unwrap();
    let c = full(&map, &v, Some).unwrap();
    assert!(holds(&v.data, &z, &[(&c[0].data, &xs[0].data), (&c[1].data, &xs[1].data)]));
    assert!(!holds(&v.data, &z, &[(&c[1].data, &xs[0].data), (&c[0].data, &xs[1].data)]));
}

#[test]
fn axes_are_those_of_the_format() {
    assert_eq!(channel_axis(CheckForm::Full, 0), None);
    assert_eq!(channel_axis(CheckForm::Full, 2), Some(1));
    assert_eq!(channel_axis(CheckForm::Full, 4), Some(1));
    assert_eq!(channel_axis(CheckForm::MatMulRankOne, 3), Some(2));
    assert_eq!(lengths(CheckForm::MatMulRankOne, &Shape(vec![2, 3, 5])), (5, 6));
    assert_eq!(lengths(CheckForm::Full, &Shape(vec![2, 3, 5])), (3, 10));
    let v =
        outer(CheckForm::Full, &Shape(vec![2, 2, 2]), &[Fp::new(1), Fp::new(10)], &[2, 3, 5, 7].map(Fp::new)).unwrap();
    assert_eq!(v.data.iter().map(|v| v.value()).collect::<Vec<_>>(), [2, 3, 20, 30, 5, 7, 50, 70]);
    assert_eq!(dot(&[Fp::new(2), Fp::new(3)], &[-1i32, 1]), Fp::new(1));
}
