//! Every operator vector through compiler, all roles and back, against onnxruntime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::BTreeMap;

use pponnx_compiler::Precision;
use pponnx_engine::offline::deal_check;
use pponnx_engine::{Simulation, TensorValue};
use pponnx_kernels::Kernels;
use pponnx_tests::{check_secret, npz, rel_err, root, session, try_compile};

fn cases() -> Vec<String> {
    let folder = root().join("tests/vectors/operators");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().unwrap().strip_suffix(".onnx").map(String::from))
        .collect();
    names.sort();
    assert!(names.len() >= 60, "only {} operator vectors", names.len());
    names
}

fn run(name: &str, scheme: &str, precision: Precision) -> Result<f64, String> {
    let folder = root().join("tests/vectors/operators");
    let compiled = try_compile(&folder.join(format!("{name}.onnx")), scheme, precision)?;
    let vectors: BTreeMap<String, TensorValue> = npz(&folder.join(format!("{name}.npz"))).into_iter().collect();
    let inputs: Vec<TensorValue> = compiled
        .bundle
        .inputs
        .iter()
        .map(|p| vectors.get(&format!("in:{}", p.name)).cloned().ok_or(format!("no vector for input {}", p.name)))
        .collect::<Result<_, _>>()?;
    let outputs: Vec<String> = compiled.bundle.outputs.iter().map(|p| p.name.clone()).collect();
    let check =
        deal_check(&compiled.bundle, &compiled.constants, [1; 16], check_secret(1)).map_err(|e| e.to_string())?;
    let simulation = Simulation::load(compiled.bundle, &compiled.constants, &check, Kernels::detect());
    let simulation = simulation.map_err(|e| e.to_string())?;
    let outcome = simulation.run(&std::sync::Arc::new(session(1)), 0, inputs).map_err(|e| e.to_string())?;
    let mut worst = 0.0f64;
    for (name, got) in outputs.iter().zip(&outcome.outputs) {
        let expected = vectors.get(&format!("out:{name}")).ok_or(format!("no vector for output {name}"))?;
        worst = worst.max(rel_err(got, expected));
    }
    Ok(worst)
}

#[test]
fn operators_agree_with_onnxruntime() {
    let mut failures = Vec::new();
    for name in cases() {
        for precision in [Precision::Precise, Precision::Balanced, Precision::Fast] {
            match run(&name, "relay", precision) {
                Ok(err) if err <= precision.tolerance() => {}
                Ok(err) => failures.push(format!("{name} {}: {err:.2e}", precision.name())),
                Err(e) => {
                    failures.push(format!("{name} {}: {e}", precision.name()));
                    break;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
