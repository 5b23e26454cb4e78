//! The operators between linear layers, on every instruction set: equal to their definitions, and the same bits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pponnx_kernels::{Binary, Kernels, LrnSpec, PoolSpec, Unary};
use proptest::prelude::*;

fn all_kernels() -> Vec<Kernels> {
    Kernels::available().into_iter().map(|isa| Kernels::with_isa(isa).unwrap()).collect()
}

/// Numbers of both signs and many sizes, the same for a seed.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * 4.0f32.powf(3.0 * next())).collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f64], relative: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let far = (f64::from(*a) - b).abs() > relative * b.abs() + 1e-38;
        assert!(!far || f64::from(*a) == *b, "{i}: {a} and not {b}");
    }
}

/// The results on every instruction set, which must be the same bits.
fn same(run: impl Fn(Kernels) -> Vec<f32>) -> Vec<f32> {
    let results: Vec<Vec<f32>> = all_kernels().into_iter().map(run).collect();
    for other in &results {
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(other), bits(&results[0]));
    }
    results.into_iter().next().unwrap()
}

#[test]
fn functions_of_one_number() {
    let mut x = numbers(1, 1003);
    x.extend([0.0, -0.0, 1e-40, 88.7, 89.5, -88.0, -103.0, -200.0, 3.0, -3.0, 6.0]);
    type Case = (Unary, fn(f64) -> f64, f64);
    let cases: [Case; 9] = [
        (Unary::Clip { low: -0.5, high: 1.25 }, |x| x.clamp(-0.5, 1.25), 0.0),
        (Unary::Clip { low: 0.0, high: f32::INFINITY }, |x| x.max(0.0), 0.0),
        (Unary::Leaky { slope: 0.25 }, |x| if x < 0.0 { 0.25 * x } else { x }, 1e-7),
        (Unary::HardSigmoid { slope: 0.25, offset: 0.5 }, |x| (0.25 * x + 0.5).clamp(0.0, 1.0), 1e-7),
        (Unary::Neg, |x| -x, 0.0),
        (Unary::Abs, f64::abs, 0.0),
        (Unary::Exp, f64::exp, 2e-7),
        (Unary::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3e-7),
        (Unary::HardSwish, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0), 1e-5),
    ];
    for (f, definition, relative) in cases {
        let found = same(|kernels| {
            let mut out = x.clone();
            kernels.unary(f, &mut out);
            out
        });
        let expected: Vec<f64> = x.iter().map(|x| definition(f64::from(*x))).collect();
        // The exponential overflows where f32 does, and loses precision where f32 has no normal numbers.
        let ends = |e: f64| if e > f64::from(f32::MAX) { f64::INFINITY } else { e };
        let expected: Vec<f64> = expected.into_iter().map(ends).collect();
        for ((found, expected), x) in found.iter().zip(&expected).zip(&x) {
            let allowed = relative * expected.abs() + if expected.abs() < 1.2e-38 { 1.2e-38 } else { 0.0 };
            let near_half =
                matches!(f, Unary::HardSwish | Unary::HardSigmoid { .. }) && (found - *expected as f32).abs() < 1e-7;
            let good = f64::from(*found) == *expected || (f64::from(*found) - expected).abs() <= allowed || near_half;
            assert!(good, "{f:?} of {x}: {found} and not {expected}");
        }
    }
    let mut roots: Vec<f32> = numbers(2, 77).iter().map(|x| x.abs()).collect();
    let expected: Vec<f32> = roots.iter().map(|x| x.sqrt()).collect();
    Kernels::detect().unary(Unary::Sqrt, &mut roots);
    assert_eq!(roots, expected);
}

#[test]
fn nan_stays() {
    for kernels in all_kernels() {
        let clip = Unary::Clip { low: 0.0, high: 6.0 };
        for f in [clip, Unary::Leaky { slope: 0.1 }, Unary::Exp, Unary::Sigmoid, Unary::HardSwish] {
            let mut x = [f32::NAN; 40];
            kernels.unary(f, &mut x);
            assert!(x.iter().all(|x| x.is_nan()), "{f:?}");
        }
    }
}

#[test]
fn functions_of_two_numbers() {
    let (x, y) = (numbers(3, 517), numbers(4, 517));
    type Case = (Binary, fn(f32, f32) -> f32);
    let cases: [Case; 9] = [
        (Binary::Add, |x, y| x + y),
        (Binary::Sub, |x, y| x - y),
        (Binary::SubFrom, |x, y| y - x),
        (Binary::Mul, |x, y| x * y),
        (Binary::Div, |x, y| x / y),
        (Binary::DivInto, |x, y| y / x),
        (Binary::Max, f32::max),
        (Binary::Min, f32::min),
        (Binary::Slope, |x, y| if x < 0.0 { x * y } else { x }),
    ];
    for (f, definition) in cases {
        let each = same(|kernels| {
            let mut out = x.clone();
            kernels.binary(f, &mut out, &y).unwrap();
            out
        });
        assert_eq!(each, x.iter().zip(&y).map(|(x, y)| definition(*x, *y)).collect::<Vec<_>>(), "{f:?}");
        let one = same(|kernels| {
            let mut out = x.clone();
            kernels.binary_scalar(f, &mut out, 1.75);
            out
        });
        assert_eq!(one, x.iter().map(|x| definition(*x, 1.75)).collect::<Vec<_>>(), "{f:?}");
    }
    assert!(Kernels::detect().binary(Binary::Add, &mut [0.0; 2], &[0.0; 3]).is_err());
}

