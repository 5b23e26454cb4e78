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
    let stages: Vec<_> = split.parts.iter().filter_map(|p| if let Part::Stage(s) = p { Some(s) } else { None }).collect();
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
                failures.push(format!("{name} {}: error {e:.1e}, shapes {} {:?}", port.name, got.shape, expected.shape));
            }
        }
    }
    assert!(cases >= 150, "only {cases} cases found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
