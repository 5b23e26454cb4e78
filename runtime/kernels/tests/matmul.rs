//! Matrix products of every instruction set, word and weight type equal their definition bit for bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod oracle;

use oracle::{Constant, Data, all_kernels, check_widths, narrow};
use pponnx_kernels::{Input, Kernels, MatMulSpec, Output, Word};
use proptest::prelude::*;

fn run<W: Word>(kernels: Kernels, spec: &MatMulSpec, x: &[u64], w: &Constant, expected: &[u64]) {
    let packed = kernels.pack_matmul(spec.clone(), w.view()).unwrap();
    let mut y = vec![W::from_u64(0x5555_5555_5555_5555); expected.len()];
    kernels.matmul(&packed, W::BITS, Input::Words(&narrow::<W>(x)), Output::Words(&mut y)).unwrap();
    assert_eq!(y, narrow::<W>(expected), "{kernels:?} {spec:?}");
}

fn check(spec: &MatMulSpec, seed: u64) {
    let mut data = Data(seed);
    let [x, w, _] = spec.lens().unwrap();
    let x = data.words(x);
    for w in [data.i16s(w), data.i32s(w)] {
        let expected = oracle::matmul(spec, &x, &w);
        for kernels in all_kernels() {
            run::<u32>(kernels, spec, &x, &w, &expected);
            run::<u64>(kernels, spec, &x, &w, &expected);
            let packed = kernels.pack_matmul(spec.clone(), w.view()).unwrap();
            let at = format!("{kernels:?} {spec:?}");
            let run32 = |k, x: Input<'_, u32>, y: Output<'_, u32>| kernels.matmul(&packed, k, x, y).unwrap();
            check_widths(&x, &expected, &at, run32, |k, x, y| kernels.matmul(&packed, k, x, y).unwrap());
        }
    }
}

#[test]
fn grid_of_products() {
    for (rows, n, k) in [(1, 1, 1), (1, 10, 84), (1, 7, 129), (3, 5, 16), (4, 4, 33), (7, 9, 31), (9, 3, 100)] {
        for (batch, broadcast) in [(1, true), (1, false), (3, true), (3, false)] {
            check(&MatMulSpec { batch, broadcast, rows, n, k }, (rows * n * k) as u64);
        }
    }
}

/// By columns, by rows, and with several blocks of rows.
#[test]
fn large_products_split_over_threads_and_blocks() {
    check(&MatMulSpec { batch: 1, broadcast: true, rows: 1, n: 1001, k: 4097 }, 1);
    check(&MatMulSpec { batch: 1, broadcast: true, rows: 3, n: 205, k: 5003 }, 2);
    check(&MatMulSpec { batch: 2, broadcast: false, rows: 101, n: 37, k: 1003 }, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_product(
        (batch, rows, n, k) in (1..4usize, 1..12usize, 1..12usize, 1..80usize),
        broadcast: bool,
        seed: u64,
    ) {
        check(&MatMulSpec { batch, broadcast, rows, n, k }, seed);
    }
}
