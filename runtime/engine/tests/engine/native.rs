//! Native local segments against tract: the same sub-model, run by both.

use std::borrow::Cow;

use pponnx_engine::{LocalError, LocalModel, TensorValue};
use pponnx_kernels::Kernels;
use proptest::prelude::*;

use crate::onnx::{FLOAT, Message, floats, ints, model_of, node, value};

/// A sub-model: constants, nodes, and the names and shapes of inputs and outputs.
#[derive(Clone, Debug, Default)]
struct Case {
    opset: u64,
    constants: Vec<Message>,
    nodes: Vec<Message>,
    inputs: Vec<(String, Vec<usize>)>,
    outputs: Vec<String>,
}

/// How far results may be apart: the same, or so much of the larger one.
const SAME: f32 = 0.0;
const ULP: f32 = 1.2e-7;
const FEW: f32 = 1e-6;

impl Case {
    /// One node from `x` to `y`.
    fn one(shape: &[usize], node: Message) -> Case {
        Case::chain(shape, vec![node])
    }

    /// Nodes from `x` to `y`.
    fn chain(shape: &[usize], nodes: Vec<Message>) -> Case {
        Case {
            opset: 13,
            nodes,
            inputs: vec![("x".into(), shape.to_vec())],
            outputs: vec!["y".into()],
            constants: vec![],
        }
    }

    fn opset(mut self, opset: u64) -> Case {
        self.opset = opset;
        self
    }

    fn constant(mut self, constant: Message) -> Case {
        self.constants.push(constant);
        self
    }

    fn input(mut self, name: &str, shape: &[usize]) -> Case {
        self.inputs.push((name.into(), shape.to_vec()));
        self
    }

    fn output(mut self, name: &str) -> Case {
        self.outputs.push(name.into());
        self
    }

    /// The model; outputs of these shapes, or of shapes left out.
    fn bytes(&self, shapes: Option<&[Vec<usize>]>) -> Vec<u8> {
        let io = |name: &str, shape: &[usize]| {
            let shape: Vec<Option<usize>> = shape.iter().map(|d| Some(*d)).collect();
            value(name, FLOAT, &shape)
        };
        let untyped = |name: &str| {
            let tensor = Message::default().int(1, FLOAT);
            Message::default().text(1, name).message(2, Message::default().message(1, tensor))
        };
        let inputs: Vec<Message> = self.inputs.iter().map(|(name, shape)| io(name, shape)).collect();
        let outputs = self.outputs.iter().enumerate();
        let outputs = outputs.map(|(i, name)| shapes.map_or_else(|| untyped(name), |s| io(name, &s[i])));
        model_of(self.opset, "case", &self.nodes, &self.constants, &inputs, &outputs.collect::<Vec<_>>())
    }

    /// Runs natively and in tract: results must be near each other, and the same however inputs are handed over, when
    /// buffers are used again, and on every instruction set. Returns the native results.
    #[track_caller]
    fn check(&self, near: f32) -> Vec<TensorValue> {
        let inputs: Vec<TensorValue> = self.inputs.iter().zip(1..).map(|((_, shape), i)| random(shape, i)).collect();
        let borrowed: Vec<&TensorValue> = inputs.iter().collect();
        let tract = LocalModel::load_with(&self.bytes(None), None).unwrap();
        assert!(!tract.is_native());
        let expected = tract.run(&borrowed).unwrap();
        let shapes: Vec<Vec<usize>> = expected.iter().map(|t| t.shape().0.clone()).collect();
        let bytes = self.bytes(Some(&shapes));
        let mut found: Option<Vec<TensorValue>> = None;
        for isa in Kernels::available() {
            let native = LocalModel::load_with(&bytes, Kernels::with_isa(isa)).unwrap();
            assert!(native.is_native(), "left to tract");
            assert_eq!(native.outputs(), self.outputs.len());
            for round in 0..3 {
                // Give away none, the first, all.
                let given = |i: usize| i < round || round == 2;
                let cows = inputs.iter().enumerate();
                let cows = cows.map(|(i, x)| if given(i) { Cow::Owned(x.clone()) } else { Cow::Borrowed(x) });
                let out = native.run_owned(cows.collect()).unwrap();
                assert_eq!(found.get_or_insert_with(|| out.clone()), &out, "{isa:?}, round {round}");
            }
        }
        let found = found.unwrap();
        for ((found, expected), name) in found.iter().zip(&expected).zip(&self.outputs) {
            assert_eq!(found.shape(), expected.shape(), "{name}");
            for (i, (a, b)) in found.as_f32().unwrap().iter().zip(expected.as_f32().unwrap()).enumerate() {
                // Sums that cancel keep the rounding of their terms, which are around one.
                let least = if near > ULP { 1.0 } else { 0.0 };
                let near = near * a.abs().max(b.abs()).max(least);
                assert!(a == b || (a - b).abs() <= near, "{name}[{i}]: {a} natively, {b} in tract");
            }
        }
        found
    }

