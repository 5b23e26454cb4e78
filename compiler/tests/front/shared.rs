//! Real models, where they are at hand.

use std::path::{Path, PathBuf};

use pponnx_compiler::front::front;
use pponnx_compiler::ir::split::SplitGraph;
use pponnx_compiler::source::{FrontOptions, ModelSource, Sample};
use pponnx_plans::value::{DType, Shape};

use crate::float::{error, run};
use crate::npz::{Array, npy, npz};
use crate::operators::summary;

fn sample(a: &Array) -> Sample {
    Sample { dtype: DType::F32, shape: Shape(a.shape.clone()), data: a.data.clone() }
}

fn compile(dir: &Path, input: Option<&Array>) -> SplitGraph {
    let source = ModelSource::Path(dir.join("model.onnx"));
    let split = front(&source, &FrontOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    match input {
        Some(a) if split.inputs[0].shape.0 != a.shape => {
            let shape = a.shape.iter().map(|d| Some(*d)).collect();
            let options = FrontOptions { shapes: [(split.inputs[0].name.clone(), shape)].into() };
            front(&source, &options).unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        }
        _ => split,
    }
}

/// Models with the number of rounds that rules 1 to 3 give them.
const ROUNDS: &[(&str, usize)] = &[
    ("fastestdet_coco", 57),
    ("mlperf_ad_autoencoder", 10),
    ("mlperf_ic_resnet8", 8),
    ("mlperf_kws_dscnn", 10),
    ("mlperf_vww_mbv1_025", 28),
    ("mnist_cntk", 3),
    ("mobilefacenet_128", 51),
    ("mobilenetv2_imagenet", 53),
    ("ultraface_rfb320", 32),
];

#[test]
fn shared_models_keep_their_outputs() {
    let Ok(root) = std::env::var("PPONNX_MODELS") else {
        println!("skipped: PPONNX_MODELS is not set");
        return;
    };
    let mut failures = Vec::new();
    for (name, rounds) in ROUNDS {
        let dir = PathBuf::from(&root).join(name);
        let input = npy(&std::fs::read(dir.join("input.npy")).unwrap());
        let split = compile(&dir, Some(&input));
        let (stages, maps, single) = summary(&split);
        let outputs = run(&split, &[sample(&input)]);
        let expected: Vec<Array> = match std::fs::read(dir.join("expected.npy")) {
            Ok(bytes) => vec![npy(&bytes)],
            Err(_) => {
                let arrays = npz(&std::fs::read(dir.join("expected.npz")).unwrap());
                split.outputs.iter().map(|p| arrays[&p.name].clone()).collect()
            }
        };
        for (got, expected) in outputs.iter().zip(&expected) {
            let e = error(&got.data, &expected.data);
            println!("{name}: {e:.1e}, {stages} stages, {maps} maps, {single} single");
            if e > 1e-5 {
                failures.push(format!("{name}: error {e:.1e}"));
            }
        }
        if stages != *rounds {
            failures.push(format!("{name}: {stages} rounds instead of {rounds}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Compares with the ONNX reader's runtime on the whole model; names of folders in the environment.
#[test]
fn generated_classics_keep_their_outputs() {
    let Ok(names) = std::env::var("PPONNX_CLASSICS") else {
        println!("skipped: PPONNX_CLASSICS is not set");
        return;
    };
    for name in names.split(',') {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx-models/generated").join(name);
        let split = compile(&dir, None);
        let (stages, maps, single) = summary(&split);
        println!("{name}: {stages} stages, {maps} maps, {single} single");
        let inputs: Vec<Sample> = split
            .inputs
            .iter()
            .map(|p| {
                let value = |i: usize| ((i * 2_654_435_761) % 2001) as f32 / 1000.0 - 1.0;
                Sample { dtype: p.dtype, shape: p.shape.clone(), data: (0..p.shape.len()).map(value).collect() }
            })
            .collect();
        let whole = pponnx_compiler::source::probe(&std::fs::read(dir.join("model.onnx")).unwrap(), &inputs).unwrap();
        for (got, expected) in run(&split, &inputs).iter().zip(&whole) {
            let e = error(&got.data, &expected.data);
            println!("{name}: error {e:.1e}");
            assert!(e < 1e-5, "{name}: error {e:.1e}");
        }
    }
}
