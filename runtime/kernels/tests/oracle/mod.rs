//! The operators by their definitions, on signed or unsigned words modulo 2^64; a word of 32 bits is the low half.
#![allow(dead_code, clippy::unwrap_used)]

use pponnx_kernels::{ConvSpec, ConvTransposeSpec, Input, Isa, Kernels, MatMulSpec, Output, Weights, Word};

/// Weights as numbers, and as the bytes that are packed.
#[derive(Clone)]
pub struct Constant {
    pub numbers: Vec<i32>,
    bytes: Vec<u8>,
    wide: bool,
}

impl Constant {
    pub fn i16s(w: Vec<i16>) -> Constant {
        // One byte in front, so that nothing is aligned.
        let bytes = [0].into_iter().chain(w.iter().flat_map(|w| w.to_le_bytes())).collect();
        Constant { numbers: w.into_iter().map(i32::from).collect(), bytes, wide: false }
    }

    pub fn i32s(numbers: Vec<i32>) -> Constant {
        let bytes = [0].into_iter().chain(numbers.iter().flat_map(|w| w.to_le_bytes())).collect();
        Constant { numbers, bytes, wide: true }
    }

    pub fn view(&self) -> Weights<'_> {
        if self.wide { Weights::I32(&self.bytes[1..]) } else { Weights::I16(&self.bytes[1..]) }
    }
}

/// Kernels of every instruction set of this processor, on one thread and on three.
pub fn all_kernels() -> Vec<Kernels> {
    let one = |isa| Kernels::with_isa(isa).unwrap();
    Kernels::available().into_iter().flat_map(|isa: Isa| [one(isa), one(isa).with_threads(3).unwrap()]).collect()
}

/// A generator of test data: SplitMix64.
pub struct Data(pub u64);

impl Data {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform words with all-zero and all-one ones and single top bits among them.
    pub fn words(&mut self, n: usize) -> Vec<u64> {
        let word = |v: u64| match v % 16 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << 63,
            3 => 1 << 31,
            _ => v.rotate_left(17),
        };
        (0..n).map(|_| word(self.next())).collect()
    }

    /// Weights with both extremes among them.
    pub fn i16s(&mut self, n: usize) -> Constant {
        let weight = |v: u64| match v % 8 {
            0 => i16::MIN,
            1 => i16::MAX,
            _ => (v >> 20) as i16,
        };
        Constant::i16s((0..n).map(|_| weight(self.next())).collect())
    }

    /// Weights with both extremes among them.
    pub fn i32s(&mut self, n: usize) -> Constant {
        let weight = |v: u64| match v % 8 {
            0 => i32::MIN,
            1 => i32::MAX,
            _ => (v >> 20) as i32,
        };
        Constant::i32s((0..n).map(|_| weight(self.next())).collect())
    }
}

/// Words of the width under test.
pub fn narrow<W: Word>(x: &[u64]) -> Vec<W> {
    x.iter().map(|v| W::from_u64(*v)).collect()
}

fn widened(weights: &Constant) -> Vec<u64> {
    weights.numbers.iter().map(|w| i64::from(*w) as u64).collect()
}

/// All index tuples below `sizes`, the last index fastest.
fn indices(sizes: &[usize]) -> Vec<Vec<usize>> {
    sizes.iter().fold(vec![vec![]], |tuples, size| {
        tuples.iter().flat_map(|t| (0..*size).map(move |i| t.iter().copied().chain([i]).collect())).collect()
    })
}

fn flat(index: &[usize], sizes: &[usize]) -> usize {
    index.iter().zip(sizes).fold(0, |at, (i, size)| at * size + i)
}

/// For each output of a channel, the inputs and weights of a channel that meet in it.
type Meetings = Vec<Vec<(usize, usize)>>;

/// Output `q` reads input `q * stride + k * dilation - pads_before` for weight `k`.
fn conv_meetings(s: &ConvSpec) -> Meetings {
    let kernel = indices(&s.kernel);
    let meeting = |q: &[usize], k: &Vec<usize>| {
        let at = |a: usize| (q[a] * s.strides[a] + k[a] * s.dilations[a]).checked_sub(s.pads_before[a]);
        let input: Vec<usize> = (0..q.len()).map(at).collect::<Option<_>>()?;
        let inside = input.iter().zip(&s.input).all(|(i, d)| i < d);
        inside.then(|| (flat(&input, &s.input), flat(k, &s.kernel)))
    };
    indices(&s.output().unwrap()).iter().map(|q| kernel.iter().filter_map(|k| meeting(q, k)).collect()).collect()
}

/// Input `i` and weight `k` add to output `i * stride + k * dilation - pads_before`.
fn transpose_meetings(s: &ConvTransposeSpec) -> Meetings {
    let output = s.output().unwrap();
    let mut meetings = vec![vec![]; output.iter().product()];
    for (i, k) in indices(&s.input).iter().flat_map(|i| indices(&s.kernel).into_iter().map(move |k| (i, k))) {
        let at = |a: usize| (i[a] * s.strides[a] + k[a] * s.dilations[a]).checked_sub(s.pads_before[a]);
        let target: Option<Vec<usize>> = (0..i.len()).map(at).collect();
        if let Some(target) = target.filter(|t| t.iter().zip(&output).all(|(t, d)| t < d)) {
            meetings[flat(&target, &output)].push((flat(i, &s.input), flat(&k, &s.kernel)));
        }
    }
    meetings
}