    /// Left to tract.
    #[track_caller]
    fn check_tract(&self) {
        let tract = LocalModel::load_with(&self.bytes(None), None).unwrap();
        let inputs: Vec<TensorValue> = self.inputs.iter().map(|(_, shape)| random(shape, 1)).collect();
        let out = tract.run(&inputs.iter().collect::<Vec<_>>()).unwrap();
        let shapes: Vec<Vec<usize>> = out.iter().map(|t| t.shape().0.clone()).collect();
        assert!(!LocalModel::load(&self.bytes(Some(&shapes))).unwrap().is_native());
    }
}

/// Numbers around zero, some of them equal.
fn random(shape: &[usize], seed: u64) -> TensorValue {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let data = (0..shape.iter().product()).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let x = (state >> 40) as f32 / (1 << 21) as f32 - 4.0;
        if state.is_multiple_of(11) { x.round() } else { x }
    });
    TensorValue::from_f32(shape.to_vec(), data.collect()).unwrap()
}

fn op(name: &str) -> Message {
    node(name, &["x"], &["y"])
}

#[test]
fn functions_of_one_number() {
    let shape = [2, 3, 5, 7];
    Case::one(&shape, op("Relu")).check(SAME);
    Case::one(&[1, 4, 60, 60], op("Relu")).check(SAME);
    Case::one(&[3], op("Neg")).check(SAME);
    Case::one(&shape, op("Abs")).check(SAME);
    Case::one(&shape, op("LeakyRelu").with_float("alpha", 0.125)).check(SAME);
    Case::one(&shape, op("LeakyRelu")).check(ULP);
    Case::one(&shape, op("Clip").with_float("min", 0.0).with_float("max", 6.0)).opset(6).check(SAME);
    Case::one(&shape, op("Clip").with_float("max", 1.5)).opset(10).check(SAME);
    let bounds = |inputs: &[&str]| {
        let case = Case::one(&shape, node("Clip", inputs, &["y"]));
        case.constant(floats("low", &[], &[-1.0])).constant(floats("high", &[], &[2.0])).check(SAME);
    };
    bounds(&["x", "low", "high"]);
    bounds(&["x", "low"]);
    bounds(&["x", "", "high"]);
    bounds(&["x", "high", "low"]);
    bounds(&["x"]);
    Case::one(&shape, op("Sigmoid")).check(FEW);
    Case::one(&shape, op("Exp")).check(FEW);
    Case::one(&shape, op("HardSigmoid")).check(FEW);
    Case::one(&shape, op("HardSigmoid").with_float("alpha", 0.25).with_float("beta", 0.5)).check(FEW);
}