#[test]
fn means_and_softmax_of_rows() {
    for row in [1, 3, 16, 49, 130] {
        let x = numbers(5, 7 * row);
        let wide = |r: &[f32]| r.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let means = same(|kernels| {
            let mut out = vec![0.0; 7];
            kernels.means(&x, row, &mut out).unwrap();
            out
        });
        for (found, x) in means.iter().zip(x.chunks(row)) {
            let x = wide(x);
            let size: f64 = x.iter().map(|x| x.abs()).sum::<f64>() / row as f64;
            assert!((f64::from(*found) - x.iter().sum::<f64>() / row as f64).abs() <= 1e-6 * size);
        }
        let soft = same(|kernels| {
            let mut out = x.clone();
            kernels.softmax(&mut out, row).unwrap();
            out
        });
        for (found, x) in soft.chunks(row).zip(x.chunks(row)) {
            let x = wide(x);
            let top = x.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
            let expected: Vec<f64> = x.iter().map(|x| (x - top).exp() / sum).collect();
            // Differences to the largest are rounded before they are exponents.
            close(found, &expected, 1e-5);
        }
    }
    let kernels = Kernels::detect();
    assert!(kernels.means(&[0.0; 4], 0, &mut []).is_err());
    assert!(kernels.means(&[0.0; 4], 3, &mut [0.0]).is_err());
    assert!(kernels.softmax(&mut [0.0; 4], 0).is_err());
    assert!(kernels.softmax(&mut [0.0; 4], 3).is_err());
}

/// The elements of each window, in order.
fn windows(spec: &PoolSpec, plane: &[f32]) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for y in 0..spec.output[0] {
        for x in 0..spec.output[1] {
            let range = |axis: usize, at: usize| {
                let start = (at * spec.strides[axis]) as isize - spec.begin[axis] as isize;
                (start..start + spec.kernel[axis] as isize).filter(move |i| (0..spec.input[axis] as isize).contains(i))
            };
            let rows = range(0, y);
            let elements = rows.flat_map(|y| range(1, x).map(move |x| (y, x)));
            all.push(elements.map(|(y, x)| plane[y as usize * spec.input[1] + x as usize]).collect());
        }
    }
    all
}

fn pools() -> impl Strategy<Value = PoolSpec> {
    let axis = (1usize..70, 1usize..6, 1usize..7).prop_flat_map(|(input, kernel, stride)| {
        (0..kernel).prop_flat_map(move |begin| {
            // As many windows as hold an element, or fewer.
            let most = (input + begin - 1) / stride + 1;
            (1..=most).prop_map(move |output| (input, kernel, stride, begin, output))
        })
    });
    (axis.clone(), axis).prop_map(|(a, b)| PoolSpec {
        input: [a.0, b.0],
        kernel: [a.1, b.1],
        strides: [a.2, b.2],
        begin: [a.3, b.3],
        output: [a.4, b.4],
    })
}

