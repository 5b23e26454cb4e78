//! One suite for every scheme, precision and instruction set: the same integers as the reference, bit for bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use pponnx_compiler::{Precision, schemes};
use pponnx_engine::{TensorValue, simulate::Traffic};
use pponnx_kernels::Kernels;
use pponnx_keys::Suite;
use pponnx_plans::plan::SUITES;
use pponnx_plans::reference::run as reference;
use pponnx_tests::oracle::{Rig, each, none};
use pponnx_tests::{compile, compile_with, npy, npz, root};

/// Number of the request that runs; not the first, so that streams of another request would be noticed.
const REQUEST: u64 = 5;

/// A model and inputs by name.
struct Case {
    name: String,
    model: PathBuf,
    inputs: BTreeMap<String, TensorValue>,
}

impl Case {
    fn operator(name: &str) -> Case {
        let model = root().join("tests/vectors/operators").join(name).with_extension("onnx");
        let arrays = npz(&model.with_extension("npz"));
        let inputs = arrays.into_iter().filter_map(|(k, v)| Some((k.strip_prefix("in:")?.to_string(), v))).collect();
        Case { name: name.into(), model, inputs }
    }

    fn digits() -> Case {
        let folder = root().join("onnx-models/digits");
        let inputs = [("image".to_string(), npy(&folder.join("input.npy")))].into();
        Case { name: "digits".into(), model: folder.join("model.onnx"), inputs }
    }

    fn rig(&self, scheme: &str, precision: Precision) -> (Rig, Vec<TensorValue>) {
        let rig = Rig::new(compile(&self.model, scheme, precision));
        let inputs = rig.bundle.inputs.iter().map(|p| self.inputs[&p.name].clone()).collect();
        (rig, inputs)
    }

    /// Runs the case on each instruction set against the reference.
    fn run(&self, scheme: &str, precision: Precision) -> Result<(Rig, reference::Outcome, Traffic), String> {
        let failed = |e: String| format!("{} {scheme} {}: {e}", self.name, precision.name());
        let (rig, inputs) = self.rig(scheme, precision);
        let want = rig.reference(REQUEST, &inputs).map_err(failed)?;
        let mut traffic = Traffic::default();
        for isa in Kernels::available() {
            for threads in [1, 2] {
                let kernels = Kernels::with_isa(isa).unwrap().with_threads(threads).unwrap();
                let at = |e: String| failed(format!("{} with {threads} threads: {e}", isa.name()));
                let got = rig.run(&rig.simulation(kernels), REQUEST, &inputs).map_err(at)?;
                rig.compare(&got, &want).map_err(at)?;
                traffic = got.traffic;
            }
        }
        Ok((rig, want, traffic))
    }

    /// All schemes in one precision: the same results of the maps, the same outputs, and of the traffic what each
    /// scheme is for.
    fn all_schemes(&self, precision: Precision) -> Result<(), String> {
        let failed = |what: &str| format!("{} {}: {what}", self.name, precision.name());
        let (rig, plain, open) = self.run("plain", precision)?;
        if rig.wide_results(&plain.sent) != plain.results {
            return Err(failed("results in k bits are not those in 64"));
        }
        if plain.results.len() != rig.bundle.maps.len() {
            return Err(failed("not every map was checked"));
        }
        for scheme in schemes::ALL.iter().map(|s| s.name()).filter(|s| *s != "plain") {
            let (_, got, traffic) = self.run(scheme, precision)?;
            let wrong = |what: &str| Err(failed(&format!("{scheme} has other {what} than plain")));
            if got.results != plain.results {
                return wrong("results of maps");
            }
            if got.outputs != plain.outputs {
                return wrong("outputs");
            }
            // Values are numbered alike on every device that masks; with `plain` they are not.
            if got.exponents.values().ne(plain.exponents.values()) {
                return wrong("exponents");
            }
            let expected = match scheme {
                // Edge B sends as many elements to edge A as edge A to the device.
                "relay" => Traffic { bytes_edge_link: open.bytes_down, ..open },
                // It sends them to the device.
                "two-edge" => Traffic { bytes_down: 2 * open.bytes_down, ..open },
                // They wait in stock.
                "one-time" | "stockpile" => open,
                other => return Err(failed(&format!("the traffic of scheme {other} is not stated here"))),
            };
            if traffic != expected {
                return wrong(&format!("traffic: {traffic:?}, not {expected:?},"));
            }
        }
        Ok(())
    }
}

#[test]
fn digits_in_every_scheme_precision_and_instruction_set() {
    let case = Case::digits();
    none(&each(&Precision::ALL, |p| case.all_schemes(*p)));
}

/// The mask stream changes what is sent and nothing else; `plain` has none.
#[test]
fn digits_with_every_mask_stream() {
    let case = Case::digits();
    let run = |scheme: &str, suite| {
        let rig = Rig::new(compile_with(&case.model, scheme, Precision::Balanced, suite));
        let inputs: Vec<_> = rig.bundle.inputs.iter().map(|p| case.inputs[&p.name].clone()).collect();
        let want = rig.reference(REQUEST, &inputs)?;
        let got = rig.run(&rig.simulation(Kernels::detect()), REQUEST, &inputs)?;
        rig.compare(&got, &want)?;
        Ok(got.payloads.iter().map(|p| p.bytes.clone()).collect::<Vec<_>>())
    };
    let available = |suite: &&&str| Suite::from_name(suite).unwrap().is_available();
    for scheme in schemes::ALL.iter().map(|s| s.name()) {
        let failed = |e: String| panic!("{scheme}: {e}");
        let sent: Vec<_> =
            SUITES.iter().copied().filter(available).map(|s| run(scheme, s).unwrap_or_else(failed)).collect();
        for (i, a) in sent.iter().enumerate() {
            assert!(sent[i + 1..].iter().all(|b| (a == b) == (scheme == "plain")), "{scheme}");
        }
    }
}

#[test]
fn operators_in_every_scheme_precision_and_instruction_set() {
    let folder = root().join("tests/vectors/operators");
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter_map(|n| n.strip_suffix(".onnx").map(String::from)).collect();
    names.sort();
    assert!(names.len() >= 180, "only {} operator vectors", names.len());
    let cases: Vec<(Case, Precision)> =
        names.iter().flat_map(|name| Precision::ALL.map(|p| (Case::operator(name), p))).collect();
    none(&each(&cases, |(case, precision)| case.all_schemes(*precision)));
    let mut seen = BTreeSet::new();
    for (case, _) in &cases {
        seen.extend(case.rig("plain", Precision::Fast).0.bundle.maps.iter().flat_map(|m| &m.ops).map(|op| op.name()));
    }
    for wanted in ["conv", "conv-transpose", "matmul", "add", "sub", "sum-pool"] {
        assert!(seen.contains(wanted), "no operator vector uses the map operation {wanted}; they use {seen:?}");
    }
}
