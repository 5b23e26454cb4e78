//! Prints the speed of a few layers, in 10^9 mult-adds a second, on one thread, best of several runs, for every instruction
//! set: `cargo run --release -p pponnx-kernels --example quick_timing`. A rough check, not a benchmark.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use pponnx_kernels::{ConvSpec, Input, Kernels, MatMulSpec, Output, Weights, Word};

/// Name, input and output channels, input size, kernel, stride, padding, groups.
const LAYERS: [(&str, [usize; 7]); 8] = [
    ("alexnet conv1 11x11s4 3->64 @224", [3, 64, 224, 11, 4, 2, 1]),
    ("alexnet conv3 3x3 192->384 @13", [192, 384, 13, 3, 1, 1, 1]),
    ("resnet 3x3 64->64 @56", [64, 64, 56, 3, 1, 1, 1]),
    ("resnet 1x1 64->256 @56", [64, 256, 56, 1, 1, 0, 1]),
    ("resnet 3x3 512->512 @7", [512, 512, 7, 3, 1, 1, 1]),
    ("depthwise 3x3 144 @56", [144, 144, 56, 3, 1, 1, 144]),
    ("depthwise 3x3s2 144 @56", [144, 144, 56, 3, 2, 1, 144]),
    ("1x1 960->240 @1", [960, 240, 1, 1, 1, 0, 1]),
];

fn main() {
    for isa in Kernels::available() {
        let kernels = Kernels::with_isa(isa).unwrap();
        println!("{}:", isa.name());
        println!("{:>34} {:>8} {:>8} {:>8} {:>8}", "10^9 mult-adds/s", "u32/i16", "u32/i32", "u64/i16", "u64/i32");
        for (name, layer) in LAYERS {
            let line = [false, true].map(|wide| (conv::<u32>(kernels, layer, wide), conv::<u64>(kernels, layer, wide)));
            report(name, line);
        }
        for (name, rows, n, k) in [("fc 9216->4096", 1, 4096, 9216), ("matmul 197x768 768->768", 197, 768, 768)] {
            let product =
                |wide| (matmul::<u32>(kernels, [rows, n, k], wide), matmul::<u64>(kernels, [rows, n, k], wide));
            report(name, [product(false), product(true)]);
        }
    }
}

fn report(name: &str, [(a, c), (b, d)]: [(f64, f64); 2]) {
    println!("{name:>34} {a:8.1} {b:8.1} {c:8.1} {d:8.1}");
}

fn weights(n: usize, wide: bool) -> Vec<u8> {
    let value = |i: usize| (i.wrapping_mul(40503) >> 3) as i16;
    if wide {
        (0..n).flat_map(|i| i32::from(value(i)).to_le_bytes()).collect()
    } else {
        (0..n).flat_map(|i| value(i).to_le_bytes()).collect()
    }
}

fn view(bytes: &[u8], wide: bool) -> Weights<'_> {
    if wide { Weights::I32(bytes) } else { Weights::I16(bytes) }
}

fn words<W: Word>(n: usize) -> Vec<W> {
    (0..n as u64).map(|i| W::from_u64(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn conv<W: Word>(kernels: Kernels, [i, o, d, k, s, p, g]: [usize; 7], wide: bool) -> f64 {
    let spec = ConvSpec {
        batch: 1,
        in_channels: i,
        input: vec![d; 2],
        out_channels: o,
        kernel: vec![k; 2],
        strides: vec![s; 2],
        dilations: vec![1; 2],
        pads_before: vec![p; 2],
        pads_after: vec![p; 2],
        groups: g,
    };
    let outputs: usize = spec.output().unwrap().iter().product();
    let bytes = weights(o * i / g * k * k, wide);
    let packed = kernels.pack_conv(spec, view(&bytes, wide)).unwrap();
    let (x, mut y) = (words::<W>(i * d * d), words::<W>(o * outputs));
    best(o * outputs * i / g * k * k, || {
        kernels.conv(&packed, W::BITS.min(52), Input::Words(&x), Output::Words(&mut y)).unwrap()
    })
}

fn matmul<W: Word>(kernels: Kernels, [rows, n, k]: [usize; 3], wide: bool) -> f64 {
    let spec = MatMulSpec { batch: 1, broadcast: true, rows, n, k };
    let bytes = weights(n * k, wide);
    let packed = kernels.pack_matmul(spec, view(&bytes, wide)).unwrap();
    let (x, mut y) = (words::<W>(rows * k), words::<W>(rows * n));
    best(rows * n * k, || kernels.matmul(&packed, W::BITS.min(52), Input::Words(&x), Output::Words(&mut y)).unwrap())
}

fn best(mult_adds: usize, mut run: impl FnMut()) -> f64 {
    let mut shortest = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.15 {
        let start = Instant::now();
        run();
        shortest = shortest.min(start.elapsed().as_secs_f64());
    }
    mult_adds as f64 / shortest / 1e9
}
