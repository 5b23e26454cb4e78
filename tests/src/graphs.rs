//! Random small networks, as the text that golden cases use: what fails can be pasted into one.
//!
//! A [`Recipe`] is a list of bytes, so that property tests shrink it; every recipe makes a well-formed network.

use std::fmt::Write as _;

use pponnx_engine::{PlainModel, TensorValue};
use pponnx_plans::value::Shape;
use proptest::prelude::{Strategy, any};

use self::writer::{Writer, ints};
use crate::golden::graph::{self, noise};

mod writer;

/// How to make a network.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Picks the inputs' shape, and whether there is one of them or two.
    pub input: u8,
    /// One or two nodes each.
    pub moves: Vec<Move>,
    /// Whether an inner tensor is an output too.
    pub second: Option<u8>,
}

/// How to make the next nodes.
#[derive(Clone, Debug)]
pub struct Move {
    /// Which operator.
    pub what: u8,
    /// Which tensor it reads; mostly the latest.
    pub from: u8,
    /// Its attributes.
    pub picks: [u8; 8],
    /// Its weights.
    pub seed: u16,
}

/// Recipes of up to `most` moves.
pub fn recipes(most: usize) -> impl Strategy<Value = Recipe> {
    let moves = (any::<u8>(), any::<u8>(), any::<[u8; 8]>(), any::<u16>()).prop_map(|(what, from, picks, seed)| Move {
        what,
        from,
        picks,
        seed,
    });
    (any::<u8>(), proptest::collection::vec(moves, 1..=most), proptest::option::weighted(0.2, any::<u8>()))
        .prop_map(|(input, moves, second)| Recipe { input, moves, second })
}

/// A network.
pub struct Random {
    /// As text.
    pub text: String,
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// Operators, in order.
    pub operators: Vec<&'static str>,
    /// Shapes of the inputs.
    pub inputs: Vec<Shape>,
    steps: Vec<Step>,
    outputs: Vec<usize>,
}

/// A node as a network of its own.
struct Step {
    text: String,
    /// The tensors it reads: first come the network's inputs, then the results of its nodes.
    inputs: Vec<usize>,
}

/// A network in plaintext, node by node: as a whole, the ONNX back end rewrites it, and some rewritings are wrong (a
/// convolution with `Slice` of a step behind it) or fail (products that become vectors).
pub struct Plaintext {
    steps: Vec<(PlainModel, Vec<usize>)>,
    outputs: Vec<usize>,
}

impl Plaintext {
    /// The outputs, and the largest magnitude of any tensor.
    pub fn run(&self, inputs: &[TensorValue]) -> (Vec<TensorValue>, f64) {
        let mut values = inputs.to_vec();
        let magnitude = |t: &TensorValue| t.elements().to_f64().iter().fold(0f64, |m, v| m.max(v.abs()));
        let mut largest = inputs.iter().map(magnitude).fold(0f64, f64::max);
        for (model, inputs) in &self.steps {
            let inputs: Vec<TensorValue> = inputs.iter().map(|i| values[*i].clone()).collect();
            let [value] = <[TensorValue; 1]>::try_from(model.run(&inputs).unwrap()).unwrap();
            largest = largest.max(magnitude(&value));
            values.push(value);
        }
        (self.outputs.iter().map(|i| values[*i].clone()).collect(), largest)
    }
}

impl Random {
    /// The network in plaintext.
    pub fn plaintext(&self) -> Plaintext {
        let load = |s: &Step| {
            let onnx = graph::parse(&s.text).unwrap().onnx;
            (PlainModel::load(&onnx, None, &[]).unwrap_or_else(|e| panic!("{e}\n{}", s.text)), s.inputs.clone())
        };
        Plaintext { steps: self.steps.iter().map(load).collect(), outputs: self.outputs.clone() }
    }
}