#[test]
fn functions_of_two_tensors() {
    let shape = [2, 3, 4, 5];
    for name in ["Add", "Sub", "Mul", "Div", "Max", "Min"] {
        Case::one(&shape, node(name, &["x", "z"], &["y"])).input("z", &shape).check(ULP);
        // The other operand is smaller, on either side, computed or constant.
        for other in [vec![1, 3, 1, 1], vec![3, 1, 1], vec![5], vec![1], vec![], vec![2, 1, 1, 1], vec![4, 5]] {
            let n: usize = other.iter().product();
            let data: Vec<f32> = (0..n).map(|i| i as f32 * 0.75 - 1.6).collect();
            for inputs in [["x", "c"], ["c", "x"]] {
                let case = Case::one(&shape, node(name, &inputs, &["y"]));
                case.clone().constant(floats("c", &other, &data)).check(ULP);
                if !other.is_empty() {
                    case.input("c", &other).check(ULP);
                }
            }
        }
    }
    Case::one(&[1, 70, 9, 9], node("Mul", &["x", "c"], &["y"])).input("c", &[1, 70, 1, 1]).check(SAME);
    let slope = |shape: &[usize]| floats("s", shape, &[0.25, -0.5, 2.0]);
    Case::one(&shape, node("PRelu", &["x", "s"], &["y"])).constant(slope(&[3, 1, 1])).check(SAME);
    // Operands that repeat irregularly, or make the result larger than both.
    let irregular = |x: &[usize], z: &[usize]| Case::one(x, node("Add", &["x", "z"], &["y"])).input("z", z);
    irregular(&[2, 3, 4, 5], &[2, 1, 4, 1]).check_tract();
    irregular(&[3, 1], &[1, 4]).check_tract();
    irregular(&[1, 3, 1, 1], &[1, 3, 4, 5]).check(SAME);
}

/// A pooling node.
fn pool(name: &str, kernel: [usize; 2], strides: [usize; 2], pads: [usize; 4], ceil: bool) -> Message {
    let node = op(name).with_ints("kernel_shape", &kernel).with_ints("strides", &strides).with_ints("pads", &pads);
    if ceil { node.with_int("ceil_mode", 1) } else { node }
}

#[test]
fn pools_of_networks() {
    for (side, kernel, stride, pad) in
        [(55, 3, 2, 0), (27, 3, 2, 0), (13, 3, 2, 0), (112, 3, 2, 1), (16, 2, 2, 0), (28, 3, 1, 1), (20, 5, 1, 2)]
    {
        for ceil in [false, true] {
            let shape = [1, 5, side, side];
            Case::one(&shape, pool("MaxPool", [kernel; 2], [stride; 2], [pad; 4], ceil)).check(SAME);
            Case::one(&shape, pool("AveragePool", [kernel; 2], [stride; 2], [pad; 4], ceil)).check(FEW);
        }
    }
    let counted = pool("AveragePool", [3, 2], [2, 1], [1, 0, 1, 1], false).with_int("count_include_pad", 1);
    Case::one(&[2, 3, 8, 9], counted.clone()).check(FEW);
    Case::one(&[2, 3, 8, 9], counted.with_int("ceil_mode", 1)).check_tract();
    for same in ["SAME_UPPER", "SAME_LOWER"] {
        for name in ["MaxPool", "AveragePool"] {
            let node = op(name).with_ints("kernel_shape", &[3, 2]).with_ints("strides", &[2, 3]);
            Case::one(&[1, 2, 8, 9], node.with_text("auto_pad", same)).check(FEW);
        }
    }
    let dilated = op("MaxPool").with_ints("kernel_shape", &[2, 2]).with_ints("dilations", &[2, 2]);
    Case::one(&[1, 2, 8, 9], dilated).check_tract();
    Case::one(&[1, 2, 8], op("MaxPool").with_ints("kernel_shape", &[2])).check_tract();
}

#[test]
fn means_softmax_and_normalisation() {
    Case::one(&[2, 70, 7, 7], op("GlobalAveragePool")).check(FEW);
    Case::one(&[2, 3, 7], op("GlobalAveragePool")).check(FEW);
    for (axes, keep) in [(&[2usize, 3][..], 1), (&[3, 2], 0), (&[1, 2, 3], 0), (&[3], 1)] {
        Case::one(&[2, 3, 4, 5], op("ReduceMean").with_ints("axes", axes).with_int("keepdims", keep)).check(FEW);
    }
    Case::one(&[2, 3, 4, 5], op("ReduceMean").with_ints("axes", &[1])).check_tract();
    Case::one(&[3, 10], op("Softmax")).check(FEW);
    Case::one(&[2, 3, 10], op("Softmax").with_int("axis", -1)).check(FEW);
    Case::one(&[2, 3, 10], op("Softmax").with_int("axis", 1)).check_tract();
    Case::one(&[2, 3, 4], op("Softmax").with_int("axis", 1)).opset(11).check(FEW);
    Case::one(&[2, 1000, 1, 1], op("Softmax").with_int("axis", 1)).check(FEW);
    for (size, beta) in [(5, 0.75), (3, 0.75), (4, 0.5), (1, 1.0), (5, 0.6), (50, 0.75)] {
        let node = op("LRN").with_int("size", size).with_float("alpha", 0.5).with_float("beta", beta);
        Case::one(&[2, 9, 5, 31], node.with_float("bias", 2.0)).check(FEW);
    }
    Case::one(&[1, 96, 27, 27], op("LRN").with_int("size", 5)).check(FEW);
}

