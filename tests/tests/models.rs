//! Whole trained networks: the bundled one always, those of `PPONNX_MODELS` where they are at hand.
//!
//! Each is compiled once a precision. One input is compared with onnxruntime's outputs in every precision; labelled
//! data, a sample spread over the set, with the classes that onnxruntime predicts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::fs::File;
use std::path::Path;

use ndarray::{IxDyn, OwnedRepr};
use ndarray_npy::NpzReader;
use pponnx_compiler::Precision;
use pponnx_engine::{Simulation, TensorValue};
use pponnx_kernels::Kernels;
use pponnx_tests::oracle::{Rig, each, none};
use pponnx_tests::{argmax, compile, npy, npz, rel_err, root, shared_models};

/// How the elements of a labelled input become the network's.
#[derive(Clone, Copy)]
enum Convert {
    /// As they are.
    AsIs,
    /// Channels first; `(x - mean) * factor` of each channel.
    Image([f32; 3], [f32; 3]),
    /// Channels first and in the opposite order, divided by 255.
    Reversed,
}

/// The inputs and predictions of an .npz file.
struct Labelled {
    inputs: Vec<Vec<f32>>,
    predicted: Vec<f64>,
}

fn floats(file: &mut NpzReader<File>, name: &str) -> (Vec<usize>, Vec<f32>) {
    macro_rules! attempt {
        ($($type:ty),*) => {$(
            if let Ok(a) = file.by_name::<OwnedRepr<$type>, IxDyn>(name) {
                return (a.shape().to_vec(), a.iter().map(|v| *v as f32).collect());
            }
        )*};
    }
    attempt!(u8, i64, f32);
    panic!("no array {name}, or one of another type");
}

impl Labelled {
    /// At most `most` of a file's rows, spread evenly.
    fn read(path: &Path, convert: Convert, most: usize) -> Labelled {
        let mut file = NpzReader::new(File::open(path).unwrap()).unwrap();
        let (shape, x) = floats(&mut file, "x.npy");
        let (_, predicted) = floats(&mut file, "ort_pred.npy");
        let (rows, row) = (shape[0], x.len() / shape[0]);
        assert_eq!(predicted.len(), rows);
        let picked: Vec<usize> = (0..rows.min(most)).map(|i| i * rows / rows.min(most)).collect();
        Labelled {
            inputs: picked.iter().map(|i| convert.apply(&shape[1..], &x[i * row..][..row])).collect(),
            predicted: picked.iter().map(|i| f64::from(predicted[*i])).collect(),
        }
    }
}

impl Convert {
    fn apply(self, shape: &[usize], x: &[f32]) -> Vec<f32> {
        let planes = |of: &dyn Fn(usize) -> (usize, f32, f32)| {
            let &[h, w, 3] = shape else { panic!("an image of shape {shape:?}") };
            let plane = |c: usize| {
                let (from, mean, factor) = of(c);
                (0..h * w).map(move |i| (x[3 * i + from] - mean) * factor)
            };
            (0..3).flat_map(plane).collect()
        };
        match self {
            Convert::AsIs => x.to_vec(),
            Convert::Image(mean, factor) => planes(&|c| (c, mean[c], factor[c])),
            Convert::Reversed => planes(&|c| (2 - c, 0.0, 1.0 / 255.0)),
        }
    }
}

/// A compiled model that runs.
struct Network {
    rig: Rig,
    simulation: Simulation,
}

impl Network {
    fn new(folder: &Path, precision: Precision) -> Network {
        let rig = Rig::new(compile(&folder.join("model.onnx"), "relay", precision));
        let simulation = rig.simulation(Kernels::detect());
        Network { rig, simulation }
    }

    fn run(&self, request: usize, input: Vec<f32>) -> Vec<TensorValue> {
        let [port] = self.rig.bundle.inputs.as_slice() else { panic!("networks here have one input") };
        let input = TensorValue::from_f32(port.shape.clone(), input).unwrap();
        self.rig.run(&self.simulation, request as u64, &[input]).unwrap().outputs
    }

