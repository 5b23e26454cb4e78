use super::Random;
use crate::plan::{Bound, Patch, Range};
use crate::reference::number::{
    Broadcast, EXPONENTS, NumberError, decode, decode_one, encode, encode_one, exponents, lift, pow2, ring, scan,
};
use crate::value::Shape;

fn bound(k: u32, major: u64, minor: u64) -> Bound {
    Bound { k, major: vec![major], minor: vec![minor], square: vec![], patch: Patch::Whole }
}

fn only(bound: Bound) -> Range {
    Range { bounds: vec![bound] }
}

/// The largest exponent by trying all of them, from the definition of the range bound.
fn slow(hi: f64, lo: f64, b: &Bound) -> Option<i32> {
    EXPONENTS.rev().find(|a| {
        let (h, l) = ((hi * 2f64.powi(*a)).round_ties_even(), (lo * 2f64.powi(*a)).round_ties_even());
        h.max(l) < 2f64.powi(31)
            && (h.max(l) as u128) * u128::from(b.major[0]) + (h.min(l) as u128) * u128::from(b.minor[0])
                < 1u128 << (b.k - 1)
    })
}

#[test]
fn scan_tells_signs_apart_and_refuses_what_is_not_finite() {
    assert_eq!(scan(&[0.0, -0.0]).unwrap(), (0.0, 0.0));
    assert_eq!(scan(&[1.5, -2.5, 0.25]).unwrap(), (1.5, 2.5));
    assert_eq!(scan(&[-1e-45]).unwrap(), (0.0, 1e-45));
    assert_eq!(scan(&[f32::MAX]).unwrap(), (f32::MAX, 0.0));
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(scan(&[1.0, bad, -3.0]), Err(NumberError::NotFinite));
    }
}

#[test]
fn exponents_are_the_largest_that_the_weight_sums_admit() {
    let mut r = Random(4);
    for _ in 0..500 {
        let size = pow2(r.between(-140, 100) as i32);
        let negative = r.between(0, 2) == 0;
        let x: Vec<f32> =
            (0..9).map(|_| (r.between(if negative { -1000 } else { 0 }, 1000) as f64 / 1000.0 * size) as f32).collect();
        let major = r.between(1, 1 << 30) as u64;
        let b = bound([32, 40, 52, 60][r.between(0, 3) as usize], major, major / r.between(1, 9) as u64);
        let (hi, lo) = scan(&x).unwrap();
        let want = if hi.max(lo) == 0.0 { Some(0) } else { slow(f64::from(hi), f64::from(lo), &b) };
        let got = exponents(&x, &Shape(vec![9]), 1, &only(b)).ok().map(|a| a[0]);
        assert_eq!(got, want);
    }
}

#[test]
fn every_bound_of_a_range_counts() {
    let x = [1.0f32, -0.5];
    let shape = Shape(vec![1, 2]);
    let of = |range| exponents(&x, &shape, 1, &range).unwrap()[0];
    let (loose, tight) = (bound(52, 100, 50), bound(32, 1000, 900));
    let both = Range { bounds: vec![loose.clone(), tight.clone()] };
    assert!(of(only(tight.clone())) < of(only(loose)));
    assert_eq!(of(both), of(only(tight)));
    assert_eq!(of(Range::default()), 30);
}

#[test]
fn groups_have_their_own_exponents_and_zero_takes_none() {
    // Two batch entries, four channels, two groups.
    let x = [0.0, 0.0, 8.0, 1.0, -0.0, 0.0, 1.0, -32.0f32];
    let shape = Shape(vec![2, 4]);
    let b = Bound { major: vec![4, 1 << 20], minor: vec![0, 0], ..bound(32, 0, 0) };
    let a = exponents(&x, &shape, 2, &only(b)).unwrap();
    // Below 2^31: 32 * 2^a * 2^20 gives a = 5 exactly at the border, so 5.
    assert_eq!(a, [0, 5]);
    assert_eq!(encode(&x, &shape, &a).unwrap(), [0, 0, 256, 32, 0, 0, 32, -1024]);
    assert!(matches!(exponents(&x, &shape, 3, &Range::default()), Err(NumberError::Shape(_))));
}

#[test]
fn too_large_values_have_no_exponent() {
    let b = bound(8, u64::MAX, 0);
    let shape = Shape(vec![1]);
    // At the smallest exponent f32::MAX still rounds to 4, and 4 * major is far beyond 2^7.
    assert_eq!(exponents(&[f32::MAX], &shape, 1, &only(b)), Err(NumberError::NoExponent { group: 0 }));
    assert_eq!(exponents(&[f32::NAN], &shape, 1, &Range::default()), Err(NumberError::NotFinite));
}

