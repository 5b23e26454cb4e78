//! Models that must be refused, all complaints at once, and odd ones that must not.

use pponnx_compiler::diag::CompileError;
use pponnx_compiler::front::front;
use pponnx_compiler::ir::split::{Part, Place, SplitGraph};
use pponnx_compiler::source::{FrontOptions, Message, ModelSource, Sample, pb};
use pponnx_plans::value::{DType, Shape};

use crate::float::{error, run};

fn node(name: &str, op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<pb::AttributeProto>) -> pb::NodeProto {
    pb::NodeProto {
        name: name.into(),
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        attribute,
        ..Default::default()
    }
}

fn ints(name: &str, ints: &[i64]) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), r#type: 7, ints: ints.to_vec(), ..Default::default() }
}

fn text(name: &str, s: &str) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), r#type: 3, s: s.as_bytes().to_vec(), ..Default::default() }
}

fn body(name: &str, g: pb::GraphProto) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), r#type: 5, g: Some(g), ..Default::default() }
}

enum Dim {
    Fixed(i64),
    Named(&'static str),
}

fn value(name: &str, dims: &[Dim]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = dims.iter().map(|d| Dimension {
        value: Some(match d {
            Dim::Fixed(v) => Value::DimValue(*v),
            Dim::Named(p) => Value::DimParam((*p).into()),
        }),
        ..Default::default()
    });
    let shape = Some(pb::TensorShapeProto { dim: dim.collect() });
    let tensor = pb::type_proto::Tensor { elem_type: 1, shape };
    let value = Some(pb::type_proto::Value::TensorType(tensor));
    pb::ValueInfoProto {
        name: name.into(),
        r#type: Some(pb::TypeProto { value, ..Default::default() }),
        ..Default::default()
    }
}

fn fixed(name: &str, dims: &[i64]) -> pb::ValueInfoProto {
    value(name, &dims.iter().map(|d| Dim::Fixed(*d)).collect::<Vec<_>>())
}

fn weights(name: &str, dims: &[i64]) -> pb::TensorProto {
    let n: i64 = dims.iter().product();
    let data = (0..n).map(|i| ((i * 37) % 19) as f32 / 19.0 - 0.5).collect();
    pb::TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, float_data: data, ..Default::default() }
}

fn flag(name: &str, value: bool) -> pb::TensorProto {
    pb::TensorProto { name: name.into(), data_type: 9, int32_data: vec![value.into()], ..Default::default() }
}

