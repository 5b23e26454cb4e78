//! Convolutions of every instruction set, word and weight type equal their definition bit for bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod oracle;

use oracle::{Constant, Data, all_kernels, check_widths, narrow};
use pponnx_kernels::{ConvSpec, ConvTransposeSpec, Input, Kernels, Output, Word};
use proptest::prelude::*;

fn run_conv<W: Word>(kernels: Kernels, spec: &ConvSpec, x: &[u64], w: &Constant, expected: &[u64]) {
    let packed = kernels.pack_conv(spec.clone(), w.view()).unwrap();
    // Garbage in the output must not matter.
    let mut y = vec![W::from_u64(0x5555_5555_5555_5555); expected.len()];
    kernels.conv(&packed, W::BITS, Input::Words(&narrow::<W>(x)), Output::Words(&mut y)).unwrap();
    assert_eq!(y, narrow::<W>(expected), "{kernels:?} {spec:?}");
}

fn check_conv(spec: &ConvSpec, seed: u64) {
    let mut data = Data(seed);
    let x = data.words(spec.batch * spec.in_channels * spec.input.iter().product::<usize>());
    let n = spec.weights_len().unwrap();
    for w in [data.i16s(n), data.i32s(n)] {
        let expected = oracle::conv(spec, &x, &w);
        for kernels in all_kernels() {
            run_conv::<u32>(kernels, spec, &x, &w, &expected);
            run_conv::<u64>(kernels, spec, &x, &w, &expected);
            let packed = kernels.pack_conv(spec.clone(), w.view()).unwrap();
            let at = format!("{kernels:?} {spec:?}");
            let run32 = |k, x: Input<'_, u32>, y: Output<'_, u32>| kernels.conv(&packed, k, x, y).unwrap();
            check_widths(&x, &expected, &at, run32, |k, x, y| kernels.conv(&packed, k, x, y).unwrap());
        }
    }
}

fn run_transpose<W: Word>(kernels: Kernels, spec: &ConvTransposeSpec, x: &[u64], w: &Constant, expected: &[u64]) {
    let packed = kernels.pack_conv_transpose(spec.clone(), w.view()).unwrap();
    let mut y = vec![W::from_u64(0x5555_5555_5555_5555); expected.len()];
    kernels.conv_transpose(&packed, W::BITS, Input::Words(&narrow::<W>(x)), Output::Words(&mut y)).unwrap();
    assert_eq!(y, narrow::<W>(expected), "{kernels:?} {spec:?}");
}

fn check_transpose(spec: &ConvTransposeSpec, seed: u64) {
    let mut data = Data(seed);
    let x = data.words(spec.batch * spec.in_channels * spec.input.iter().product::<usize>());
    let n = spec.weights_len().unwrap();
    for w in [data.i16s(n), data.i32s(n)] {
        let expected = oracle::conv_transpose(spec, &x, &w);
        for kernels in all_kernels() {
            run_transpose::<u32>(kernels, spec, &x, &w, &expected);
            run_transpose::<u64>(kernels, spec, &x, &w, &expected);
            let packed = kernels.pack_conv_transpose(spec.clone(), w.view()).unwrap();
            let at = format!("{kernels:?} {spec:?}");
            let run32 = |k, x: Input<'_, u32>, y: Output<'_, u32>| kernels.conv_transpose(&packed, k, x, y).unwrap();
            check_widths(&x, &expected, &at, run32, |k, x, y| kernels.conv_transpose(&packed, k, x, y).unwrap());
        }
    }
}

/// Batch, channels of a group in and out, groups; size, kernel, stride, dilation, padding before and after by axis.
fn conv_spec(channels: [usize; 4], axes: &[[usize; 6]]) -> ConvSpec {
    let [batch, ci, co, groups] = channels;
    let column = |i: usize| axes.iter().map(|a| a[i]).collect::<Vec<_>>();
    ConvSpec {
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
    }
}

/// As [`conv_spec`], with the output padding as seventh entry of an axis.
fn transpose_spec(channels: [usize; 4], axes: &[[usize; 7]]) -> ConvTransposeSpec {
    let [batch, ci, co, groups] = channels;
    let column = |i: usize| axes.iter().map(|a| a[i]).collect::<Vec<_>>();
    ConvTransposeSpec {
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
    }
}