/// The Cauchy-Schwarz exponent from its formula, with patches summed one by one.
fn slow_patch(x: &[f32], patches: &[Vec<usize>], len: usize, square: u64, k: u32) -> i32 {
    let top = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let e = (-200..=126).rev().find(|e| f64::from(top) * pow2(*e) < 32768.0).unwrap();
    let sum = |p: &Vec<usize>| p.iter().map(|i| ((f64::from(x[*i].abs()) * pow2(e)).ceil() as u64).pow(2)).sum::<u64>();
    let s = patches.iter().map(sum).max().unwrap();
    EXPONENTS
        .rev()
        .find(|a| {
            let norm = (s as f64).sqrt() * pow2(a - e) + (len as f64).sqrt() / 2.0;
            f64::from(top) * pow2(*a) < 2f64.powi(31)
                && norm * (square as f64).sqrt() * (1.0 + pow2(-40)) < 2f64.powi(k as i32 - 1)
        })
        .unwrap()
}

#[test]
fn patches_of_windows_rows_and_wholes_are_summed_as_declared() {
    let mut r = Random(5);
    let (c, h, w) = (3usize, 5usize, 7usize);
    let shape = Shape(vec![2, c, h, w]);
    let (kernel, strides, dilations, before, after) = ([3, 2], [2, 1], [1, 2], [1, 0], [1, 2]);
    let window = Patch::Window {
        kernel: kernel.to_vec(),
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        pads_before: before.to_vec(),
        pads_after: after.to_vec(),
    };
    let (oh, ow) = ((h + 2 - 3) / 2 + 1, w + 2 - 3 + 1);
    let mut windows = vec![];
    for n in 0..2 {
        for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
            let mut patch = vec![];
            for ch in 0..c {
                for (ky, kx) in (0..3).flat_map(|y| (0..2).map(move |x| (y, x))) {
                    let (y, x) = ((oy * 2 + ky).wrapping_sub(1), ox + kx * 2);
                    if y < h && x < w {
                        patch.push(((n * c + ch) * h + y) * w + x);
                    }
                }
            }
            windows.push(patch);
        }
    }
    let rows: Vec<Vec<usize>> = (0..2 * c * h).map(|row| (row * w..(row + 1) * w).collect()).collect();
    let whole = vec![(0..shape.len()).collect::<Vec<_>>()];
    for round in 0..40 {
        let x: Vec<f32> = (0..shape.len())
            .map(|_| (r.between(-100, 100) as f32) * if r.between(0, 9) == 0 { 1.0 } else { 0.01 })
            .collect();
        for (patch, sets, len) in
            [(&window, &windows, c * 6), (&Patch::LastAxis, &rows, w), (&Patch::Whole, &whole, 2 * c * h * w)]
        {
            // Weight sums that admit nothing leave the decision to the patch.
            let b = Bound { square: vec![1 << 30], patch: patch.clone(), ..bound(40, u64::MAX, u64::MAX) };
            let got = exponents(&x, &shape, 1, &only(b)).unwrap()[0];
            assert_eq!(got, slow_patch(&x, sets, len, 1 << 30, 40), "round {round}, {patch:?}");
        }
    }
}

#[test]
fn the_better_of_both_tests_decides() {
    let x: Vec<f32> = (0..64).map(|i| if i == 0 { 1.0 } else { 0.001 }).collect();
    let shape = Shape(vec![1, 64]);
    let sums = bound(32, 64 * 1000, 0);
    let both = Bound { square: vec![64 * 1000 * 1000], patch: Patch::LastAxis, ..sums.clone() };
    let of = |b: &Bound| exponents(&x, &shape, 1, &only(b.clone())).unwrap()[0];
    // One large value: the sum of squares is far below 64 times the largest square.
    assert!(of(&both) > of(&sums));
    let wild = Bound { square: vec![u64::MAX], ..both };
    assert_eq!(of(&wild), of(&sums));
}

