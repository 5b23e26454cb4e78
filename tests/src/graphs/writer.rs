//! Writes the nodes of a random network.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Move, Step};
use crate::golden::graph::noise;

/// Largest number of elements of a tensor.
const LARGEST: usize = 1500;

/// A network that is being written.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) body: String,
    pub(super) values: Vec<(String, Vec<usize>)>,
    pub(super) operators: Vec<&'static str>,
    /// The line of each constant, by name.
    constants: BTreeMap<String, String>,
    pub(super) steps: Vec<Step>,
}

/// The axes from 2 on of a window: kernel, strides, dilations, pads, result.
struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    before: Vec<usize>,
    after: Vec<usize>,
    out: Vec<usize>,
}

impl Window {
    /// A window over `dims`. `pool`: padding must be smaller than the kernel, taps lie side by side.
    fn new(dims: &[usize], picks: &[u8; 8], pool: bool) -> Window {
        let empty = Vec::new;
        let (kernel, strides, dilations) = (empty(), empty(), empty());
        let mut w = Window { kernel, strides, dilations, before: empty(), after: empty(), out: empty() };
        for (a, d) in dims.iter().enumerate() {
            let p = |i: usize| usize::from(picks[i].rotate_left(3 * a as u32));
            let dilation = if pool { 1 } else { 1 + usize::from(p(3) % 4 == 0) };
            let mut kernel = [1, 2, 3, 3][p(0) % 4];
            let most = if pool { kernel - 1 } else { 2 };
            let (before, after) = (p(4) % (most + 1), p(5) % (most + 1));
            let (before, after) = if p(6) % 2 == 0 { (0, 0) } else { (before, after) };
            if (kernel - 1) * dilation + 1 > d + before + after {
                kernel = 1;
            }
            let (before, after) = if pool && kernel == 1 { (0, 0) } else { (before, after) };
            let stride = [1, 1, 2, 3][p(2) % 4];
            w.out.push((d + before + after - (kernel - 1) * dilation - 1) / stride + 1);
            w.kernel.push(kernel);
            w.strides.push(stride);
            w.dilations.push(dilation);
            w.before.push(before);
            w.after.push(after);
        }
        w
    }

    fn text(&self, pool: bool) -> String {
        let pads: Vec<usize> = self.before.iter().chain(&self.after).copied().collect();
        let mut text =
            format!("kernel_shape={}, strides={}, pads={}", ints(&self.kernel), ints(&self.strides), ints(&pads));
        if !pool {
            write!(text, ", dilations={}", ints(&self.dilations)).unwrap();
        }
        text
    }
}

/// A list in brackets.
pub(super) fn ints<T: std::fmt::Display>(v: &[T]) -> String {
    format!("[{}]", v.iter().map(T::to_string).collect::<Vec<_>>().join(","))
}

impl Writer {
    /// Writes a node and returns its result's name.
    pub(super) fn node(&mut self, op: &'static str, inputs: &str, attributes: &str, shape: Vec<usize>) -> String {
        let name = format!("v{}", self.values.len());
        let attributes = if attributes.is_empty() { String::new() } else { format!(" {{{attributes}}}") };
        let line = format!("  {name} = {op} {inputs}{attributes}\n");
        let (mut text, mut read) = ("graph step {\n".to_string(), Vec::new());
        for operand in inputs.split_whitespace() {
            match self.values.iter().position(|(name, _)| name == operand) {
                Some(at) if read.contains(&at) => {}
                Some(at) => {
                    read.push(at);
                    writeln!(text, "  input {operand} f32{}", ints(&self.values[at].1)).unwrap();
                }
                None => text.push_str(&self.constants[operand]),
            }
        }
        write!(text, "{line}  output {name} f32{}\n}}\n", ints(&shape)).unwrap();
        self.steps.push(Step { text, inputs: read });
        self.body.push_str(&line);
        self.values.push((name.clone(), shape));
        self.operators.push(op);
        name
    }

    fn constant(&mut self, ty: &str, shape: &[usize], how: &str) -> String {
        let name = format!("c{}", self.constants.len() + 1);
        let line = format!("  const {name} {ty}{} = {how}\n", ints(shape));
        self.body.push_str(&line);
        self.constants.insert(name.clone(), line);
        name
    }