#[test]
fn grid_of_convolutions() {
    let grid: &[([usize; 4], &[[usize; 6]])] = &[
        ([1, 3, 5, 1], &[[13, 3, 1, 1, 1, 1], [13, 3, 1, 1, 1, 1]]),
        ([2, 7, 9, 1], &[[7, 3, 2, 1, 1, 1], [9, 3, 2, 1, 0, 1]]),
        ([1, 3, 6, 1], &[[31, 11, 4, 1, 2, 2], [29, 11, 4, 1, 2, 2]]),
        // pointwise, also with a stride that skips inputs
        ([1, 17, 4, 1], &[[5, 1, 1, 1, 0, 0], [11, 1, 1, 1, 0, 0]]),
        ([1, 5, 7, 1], &[[8, 1, 3, 1, 0, 0], [10, 1, 2, 1, 0, 0]]),
        // a stem of three channels, and panels of several widths
        ([1, 3, 17, 1], &[[30, 7, 2, 1, 3, 3], [29, 7, 2, 1, 3, 3]]),
        ([2, 3, 9, 1], &[[10, 3, 1, 1, 1, 1], [7, 3, 1, 1, 1, 1]]),
        ([1, 1, 8, 1], &[[12, 5, 1, 1, 2, 2], [12, 5, 1, 1, 2, 2]]),
        ([1, 34, 150, 1], &[[5, 3, 1, 1, 1, 1], [19, 3, 1, 1, 1, 1]]),
        ([1, 16, 66, 2], &[[4, 3, 1, 2, 2, 2], [17, 3, 2, 2, 2, 2]]),
        ([3, 21, 24, 1], &[[9, 1, 2, 1, 0, 0], [35, 1, 2, 1, 0, 0]]),
        // depthwise with one, two and three outputs a channel
        ([1, 1, 1, 11], &[[14, 3, 1, 1, 1, 1], [14, 3, 1, 1, 1, 1]]),
        ([2, 1, 1, 5], &[[14, 3, 2, 1, 1, 1], [15, 3, 2, 1, 0, 1]]),
        ([1, 1, 2, 5], &[[9, 5, 1, 1, 2, 2], [9, 5, 3, 1, 2, 2]]),
        ([1, 1, 3, 3], &[[9, 3, 1, 2, 2, 2], [9, 3, 1, 2, 2, 2]]),
        // grouped, odd channels
        ([1, 3, 5, 3], &[[6, 3, 1, 1, 1, 0], [20, 3, 1, 1, 0, 2]]),
        // windows much wider than their outputs: taps staged apart
        ([1, 2, 5, 1], &[[9, 3, 1, 1, 0, 0], [40, 38, 1, 1, 0, 0]]),
        ([1, 3, 4, 1], &[[12, 3, 1, 18, 18, 18], [12, 3, 1, 36, 36, 36]]),
        ([1, 2, 3, 1], &[[4, 2, 3, 50, 50, 50], [4, 3, 1, 1, 1, 1]]),
        // padding beyond the window
        ([1, 2, 5, 1], &[[3, 2, 1, 1, 5, 0], [3, 2, 4, 1, 0, 9]]),
        // at most four outputs: dot products over taps
        ([1, 37, 10, 1], &[[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]),
        ([2, 9, 7, 1], &[[4, 3, 1, 1, 0, 0], [4, 3, 1, 1, 0, 0]]),
        ([2, 5, 6, 3], &[[6, 6, 1, 1, 0, 0], [7, 6, 1, 1, 1, 0]]),
        ([1, 4, 4, 2], &[[3, 3, 2, 1, 1, 1], [3, 3, 2, 1, 1, 1]]),
        // one and three axes
        ([1, 3, 5, 1], &[[131, 7, 1, 1, 3, 3]]),
        ([2, 2, 3, 2], &[[50, 4, 3, 2, 5, 0]]),
        ([1, 3, 5, 1], &[[5, 3, 1, 1, 1, 1], [6, 3, 2, 1, 1, 0], [7, 3, 1, 2, 2, 2]]),
        ([1, 1, 1, 4], &[[4, 3, 2, 1, 1, 1], [6, 2, 1, 1, 0, 1], [9, 3, 2, 1, 1, 1]]),
    ];
    for (seed, (channels, axes)) in grid.iter().enumerate() {
        check_conv(&conv_spec(*channels, axes), seed as u64);
    }
}

/// Enough work for several threads and for several blocks of positions.
#[test]
fn large_convolutions_split_over_threads_and_blocks() {
    check_conv(&conv_spec([1, 24, 26, 1], &[[56, 3, 1, 1, 1, 1], [56, 3, 1, 1, 1, 1]]), 1);
    check_conv(&conv_spec([2, 1, 1, 150], &[[56, 3, 1, 1, 1, 1], [56, 3, 1, 1, 1, 1]]), 2);
    check_conv(&conv_spec([1, 800, 33, 2], &[[9, 1, 1, 1, 0, 0], [23, 1, 1, 1, 0, 0]]), 3);
    check_conv(&conv_spec([1, 3000, 530, 1], &[[2, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]), 4);
    check_transpose(&transpose_spec([1, 32, 31, 1], &[[23, 4, 2, 1, 1, 1, 0], [25, 4, 2, 1, 1, 1, 0]]), 5);
}

#[test]
fn grid_of_transposed_convolutions() {
    let grid: &[([usize; 4], &[[usize; 7]])] = &[
        ([1, 3, 5, 1], &[[7, 3, 2, 1, 1, 1, 1], [9, 3, 2, 1, 1, 1, 1]]),
        ([2, 5, 3, 1], &[[6, 4, 2, 1, 1, 1, 0], [5, 4, 2, 1, 1, 1, 0]]),
        ([1, 2, 4, 3], &[[5, 2, 2, 1, 0, 0, 0], [8, 2, 2, 1, 0, 0, 0]]),
        ([1, 1, 1, 6], &[[5, 3, 1, 1, 1, 1, 0], [20, 3, 1, 1, 1, 1, 0]]),
        // a stride beyond the kernel leaves outputs that no tap reaches
        ([1, 2, 3, 1], &[[4, 2, 5, 1, 0, 0, 3], [5, 1, 3, 1, 0, 0, 2]]),
        // dilation with and without a common factor with the stride
        ([1, 3, 2, 1], &[[5, 3, 2, 2, 1, 0, 0], [6, 3, 2, 3, 2, 1, 0]]),
        // cropped to a part that some or all taps miss
        ([1, 2, 2, 1], &[[3, 3, 4, 1, 5, 4, 0], [3, 3, 2, 1, 3, 2, 0]]),
        ([1, 1, 2, 1], &[[2, 1, 4, 1, 1, 2, 0], [3, 1, 1, 1, 0, 0, 0]]),
        // taps far apart
        ([1, 2, 5, 1], &[[4, 3, 1, 40, 40, 40, 0], [3, 2, 2, 31, 15, 14, 1]]),
        ([1, 6, 5, 1], &[[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]]),
        ([1, 3, 5, 1], &[[40, 4, 2, 1, 1, 1, 0]]),
        ([1, 2, 3, 1], &[[3, 3, 2, 1, 1, 1, 1], [4, 2, 2, 1, 0, 0, 0], [5, 3, 1, 1, 1, 1, 0]]),
    ];
    for (seed, (channels, axes)) in grid.iter().enumerate() {
        check_transpose(&transpose_spec(*channels, axes), seed as u64);
    }
}

fn channels() -> impl Strategy<Value = [usize; 4]> {
    (1..3usize, 1..6usize, 1..10usize, 1..4usize).prop_map(|(n, ci, co, g)| [n, ci, co, g])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_convolution(
        channels in channels(),
        axes in proptest::collection::vec((1..9usize, 1..5usize, 1..4usize, 1..4usize, 0..4usize, 0..4usize), 1..4),
        seed: u64,
    ) {
        let axes: Vec<_> = axes.into_iter().map(|(d, k, s, l, b, a)| [d, k, s, l, b, a]).collect();
        let spec = conv_spec(channels, &axes);
        prop_assume!(spec.output().is_ok());
        check_conv(&spec, seed);
    }

    #[test]
    fn any_transposed_convolution(
        channels in channels(),
        axes in proptest::collection::vec(
            (1..6usize, 1..5usize, 1..4usize, 1..4usize, 0..4usize, 0..4usize, 0..3usize), 1..4),
        seed: u64,
    ) {
        let axes: Vec<_> = axes.into_iter().map(|(d, k, s, l, b, a, o)| [d, k, s, l, b, a, o]).collect();
        let spec = transpose_spec(channels, &axes);
        prop_assume!(spec.output().is_ok());
        check_transpose(&spec, seed);
    }
}