/// Batch, input and output channels, groups; inputs and weights of a channel.
fn sum(sizes: [usize; 4], meetings: &Meetings, [inputs, taps]: [usize; 2], x: &[u64], w: &[u64]) -> Vec<u64> {
    let [batch, in_channels, out_channels, groups] = sizes;
    let (ci, co) = (in_channels / groups, out_channels / groups);
    let mut y = Vec::new();
    for (n, o) in (0..batch).flat_map(|n| (0..out_channels).map(move |o| (n, o))) {
        for meetings in meetings {
            let mut sum = 0u64;
            for c in 0..ci {
                let x = &x[(n * in_channels + o / co * ci + c) * inputs..][..inputs];
                let w = &w[(o * ci + c) * taps..][..taps];
                sum = meetings.iter().fold(sum, |sum, (i, k)| sum.wrapping_add(x[*i].wrapping_mul(w[*k])));
            }
            y.push(sum);
        }
    }
    y
}

pub fn conv(s: &ConvSpec, x: &[u64], weights: &Constant) -> Vec<u64> {
    let sizes = [s.batch, s.in_channels, s.out_channels, s.groups];
    let channel = [s.input.iter().product(), s.kernel.iter().product()];
    sum(sizes, &conv_meetings(s), channel, x, &widened(weights))
}

pub fn conv_transpose(s: &ConvTransposeSpec, x: &[u64], weights: &Constant) -> Vec<u64> {
    let sizes = [s.batch, s.in_channels, s.out_channels, s.groups];
    let channel = [s.input.iter().product(), s.kernel.iter().product()];
    sum(sizes, &transpose_meetings(s), channel, x, &widened(weights))
}

pub fn matmul(s: &MatMulSpec, x: &[u64], weights: &Constant) -> Vec<u64> {
    let w = widened(weights);
    let mut y = Vec::new();
    for (b, m, n) in indices(&[s.batch, s.rows, s.n]).iter().map(|i| (i[0], i[1], i[2])) {
        let x = &x[(b * s.rows + m) * s.k..][..s.k];
        let w = &w[(if s.broadcast { 0 } else { b } * s.n + n) * s.k..][..s.k];
        y.push(x.iter().zip(w).fold(0u64, |sum, (x, w)| sum.wrapping_add(x.wrapping_mul(*w))));
    }
    y
}

/// Packs the low `k` bits of each word, bit by bit.
pub fn pack(x: &[u64], k: u32) -> Vec<u8> {
    let mut bytes = vec![0u8; pponnx_kernels::packed_len(x.len(), k).unwrap()];
    for (i, v) in x.iter().enumerate() {
        for bit in (0..k as usize).filter(|bit| v >> bit & 1 == 1) {
            let at = i * k as usize + bit;
            bytes[at / 8] |= 1 << (at % 8);
        }
    }
    bytes
}

/// Calls an operation with payloads at odd addresses, with and without a correction, and compares its answers.
pub fn check_answers<W: Word>(
    k: u32,
    x: &[u64],
    expected: &[u64],
    at: &str,
    run: impl Fn(Input<'_, W>, Output<'_, W>),
) {
    let shifted = |bytes: Vec<u8>| [vec![0], bytes].concat();
    let x = shifted(pack(x, k));
    let correction = Data(7).words(expected.len());
    let answer: Vec<u64> = expected.iter().zip(&correction).map(|(y, c)| y.wrapping_sub(*c)).collect();
    let correction = shifted(pack(&correction, k));
    for (correction, answer) in [(None, expected), (Some(&correction[1..]), &answer[..])] {
        let mut bytes = shifted(vec![0x5a; correction.map_or_else(|| pack(expected, k).len(), <[u8]>::len)]);
        run(Input::Packed(&x[1..]), Output::Answer { correction, bytes: &mut bytes[1..] });
        assert_eq!(&bytes[1..], pack(answer, k), "{k} bits, correction {}, {at}", correction.is_some());
    }
}

/// Runs an operation at all widths that are in use, and some others, and compares its answers.
pub fn check_widths(
    x: &[u64],
    expected: &[u64],
    at: &str,
    run32: impl Fn(u32, Input<'_, u32>, Output<'_, u32>),
    run64: impl Fn(u32, Input<'_, u64>, Output<'_, u64>),
) {
    // Large operations are there for threads and blocks: one width of each word will do.
    let large = x.len() + expected.len() > 20_000;
    for k in if large { &[32][..] } else { &[32, 27] } {
        check_answers(*k, x, expected, at, |x, y| run32(*k, x, y));
    }
    for k in if large { &[52][..] } else { &[40, 52, 60, 33, 47] } {
        let k = *k;
        check_answers(k, x, expected, at, |x, y| run64(k, x, y));
    }
}