#[test]
fn elements_move() {
    let join = |inputs: &[&str], axis| node("Concat", inputs, &["y"]).with_int("axis", axis);
    for axis in [1, -3] {
        Case::one(&[2, 3, 4, 5], join(&["x", "z", "x"], axis)).input("z", &[2, 7, 4, 5]).check(SAME);
    }
    Case::one(&[2, 3], join(&["x", "z"], 0)).input("z", &[1, 3]).check(SAME);
    Case::one(&[1, 3, 50, 50], join(&["x", "z"], 1)).input("z", &[1, 1, 50, 50]).check(SAME);
    for perm in [[0, 2, 3, 1], [0, 3, 1, 2], [3, 2, 1, 0], [1, 0, 2, 3], [0, 1, 3, 2]] {
        Case::one(&[2, 3, 4, 5], op("Transpose").with_ints("perm", &perm)).check(SAME);
        Case::one(&[1, 3, 1, 5], op("Transpose").with_ints("perm", &perm)).check(SAME);
    }
    Case::one(&[2, 3, 4], op("Transpose")).check(SAME);
    let indexed = |indices: &[i64]| {
        let case = Case::one(&[2, 6, 3], node("Gather", &["x", "i"], &["y"]).with_int("axis", 1));
        case.constant(ints("i", indices))
    };
    indexed(&[5, 0, 0, -1]).check(SAME);
    indexed(&[2]).check(SAME);
    let slice = |bounds: [i64; 4]| {
        let names = ["x", "starts", "ends", "axes", "steps"];
        let case = Case::one(&[2, 6, 3], node("Slice", &names, &["y"]));
        names[1..].iter().zip(bounds).fold(case, |case, (name, v)| case.constant(ints(name, &[v])))
    };
    slice([1, 5, 1, 1]).check(SAME);
    slice([-4, i64::MAX, 1, 2]).check(SAME);
    slice([0, -1, -1, 1]).check(SAME);
    slice([4, 1, 1, -1]).check_tract();
    let parts = Case::one(&[2, 6, 3], node("Split", &["x", "sizes"], &["y", "z"]).with_int("axis", 1)).output("z");
    parts.constant(ints("sizes", &[2, 4])).check(SAME);
}

#[test]
fn other_shapes_cost_nothing() {
    let shaped = |name: &str, list: &[i64]| {
        Case::one(&[2, 1, 6, 1], node(name, &["x", "list"], &["y"])).constant(ints("list", list)).check(SAME)
    };
    shaped("Reshape", &[0, -1]);
    shaped("Reshape", &[3, 4]);
    shaped("Squeeze", &[1, -1]);
    shaped("Unsqueeze", &[0, 3]);
    Case::one(&[2, 1, 6, 1], op("Squeeze")).check(SAME);
    Case::one(&[2, 1, 6, 1], op("Flatten")).check(SAME);
    Case::one(&[2, 3, 6], op("Flatten").with_int("axis", 2)).check(SAME);
    Case::one(&[2, 3, 6], op("Identity")).check(SAME);
    Case::one(&[2, 3, 6], op("Dropout")).check(SAME);
    // An input handed out beside its function, a result handed out twice, and one that nobody reads.
    let nodes = vec![node("Relu", &["x"], &["y"]), node("Identity", &["x"], &["a"]), node("Identity", &["y"], &["b"])];
    let unread = node("Neg", &["y"], &["c"]);
    Case::chain(&[2, 3], [nodes, vec![unread]].concat()).output("a").output("b").check(SAME);
}

