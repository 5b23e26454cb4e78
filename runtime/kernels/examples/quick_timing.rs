//! Prints the thread CPU time of single layers in milliseconds, best of several runs, payload in and answer out:
//! `cargo run --release -p pponnx-kernels --example quick_timing -- [ISA [RING [wide]]]`. A rough check, not a benchmark.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use pponnx_kernels::{ConvSpec, Input, Isa, Kernels, MatMulSpec, Output, Weights, Word, packed_len};

/// Input and output channels, input size, kernel, stride, padding, groups.
const LAYERS: &[(&str, &[[usize; 7]])] = &[
    (
        "alexnet",
        &[
            [3, 64, 224, 11, 4, 2, 1],
            [64, 192, 27, 5, 1, 2, 1],
            [192, 384, 13, 3, 1, 1, 1],
            [384, 256, 13, 3, 1, 1, 1],
            [256, 256, 13, 3, 1, 1, 1],
        ],
    ),
    (
        "resnet50",
        &[
            [3, 64, 224, 7, 2, 3, 1],
            [64, 64, 56, 1, 1, 0, 1],
            [64, 64, 56, 3, 1, 1, 1],
            [64, 256, 56, 1, 1, 0, 1],
            [256, 64, 56, 1, 1, 0, 1],
            [256, 128, 56, 1, 1, 0, 1],
            [128, 128, 56, 3, 2, 1, 1],
            [256, 512, 56, 1, 2, 0, 1],
            [128, 512, 28, 1, 1, 0, 1],
            [512, 128, 28, 1, 1, 0, 1],
            [128, 128, 28, 3, 1, 1, 1],
            [512, 256, 28, 1, 1, 0, 1],
            [256, 256, 28, 3, 2, 1, 1],
            [512, 1024, 28, 1, 2, 0, 1],
            [256, 1024, 14, 1, 1, 0, 1],
            [1024, 256, 14, 1, 1, 0, 1],
            [256, 256, 14, 3, 1, 1, 1],
            [1024, 512, 14, 1, 1, 0, 1],
            [512, 512, 14, 3, 2, 1, 1],
            [1024, 2048, 14, 1, 2, 0, 1],
            [512, 2048, 7, 1, 1, 0, 1],
            [2048, 512, 7, 1, 1, 0, 1],
            [512, 512, 7, 3, 1, 1, 1],
        ],
    ),
    (
        "mobilenetv2",
        &[
            [3, 32, 224, 3, 2, 1, 1],
            [32, 16, 112, 1, 1, 0, 1],
            [16, 96, 112, 1, 1, 0, 1],
            [96, 24, 56, 1, 1, 0, 1],
            [24, 144, 56, 1, 1, 0, 1],
            [144, 32, 28, 1, 1, 0, 1],
            [32, 192, 28, 1, 1, 0, 1],
            [192, 64, 14, 1, 1, 0, 1],
            [64, 384, 14, 1, 1, 0, 1],
            [384, 96, 14, 1, 1, 0, 1],
            [96, 576, 14, 1, 1, 0, 1],
            [576, 160, 7, 1, 1, 0, 1],
            [160, 960, 7, 1, 1, 0, 1],
            [960, 320, 7, 1, 1, 0, 1],
            [320, 1280, 7, 1, 1, 0, 1],
        ],
    ),
    (
        "depthwise",
        &[
            [32, 32, 112, 3, 1, 1, 32],
            [96, 96, 112, 3, 2, 1, 96],
            [144, 144, 56, 3, 1, 1, 144],
            [192, 192, 28, 3, 1, 1, 192],
            [384, 384, 14, 3, 1, 1, 384],
            [960, 960, 7, 3, 1, 1, 960],
        ],
    ),
];

/// Rows, outputs, inputs.
const PRODUCTS: [[usize; 3]; 4] = [[1, 4096, 9216], [1, 4096, 4096], [1, 1000, 4096], [1, 1000, 2048]];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let isa = arguments.get(1).map_or(Kernels::detect().isa(), |name| Isa::from_name(name).unwrap());
    let kernels = Kernels::with_isa(isa).unwrap();
    let ring = arguments.get(2).map_or(32, |k| k.parse().unwrap());
    let wide = arguments.get(3).is_some();
    if ring > 32 { all::<u64>(kernels, ring, wide) } else { all::<u32>(kernels, ring, wide) }
}

fn all<W: Word>(kernels: Kernels, ring: u32, wide: bool) {
    for (network, layers) in LAYERS {
        for layer in *layers {
            println!("{network} {layer:?} {:.4}", conv::<W>(kernels, ring, wide, *layer));
        }
    }
    for product in PRODUCTS {
        println!("fc {product:?} {:.4}", matmul::<W>(kernels, ring, wide, product));
    }
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

/// A payload; elements of an even number have no bits behind the last one.
fn payload(n: usize, ring: u32) -> Vec<u8> {
    let n = packed_len(n, ring).unwrap();
    (0..n).map(|i| if i + 1 == n { 0 } else { (i.wrapping_mul(0x9e37_79b9) >> 7) as u8 }).collect()
}

fn conv<W: Word>(kernels: Kernels, ring: u32, wide: bool, [i, o, d, k, s, p, g]: [usize; 7]) -> f64 {
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
    let outputs = o * spec.output().unwrap().iter().product::<usize>();
    let bytes = weights(o * i / g * k * k, wide);
    let packed = kernels.pack_conv(spec, view(&bytes, wide)).unwrap();
    let (x, t, mut y) = (payload(i * d * d, ring), payload(outputs, ring), payload(outputs, ring));
    best(|| {
        let answer = Output::Answer { correction: Some(&t), bytes: &mut y };
        kernels.conv::<W>(&packed, ring, Input::Packed(&x), answer).unwrap();
    })
}

fn matmul<W: Word>(kernels: Kernels, ring: u32, wide: bool, [rows, n, k]: [usize; 3]) -> f64 {
    let spec = MatMulSpec { batch: 1, broadcast: true, rows, n, k };
    let bytes = weights(n * k, wide);
    let packed = kernels.pack_matmul(spec, view(&bytes, wide)).unwrap();
    let (x, t, mut y) = (payload(rows * k, ring), payload(rows * n, ring), payload(rows * n, ring));
    best(|| {
        let answer = Output::Answer { correction: Some(&t), bytes: &mut y };
        kernels.matmul::<W>(&packed, ring, Input::Packed(&x), answer).unwrap();
    })
}

/// Milliseconds of this thread's CPU time.
fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 * 1e-6
}

fn best(mut run: impl FnMut()) -> f64 {
    let mut shortest = f64::INFINITY;
    let begin = Instant::now();
    for round in 0.. {
        let start = cpu();
        run();
        if round > 0 {
            shortest = shortest.min(cpu() - start);
        }
        if round > 3 && begin.elapsed().as_secs_f64() > 0.3 {
            break;
        }
    }
    shortest
}