    /// An output by name.
    fn output<'a>(&self, name: &str, outputs: &'a [TensorValue]) -> &'a TensorValue {
        &outputs[self.rig.bundle.outputs.iter().position(|p| p.name == name).unwrap()]
    }
}

/// The outputs for `input.npy` in every precision, and what the labelled inputs give at `balanced`.
/// `agrees(network, input, outputs, prediction)` tells whether a prediction is that of onnxruntime.
fn check(
    folder: &Path,
    labelled: Option<Labelled>,
    agrees: impl Fn(&Network, &[f32], &[TensorValue], f64) -> Result<(), String> + Sync,
) {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let input = npy(&folder.join("input.npy"));
    let mut complaints = Vec::new();
    for precision in Precision::ALL {
        let network = Network::new(folder, precision);
        assert_eq!(network.rig.bundle.inputs[0].shape, *input.shape());
        let outputs = network.run(0, input.as_f32().unwrap().to_vec());
        for (port, got) in network.rig.bundle.outputs.iter().zip(&outputs) {
            let expected = match folder.join("expected.npy") {
                file if file.is_file() => npy(&file),
                _ => npz(&folder.join("expected.npz")).into_iter().find(|(n, _)| *n == port.name).unwrap().1,
            };
            let (apart, bar) = (rel_err(got, &expected), precision.tolerance());
            eprintln!("{name} {}: `{}` is {apart:.2e} away", precision.name(), port.name);
            if apart.is_nan() || apart > bar {
                complaints.push(format!("{name} {}: {apart:.2e} is above {bar:e}", precision.name()));
            }
            if argmax(got) != argmax(&expected) {
                complaints.push(format!("{name} {}: another argmax of `{}`", precision.name(), port.name));
            }
        }
        let rows: Vec<usize> = match (&labelled, precision) {
            (Some(l), Precision::Balanced) => (0..l.inputs.len()).collect(),
            _ => continue,
        };
        complaints.extend(each(&rows, |i| {
            let (input, wanted) = labelled.as_ref().map(|l| (&l.inputs[*i], l.predicted[*i])).unwrap();
            let outputs = network.run(1 + i, input.clone());
            agrees(&network, input, &outputs, wanted).map_err(|e| format!("{name}, labelled input {i}: {e}"))
        }));
    }
    none(&complaints);
}

fn same(got: usize, wanted: f64) -> Result<(), String> {
    if got as f64 == wanted { Ok(()) } else { Err(format!("{got} instead of {wanted}")) }
}

fn class(_: &Network, _: &[f32], outputs: &[TensorValue], wanted: f64) -> Result<(), String> {
    same(argmax(&outputs[0]), wanted)
}

/// A shared model whose labelled inputs have a class.
fn classifier(name: &str, convert: Convert, most: usize) {
    let Some(folder) = shared_models().map(|m| m.join(name)) else { return };
    let labelled = Labelled::read(&folder.join("labeled.npz"), convert, most);
    check(&folder, Some(labelled), class);
}

const BYTES: Convert = Convert::Image([0.0; 3], [1.0 / 255.0; 3]);

#[test]
fn mlperf_ic_resnet8() {
    classifier("mlperf_ic_resnet8", Convert::Image([0.0; 3], [1.0; 3]), 100);
}

#[test]
fn mlperf_vww_mbv1_025() {
    classifier("mlperf_vww_mbv1_025", BYTES, 51);
}

#[test]
fn mlperf_kws_dscnn() {
    classifier("mlperf_kws_dscnn", Convert::AsIs, 43);
}

#[test]
fn mnist_cntk() {
    classifier("mnist_cntk", Convert::AsIs, 100);
}

#[test]
fn mobilenetv2_imagenet() {
    let deviation = [0.229, 0.224, 0.225].map(|s: f32| 1.0 / (255.0 * s));
    classifier("mobilenetv2_imagenet", Convert::Image([0.485, 0.456, 0.406].map(|m| 255.0 * m), deviation), 8);
}

#[test]
fn mobilefacenet_128() {
    let Some(folder) = shared_models().map(|m| m.join("mobilefacenet_128")) else { return };
    check(&folder, None, class);
}