#[test]
fn chains_are_fused() {
    let shape = [1, 6, 9, 11];
    let max = |x, y| node("MaxPool", &[x], &[y]).with_ints("kernel_shape", &[3, 3]).with_ints("strides", &[2, 2]);
    // Relu, LRN, pool: as in AlexNet.
    let lrn = node("LRN", &["r"], &["n"]).with_int("size", 5);
    Case::chain(&shape, vec![node("Relu", &["x"], &["r"]), lrn, max("n", "y")]).check(FEW);
    Case::chain(&shape, vec![node("Relu", &["x"], &["r"]), max("r", "y")]).check(SAME);
    // The result before the pool is handed out as well.
    Case::chain(&shape, vec![node("Relu", &["x"], &["r"]), max("r", "y")]).output("r").check(SAME);
    // Residual connections.
    let add = |x, z, y| node("Add", &[x, z], &[y]);
    Case::chain(&shape, vec![add("x", "z", "s"), node("Relu", &["s"], &["y"])]).input("z", &shape).check(SAME);
    Case::chain(&shape, vec![node("Relu", &["x"], &["r"]), add("r", "x", "y")]).check(SAME);
    Case::chain(&shape, vec![node("Relu", &["x"], &["r"]), add("x", "r", "y")]).check(SAME);
    Case::chain(&shape, vec![node("Relu", &["x"], &["r"]), add("r", "r", "y")]).check(SAME);
    let difference = vec![node("Relu", &["x"], &["r"]), node("Sub", &["z", "r"], &["y"])];
    Case::chain(&shape, difference).input("z", &shape).check(SAME);
    // x * sigmoid(x), and hard swish written out.
    Case::chain(&shape, vec![node("Sigmoid", &["x"], &["s"]), node("Mul", &["x", "s"], &["y"])]).check(FEW);
    let swish = vec![
        node("Add", &["x", "three"], &["a"]),
        node("Clip", &["a", "zero", "six"], &["b"]),
        node("Mul", &["x", "b"], &["c"]),
        node("Div", &["c", "six"], &["y"]),
    ];
    let number = |name, v| floats(name, &[], &[v]);
    let case = Case::chain(&shape, swish).constant(number("zero", 0.0)).constant(number("three", 3.0));
    case.constant(number("six", 6.0)).check(ULP);
    // Parts with functions, joined; one of them is read elsewhere too.
    let join = vec![
        node("Relu", &["x"], &["a"]),
        node("Neg", &["z"], &["b"]),
        node("Mul", &["b", "z"], &["c"]),
        node("Concat", &["a", "c", "b"], &["j"]).with_int("axis", 1),
        node("Abs", &["j"], &["y"]),
    ];
    Case::chain(&[2, 6, 40, 41], join).input("z", &[2, 3, 40, 41]).check(SAME);
    // Squeeze and excite: a mean decides about its own channel.
    let excite = vec![
        node("GlobalAveragePool", &["x"], &["m"]),
        node("Sigmoid", &["m"], &["g"]),
        node("Mul", &["x", "g"], &["y"]),
    ];
    Case::chain(&shape, excite).check(FEW);
    // Channels shuffled, as in ShuffleNet.
    let shuffle = vec![
        node("Reshape", &["x", "apart"], &["a"]),
        node("Transpose", &["a"], &["b"]).with_ints("perm", &[0, 2, 1, 3, 4]),
        node("Reshape", &["b", "together"], &["y"]),
    ];
    let case = Case::chain(&shape, shuffle).constant(ints("apart", &[1, 2, 3, 9, 11]));
    case.constant(ints("together", &[1, 6, 9, 11])).check(SAME);
}

#[test]
fn what_is_not_known_is_left_to_tract() {
    Case::one(&[2, 3], op("Erf")).check_tract();
    Case::chain(&[2, 3], vec![node("Relu", &["x"], &["r"]), node("Erf", &["r"], &["y"])]).check_tract();
    // An unknown attribute, an input without a fixed meaning here, an output of another shape than declared.
    let relu = Case::one(&[2, 3], op("Relu"));
    assert!(LocalModel::load(&relu.bytes(Some(&[vec![2, 3]]))).unwrap().is_native());
    assert!(!LocalModel::load(&relu.bytes(None)).unwrap().is_native());
    let odd = Case::one(&[2, 3], op("Relu").with_int("novelty", 1));
    assert!(!LocalModel::load(&odd.bytes(Some(&[vec![2, 3]]))).is_ok_and(|m| m.is_native()));
}

