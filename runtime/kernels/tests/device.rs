//! The device's loops, on every instruction set, equal their definitions in scalar integer or f64 arithmetic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod oracle;

use oracle::{Data, all_kernels, narrow};
use pponnx_kernels::{KernelError, Kernels, Word, packed_len};
use proptest::prelude::*;

const P: u64 = (1 << 61) - 1;

#[test]
fn scan_finds_both_ends() {
    let many: Vec<f32> = (0..1000).map(|i| ((i * 37) % 501) as f32 - 200.0).collect();
    for kernels in all_kernels() {
        assert_eq!(kernels.scan(&[]), Some((0.0, 0.0)));
        assert_eq!(kernels.scan(&[-0.0, -0.0]), Some((0.0, 0.0)));
        assert_eq!(kernels.scan(&[1.5, 3.0, 0.25]), Some((3.0, 0.0)));
        assert_eq!(kernels.scan(&[-1.5, -3.0, -0.25]), Some((0.0, 3.0)));
        assert_eq!(kernels.scan(&many), Some((300.0, 200.0)));
        assert_eq!(kernels.scan(&[f32::MAX, -f32::MAX]), Some((f32::MAX, f32::MAX)));
        assert_eq!(kernels.scan(&[-1e-45, 1e-45]), Some((1e-45, 1e-45)));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 500, 999] {
                let mut x = many.clone();
                x[at] = bad;
                assert_eq!(kernels.scan(&x), None, "{bad} at {at}");
            }
        }
    }
}

