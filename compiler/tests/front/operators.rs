//! Operator cases with values computed by onnxruntime.

use std::path::Path;

use pponnx_compiler::front::front;
use pponnx_compiler::ir::split::{Part, SplitGraph};
use pponnx_compiler::source::{FrontOptions, ModelSource, Sample};
use pponnx_plans::value::{DType, Shape};

use crate::float::{error, run};
use crate::npz::npz;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/operators")
}

/// Number of stages, and whether each map is one operation with weights.
pub fn summary(split: &SplitGraph) -> (usize, usize, usize) {
    let stages: Vec<_> =
        split.parts.iter().filter_map(|p| if let Part::Stage(s) = p { Some(s) } else { None }).collect();
    let maps = stages.iter().flat_map(|s| &s.maps);
    let single = maps.clone().filter(|m| m.map.ops.len() == 1).count();
    (stages.len(), maps.count(), single)
}

#[test]
fn operator_cases_agree_with_onnxruntime() {
    let mut cases = 0;
    let mut failures = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries.iter().filter(|p| p.extension().is_some_and(|e| e == "onnx")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let arrays = npz(&std::fs::read(path.with_extension("npz")).unwrap());
        cases += 1;
        let split = match front(&ModelSource::Path(path.clone()), &FrontOptions::default()) {
            Ok(split) => split,
            Err(e) => {
                failures.push(format!("{name}: {e}"));
                continue;
            }
        };
        let inputs: Vec<Sample> = split
            .inputs
            .iter()
            .map(|p| {
                let a = &arrays[&format!("in:{}", p.name)];
                Sample { dtype: DType::F32, shape: Shape(a.shape.clone()), data: a.data.clone() }
            })
            .collect();
        let outputs = run(&split, &inputs);
        let (stages, maps, single) = summary(&split);
        for (port, got) in split.outputs.iter().zip(outputs) {
            let expected = &arrays[&format!("out:{}", port.name)];
            let e = error(&got.data, &expected.data);
            println!("{name} {}: {e:.1e}, {stages} stages, {maps} maps, {single} single", port.name);
            if got.shape.0 != expected.shape || e > 2e-6 {
                failures
                    .push(format!("{name} {}: error {e:.1e}, shapes {} {:?}", port.name, got.shape, expected.shape));
            }
        }
    }
    assert!(cases >= 150, "only {cases} cases found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Rounds, maps, and maps that are one operation with weights (which get compact check data).
const STRUCTURE: &[(&str, (usize, usize, usize))] = &[
    // Branches that read the same upload are added at the edge, others on the device.
    ("add_two_branches", (1, 1, 0)),
    ("sum_three_branches", (1, 1, 0)),
    ("add_broadcast_branches", (1, 2, 2)),
    ("graph_two_inputs_added", (1, 2, 2)),
    ("graph_residual_block_with_projection", (2, 3, 3)),
    // Factors and constant terms vanish.
    ("batchnormalization_after_conv", (1, 1, 1)),
    ("convtranspose_batch_norm", (1, 1, 1)),
    ("gemm_alpha_beta", (1, 1, 1)),
    ("batchnormalization_shared_conv", (1, 1, 1)),
    // Padding in front joins the convolution, other movement stays on the device.
    ("pad_before_conv_with_pads", (1, 1, 1)),
    ("pad_after_conv", (1, 1, 1)),
    ("concat_branches", (1, 2, 2)),
    ("split_after_conv", (2, 2, 2)),
    ("flatten_between", (2, 2, 2)),
    // A pool that shrinks joins, one that does not stays.
    ("globalaveragepool_after_conv", (1, 1, 0)),
    ("averagepool_before_conv_count_include_pad_1", (1, 1, 1)),
    // One product per path and round.
    ("graph_two_convs_in_a_row", (2, 2, 2)),
    ("graph_three_gemms_in_a_row", (3, 3, 3)),
    // Products of two variables, and networks without weights.
    ("graph_attention", (2, 4, 4)),
    ("matmul_two_variables", (1, 2, 2)),
    ("graph_light_only", (0, 0, 0)),
    ("graph_non_linear_only", (0, 0, 0)),
];

#[test]
fn the_split_is_the_one_intended() {
    for (name, expected) in STRUCTURE {
        let path = folder().join(name).with_extension("onnx");
        let split = front(&ModelSource::Path(path), &FrontOptions::default()).unwrap();
        assert_eq!(summary(&split), *expected, "{name}");
    }
}

#[test]
fn pools_keep_their_divisor_outside_the_map() {
    let path = folder().join("globalaveragepool_after_conv.onnx");
    let split = front(&ModelSource::Path(path), &FrontOptions::default()).unwrap();
    let Part::Stage(stage) = &split.parts[0] else { panic!("a local segment in front") };
    let (shape, post) = stage.maps[0].post.as_ref().expect("a divisor");
    assert_eq!((shape.len(), post.len()), (1, 1));
    assert!(post[0] < 1.0 && (1.0 / post[0]).fract() == 0.0, "{post:?}");
}
