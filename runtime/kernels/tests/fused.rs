//! The device's fused loops, on every instruction set, equal the separate ones applied one after the other, on odd
//! lengths, unaligned bytes and every ring width.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod oracle;

use oracle::{Data, all_kernels};
use pponnx_kernels::{Activation, DecodeRows, KernelError, Kernels, RankOne, packed_len};
use pponnx_plans::reference::number::{Measure, Plain};
use proptest::prelude::*;

const P: u64 = (1 << 61) - 1;

/// The words of a stream: 4 bytes each for k <= 32, 8 above.
fn stream_words(stream: &[u8], k: u32) -> Vec<u64> {
    let bytes = if k <= 32 { 4 } else { 8 };
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    stream.chunks(bytes).map(word).collect()
}

/// Bytes that start `shift` bytes behind an allocation's start.
struct Shifted(Vec<u8>, usize);

impl Shifted {
    fn new(bytes: impl IntoIterator<Item = u8>, shift: usize) -> Shifted {
        Shifted(std::iter::repeat_n(0xaa, shift).chain(bytes).collect(), shift)
    }
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0[self.1..]
    }
}

fn stream(data: &mut Data, n: usize, k: u32) -> Vec<u8> {
    let bytes = if k <= 32 { 4 } else { 8 };
    data.words(n).into_iter().flat_map(|w| w.to_le_bytes().into_iter().take(bytes)).collect()
}

/// Lengths around the sizes that loops are cut into.
const LENGTHS: [usize; 14] = [0, 1, 2, 7, 8, 9, 16, 31, 63, 64, 65, 130, 1000, 1024];

fn numbers(data: &mut Data, n: usize) -> Vec<f32> {
    (0..n).map(|_| (data.next() >> 32) as i32 as f32 / 256.0).collect()
}

#[test]
fn upload_is_encode_embed_add_and_pack() {
    let mut data = Data(3);
    for k in 1..=64 {
        for (i, n) in LENGTHS.into_iter().enumerate() {
            let (x, exponent) = (numbers(&mut data, n), [8, -3, 12][i % 3]);
            let mut mask = Shifted::new(stream(&mut data, n, k), i % 5);
            let portable = all_kernels()[0];
            let mut encoded = vec![0; n];
            portable.encode(&x, exponent, &mut encoded).unwrap();
            let mut words = vec![0u64; n];
            portable.embed(&encoded, &mut words).unwrap();
            portable.add_assign(&mut words, &stream_words(mask.bytes(), k)).unwrap();
            let mut packed = Vec::new();
            portable.pack(&words, k, &mut packed).unwrap();
            for kernels in all_kernels() {
                let mut got = vec![7; n];
                let mut payload = Shifted::new(vec![0x55; packed.len()], i % 3);
                kernels.upload(&x, exponent, mask.bytes(), k, &mut got, payload.bytes()).unwrap();
                assert_eq!(got, encoded, "k = {k}, {n} elements, {:?}", kernels.isa());
                assert_eq!(payload.bytes(), packed, "k = {k}, {n} elements, {:?}", kernels.isa());
            }
        }
    }
}

/// Every binade down to the smallest numbers, in one tensor and for the exponent that the reference would take.
#[test]
fn squares_and_ranges_are_those_of_the_reference() {
    let mut data = Data(8);
    for top in [1.0f32, 3.0e38, 1.5e-45, 1.0e-38, 65535.9, 1.0e20] {
        let binade = ((f64::from(top).to_bits() >> 52) as i32) - 1023;
        let e = (14 - binade).min(126);
        for n in [0, 1, 7, 8, 49, 300] {
            let mut x: Vec<f32> = (0..n).map(|_| f32::from_bits(data.next() as u32)).collect();
            x.iter_mut().filter(|v| v.is_nan() || v.abs() > top).for_each(|v| *v = -0.0);
            x.iter_mut().step_by(5).for_each(|v| *v = top);
            x.iter_mut().skip(2).step_by(7).for_each(|v| *v = -1e-45);
            let from = data.words(n).into_iter().map(|v| v >> 4).collect::<Vec<_>>();
            let mut sums = from.clone();
            Plain.add_squares(&x, e, &mut sums);
            for kernels in all_kernels() {
                let mut got = from.clone();
                kernels.add_squares(&x, e, &mut got).unwrap();
                assert_eq!(got, sums, "{top} {n}");
                assert_eq!(kernels.sum_squares(&x, e), Ok(Plain.sum_squares(&x, e)), "{top} {n}");
                assert_eq!(kernels.scan(&x), Plain.scan(&x));
            }
        }
    }
    assert!(Kernels::detect().add_squares(&[1.0], 0, &mut []).is_err());
    assert!(Kernels::detect().sum_squares(&[1.0], 127).is_err());
}

