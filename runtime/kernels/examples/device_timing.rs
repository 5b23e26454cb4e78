//! Times the device's loops: nanoseconds an element, best of several rounds, thread CPU time.
//!
//! `cargo run --release -p pponnx-kernels --example device_timing`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;

use pponnx_kernels::{Activation, DecodeRows, Kernels, RankOne, packed_len};
use rustix::time::{ClockId, clock_gettime};

/// Elements of one call of the fused loops: what one chunk of a mask's stream covers.
const CHUNK: usize = 1024;
/// Rounds; the fastest counts.
const ROUNDS: usize = 9;

/// CPU time of this thread in nanoseconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds an element.
fn time(n: usize, mut work: impl FnMut()) -> f64 {
    let repeats = ((1 << 21) / n.max(1)).max(1);
    let round = |work: &mut dyn FnMut()| {
        let from = cpu();
        (0..repeats).for_each(|_| work());
        (cpu() - from) / (repeats * n) as f64
    };
    (0..ROUNDS).map(|_| round(&mut work)).fold(f64::INFINITY, f64::min)
}

struct Tensors {
    x: Vec<f32>,
    encoded: Vec<i32>,
    stream: Vec<u8>,
    payload: Vec<u8>,
    wide: Vec<i64>,
    residues: Vec<u64>,
    out: Vec<f32>,
}

impl Tensors {
    fn new(n: usize) -> Tensors {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 3
        };
        Tensors {
            x: (0..n).map(|_| random() as i32 as f32 / 65536.0).collect(),
            encoded: vec![1; n],
            stream: (0..8 * CHUNK).map(|_| random() as u8).collect(),
            payload: vec![0; packed_len(n, 64).unwrap()],
            wide: vec![1; n],
            residues: (0..n).map(|_| random() % ((1 << 61) - 1)).collect(),
            out: vec![0.0; n],
        }
    }
}

fn report(name: &str, ns: [f64; 2]) {
    println!("  {name:<34} {:>7.3} {:>7.3}", ns[0], ns[1]);
}

fn loops(kernels: Kernels, t: &mut [Tensors; 2]) {
    let each = |t: &mut [Tensors; 2], work: &dyn Fn(&mut Tensors)| {
        let one = |t: &mut Tensors| time(t.x.len(), || work(black_box(t)));
        let [a, b] = t;
        [one(a), one(b)]
    };
    report(
        "scan",
        each(t, &|t| {
            black_box(kernels.scan(&t.x));
        }),
    );
    report(
        "squares",
        each(t, &|t| {
            let sums = &mut t.residues[..49];
            for x in t.x.chunks_exact(49) {
                kernels.add_squares(x, 3, sums).unwrap();
            }
        }),
    );
    for k in [32, 40, 52, 45] {
        let word = if k <= 32 { 4 } else { 8 };
        report(
            &format!("upload k = {k}"),
            each(t, &|t| {
                let payloads = t.payload.chunks_mut(packed_len(CHUNK, k).unwrap());
                for ((x, encoded), payload) in t.x.chunks(CHUNK).zip(t.encoded.chunks_mut(CHUNK)).zip(payloads) {
                    let payload = &mut payload[..packed_len(x.len(), k).unwrap()];
                    kernels.upload(x, 3, &t.stream[..word * x.len()], k, encoded, payload).unwrap();
                }
            }),
        );
        report(
            &format!("download k = {k}"),
            each(t, &|t| {
                let mut narrow = [0; CHUNK];
                let mut wide = [0; CHUNK];
                for (i, x) in t.x.chunks(CHUNK).enumerate() {
                    let bytes = packed_len(CHUNK, k).unwrap();
                    let payload = &t.payload[i * bytes..][..packed_len(x.len(), k).unwrap()];
                    let pad = &t.stream[..word * x.len()];
                    if k <= 32 {
                        kernels.download_i32(payload, pad, k, &mut narrow[..x.len()]).unwrap();
                    } else {
                        kernels.download_i64(payload, pad, k, &mut wide[..x.len()]).unwrap();
                    }
                    black_box((&narrow, &wide));
                }
            }),
        );
    }
    report(
        "dot i32",
        each(t, &|t| {
            black_box(kernels.dot_p61_i32(&t.residues, &t.encoded).unwrap());
        }),
    );
    report(
        "dot i64",
        each(t, &|t| {
            black_box(kernels.dot_p61_i64(&t.residues, &t.wide).unwrap());
        }),
    );
    for inner in [1, 49, 196, 3136] {
        let run = inner;
        let rows = |n: usize| n / inner;
        report(
            &format!("rank one i32, {inner} a row"),
            each(t, &|t| {
                let (channels, n) =
                    if inner == 1 { (256, t.x.len() / 256 * 256) } else { (rows(t.x.len()), rows(t.x.len()) * inner) };
                let beta = &t.residues[..n / channels];
                let v = RankOne { a: &t.residues[..channels], beta, inner };
                black_box(kernels.rank_one_p61_i32(&v, 0, &t.encoded[..n]).unwrap());
            }),
        );
        report(
            &format!("rank one i64, {inner} a row"),
            each(t, &|t| {
                let (channels, n) =
                    if inner == 1 { (256, t.x.len() / 256 * 256) } else { (rows(t.x.len()), rows(t.x.len()) * inner) };
                let beta = &t.residues[..n / channels];
                let v = RankOne { a: &t.residues[..channels], beta, inner };
                black_box(kernels.rank_one_p61_i64(&v, 0, &t.wide[..n]).unwrap());
            }),
        );
        let (factors, biases) = (vec![0.5; 256], vec![0.25; 256]);
        let table = DecodeRows { run, factors: &factors, biases: &biases, activation: Activation::Relu };
        report(
            &format!("decode i32, {inner} a row"),
            each(t, &|t| {
                kernels.decode_rows_i32(&t.encoded, 0, &table, &mut t.out).unwrap();
            }),
        );
        report(
            &format!("decode i64, {inner} a row"),
            each(t, &|t| {
                kernels.decode_rows_i64(&t.wide, 0, &table, &mut t.out).unwrap();
            }),
        );
    }
}

fn main() {
    let mut tensors = [Tensors::new((64 << 10) / 4), Tensors::new((4 << 20) / 4)];
    for isa in Kernels::available() {
        println!("{}: ns an element, f32 tensors of 64 KiB and 4 MiB", isa.name());
        loops(Kernels::with_isa(isa).unwrap(), &mut tensors);
    }
}
