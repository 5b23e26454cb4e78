//! Sub-models and whole models in plaintext.

use pponnx_engine::{Elements, LocalError, LocalModel, PlainModel, TensorValue};

use crate::onnx::{BOOL, FLOAT, INT64, model, node, relu, value};

#[test]
fn a_sub_model_runs_with_several_types() {
    let io = |name, dtype| value(name, dtype, &[Some(2), Some(2)]);
    let nodes = [node("Greater", &["a", "b"], &["greater"]), node("Add", &["i", "i"], &["sum"])];
    let bytes = model(
        "compare",
        &nodes,
        &[io("a", FLOAT), io("b", FLOAT), io("i", INT64)],
        &[io("greater", BOOL), io("sum", INT64)],
    );
    let local = LocalModel::load(&bytes).unwrap();
    assert_eq!((local.name(), local.outputs()), ("compare", 2));
    let a = TensorValue::from_f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    let b = TensorValue::from_f32(vec![2, 2], vec![2.0, 2.0, 2.0, 2.0]).unwrap();
    let i = TensorValue::new(vec![2, 2], Elements::I64(vec![1, -2, 1 << 40, 0])).unwrap();
    let out = local.run(&[&a, &b, &i]).unwrap();
    assert_eq!(out[0].elements(), &Elements::Bool(vec![false, false, true, true]));
    assert_eq!(out[1].elements(), &Elements::I64(vec![2, -4, 1 << 41, 0]));
}

#[test]
fn wrong_inputs_and_broken_models_are_errors() {
    let local = LocalModel::load(&relu(&[1, 4])).unwrap();
    let good = TensorValue::from_f32(vec![1, 4], vec![-1.0, 2.0, -3.0, 4.0]).unwrap();
    assert_eq!(local.run(&[&good]).unwrap()[0].as_f32().unwrap(), [0.0, 2.0, 0.0, 4.0]);
    let wide = TensorValue::from_f32(vec![4, 1], vec![0.0; 4]).unwrap();
    assert!(matches!(local.run(&[&wide]), Err(LocalError::Run(_))));
    assert!(matches!(local.run(&[]), Err(LocalError::Run(_))));
    let double = TensorValue::new(vec![1, 4], Elements::F64(vec![0.0; 4])).unwrap();
    assert!(matches!(local.run(&[&double]), Err(LocalError::Run(_))));

    assert!(matches!(LocalModel::load(b"not a model"), Err(LocalError::Read(_))));
    let io = |name| value(name, FLOAT, &[Some(1), Some(4)]);
    let unknown = model("m", &[node("NoSuchOperator", &["x"], &["y"])], &[io("x")], &[io("y")]);
    assert!(matches!(LocalModel::load(&unknown), Err(LocalError::Read(_))));
    // tract panics on an output that nobody makes.
    let nobody = model("m", &[node("Relu", &["x"], &["y"])], &[io("x")], &[io("z")]);
    assert!(matches!(LocalModel::load(&nobody), Err(LocalError::Read(_))));
    let loose = model("m", &[node("Add", &["x", "nowhere"], &["y"])], &[io("x")], &[io("y")]);
    assert!(matches!(LocalModel::load(&loose), Err(LocalError::Read(_))));
    let open =
        model("m", &[node("Relu", &["x"], &["y"])], &[value("x", FLOAT, &[None])], &[value("y", FLOAT, &[None])]);
    assert!(matches!(LocalModel::load(&open), Err(LocalError::Read(_))));
}

/// Every prefix of a model, and the model with each byte damaged: an error or a model, never a panic.
#[test]
fn damaged_models_do_not_panic() {
    let bytes = relu(&[1, 2]);
    for cut in 0..bytes.len() {
        let _ = LocalModel::load(&bytes[..cut]);
        let mut damaged = bytes.clone();
        damaged[cut] ^= 0x55;
        let _ = LocalModel::load(&damaged);
    }
}

#[test]
fn a_whole_model_gets_its_shapes_pinned() {
    let open = [None, Some(3)];
    // Unsorted, and both nodes have the same name.
    let nodes = [node("Relu", &["sum"], &["y"]), node("Add", &["a", "b"], &["sum"])];
    let inputs = [value("a", FLOAT, &open), value("b", FLOAT, &[Some(3)])];
    let bytes = model("net", &nodes, &inputs, &[value("y", FLOAT, &open), value("sum", FLOAT, &open)]);
    assert!(matches!(PlainModel::load(&bytes, None, &[]), Err(LocalError::Read(_))));
    let wrong = PlainModel::load(&bytes, None, &[("c".into(), vec![2, 3])]);
    assert!(matches!(wrong, Err(LocalError::Shape(_))));
    let net = PlainModel::load(&bytes, None, &[("a".into(), vec![2, 3])]).unwrap();
    assert_eq!((net.inputs(), net.outputs()), (&["a".into(), "b".into()][..], &["y".into(), "sum".into()][..]));
    let a = TensorValue::from_f32(vec![2, 3], vec![1.0, 2.0, 3.0, -9.0, 0.0, 9.0]).unwrap();
    let b = TensorValue::from_f32(vec![3], vec![1.0, -5.0, 0.5]).unwrap();
    let out = net.run(&[a, b]).unwrap();
    assert_eq!(out[0].as_f32().unwrap(), [2.0, 0.0, 3.5, 0.0, 0.0, 9.5]);
    assert_eq!(out[1].as_f32().unwrap(), [2.0, -3.0, 3.5, -8.0, -5.0, 9.5]);
    let cycle = [node("Add", &["a", "y"], &["x"]), node("Relu", &["x"], &["y"])];
    let bytes = model("net", &cycle, &[value("a", FLOAT, &[Some(1)])], &[value("y", FLOAT, &[Some(1)])]);
    assert!(matches!(PlainModel::load(&bytes, None, &[]), Err(LocalError::Read(_))));
}