#[test]
fn mlperf_ad_autoencoder() {
    let Some(folder) = shared_models().map(|m| m.join("mlperf_ad_autoencoder")) else { return };
    let labelled = Labelled::read(&folder.join("labeled.npz"), Convert::AsIs, 100);
    check(&folder, Some(labelled), |_, input, outputs, wanted| {
        let output = outputs[0].elements().to_f64();
        let squares = input.iter().zip(&output).map(|(x, y)| (f64::from(*x) - y).powi(2));
        let error = squares.sum::<f64>() / output.len() as f64;
        let apart = (error - wanted).abs() / wanted;
        if apart <= 1e-3 { Ok(()) } else { Err(format!("reconstruction error {error} instead of {wanted}")) }
    });
}

#[test]
fn ultraface_rfb320() {
    let Some(folder) = shared_models().map(|m| m.join("ultraface_rfb320")) else { return };
    let convert = Convert::Image([127.0; 3], [1.0 / 128.0; 3]);
    let labelled = Labelled::read(&folder.join("labeled.npz"), convert, 5);
    check(&folder, Some(labelled), |network, _, outputs, wanted| {
        let scores = network.output("scores", outputs).elements().to_f64();
        let boxes = network.output("boxes", outputs).elements().to_f64();
        same(faces(&scores, &boxes), wanted)
    });
}

/// Boxes with a face score above 0.7, each counted unless it overlaps a stronger one by more than 0.3 of their union.
fn faces(scores: &[f64], boxes: &[f64]) -> usize {
    let mut found: Vec<(f64, &[f64])> = scores
        .chunks_exact(2)
        .zip(boxes.chunks_exact(4))
        .filter_map(|(s, b)| (s[1] > 0.7).then_some((s[1], b)))
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let area = |b: &[f64]| (b[2] - b[0]) * (b[3] - b[1]);
    let overlap = |a: &[f64], b: &[f64]| {
        let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
        let both = side(0) * side(1);
        both / (area(a) + area(b) - both)
    };
    let mut kept: Vec<&[f64]> = Vec::new();
    for (_, b) in found {
        if kept.iter().all(|k| overlap(k, b) <= 0.3) {
            kept.push(b);
        }
    }
    kept.len()
}

#[test]
fn fastestdet_coco() {
    let Some(folder) = shared_models().map(|m| m.join("fastestdet_coco")) else { return };
    // The network reads BGR; the photographs are RGB, which `ort_pred` of the fifth tells.
    let labelled = Labelled::read(&folder.join("labeled.npz"), Convert::Reversed, 6);
    check(&folder, Some(labelled), |_, _, outputs, wanted| {
        // [1, 85, 22, 22]: a cell's objectness, its box, and 80 class scores.
        let y = outputs[0].elements().to_f64();
        let cells = y.len() / 85;
        let best =
            |of: &dyn Fn(usize) -> f64, n: usize| (0..n).fold(0, |best, i| if of(i) > of(best) { i } else { best });
        let class = |cell: usize| best(&|c| y[(5 + c) * cells + cell], 80);
        let cell = best(&|cell| y[cell] * y[(5 + class(cell)) * cells + cell], cells);
        same(class(cell), wanted)
    });
}

#[test]
fn digits_over_all_held_out_images() {
    let folder = root().join("onnx-models/digits");
    let mut labelled = Labelled::read(&folder.join("heldout.npz"), Convert::AsIs, usize::MAX);
    labelled.inputs.iter_mut().flatten().for_each(|v| *v /= 16.0);
    let count = labelled.inputs.len();
    let (_, truth) = floats(&mut NpzReader::new(File::open(folder.join("heldout.npz")).unwrap()).unwrap(), "y.npy");
    let right = labelled.predicted.iter().zip(&truth).filter(|(p, y)| **p == f64::from(**y)).count();
    // Agreement with every prediction, tested below, makes the README's accuracy ours.
    let stated = format!("({right} of {count})");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains(&stated), "the README does not say {stated}");
    check(&folder, Some(labelled), class);
}