/// The signed value of the low k bits.
fn signed(v: u64, k: u32) -> i64 {
    ((v << (64 - k)) as i64) >> (64 - k)
}

#[test]
fn download_is_unpack_add_and_lift() {
    let mut data = Data(4);
    for k in 1..=64 {
        for (i, n) in LENGTHS.into_iter().enumerate() {
            let words = data.words(n);
            let mut packed = Vec::new();
            Kernels::detect().pack(&words, k, &mut packed).unwrap();
            let mut payload = Shifted::new(packed, i % 3);
            let mut pad = Shifted::new(stream(&mut data, n, k), i % 5);
            let sums = words.iter().zip(stream_words(pad.bytes(), k)).map(|(w, t)| w.wrapping_add(t));
            let expected: Vec<i64> = sums.map(|v| signed(v, k)).collect();
            for kernels in all_kernels() {
                let mut z = vec![7; n];
                kernels.download_i64(payload.bytes(), pad.bytes(), k, &mut z).unwrap();
                assert_eq!(z, expected, "k = {k}, {n} elements, {:?}", kernels.isa());
                if k <= 32 {
                    let mut z = vec![7; n];
                    kernels.download_i32(payload.bytes(), pad.bytes(), k, &mut z).unwrap();
                    assert!(z.iter().map(|z| i64::from(*z)).eq(expected.iter().copied()), "k = {k}, {n} elements");
                }
            }
        }
    }
}

#[test]
fn a_tensor_may_go_in_pieces_of_whole_bytes() {
    let mut data = Data(5);
    let kernels = Kernels::detect();
    for k in [1, 31, 32, 40, 52, 60] {
        let n = 1003;
        let x = numbers(&mut data, n);
        let mask = stream(&mut data, n, k);
        let bytes = packed_len(n, k).unwrap();
        let (mut encoded, mut whole) = (vec![0; n], vec![0; bytes]);
        kernels.upload(&x, 3, &mask, k, &mut encoded, &mut whole).unwrap();
        let mut pieces = vec![0; bytes];
        let width = if k <= 32 { 4 } else { 8 };
        let parts = x.chunks(8 * 5).zip(mask.chunks(8 * 5 * width));
        let parts = parts.zip(encoded.chunks_mut(8 * 5)).zip(pieces.chunks_mut(5 * k as usize));
        for (((x, mask), encoded), payload) in parts {
            kernels.upload(x, 3, mask, k, encoded, payload).unwrap();
        }
        assert_eq!(pieces, whole, "k = {k}");
    }
}

#[test]
fn bytes_that_do_not_fit_are_refused() {
    let kernels = Kernels::detect();
    let length = |what, expected, found| Err(KernelError::Length { what, expected, found });
    let up = |k, mask: usize, encoded: usize, payload: usize, a| {
        kernels.upload(&[1.0; 9], a, &vec![0; mask], k, &mut vec![0; encoded], &mut vec![0; payload])
    };
    assert_eq!(up(32, 36, 9, 36, 0), Ok(()));
    assert_eq!(up(0, 36, 9, 0, 0), Err(KernelError::Width { k: 0, bits: 64 }));
    assert_eq!(up(65, 72, 9, 74, 0), Err(KernelError::Width { k: 65, bits: 64 }));
    assert_eq!(up(32, 35, 9, 36, 0), length("mask bytes", 36, 35));
    assert_eq!(up(33, 36, 9, 38, 0), length("mask bytes", 72, 36));
    assert_eq!(up(32, 36, 8, 36, 0), length("encode output", 9, 8));
    assert_eq!(up(31, 36, 9, 36, 0), length("packed bytes", 35, 36));
    assert_eq!(up(32, 36, 9, 36, 127), Err(KernelError::Exponent { exponent: 127 }));

    let down = |k, payload: &[u8], pad: usize| kernels.download_i64(payload, &vec![0; pad], k, &mut [0; 3]);
    assert_eq!(down(33, &[0; 13], 24), Ok(()));
    assert_eq!(down(33, &[0xf8; 13], 24), Err(KernelError::PaddingBits));
    assert_eq!(down(33, &[0; 12], 24), length("packed bytes", 13, 12));
    assert_eq!(down(33, &[0; 13], 12), length("pad bytes", 24, 12));
    let narrow = |k: u32| kernels.download_i32(&[0; 16], &[0; 12], k, &mut [0; 3]);
    assert_eq!(narrow(33), Err(KernelError::Width { k: 33, bits: 32 }));
    assert_eq!(kernels.download_i32(&[0, 0, 0, 0xf0], &[0; 12], 9, &mut [0; 3]), Err(KernelError::PaddingBits));
}