impl Recipe {
    /// The network.
    pub fn network(&self) -> Random {
        let shape: &[usize] = match self.input / 4 % 8 {
            0 | 1 => &[1, 3, 6, 6],
            2 => &[2, 4, 5, 4],
            3 => &[1, 2, 7, 3],
            4 => &[1, 6, 4, 4],
            5 => &[1, 10],
            6 => &[3, 8],
            _ => &[1, 4, 12],
        };
        let mut writer = Writer::default();
        let names = if self.input % 4 == 3 { &["x", "z"][..] } else { &["x"] };
        writer.values.extend(names.iter().map(|name| (name.to_string(), shape.to_vec())));
        self.moves.iter().for_each(|m| writer.take(m));
        if writer.steps.is_empty() {
            writer.node("Relu", "x", "", shape.to_vec());
        }
        let Writer { body, values, operators, steps, .. } = writer;
        let last = values.len() - 1;
        let second = self.second.map(|s| names.len() + usize::from(s) % steps.len()).filter(|s| *s != last);
        let outputs: Vec<usize> = second.into_iter().chain([last]).collect();
        let mut text = "graph random {\n".to_string();
        names.iter().for_each(|name| writeln!(text, "  input {name} f32{}", ints(shape)).unwrap());
        text.push_str(&body);
        for (name, shape) in outputs.iter().map(|i| &values[*i]) {
            writeln!(text, "  output {name} f32{}", ints(shape)).unwrap();
        }
        text.push_str("}\n");
        let onnx = graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")).onnx;
        Random { text, onnx, operators, inputs: vec![Shape(shape.to_vec()); names.len()], steps, outputs }
    }
}

/// What inputs look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Between -1 and 1.
    Noise,
    /// About 1e30.
    Huge,
    /// About 1e-30.
    Tiny,
    /// Nothing.
    Zero,
    /// Zero but for one element.
    Spike,
    /// Small noise and one element a million times as large.
    Outlier,
    /// All of them below zero.
    Negative,
    /// All of them the same.
    Constant,
    /// From 1 down to 1e-12, element by element.
    Falling,
    /// Half of them negative zeros, the others subnormal.
    Subnormal,
}

impl Feed {
    /// All of them.
    pub const ALL: [Feed; 10] = [
        Feed::Noise,
        Feed::Huge,
        Feed::Tiny,
        Feed::Zero,
        Feed::Spike,
        Feed::Outlier,
        Feed::Negative,
        Feed::Constant,
        Feed::Falling,
        Feed::Subnormal,
    ];

    /// Inputs of this kind.
    pub fn tensors(self, shapes: &[Shape], seed: u16) -> Vec<TensorValue> {
        shapes.iter().zip(0..).map(|(shape, i)| self.tensor(shape, seed.wrapping_add(i))).collect()
    }

    fn tensor(self, shape: &Shape, seed: u16) -> TensorValue {
        let n = shape.len();
        let chosen = usize::from(seed) % n;
        let data = noise(u64::from(seed) + 1_000_000, n).into_iter().enumerate().map(|(i, v)| match self {
            Feed::Noise => v,
            Feed::Huge => v * 1e30,
            Feed::Tiny => v * 1e-30,
            Feed::Zero => 0.0,
            Feed::Spike => f32::from(u8::from(i == chosen)) * (v + 2.0) * [1.0, -1.0, 1e6, 1e-6][i % 4],
            Feed::Outlier => v * if i == chosen { 1e3 } else { 1e-3 },
            Feed::Negative => -v.abs() - 0.001,
            Feed::Constant => (f32::from(seed) - 30_000.0) / 1000.0,
            Feed::Falling => v * 10f32.powf(-12.0 * i as f32 / n as f32),
            Feed::Subnormal => {
                if i % 2 == 0 {
                    -0.0
                } else {
                    v * 1e-39
                }
            }
        });
        TensorValue::from_f32(shape.clone(), data.collect()).unwrap()
    }
}