fn model(
    inputs: Vec<pb::ValueInfoProto>,
    initializer: Vec<pb::TensorProto>,
    nodes: Vec<pb::NodeProto>,
    outputs: &[&str],
) -> pb::ModelProto {
    let named = |n: &&str| pb::ValueInfoProto { name: n.to_string(), ..Default::default() };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 13 }],
        graph: Some(pb::GraphProto {
            name: "case".into(),
            node: nodes,
            initializer,
            input: inputs,
            output: outputs.iter().map(named).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn bytes(bytes: Vec<u8>, options: &FrontOptions) -> Result<SplitGraph, CompileError> {
    front(&ModelSource::Bytes { name: "case".into(), bytes, dir: None }, options)
}

fn compile(m: &pb::ModelProto) -> Result<SplitGraph, CompileError> {
    bytes(m.encode_to_vec(), &FrontOptions::default())
}

fn codes(result: Result<SplitGraph, CompileError>) -> Vec<(String, Option<String>)> {
    let complaints = result.expect_err("refused").diagnostics;
    complaints.into_iter().map(|d| (d.code.to_string(), d.node)).collect()
}

/// `y = relu(conv(x))`, and more nodes behind.
fn convolution(more: Vec<pb::NodeProto>, outputs: &[&str]) -> pb::ModelProto {
    let mut nodes = vec![
        node("", "Conv", &["x", "w"], &["c"], vec![ints("pads", &[1, 1, 1, 1])]),
        node("", "Relu", &["c"], &["y"], vec![]),
    ];
    nodes.extend(more);
    model(vec![fixed("x", &[1, 3, 6, 6])], vec![weights("w", &[4, 3, 3, 3])], nodes, outputs)
}

fn input(shape: &[usize]) -> Sample {
    let n: usize = shape.iter().product();
    let data = (0..n).map(|i| ((i * 7919) % 101) as f32 / 50.0 - 1.0).collect();
    Sample { dtype: DType::F32, shape: Shape(shape.to_vec()), data }
}

/// Compares the split network with the whole model.
fn agrees(m: &pb::ModelProto) -> SplitGraph {
    let split = compile(m).unwrap();
    let inputs: Vec<Sample> = split.inputs.iter().map(|p| input(&p.shape.0)).collect();
    // The runtime on its own stumbles over repeated node names.
    let mut nameless = m.clone();
    nameless.graph.as_mut().unwrap().node.iter_mut().for_each(|n| n.name.clear());
    let whole = pponnx_compiler::source::probe(&nameless.encode_to_vec(), &inputs).unwrap();
    let got = run(&split, &inputs);
    assert_eq!(got.len(), whole.len());
    for (got, whole) in got.iter().zip(&whole) {
        assert_eq!(got.shape, whole.shape);
        assert!(error(&got.data, &whole.data) < 1e-6);
    }
    split
}

#[test]
fn files_that_are_no_models_are_refused() {
    for junk in [vec![], b"not a model at all, only some text".to_vec(), vec![0xff; 100], vec![0x08, 0x07]] {
        assert_eq!(codes(bytes(junk, &FrontOptions::default()))[0].0, "not-onnx");
    }
    let missing = front(&ModelSource::Path("/nowhere/at/all.onnx".into()), &FrontOptions::default());
    assert_eq!(codes(missing)[0].0, "unreadable-file");
    let whole = convolution(vec![], &["y"]).encode_to_vec();
    for n in 0..whole.len() {
        // A prefix may be a valid, smaller message; it must never be taken for the whole network.
        if let Ok(split) = bytes(whole[..n].to_vec(), &FrontOptions::default()) {
            assert_eq!(split.nodes.len(), 2, "cut to {n} bytes");
        }
    }
}

#[test]
fn all_problems_are_reported_at_once_by_node_name() {
    let mut m = model(
        vec![value("x", &[Dim::Fixed(1), Dim::Named("h"), Dim::Named("w")])],
        vec![weights("w", &[3, 3])],
        vec![
            node("roi", "RoiAlign", &["x"], &["a"], vec![]),
            pb::NodeProto { domain: "com.example".into(), ..node("mine", "Relu", &["x"], &["b"], vec![]) },
            node("lost", "Relu", &["nobody"], &["c"], vec![]),
            node("first", "Relu", &["x"], &["d"], vec![]),
            node("second", "Relu", &["x"], &["d"], vec![]),
            node("", "GlobalLpPool", &["x"], &["e"], vec![]),
        ],
        &["a", "missing"],
    );
    m.functions.push(pb::FunctionProto { name: Some("f".into()), ..Default::default() });
    let found = codes(compile(&m));
    for (code, name) in [
        ("function", None),
        ("unsupported-operator", Some("roi")),
        ("foreign-domain", Some("mine")),
        ("undefined-tensor", Some("lost")),
        ("tensor-made-twice", Some("second")),
        ("refused-operator", Some("#5")),
        ("undefined-tensor", None),
        ("dynamic-shape", None),
    ] {
        assert!(found.contains(&(code.to_string(), name.map(str::to_string))), "{code} {name:?} not in {found:?}");
    }
    assert_eq!(found.len(), 8, "{found:?}");
}

#[test]
fn operators_that_would_be_computed_wrongly_are_refused() {
    let alpha = pb::AttributeProto { name: "alpha".into(), r#type: 1, f: 0.5, ..Default::default() };
    let cases = [
        node("n", "Celu", &["x"], &["y"], vec![alpha]),
        node("n", "ConvTranspose", &["x", "w"], &["y"], vec![ints("output_shape", &[8, 8])]),
        node("n", "ConvTranspose", &["x", "w"], &["y"], vec![text("auto_pad", "SAME_UPPER")]),
        node("n", "GRU", &["x", "w", "w"], &["y"], vec![text("direction", "reverse")]),
        node("n", "Conv", &["x", "w"], &["y"], vec![ints("strides", &[0, 1])]),
        node("n", "Conv", &["x", "w"], &["y"], vec![ints("dilations", &[0, 1])]),
        node("n", "Dropout", &["x", "", "on"], &["y"], vec![]),
    ];
    for case in cases {
        let op = case.op_type.clone();
        let initialisers = vec![weights("w", &[3, 3, 3, 3]), flag("on", true)];
        let m = model(vec![fixed("x", &[1, 3, 6, 6])], initialisers, vec![case], &["y"]);
        assert_eq!(codes(compile(&m)), [("refused-operator".to_string(), Some("n".to_string()))], "{op}");
    }
}

#[test]
fn what_the_reader_rejects_names_the_onnx_node() {
    let mismatch = model(
        vec![fixed("x", &[1, 5])],
        vec![weights("w", &[4, 3])],
        vec![node("before", "Relu", &["x"], &["r"], vec![]), node("product", "MatMul", &["r", "w"], &["y"], vec![])],
        &["y"],
    );
    assert_eq!(codes(compile(&mismatch)), [("unreadable-network".to_string(), Some("product".to_string()))]);
    let large = convolution(vec![node("huge", "MaxPool", &["y"], &["z"], vec![ints("kernel_shape", &[9, 9])])], &["z"]);
    assert_eq!(codes(compile(&large)), [("unreadable-network".to_string(), Some("huge".to_string()))]);
    let cycle = convolution(
        vec![node("a", "Relu", &["q"], &["p"], vec![]), node("b", "Relu", &["p"], &["q"], vec![])],
        &["y", "p"],
    );
    assert_eq!(codes(compile(&cycle)), [("cycle".to_string(), Some("a".to_string()))]);
}

#[test]
fn open_dimensions_are_named_and_can_be_fixed() {
    let open =
        |dims: &[Dim]| model(vec![value("x", dims)], vec![], vec![node("r", "Relu", &["x"], &["y"], vec![])], &["y"]);
    let batch = compile(&open(&[Dim::Named("N"), Dim::Fixed(4)])).unwrap();
    assert_eq!(batch.inputs[0].shape.0, [1, 4]);
    assert!(batch.notes.iter().any(|n| n.contains("`N`") && n.contains("compiled for 1")), "{:?}", batch.notes);
    let image = open(&[Dim::Named("N"), Dim::Fixed(3), Dim::Named("H"), Dim::Fixed(0)]).encode_to_vec();
    let error = bytes(image.clone(), &FrontOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`N`, `H`, number 3") && text.contains("--shape x=?,3,?,?"), "{text}");
    let shape =
        |dims: &[usize]| FrontOptions { shapes: [("x".to_string(), dims.iter().map(|d| Some(*d)).collect())].into() };
    assert_eq!(bytes(image.clone(), &shape(&[2, 3, 5, 7])).unwrap().inputs[0].shape.0, [2, 3, 5, 7]);
    assert_eq!(codes(bytes(image.clone(), &shape(&[2, 4, 5, 7])))[0].0, "shape-conflict");
    assert_eq!(codes(bytes(image.clone(), &shape(&[2, 3])))[0].0, "shape-conflict");
    let other = FrontOptions { shapes: [("z".to_string(), vec![Some(1)])].into() };
    assert_eq!(codes(bytes(image, &other))[0].0, "unknown-input");
}

#[test]
fn damaged_files_never_panic() {
    let whole = convolution(
        vec![node("", "Flatten", &["y"], &["f"], vec![]), node("", "Gemm", &["f", "g"], &["z"], vec![])],
        &["z"],
    );
    let mut whole = whole;
    whole.graph.as_mut().unwrap().initializer.push(weights("g", &[144, 2]));
    let whole = whole.encode_to_vec();
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    // Structure is at both ends of the file; the middle is weights.
    let places: Vec<usize> = (0..whole.len()).filter(|i| *i < 220 || *i + 120 > whole.len()).collect();
    for _ in 0..400 {
        let mut damaged = whole.clone();
        for _ in 0..1 + random(3) {
            damaged[places[random(places.len())]] ^= 1 << random(8);
        }
        drop(bytes(damaged, &FrontOptions::default()));
    }
}

#[test]
fn outputs_may_be_aliases_inputs_constants_and_inner_tensors() {
    let more = vec![
        node("same", "Identity", &["y"], &["again"], vec![]),
        node("", "Flatten", &["again"], &["flat"], vec![]),
        node("shape", "Shape", &["x"], &["s"], vec![]),
        node(
            "float",
            "Cast",
            &["s"],
            &["t"],
            vec![pb::AttributeProto { name: "to".into(), r#type: 2, i: 1, ..Default::default() }],
        ),
    ];
    let m = convolution(more, &["c", "again", "y", "flat", "t", "x", "y"]);
    let split = compile(&m).unwrap();
    let x = input(&[1, 3, 6, 6]);
    let got = run(&split, std::slice::from_ref(&x));
    let names: Vec<&str> = split.outputs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["c", "again", "y", "flat", "t", "x", "y"]);
    assert_eq!(got[1].data, got[2].data);
    assert_eq!(got[2].data, got[3].data);
    assert_eq!(got[4].data, [1.0, 3.0, 6.0, 6.0]);
    assert_eq!(got[5].data, x.data);
    assert!(got[0].data.iter().zip(&got[1].data).all(|(c, y)| c.max(0.0) == *y));
    let place = |name: &str| split.nodes.iter().find(|n| n.name == name).unwrap().place;
    assert_eq!((place("same"), place("shape")), (Place::Folded, Place::Folded));
    assert_eq!(split.output_tensors[1], split.output_tensors[2]);
}

#[test]
fn order_names_and_aliases_of_a_file_do_not_matter() {
    let more = vec![
        node("twin", "Identity", &["y"], &["i"], vec![]),
        node("twin", "Conv", &["i", "v"], &["d"], vec![]),
        node("x", "Add", &["d", "k"], &["z"], vec![]),
    ];
    let mut m = convolution(more, &["z"]);
    let graph = m.graph.as_mut().unwrap();
    graph.initializer.extend([weights("v", &[2, 4, 3, 3]), weights("k", &[1, 2, 1, 1])]);
    let sorted = agrees(&m);
    m.graph.as_mut().unwrap().node.reverse();
    let reversed = compile(&m).unwrap();
    let x = input(&[1, 3, 6, 6]);
    assert_eq!(run(&sorted, std::slice::from_ref(&x))[0].data, run(&reversed, &[x])[0].data);
    assert_eq!(reversed.nodes[0].op, "Add", "nodes are listed in file order");
    for (split, add) in [(&sorted, 4), (&reversed, 0)] {
        let maps: Vec<_> =
            split.parts.iter().filter_map(|p| if let Part::Stage(s) = p { Some(s) } else { None }).collect();
        assert_eq!(maps.len(), 2);
        assert!(maps[1].maps[0].nodes.contains(&add), "the addition became a bias");
    }
}

#[test]
fn subgraphs_capture_tensors_of_other_segments() {
    let branch = |op: &str, reads: &[&str]| pb::GraphProto {
        name: op.into(),
        node: vec![node("", op, reads, &["out"], vec![])],
        output: vec![pb::ValueInfoProto { name: "out".into(), ..Default::default() }],
        ..Default::default()
    };
    let more = vec![
        node("alias", "Identity", &["c"], &["seen"], vec![]),
        node(
            "sum",
            "ReduceSum",
            &["y"],
            &["s"],
            vec![pb::AttributeProto { name: "keepdims".into(), r#type: 2, i: 0, ..Default::default() }],
        ),
        node("above", "Greater", &["s", "limit"], &["yes"], vec![]),
        node(
            "choice",
            "If",
            &["yes"],
            &["z"],
            vec![
                body("then_branch", branch("Add", &["seen", "k"])),
                body("else_branch", branch("Mul", &["seen", "k"])),
            ],
        ),
    ];
    let mut m = convolution(more, &["z"]);
    let k = weights("k", &[1, 4, 1, 1]);
    let limit = pb::TensorProto { name: "limit".into(), data_type: 1, float_data: vec![1e9], ..Default::default() };
    m.graph.as_mut().unwrap().initializer.extend([k, limit]);
    let split = compile(&m).unwrap();
    let x = input(&[1, 3, 6, 6]);
    let got = run(&split, std::slice::from_ref(&x));
    let plain = agrees(&{
        let mut m = convolution(vec![node("", "Mul", &["c", "k"], &["z"], vec![])], &["z"]);
        m.graph.as_mut().unwrap().initializer.push(weights("k", &[1, 4, 1, 1]));
        m
    });
    assert!(error(&got[0].data, &run(&plain, &[x])[0].data) < 1e-6);
}

#[test]
fn reading_twice_gives_the_same() {
    let m = convolution(vec![node("p", "MaxPool", &["y"], &["z"], vec![ints("kernel_shape", &[2, 2])])], &["z"]);
    let (a, b) = (compile(&m).unwrap(), compile(&m).unwrap());
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
    let mut changed = m.clone();
    changed.graph.as_mut().unwrap().initializer[0].float_data[0] += 1.0;
    assert_ne!(compile(&changed).unwrap().model_digest, a.model_digest);
}