#[test]
fn windows_that_do_not_fit_are_errors() {
    let of = |patch: Patch, shape: &[usize]| {
        let shape = Shape(shape.to_vec());
        let b = Bound { square: vec![1], patch, ..bound(32, 1, 0) };
        exponents(&vec![1.0; shape.len()], &shape, 1, &only(b))
    };
    let window = |kernel: usize, stride: usize, dilation: usize| Patch::Window {
        kernel: vec![kernel],
        strides: vec![stride],
        dilations: vec![dilation],
        pads_before: vec![0],
        pads_after: vec![0],
    };
    assert!(of(window(2, 1, 1), &[1, 1, 4]).is_ok());
    for (patch, shape) in [
        (window(5, 1, 1), &[1, 1, 4][..]),
        (window(0, 1, 1), &[1, 1, 4]),
        (window(2, 0, 1), &[1, 1, 4]),
        (window(2, 1, 0), &[1, 1, 4]),
        (window(2, 1, 1), &[1, 1, 4, 4]),
        (window(usize::MAX, 1, usize::MAX), &[1, 1, 4]),
    ] {
        assert!(matches!(of(patch, shape), Err(NumberError::Shape(_))));
    }
}

#[test]
fn encoding_rounds_to_nearest_even() {
    for (x, a, want) in
        [(0.5, 0, 0), (1.5, 0, 2), (2.5, 0, 2), (-0.5, 0, 0), (-1.5, 0, -2), (3.0, -1, 2), (1e-45, 126, 0)]
    {
        assert_eq!(encode_one(x, a), want);
    }
    let mut r = Random(6);
    for _ in 0..20_000 {
        let a = r.between(-126, 126) as i32;
        let x = f32::from_bits(r.word() as u32);
        if x.is_finite() {
            assert_eq!(encode_one(x, a), (f64::from(x) * pow2(a)).round_ties_even() as i32, "{x} * 2^{a}");
        }
    }
}

#[test]
fn lifting_undoes_the_ring() {
    for k in [2, 8, 32, 33, 40, 52, 60] {
        let end = 1i64 << (k - 1);
        for v in [0, 1, -1, end - 1, -end, end / 2] {
            assert_eq!(lift(ring(v, k), k), v);
            assert_eq!(lift(ring(v, k) | !((1u64 << k) - 1), k), v, "higher bits are ignored");
        }
        assert_eq!(lift(ring(end, k), k), -end);
    }
}

#[test]
fn decoding_takes_one_rounding_after_an_unfused_sum() {
    // 3 * f64(1/3) rounds to 1; fused, what was cut off would survive the sum.
    assert_eq!(decode_one(3, 1.0 / 3.0, -1.0), 0.0);
    assert_ne!(3f64.mul_add(1.0 / 3.0, -1.0), 0.0);
    let shape = Shape(vec![2, 2]);
    let (row, one) = (Shape(vec![2]), Shape(vec![]));
    let scale = Broadcast { shape: &row, data: &[0.5, 2.0] };
    let bias = Broadcast { shape: &one, data: &[1.0] };
    let group = Broadcast { shape: &row, data: &[1, 0] };
    let got = decode(&[10, 20, -30, 40], &shape, scale, bias, Some(group), &[1, -1]).unwrap();
    assert_eq!(got, [11.0, 21.0, -29.0, 41.0]);
    assert!(decode(&[1; 4], &shape, scale, bias, Some(group), &[1]).is_err());
    assert!(decode(&[1; 4], &shape, scale, bias, None, &[1, 2]).is_err());
}

/// Whatever the tensor, results at the chosen exponent stay below `2^(k-1)`: rows that reach the bound included.
#[test]
fn results_never_reach_the_end_of_the_ring() {
    let mut r = Random(7);
    for _ in 0..300 {
        let n = r.between(1, 40) as usize;
        let w: Vec<i64> = (0..n).map(|_| r.between(-40, 40)).collect();
        let x: Vec<f32> =
            w.iter()
                .map(|w| {
                    if r.between(0, 3) == 0 {
                        r.between(-99, 99) as f32 * 0.37
                    } else {
                        w.signum() as f32 * 99.0 * 0.37
                    }
                })
                .collect();
        let p: i64 = w.iter().filter(|w| **w > 0).sum();
        let m: i64 = -w.iter().filter(|w| **w < 0).sum::<i64>();
        let k = [16, 24, 32][r.between(0, 2) as usize];
        let b = Bound {
            square: vec![w.iter().map(|w| w * w).sum::<i64>() as u64],
            patch: Patch::LastAxis,
            ..bound(k, p.max(m) as u64, p.min(m) as u64)
        };
        let shape = Shape(vec![1, n]);
        let a = exponents(&x, &shape, 1, &only(b)).unwrap();
        let z: i64 = encode(&x, &shape, &a).unwrap().iter().zip(&w).map(|(x, w)| i64::from(*x) * w).sum();
        assert!(z.abs() < 1 << (k - 1));
    }
}