#[test]
fn wrong_inputs_are_errors() {
    let case = Case::one(&[1, 4], node("Add", &["x", "z"], &["y"])).input("z", &[1, 4]);
    let native = LocalModel::load(&case.bytes(Some(&[vec![1, 4]]))).unwrap();
    assert!(native.is_native());
    let good = random(&[1, 4], 1);
    let wide = random(&[4, 1], 1);
    let double = TensorValue::new(vec![1, 4], pponnx_engine::Elements::F64(vec![0.0; 4])).unwrap();
    assert!(native.run(&[&good, &good]).is_ok());
    for bad in [vec![], vec![&good], vec![&good; 3], vec![&good, &wide], vec![&double, &good]] {
        assert!(matches!(native.run(&bad), Err(LocalError::Run(_))));
    }
}

/// A pooling node with what it takes to have a result.
fn pools() -> impl Strategy<Value = (Vec<usize>, Message)> {
    let axis = (1usize..24, 1usize..5, 1usize..4).prop_flat_map(|(size, kernel, stride)| {
        (0..kernel, 0..kernel).prop_map(move |(before, after)| {
            // The window must fit.
            (size.max(kernel), kernel, stride, before, after)
        })
    });
    (axis.clone(), axis, any::<bool>(), any::<bool>(), 1usize..3, 1usize..6).prop_map(|(h, w, ceil, mean, n, c)| {
        let name = if mean { "AveragePool" } else { "MaxPool" };
        let node = pool(name, [h.1, w.1], [h.2, w.2], [h.3, w.3, h.4, w.4], ceil);
        (vec![n, c, h.0, w.0], node)
    })
}

/// Small graphs over `[2, 6, h, w]`: each node reads what is already there.
fn graphs() -> impl Strategy<Value = Case> {
    let node_of = (0usize..9, any::<prop::sample::Index>(), any::<prop::sample::Index>());
    (prop::collection::vec(node_of, 1..9), 1usize..9, 1usize..9, any::<u8>()).prop_map(|(picks, h, w, outputs)| {
        let shape = [2, 6, h, w];
        let mut names = vec!["x".to_string(), "z".to_string()];
        let mut nodes = Vec::new();
        for (i, (kind, a, b)) in picks.into_iter().enumerate() {
            let (a, b) = (names[a.index(names.len())].clone(), names[b.index(names.len())].clone());
            let to = format!("v{i}");
            let one = |op: &str| node(op, &[&a], &[&to]);
            let two = |op: &str, b: &str| node(op, &[&a, b], &[&to]);
            let made = match kind {
                0 => one("Relu"),
                1 => node("Clip", &[&a, "low", "high"], &[&to]),
                2 => two("Add", &b),
                3 => two("Sub", &b),
                4 => two("Max", &b),
                5 => two("Add", "channel"),
                6 => node("MaxPool", &[&a], &[&to]).with_ints("kernel_shape", &[3, 3]).with_ints("pads", &[1; 4]),
                7 => {
                    let joined = format!("j{i}");
                    nodes.push(node("Concat", &[&a, &b], &[&joined]).with_int("axis", 1));
                    node("Gather", &[&joined, "picked"], &[&to]).with_int("axis", 1)
                }
                _ => one("Neg"),
            };
            nodes.push(made);
            names.push(to);
        }
        // The last result, and some of the others.
        let made = &names[2..];
        let mut chosen: Vec<String> =
            made.iter().enumerate().filter(|(i, _)| outputs >> (i % 8) & 1 == 1).map(|(_, n)| n.clone()).collect();
        if !chosen.contains(&made[made.len() - 1]) {
            chosen.push(made[made.len() - 1].clone());
        }
        let case = Case { outputs: chosen, ..Case::chain(&shape, nodes) }.input("z", &shape);
        let channel: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
        let case = case.constant(floats("channel", &[6, 1, 1], &channel));
        let case = case.constant(floats("low", &[], &[-1.0])).constant(floats("high", &[], &[2.0]));
        case.constant(ints("picked", &[7, 0, 11, 3, 3, 6]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn pools_of_any_shape((shape, node) in pools()) {
        Case::one(&shape, node).check(FEW);
    }

    #[test]
    fn graphs_of_any_form(case in graphs()) {
        case.check(SAME);
    }
}
