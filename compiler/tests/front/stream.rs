//! Large initialisers: however they reach the compiler, the split network is the same.

use std::path::Path;

use pponnx_compiler::front::front;
use pponnx_compiler::ir::split::{Part, SplitGraph};
use pponnx_compiler::source::{FrontOptions, Message, ModelSource, pb};

const SIDE: usize = 192;

fn value(name: &str) -> pb::ValueInfoProto {
    let dim = |d: i64| pb::tensor_shape_proto::Dimension {
        value: Some(pb::tensor_shape_proto::dimension::Value::DimValue(d)),
        ..Default::default()
    };
    let shape = pb::TensorShapeProto { dim: vec![dim(1), dim(SIDE as i64)] };
    let tensor = pb::type_proto::Tensor { elem_type: 1, shape: Some(shape) };
    let r#type = pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() };
    pb::ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

/// Two products, each with weights of 144 kB.
fn model() -> pb::ModelProto {
    let weights = |name: &str, by: f32| pb::TensorProto {
        name: name.into(),
        dims: vec![SIDE as i64; 2],
        data_type: 1,
        raw_data: (0..SIDE * SIDE).flat_map(|i| ((i % 97) as f32 * by - 1.0).to_le_bytes()).collect(),
        ..Default::default()
    };
    let node = |name: &str, op: &str, input: &[&str], output: &str| pb::NodeProto {
        name: name.into(),
        op_type: op.into(),
        input: input.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    let graph = pb::GraphProto {
        name: "two".into(),
        node: vec![
            node("first", "MatMul", &["x", "w1"], "h"),
            node("relu", "Relu", &["h"], "r"),
            node("second", "MatMul", &["r", "w2"], "y"),
        ],
        initializer: vec![weights("w1", 0.02), weights("w2", 0.03)],
        input: vec![value("x")],
        output: vec![value("y")],
        ..Default::default()
    };
    let opset = pb::OperatorSetIdProto { version: 13, ..Default::default() };
    pb::ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..Default::default() }
}

fn from_path(path: &Path) -> SplitGraph {
    front(&ModelSource::Path(path.into()), &FrontOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn maps(split: &SplitGraph) -> String {
    let stages = split.parts.iter().filter_map(|p| if let Part::Stage(s) = p { Some(&s.maps) } else { None });
    stages.map(|maps| format!("{maps:?}")).collect()
}

#[test]
fn weights_in_the_file_in_memory_and_beside_it_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let mut model = model();
    let bytes = model.encode_to_vec();
    std::fs::write(&path, &bytes).unwrap();
    let streamed = from_path(&path);
    assert_eq!(streamed.model_digest, *blake3::hash(&bytes).as_bytes());

    let held = ModelSource::Bytes { name: "model".into(), bytes, dir: None };
    let held = front(&held, &FrontOptions::default()).unwrap();
    assert_eq!((maps(&streamed), streamed.model_digest), (maps(&held), held.model_digest));

    // Through a link to another folder, as model stores on disk have them.
    #[cfg(unix)]
    {
        let other = tempfile::tempdir().unwrap();
        let link = other.path().join("link.onnx");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(maps(&from_path(&link)), maps(&streamed));
    }

    // One of them in a file of its own.
    let first = &mut model.graph.as_mut().unwrap().initializer[0];
    std::fs::write(dir.path().join("w1.bin"), std::mem::take(&mut first.raw_data)).unwrap();
    let entry = |key: &str, value: &str| pb::StringStringEntryProto { key: key.into(), value: value.into() };
    first.external_data = vec![entry("location", "w1.bin")];
    first.data_location = Some(1);
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let beside = from_path(&path);
    assert_eq!(maps(&beside), maps(&streamed));
    assert_ne!(beside.model_digest, streamed.model_digest);
    std::fs::write(dir.path().join("w1.bin"), [0; 9]).unwrap();
    assert!(front(&ModelSource::Path(path), &FrontOptions::default()).is_err());
}
