//! The network of a case: compiled, with inputs and expected outputs.

use std::path::PathBuf;

use pponnx_compiler::{Compiled, FrontOptions, ModelSource, Options, Precision, schemes};
use pponnx_engine::{PlainModel, TensorValue};
use pponnx_plans::plan::{Bundle, SUITES};
use pponnx_plans::value::DType;

use super::case::Case;
use super::graph;
use crate::{npy, npz, root};

/// A network to compile.
pub enum Source {
    /// From a graph in the case.
    Graph(graph::Network),
    /// A file of the repository.
    File(PathBuf),
}

/// A scheme and a precision.
#[derive(Clone, Copy)]
pub struct Setting {
    /// How.
    pub scheme: &'static dyn schemes::Scheme,
    /// With how many bits.
    pub precision: Precision,
}

impl Setting {
    /// As a heading.
    pub fn name(&self) -> String {
        format!("{} {}", self.scheme.name(), self.precision.name())
    }
}

/// The settings that a case names: every scheme with every precision.
///
/// # Errors
/// An unknown name.
pub fn settings(case: &Case) -> Result<Vec<Setting>, String> {
    let schemes: Vec<&'static dyn schemes::Scheme> = match case.setting("scheme", "relay") {
        "all" => schemes::ALL.to_vec(),
        list => list.split(',').map(schemes::by_name).collect::<Option<_>>().ok_or("1: unknown scheme")?,
    };
    let precisions: Vec<Precision> = match case.setting("precision", "fast") {
        "all" => Precision::ALL.to_vec(),
        list => list.split(',').map(Precision::from_name).collect::<Option<_>>().ok_or("1: unknown precision")?,
    };
    Ok(schemes.iter().flat_map(|s| precisions.iter().map(|p| Setting { scheme: *s, precision: *p })).collect())
}

/// The only setting of a case.
///
/// # Errors
/// If it names several.
pub fn setting(case: &Case) -> Result<Setting, String> {
    match settings(case)?.as_slice() {
        [one] => Ok(*one),
        _ => Err("1: this kind of case takes one scheme and one precision".into()),
    }
}

impl Source {
    /// The network that a case names.
    ///
    /// # Errors
    /// `LINE: what is wrong`.
    pub fn of(case: &Case) -> Result<Source, String> {
        let text = case.text();
        if graph::is_graph(&text) {
            return Ok(Source::Graph(graph::parse(&text)?));
        }
        let line = case.input + 1;
        let path = text.trim().strip_prefix("model ").filter(|p| !p.contains('\n'));
        let path = root().join(path.ok_or(format!("{line}: expected `graph NAME {{` or `model PATH`"))?.trim());
        if path.is_file() { Ok(Source::File(path)) } else { Err(format!("{line}: there is no such model")) }
    }

    /// The network as the compiler takes it.
    pub fn model(&self) -> ModelSource {
        match self {
            Source::Graph(g) => ModelSource::Bytes { name: g.name.clone(), bytes: g.onnx.clone(), dir: None },
            Source::File(path) => ModelSource::Path(path.clone()),
        }
    }

    /// Compiles it.
    ///
    /// # Errors
    /// The compiler's complaints, one a line.
    pub fn compile(&self, setting: Setting) -> Result<Compiled, Vec<String>> {
        let Setting { scheme, precision } = setting;
        let options = Options { scheme, precision, suite: SUITES[0], front: FrontOptions::default() };
        pponnx_compiler::compile(&self.model(), &options)
            .map_err(|e| e.to_string().lines().map(|l| format!("error: {l}")).collect())
    }

    /// Inputs in the order of the bundle's, and the outputs they should give: from the vectors beside the file, else
    /// seeded noise and what the ONNX back end makes of it.
    pub fn vectors(&self, bundle: &Bundle, seed: u64) -> (Vec<TensorValue>, Vec<TensorValue>) {
        if let Source::File(path) = self {
            let beside = path.with_extension("npz");
            if beside.is_file() {
                let found = npz(&beside);
                let pick = |kind: &str, name: &str| {
                    let key = format!("{kind}:{name}");
                    found.iter().find(|(k, _)| *k == key).unwrap_or_else(|| panic!("no array {key}")).1.clone()
                };
                let inputs = bundle.inputs.iter().map(|p| pick("in", &p.name)).collect();
                return (inputs, bundle.outputs.iter().map(|p| pick("out", &p.name)).collect());
            }
            if path.with_file_name("input.npy").is_file() {
                let array = |name: &str| vec![npy(&path.with_file_name(name))];
                return (array("input.npy"), array("expected.npy"));
            }
        }
        let inputs: Vec<TensorValue> = (0u64..)
            .zip(&bundle.inputs)
            .map(|(i, p)| {
                assert_eq!(p.dtype, DType::F32, "inputs of golden networks are f32");
                TensorValue::from_f32(p.shape.clone(), graph::noise(seed * 100 + i + 1, p.shape.len())).unwrap()
            })
            .collect();
        let bytes = match self {
            Source::Graph(g) => g.onnx.clone(),
            Source::File(path) => std::fs::read(path).unwrap(),
        };
        let dir = match self {
            Source::Graph(_) => None,
            Source::File(path) => path.parent(),
        };
        let plain = PlainModel::load(&bytes, dir, &[]).unwrap();
        let expected = plain.run(&inputs).unwrap();
        (inputs, expected)
    }
}