/// `x * 2^a` in f64, where the product is exact, rounded by hand.
fn encoded(x: f32, a: i32) -> i32 {
    let exact = f64::from(x) * f64::from_bits(((a + 1023) as u64) << 52);
    let below = exact.floor();
    let odd = below.rem_euclid(2.0) != 0.0;
    let up = exact - below > 0.5 || (exact - below == 0.5 && odd);
    (if up { below + 1.0 } else { below }).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

#[test]
fn encode_rounds_half_to_even() {
    let halves: Vec<f32> = (-9..=9).map(|i| i as f32 / 2.0).collect();
    for kernels in all_kernels() {
        let mut out = vec![7; halves.len()];
        kernels.encode(&halves, 0, &mut out).unwrap();
        assert_eq!(out, [-4, -4, -4, -3, -2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4]);
        let mut out = [7; 5];
        kernels.encode(&[f32::MAX, -f32::MAX, f32::NAN, 1e-45, -1e-45], 126, &mut out).unwrap();
        assert_eq!(out, [i32::MAX, i32::MIN, 0, 0, 0]);
    }
}

/// Sum of products modulo p, reduced after every term.
fn dot(v: &[u64], x: &[i64]) -> u64 {
    let p = i128::from(P);
    v.iter().zip(x).fold(0i128, |a, (v, x)| (a + i128::from(*v) * i128::from(*x)).rem_euclid(p)) as u64
}

#[test]
fn dots_are_exact_at_the_extremes() {
    for kernels in all_kernels() {
        for n in [0, 1, 3, 63, 64, 65, 1023, 1024, 1025, 5000] {
            for v in [0, 1, P - 1] {
                let v = vec![v; n];
                for x in [i32::MIN, -1, 0, 1, i32::MAX] {
                    let wide = vec![x.into(); n];
                    assert_eq!(kernels.dot_p61_i32(&v, &vec![x; n]), Ok(dot(&v, &wide)), "{n} {x}");
                    assert_eq!(kernels.dot_p61_i64(&v, &wide), Ok(dot(&v, &wide)), "{n} {x}");
                }
                for x in [-(1i64 << 59) + 1, (1 << 59) - 1, 1 << 51] {
                    let x = vec![x; n];
                    assert_eq!(kernels.dot_p61_i64(&v, &x), Ok(dot(&v, &x)), "{n}");
                }
            }
        }
    }
}

/// Bit by bit.
fn packed(x: &[u64], k: u32) -> Vec<u8> {
    let mut out = vec![0; (x.len() * k as usize).div_ceil(8)];
    for (i, v) in x.iter().enumerate() {
        for bit in 0..k as usize {
            let at = i * k as usize + bit;
            out[at / 8] |= ((v >> bit & 1) as u8) << (at % 8);
        }
    }
    out
}

fn check_packing<W: Word>(kernels: Kernels, x: &[u64], k: u32) {
    let words = narrow::<W>(x);
    let mut bytes = vec![0xaa]; // packing appends
    kernels.pack(&words, k, &mut bytes).unwrap();
    assert_eq!(bytes[0], 0xaa);
    let bytes = &bytes[1..];
    assert_eq!(bytes, packed(x, k), "k = {k}, {} elements", x.len());
    assert_eq!(packed_len(x.len(), k), Some(bytes.len()));

    let mut back = vec![W::from_u64(u64::MAX); x.len()];
    kernels.unpack(bytes, k, &mut back).unwrap();
    let keep = u64::MAX >> (64 - k);
    assert_eq!(back, narrow::<W>(&x.iter().map(|v| v & keep).collect::<Vec<_>>()), "k = {k}");

    let mut longer = bytes.to_vec();
    longer.push(0);
    let refusal = |found| Err(KernelError::Length { what: "packed bytes", expected: bytes.len(), found });
    assert_eq!(kernels.unpack(&longer, k, &mut back), refusal(bytes.len() + 1));
    if let Some((last, shorter)) = bytes.split_last() {
        assert_eq!(kernels.unpack(shorter, k, &mut back), refusal(bytes.len() - 1));
        let used = x.len() * k as usize % 8;
        for bit in used..8 {
            if used > 0 {
                let mut flipped = bytes.to_vec();
                *flipped.last_mut().unwrap() = last | 1 << bit;
                assert_eq!(kernels.unpack(&flipped, k, &mut back), Err(KernelError::PaddingBits), "bit {bit}");
            }
        }
    }
}

#[test]
fn packing_is_exact_for_every_width() {
    let mut data = Data(9);
    for n in [0, 1, 2, 3, 7, 8, 64, 65] {
        let x = data.words(n);
        for k in 1..=64 {
            check_packing::<u64>(Kernels::detect(), &x, k);
            if k <= 32 {
                check_packing::<u32>(Kernels::detect(), &x, k);
            }
        }
        for k in [0, 33] {
            let bits = 32;
            assert_eq!(Kernels::detect().pack(&narrow::<u32>(&x), k, &mut vec![]), Err(KernelError::Width { k, bits }));
        }
    }
    assert_eq!(packed_len(usize::MAX, 64), None);
}

fn check_words<W: Word>(kernels: Kernels, x: &[u64], other: &[u64], small: &[i32]) {
    let (a, b) = (narrow::<W>(x), narrow::<W>(other));
    let mut sum = a.clone();
    kernels.add_assign(&mut sum, &b).unwrap();
    let expected: Vec<u64> = x.iter().zip(other).map(|(x, o)| x.wrapping_add(*o)).collect();
    assert_eq!(sum, narrow::<W>(&expected));
    let mut difference = a.clone();
    kernels.sub_assign(&mut difference, &b).unwrap();
    let expected: Vec<u64> = x.iter().zip(other).map(|(x, o)| x.wrapping_sub(*o)).collect();
    assert_eq!(difference, narrow::<W>(&expected));

    let mut words = vec![W::default(); small.len()];
    kernels.embed(small, &mut words).unwrap();
    assert_eq!(words, narrow::<W>(&small.iter().map(|v| i64::from(*v) as u64).collect::<Vec<_>>()));

    for k in [1, 2, 31, 32, 33, 40, 52, 60, 64].into_iter().filter(|k| *k <= W::BITS) {
        let mut lifted = vec![0; x.len()];
        kernels.lift(&a, k, &mut lifted).unwrap();
        let expected: Vec<i64> = x.iter().map(|v| ((v << (64 - k)) as i64) >> (64 - k)).collect();
        assert_eq!(lifted, expected, "k = {k}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn encode_equals_exact_arithmetic(x in proptest::collection::vec(-1e9f32..1e9, 0..70), a in -126..=126i32) {
        let expected: Vec<i32> = x.iter().map(|v| encoded(*v, a)).collect();
        for kernels in all_kernels() {
            let mut out = vec![0; x.len()];
            kernels.encode(&x, a, &mut out).unwrap();
            prop_assert_eq!(&out, &expected);
        }
    }

    #[test]
    fn word_loops(n in 0..70usize, seed: u64) {
        let mut data = Data(seed);
        let (x, other) = (data.words(n), data.words(n));
        let small: Vec<i32> = data.words(n).into_iter().map(|v| v as i32).collect();
        for kernels in all_kernels() {
            check_words::<u32>(kernels, &x, &other, &small);
            check_words::<u64>(kernels, &x, &other, &small);
        }
    }

    #[test]
    fn dots(n in 0..3000usize, seed: u64) {
        let mut data = Data(seed);
        let v: Vec<u64> = data.words(n).into_iter().map(|v| (v >> 3) % P).collect();
        let x: Vec<i64> = data.words(n).into_iter().map(|v| (v as i64) >> 4).collect();
        let small: Vec<i32> = x.iter().map(|v| *v as i32).collect();
        let wide: Vec<i64> = small.iter().map(|v| (*v).into()).collect();
        for kernels in all_kernels() {
            prop_assert_eq!(kernels.dot_p61_i64(&v, &x), Ok(dot(&v, &x)));
            prop_assert_eq!(kernels.dot_p61_i32(&v, &small), Ok(dot(&v, &wide)));
        }
    }

    #[test]
    fn decode_rounds_after_each_operation(
        z in proptest::collection::vec(-(1i64 << 59)..1 << 59, 0..70),
        scale in prop_oneof![-1.0..1.0f64, -1e-12..1e-12f64],
        bias: f32,
    ) {
        let expected: Vec<u32> = z.iter().map(|z| {
            let product = *z as f64 * scale;
            ((product + f64::from(bias)) as f32).to_bits()
        }).collect();
        for kernels in all_kernels() {
            let mut out = vec![0f32; z.len()];
            kernels.decode_row(&z, scale, bias, &mut out).unwrap();
            prop_assert_eq!(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected.clone());
        }
    }
}