proptest! {
    #[test]
    fn pools_are_those_of_their_windows(spec in pools(), planes in 0usize..4, seed: u64) {
        let plane = spec.input[0] * spec.input[1];
        let x = numbers(seed, planes * plane);
        let n = planes * spec.output[0] * spec.output[1];
        let mut all: Vec<Vec<f32>> = Vec::new();
        x.chunks(plane).for_each(|plane| all.extend(windows(&spec, plane)));
        let found = same(|kernels| {
            let (mut out, mut buffer) = (vec![0.0; n], vec![7.0; 3]);
            kernels.max_pool(&spec, &x, &mut buffer, &mut out).unwrap();
            out
        });
        let largest: Vec<f32> = all.iter().map(|w| w.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
        prop_assert_eq!(found, largest);
        let found = same(|kernels| {
            let (mut out, mut buffer) = (vec![0.0; n], vec![7.0; 3]);
            kernels.average_pool(&spec, None, &x, &mut buffer, &mut out).unwrap();
            out
        });
        for (found, window) in found.iter().zip(&all) {
            let sum: f64 = window.iter().map(|x| f64::from(*x)).sum();
            let size: f64 = window.iter().map(|x| f64::from(x.abs())).sum();
            let n = window.len() as f64;
            prop_assert!((f64::from(*found) - sum / n).abs() <= 1e-6 * size / n);
        }
    }

    #[test]
    fn normalisation_is_its_definition(
        (channels, pixels, size) in (1usize..12, prop_oneof![1usize..20, 500usize..530], 1usize..9),
        (images, seed) in (0usize..3, any::<u64>()),
        beta in prop_oneof![Just(0.75f32), Just(0.5), Just(1.0), 0.1f32..2.0],
    ) {
        let spec = LrnSpec { channels, pixels, size, alpha: 0.5, beta, bias: 1.5 };
        let x = numbers(seed, images * channels * pixels);
        let found = same(|kernels| {
            let (mut out, mut buffer) = (x.clone(), vec![7.0; 3]);
            kernels.lrn(&spec, &mut out, &mut buffer).unwrap();
            out
        });
        let at = |i: usize| f64::from(x[i]);
        let expected: Vec<f64> = (0..x.len()).map(|i| {
            let (image, c, p) = (i / pixels / channels, i / pixels % channels, i % pixels);
            let first = c.saturating_sub((size - 1) / 2);
            let last = (c + size - 1 - (size - 1) / 2).min(channels - 1);
            let sum: f64 = (first..=last).map(|c| at((image * channels + c) * pixels + p).powi(2)).sum();
            at(i) / (1.5 + 0.5 / size as f64 * sum).powf(f64::from(beta))
        }).collect();
        close(&found, &expected, 1e-6);
    }
}

#[test]
fn padding_may_count() {
    // Two by two windows over three by three with one of padding on each side, four windows an axis.
    let spec = PoolSpec { input: [3, 3], output: [4, 4], kernel: [2, 2], strides: [1, 1], begin: [1, 1] };
    let mut out = [0.0; 16];
    let kernels = Kernels::detect();
    kernels.average_pool(&spec, Some([5, 5]), &[4.0; 9], &mut Vec::new(), &mut out).unwrap();
    assert_eq!(out, [1., 2., 2., 1., 2., 4., 4., 2., 2., 4., 4., 2., 1., 2., 2., 1.]);
    kernels.average_pool(&spec, None, &[4.0; 9], &mut Vec::new(), &mut out).unwrap();
    assert_eq!(out, [4.0; 16]);
    // The last window reaches beyond the padding: what lies there does not count.
    let spec = PoolSpec { input: [3, 3], output: [2, 2], kernel: [2, 2], strides: [2, 2], begin: [0, 0] };
    let mut out = [0.0; 4];
    kernels.average_pool(&spec, Some([3, 3]), &[4.0; 9], &mut Vec::new(), &mut out).unwrap();
    assert_eq!(out, [4.0; 4]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let good = PoolSpec { input: [4, 4], output: [2, 2], kernel: [2, 2], strides: [2, 2], begin: [0, 0] };
    let max = |spec: &PoolSpec, x: &[f32], n: usize| {
        Kernels::detect().max_pool(spec, x, &mut Vec::new(), &mut vec![0.0; n]).is_ok()
    };
    assert!(max(&good, &[0.0; 16], 4));
    assert!(!max(&good, &[0.0; 15], 4) && !max(&good, &[0.0; 16], 3) && !max(&good, &[0.0; 16], 8));
    for bad in [
        PoolSpec { input: [4, 0], ..good.clone() },
        PoolSpec { output: [0, 2], ..good.clone() },
        PoolSpec { strides: [0, 2], ..good.clone() },
        PoolSpec { kernel: [2, 0], ..good.clone() },
        PoolSpec { begin: [2, 0], ..good.clone() },
        PoolSpec { output: [3, 2], ..good.clone() },
        PoolSpec { input: [usize::MAX, 4], begin: [1, 0], ..good.clone() },
        PoolSpec { kernel: [usize::MAX, usize::MAX], ..good.clone() },
        PoolSpec { output: [usize::MAX, 2], strides: [usize::MAX, 2], ..good.clone() },
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
        assert!(!max(&bad, &[0.0; 16], 4));
    }
    let lrn = |spec: &LrnSpec, n: usize| Kernels::detect().lrn(spec, &mut vec![1.0; n], &mut Vec::new()).is_ok();
    let good = LrnSpec { channels: 2, pixels: 3, size: 5, alpha: 1.0, beta: 0.75, bias: 1.0 };
    assert!(lrn(&good, 0) && lrn(&good, 6) && lrn(&good, 12) && !lrn(&good, 7));
    assert!(lrn(&LrnSpec { size: usize::MAX, ..good.clone() }, 6));
    for bad in [
        LrnSpec { channels: 0, ..good.clone() },
        LrnSpec { pixels: 0, ..good.clone() },
        LrnSpec { size: 0, ..good.clone() },
        LrnSpec { channels: usize::MAX, ..good.clone() },
    ] {
        assert!(!lrn(&bad, 6), "{bad:?}");
    }
}
