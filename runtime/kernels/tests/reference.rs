//! Kernels and the reference interpreter of plans agree on what the operations mean: both sides derive output sizes
//! and results on their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod oracle;

use oracle::{Constant, Data, all_kernels, narrow};
use pponnx_kernels::{ConvSpec, ConvTransposeSpec, Input, MatMulSpec, Output};
use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::reference::linear;
use pponnx_plans::reference::number::{decode_one, encode_one, lift, scan};
use pponnx_plans::reference::scalar::Fp;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{Shape, ValueId};
use proptest::prelude::*;

/// The result of a map of one operation, on u64 words.
fn reference(op: MapOp<()>, x: &[u64], x_shape: Vec<usize>, w: &Constant, w_shape: Vec<usize>) -> Tensor<u64> {
    let weights = Tensor::new(Shape(w_shape), w.numbers.clone()).unwrap();
    let map =
        LinearMap { name: String::new(), inputs: vec![Shape(x_shape.clone())], ops: vec![op], output: ValueId(1) };
    let x = Tensor::new(Shape(x_shape), x.to_vec()).unwrap();
    linear::apply(&map, &[x], |()| Some(&weights)).unwrap()
}

fn join(leading: [usize; 2], sizes: &[usize]) -> Vec<usize> {
    leading.into_iter().chain(sizes.iter().copied()).collect()
}

/// Sizes of one axis: input, kernel, stride, dilation, padding before and after, output padding.
fn axes() -> impl Strategy<Value = Vec<[usize; 7]>> {
    let axis = (1..8usize, 1..4usize, 1..4usize, 1..3usize, 0..3usize, 0..3usize, 0..2usize);
    proptest::collection::vec(axis.prop_map(|(d, k, s, l, b, a, o)| [d, k, s, l, b, a, o]), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions(
        (batch, ci, co, groups) in (1..3usize, 1..4usize, 1..6usize, 1..3usize),
        axes in axes(),
        seed: u64,
    ) {
        let column = |i: usize| axes.iter().map(|a| a[i]).collect::<Vec<_>>();
        let mut data = Data(seed);
        let x = data.words(batch * ci * groups * column(0).iter().product::<usize>());
        let w = data.i32s(co * groups * ci * column(1).iter().product::<usize>());
        let (x_shape, w_shape) = (join([batch, ci * groups], &column(0)), join([co * groups, ci], &column(1)));

        let spec = ConvSpec {
            batch,
            in_channels: ci * groups,
            input: column(0),
            out_channels: co * groups,
            kernel: column(1),
            strides: column(2),
            dilations: column(3),
            pads_before: column(4),
            pads_after: column(5),
            groups,
        };
        if let Ok(output) = spec.output() {
            let op = MapOp::Conv {
                x: ValueId(0),
                w: (),
                strides: column(2),
                dilations: column(3),
                pads_before: column(4),
                pads_after: column(5),
                groups,
            };
            let expected = reference(op, &x, x_shape.clone(), &w, w_shape.clone());
            prop_assert_eq!(&expected.shape.0, &join([batch, co * groups], &output));
            for kernels in all_kernels() {
                let packed = kernels.pack_conv(spec.clone(), w.view()).unwrap();
                let mut y = vec![0u64; expected.data.len()];
                kernels.conv(&packed, 64, Input::Words(&x), Output::Words(&mut y)).unwrap();
                prop_assert_eq!(&y, &expected.data);
            }
        }

        let spec = ConvTransposeSpec {
            batch,
            in_channels: ci * groups,
            input: column(0),
            out_channels: co * groups,
            kernel: column(1),
            strides: column(2),
            dilations: column(3),
            pads_before: column(4),
            pads_after: column(5),
            output_padding: column(6),
            groups,
        };
        if let Ok(output) = spec.output() {
            let op = MapOp::ConvTranspose {
                x: ValueId(0),
                w: (),
                strides: column(2),
                dilations: column(3),
                pads_before: column(4),
                pads_after: column(5),
                output_padding: column(6),
                groups,
            };
            let expected = reference(op, &x, x_shape, &w, w_shape);
            prop_assert_eq!(&expected.shape.0, &join([batch, co * groups], &output));
            for kernels in all_kernels() {
                let packed = kernels.pack_conv_transpose(spec.clone(), w.view()).unwrap();
                let mut y = vec![0u64; expected.data.len()];
                kernels.conv_transpose(&packed, 64, Input::Words(&x), Output::Words(&mut y)).unwrap();
                prop_assert_eq!(&y, &expected.data);
            }
        }
    }

    #[test]
    fn products(
        (batch, rows, n, k) in (1..3usize, 1..6usize, 1..6usize, 1..40usize),
        broadcast: bool,
        seed: u64,
    ) {
        let mut data = Data(seed);
        let spec = MatMulSpec { batch, broadcast, rows, n, k };
        let [x, w, y] = spec.lens().unwrap();
        let (x, w) = (data.words(x), data.i16s(w));
        let w_shape = if broadcast { vec![n, k] } else { vec![batch, n, k] };
        let op = MapOp::MatMul { x: ValueId(0), w: () };
        let expected = reference(op, &x, vec![batch, rows, k], &w, w_shape);
        for kernels in all_kernels() {
            let packed = kernels.pack_matmul(spec.clone(), w.view()).unwrap();
            let mut result = vec![0u32; y];
            kernels.matmul(&packed, 32, Input::Words(&narrow::<u32>(&x)), Output::Words(&mut result)).unwrap();
            prop_assert_eq!(&result, &narrow::<u32>(&expected.data));
        }
    }

    #[test]
    fn numbers(
        x in proptest::collection::vec(any::<f32>(), 0..50),
        a in -126..=126i32,
        k in 33..=60u32,
        factor in -1.0..1.0f64,
        bias: f32,
        seed: u64,
    ) {
        let z = Data(seed).words(x.len());
        let lifted: Vec<i64> = z.iter().map(|z| lift(*z, k)).collect();
        let decoded: Vec<u32> = lifted.iter().map(|y| decode_one(*y, factor, bias).to_bits()).collect();
        let v: Vec<u64> = z.iter().map(|z| Fp::new(z >> 3).value()).collect();
        let products = v.iter().zip(&lifted).map(|(v, y)| Fp::new(*v).times(Fp::from_int(*y)));
        let dot = products.fold(0, |sum, v| (sum + v.value()) % ((1 << 61) - 1));
        for kernels in all_kernels() {
            prop_assert_eq!(kernels.scan(&x), scan(&x).ok());
            let mut y = vec![0; x.len()];
            kernels.lift(&z, k, &mut y).unwrap();
            prop_assert_eq!(&y, &lifted);
            let mut out = vec![0f32; x.len()];
            kernels.decode_row(&y, factor, bias, &mut out).unwrap();
            prop_assert_eq!(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), decoded.clone());
            prop_assert_eq!(kernels.dot_p61_i64(&v, &y), Ok(dot));
            let mut encoded = vec![0; x.len()];
            kernels.encode(&x, a, &mut encoded).unwrap();
            for (e, x) in encoded.iter().zip(&x).filter(|(_, x)| !x.is_nan()) {
                prop_assert_eq!(*e, encode_one(*x, a), "{} * 2^{}", x, a);
            }
        }
    }
}