/// `sum a[c] * beta[o * inner + i] * x[o, c, i]`, reduced after every term.
fn rank_one(v: &RankOne<'_>, x: &[i64]) -> u64 {
    let p = i128::from(P);
    let sum = x.iter().enumerate().fold(0i128, |sum, (at, x)| {
        let (outer, inside) = (at / (v.a.len() * v.inner), at % (v.a.len() * v.inner));
        let (a, b) = (v.a[inside / v.inner], v.beta[outer * v.inner + inside % v.inner]);
        (sum + i128::from(a) * i128::from(b) % p * i128::from(*x) % p).rem_euclid(p)
    });
    sum as u64
}

#[test]
fn the_factored_product_is_that_of_the_written_vector() {
    let mut data = Data(6);
    for (outer, channels, inner) in [
        (1, 1, 1),
        (1, 5, 1),
        (7, 3, 1),
        (1, 3, 49),
        (2, 5, 8),
        (2, 3, 17),
        (1, 2, 1100),
        (40, 1, 1),
        (1, 70, 9),
        (3, 200, 1),
    ] {
        for extreme in [false, true] {
            let n = outer * channels * inner;
            let residue = |v: u64| if extreme { P - 1 } else { (v >> 3) % P };
            let a: Vec<u64> = data.words(channels).into_iter().map(residue).collect();
            let beta: Vec<u64> = data.words(outer * inner).into_iter().map(residue).collect();
            let v = RankOne { a: &a, beta: &beta, inner };
            let wide: Vec<i64> = match extreme {
                true => vec![1 - (1 << 59); n],
                false => data.words(n).into_iter().map(|v| (v as i64) >> 5).collect(),
            };
            let small: Vec<i32> = if extreme { vec![i32::MIN; n] } else { wide.iter().map(|v| *v as i32).collect() };
            let small_wide: Vec<i64> = small.iter().map(|v| (*v).into()).collect();
            for kernels in all_kernels() {
                assert_eq!(
                    kernels.rank_one_p61_i64(&v, 0, &wide),
                    Ok(rank_one(&v, &wide)),
                    "{outer} {channels} {inner}"
                );
                assert_eq!(kernels.rank_one_p61_i32(&v, 0, &small), Ok(rank_one(&v, &small_wide)));
                for piece in [1, 3, 64] {
                    let parts = wide.chunks(piece).enumerate();
                    let part = |(i, x): (usize, &[i64])| kernels.rank_one_p61_i64(&v, i * piece, x).unwrap();
                    let sum = parts.map(part).fold(0, |sum, part| (sum + part) % P);
                    assert_eq!(sum, rank_one(&v, &wide), "{outer} {channels} {inner} in pieces of {piece}");
                }
            }
        }
    }
}

#[test]
fn check_factors_that_do_not_fit_are_refused() {
    let kernels = Kernels::detect();
    let (a, beta) = ([1; 2], [1; 6]);
    let v = |inner| RankOne { a: &a, beta: &beta, inner };
    assert_eq!(kernels.rank_one_p61_i32(&v(3), 0, &[1; 12]), Ok(12));
    assert_eq!(kernels.rank_one_p61_i32(&v(3), 11, &[1]), Ok(1));
    assert!(kernels.rank_one_p61_i32(&v(3), 12, &[1]).is_err());
    assert!(kernels.rank_one_p61_i32(&v(3), usize::MAX, &[1]).is_err());
    assert!(kernels.rank_one_p61_i32(&v(4), 0, &[1]).is_err());
    assert!(kernels.rank_one_p61_i32(&v(0), 0, &[1]).is_err());
    assert!(kernels.rank_one_p61_i64(&RankOne { a: &[], beta: &beta, inner: 1 }, 0, &[1]).is_err());
    assert_eq!(kernels.rank_one_p61_i64(&RankOne { a: &[], beta: &[], inner: 1 }, 0, &[]), Ok(0));
}