    fn indices(&mut self, v: &[i64]) -> String {
        self.constant("i64", &[v.len()], &ints(v))
    }

    /// Weights for sums over `k` inputs that keep magnitudes near 1. One in sixteen has rows that differ widely, one
    /// in sixteen is zero.
    fn weights(&mut self, shape: &[usize], k: usize, seed: u16) -> String {
        let n: usize = shape.iter().product();
        let factor = 1.7 / (k.max(1) as f32).sqrt();
        let how = match seed % 16 {
            7 => "fill 0".to_string(),
            3 => {
                let row = n / shape[0];
                let w = noise(u64::from(seed), n).into_iter().enumerate();
                let w: Vec<f32> = w.map(|(i, v)| v * factor * [1.0, 0.01, 3.0][i / row % 3]).collect();
                ints(&w)
            }
            _ => format!("noise {seed} * {factor}"),
        };
        self.constant("f32", shape, &how)
    }

    fn bias(&mut self, shape: &[usize], seed: u16) -> String {
        self.constant("f32", shape, &format!("noise {} * 0.5", u32::from(seed) + 70_000))
    }

    /// Writes what a move says, unless it would be too large.
    pub(super) fn take(&mut self, m: &Move) {
        let last = self.values.len() - 1;
        let at = if m.from < 170 { last } else { usize::from(m.from) % (last + 1) };
        let (x, shape) = self.values[at].clone();
        let (p, rank) = (m.picks.map(usize::from), shape.len());
        let image = rank >= 3;
        match m.what % 28 {
            0..=4 if image => self.conv(m, &x, &shape),
            5 if image => self.conv_transpose(m, &x, &shape),
            0..=4 | 6 => self.gemm(m, &x, &shape),
            5 | 7 => self.matmul(m, &x, &shape),
            8..=10 => drop(self.node("Relu", &x, "", shape)),
            11 => {
                let c = shape[1];
                let mut list = vec![x];
                for (i, (base, spread)) in [(1.0, 0.8), (0.0, 0.4), (0.0, 0.4), (1.2, 0.7)].into_iter().enumerate() {
                    let v = noise(u64::from(m.seed) + i as u64, c).into_iter().map(|v| v * spread + base);
                    list.push(self.constant("f32", &[c], &ints(&v.collect::<Vec<f32>>())));
                }
                self.node("BatchNormalization", &list.join(" "), "epsilon=0.001", shape);
            }
            12 if image => {
                let w = Window::new(&shape[2..], &m.picks, true);
                self.node("MaxPool", &x, &w.text(true), [&shape[..2], &w.out].concat());
            }
            13 | 14 if image => {
                let w = Window::new(&shape[2..], &m.picks, true);
                let text = format!("{}, count_include_pad={}", w.text(true), p[7] % 2);
                self.node("AveragePool", &x, &text, [&shape[..2], &w.out].concat());
            }
            15 if image => {
                let out = shape.iter().enumerate().map(|(a, d)| if a < 2 { *d } else { 1 }).collect();
                self.node("GlobalAveragePool", &x, "", out);
            }
            16 | 17 => self.residual(m, &x, &shape),
            18 | 19 => self.meet(m, &x, &shape),
            20 => {
                let axis = p[0] % rank;
                let (before, after) = (p[1] % 3, p[2] % 3);
                let mut pads = vec![0i64; 2 * rank];
                (pads[axis], pads[rank + axis]) = (before as i64, after as i64);
                let mut out = shape;
                out[axis] += before + after;
                if out.iter().product::<usize>() <= LARGEST {
                    let pads = self.indices(&pads);
                    self.node("Pad", &format!("{x} {pads}"), "", out);
                }
            }
            21 => {
                let axis = p[0] % rank;
                let start = p[1] % shape[axis];
                let end = start + 1 + p[2] % (shape[axis] - start);
                let step = 1 + p[3] % 2;
                let mut out = shape;
                out[axis] = (end - start).div_ceil(step);
                let list = [start, end, axis, step].map(|v| self.indices(&[v as i64]));
                self.node("Slice", &format!("{x} {}", list.join(" ")), "", out);
            }
            22 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(p[0] % rank, p[1] % rank);
                perm[usize::from(p[2] < 200)..].rotate_left(1);
                let out = perm.iter().map(|a| shape[*a]).collect();
                self.node("Transpose", &x, &format!("perm={}", ints(&perm)), out);
            }
            23 => {
                let n: usize = shape.iter().product();
                let rest = n / shape[0];
                let out = match p[0] % 4 {
                    0 => vec![shape[0], rest],
                    1 if rest.is_multiple_of(2) => vec![shape[0], 2, rest / 2],
                    2 if rest.is_multiple_of(4) => vec![shape[0], 2, 2, rest / 4],
                    2 if rest.is_multiple_of(3) => vec![shape[0], rest / 3, 3, 1],
                    _ => vec![shape[0], rest, 1],
                };
                let to = self.indices(&out.iter().map(|d| *d as i64).collect::<Vec<_>>());
                self.node("Reshape", &format!("{x} {to}"), "", out);
            }
            24 => drop(self.node("Flatten", &x, "", vec![shape[0], shape[1..].iter().product()])),
            25 => {
                let c = self.bias(&[&[1, shape[1]][..], &vec![1; rank - 2]].concat(), m.seed);
                let (op, operands) = match p[0] % 4 {
                    0 => ("Mul", format!("{x} {c}")),
                    1 => ("Sub", format!("{c} {x}")),
                    _ => ("Add", format!("{x} {c}")),
                };
                self.node(op, &operands, "", shape);
            }
            26 => {
                let d = shape[1];
                let order: Vec<i64> = (0..d).map(|i| ((i * (1 + p[0] % 3) + p[1]) % d) as i64).collect();
                let order = self.indices(&order);
                self.node("Gather", &format!("{x} {order}"), "axis=1", shape);
            }
            _ => drop(self.node("LeakyRelu", &x, "alpha=0.1", shape)),
        }
    }

    fn conv(&mut self, m: &Move, x: &str, shape: &[usize]) {
        let c = shape[1];
        let divisors: Vec<usize> = (1..=c.min(6)).filter(|g| c.is_multiple_of(*g)).collect();
        let groups = if m.picks[1] < 128 { 1 } else { divisors[usize::from(m.picks[1]) % divisors.len()] };
        let out = groups * (1 + usize::from(m.picks[7]) % (8 / groups).clamp(1, 5));
        let w = Window::new(&shape[2..], &m.picks, false);
        let result = [&[shape[0], out][..], &w.out].concat();
        if result.iter().product::<usize>() > LARGEST {
            return;
        }
        let taps: usize = w.kernel.iter().product();
        let mut inputs = vec![x.to_string()];
        inputs.push(self.weights(&[&[out, c / groups][..], &w.kernel].concat(), c / groups * taps, m.seed));
        if !m.seed.is_multiple_of(4) {
            inputs.push(self.bias(&[out], m.seed));
        }
        self.node("Conv", &inputs.join(" "), &format!("group={groups}, {}", w.text(false)), result);
    }

    fn conv_transpose(&mut self, m: &Move, x: &str, shape: &[usize]) {
        let c = shape[1];
        let groups = if m.picks[1] < 180 { 1 } else { c };
        let each = 1 + usize::from(m.picks[7]) % 2;
        let kernel: Vec<usize> = shape[2..].iter().enumerate().map(|(a, _)| 1 + usize::from(m.picks[a]) % 3).collect();
        let strides: Vec<usize> = kernel.iter().map(|k| 1 + usize::from(m.picks[2]) % k).collect();
        let size = shape[2..].iter().zip(&kernel).zip(&strides).map(|((d, k), s)| (d - 1) * s + k);
        let result: Vec<usize> = [shape[0], groups * each].into_iter().chain(size).collect();
        if result.iter().product::<usize>() > LARGEST {
            return;
        }
        let w = self.weights(&[&[c, each][..], &kernel].concat(), c / groups * 2, m.seed);
        let text = format!("group={groups}, kernel_shape={}, strides={}", ints(&kernel), ints(&strides));
        self.node("ConvTranspose", &format!("{x} {w}"), &text, result);
    }

    fn gemm(&mut self, m: &Move, x: &str, shape: &[usize]) {
        let k: usize = shape[1..].iter().product();
        let x = if shape.len() == 2 { x.to_string() } else { self.node("Flatten", x, "", vec![shape[0], k]) };
        let n = 1 + usize::from(m.picks[0]) % 9;
        let flipped = m.picks[1].is_multiple_of(2);
        let w = self.weights(&if flipped { [n, k] } else { [k, n] }, k, m.seed);
        let c = self.bias(&[n], m.seed);
        let text =
            format!("transB={}, alpha={:.2}, beta=1.0", u8::from(flipped), [1.0, 0.75, -1.25][m.picks[2] as usize % 3]);
        self.node("Gemm", &format!("{x} {w} {c}"), &text, vec![shape[0], n]);
    }

    fn matmul(&mut self, m: &Move, x: &str, shape: &[usize]) {
        let (mut out, n) = (shape.to_vec(), 1 + usize::from(m.picks[0]) % 7);
        let right = m.picks[1] < 170;
        let axis = shape.len() - if right { 1 } else { 2 };
        out[axis] = n;
        if out.iter().product::<usize>() > LARGEST {
            return;
        }
        let k = shape[axis];
        let w = self.weights(&if right { [k, n] } else { [n, k] }, k, m.seed);
        let operands = if right { format!("{x} {w}") } else { format!("{w} {x}") };
        self.node("MatMul", &operands, "", out);
    }

    /// A product of the same shape, added to what it was made from or to another one of it.
    fn residual(&mut self, m: &Move, x: &str, shape: &[usize]) {
        let mut product = |seed: u16| {
            let c = shape[1];
            if shape.len() == 2 {
                let w = self.weights(&[c, c], c, seed);
                return self.node("MatMul", &format!("{x} {w}"), "", shape.to_vec());
            }
            let space = shape.len() - 2;
            let kernel = vec![if seed.is_multiple_of(2) { 3 } else { 1 }; space];
            let pads = vec![kernel[0] / 2; 2 * space];
            let groups = if seed.is_multiple_of(3) { c } else { 1 };
            let k = c / groups * kernel.iter().product::<usize>();
            let w = self.weights(&[&[c, c / groups][..], &kernel].concat(), k, seed);
            let text = format!("group={groups}, kernel_shape={}, pads={}", ints(&kernel), ints(&pads));
            self.node("Conv", &format!("{x} {w}"), &text, shape.to_vec())
        };
        let first = product(m.seed);
        let second = match m.picks[0] % 3 {
            0 => x.to_string(),
            _ => product(m.seed.wrapping_add(1)),
        };
        let (a, b) = if m.picks[1].is_multiple_of(2) { (first, second) } else { (second, first) };
        self.node("Add", &format!("{a} {b}"), "", shape.to_vec());
    }

    /// Two tensors of the network, added or side by side.
    fn meet(&mut self, m: &Move, x: &str, shape: &[usize]) {
        let axis = usize::from(m.picks[0]) % shape.len();
        let add = m.picks[1].is_multiple_of(2);
        let fits = |(name, other): &&(String, Vec<usize>)| {
            let apart = shape.iter().zip(other).enumerate().filter(|(a, (d, o))| d != o && (add || *a != axis));
            name != x && other.len() == shape.len() && apart.count() == 0
        };
        let partners: Vec<_> = self.values.iter().filter(fits).cloned().collect();
        let Some((y, other)) = partners.get(usize::from(m.picks[2]) % partners.len().max(1)) else {
            return self.residual(m, x, shape);
        };
        if add {
            self.node("Add", &format!("{x} {y}"), "", shape.to_vec());
            return;
        }
        let mut out = shape.to_vec();
        out[axis] += other[axis];
        if out.iter().product::<usize>() <= LARGEST {
            self.node("Concat", &format!("{x} {y}"), &format!("axis={axis}"), out);
        }
    }
}