fn activated(y: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None => y,
        Activation::Relu if y > 0.0 => y,
        Activation::Relu => 0.0,
        Activation::Clip { min, .. } if y <= min => min,
        Activation::Clip { max, .. } if y >= max => max,
        Activation::Clip { .. } => y,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_rows_rounds_after_each_operation(
        run in prop_oneof![Just(1usize), 2..70usize],
        rows in 1..9usize,
        from in 0..300usize,
        n in 0..300usize,
        seed: u64,
        activation in prop_oneof![
            Just(Activation::None),
            Just(Activation::Relu),
            Just(Activation::Clip { min: 0.0, max: 6.0 }),
            Just(Activation::Clip { min: -1.5, max: 2.5 }),
        ],
    ) {
        let mut data = Data(seed);
        let mut real = |scale: f64| (0..rows).map(|_| (data.next() as i64) as f64 * scale).collect::<Vec<_>>();
        let factors = real(1e-36);
        let biases: Vec<f32> = real(1e-19).into_iter().map(|v| v as f32).collect();
        let z: Vec<i64> = data.words(n).into_iter().map(|v| (v as i64) >> 4).collect();
        let small: Vec<i32> = z.iter().map(|z| *z as i32).collect();
        let decoded = |z: &[i64], factors: &[f64]| -> Vec<u32> {
            z.iter().enumerate().map(|(i, z)| {
                let row = (from + i) / run % rows;
                let y = (*z as f64 * factors[row] + f64::from(biases[row])) as f32;
                activated(y, activation).to_bits()
            }).collect()
        };
        let bits = |out: &[f32]| out.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let large: Vec<f64> = factors.iter().map(|f| f * 1e8).collect();
        let wide: Vec<i64> = small.iter().map(|z| (*z).into()).collect();
        for kernels in all_kernels() {
            let mut out = vec![7.0; n];
            let table = DecodeRows { run, factors: &factors, biases: &biases, activation };
            kernels.decode_rows_i64(&z, from, &table, &mut out).unwrap();
            prop_assert_eq!(bits(&out), decoded(&z, &factors));
            let table = DecodeRows { factors: &large, ..table };
            kernels.decode_rows_i32(&small, from, &table, &mut out).unwrap();
            prop_assert_eq!(bits(&out), decoded(&wide, &large));
        }
    }
}

/// Zeros of either sign come out of an activation with the bits of its bound.
#[test]
fn activations_decide_the_sign_of_zero() {
    for kernels in all_kernels() {
        for run in [1, 40] {
            let mut out = [7.0; 40];
            let mut decode = |factor: f64, activation| {
                let table = DecodeRows { run, factors: &[factor], biases: &[-0.0], activation };
                kernels.decode_rows_i32(&[-1; 40], 0, &table, &mut out).unwrap();
                out.map(f32::to_bits)
            };
            let clip = |min, max| Activation::Clip { min, max };
            assert_eq!(decode(1e-80, Activation::None), [(-0.0f32).to_bits(); 40]);
            assert_eq!(decode(1e-80, Activation::Relu), [0; 40]);
            assert_eq!(decode(1e-80, clip(0.0, 6.0)), [0; 40]);
            assert_eq!(decode(1e-80, clip(-0.0, 6.0)), [(-0.0f32).to_bits(); 40]);
            assert_eq!(decode(-9.0, clip(0.0, 6.0)), [6f32.to_bits(); 40]);
            assert_eq!(decode(9.0, clip(-2.0, 6.0)), [(-2f32).to_bits(); 40]);
        }
    }
}

#[test]
fn decoding_tables_that_do_not_fit_are_refused() {
    let decode = |run, factors: &[f64], biases: &[f32], n: usize| {
        let table = DecodeRows { run, factors, biases, activation: Activation::None };
        Kernels::detect().decode_rows_i32(&[1; 4], 0, &table, &mut vec![0.0; n])
    };
    assert_eq!(decode(3, &[1.0], &[1.0], 4), Ok(()));
    assert!(decode(3, &[1.0], &[1.0], 5).is_err());
    assert!(decode(3, &[1.0], &[], 4).is_err());
    assert!(decode(3, &[], &[], 4).is_err());
    assert!(decode(0, &[1.0], &[1.0], 4).is_err());
}
