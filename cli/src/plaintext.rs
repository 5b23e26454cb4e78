//! The model in plaintext: what `verify` and `demo` compare with.

use std::path::Path;
use std::time::Instant;

use pponnx_engine::{PlainModel, TensorValue};
use pponnx_plans::plan::Port;

use crate::failure::{Failure, Outcome};
use crate::foreign::local_failure;

/// The whole network, run locally.
pub struct Plaintext {
    model: PlainModel,
    path: std::path::PathBuf,
    /// Position of each of the model's inputs among the bundle's.
    inputs: Vec<usize>,
    /// Position of each of the bundle's outputs among the model's.
    outputs: Vec<usize>,
}

impl Plaintext {
    /// Prepares a model for the shapes of these ports. `path` is for messages.
    pub fn load(path: &Path, bytes: &[u8], inputs: &[Port], outputs: &[Port]) -> Outcome<Plaintext> {
        let shapes: Vec<(String, Vec<usize>)> = inputs.iter().map(|p| (p.name.clone(), p.shape.0.clone())).collect();
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let model = PlainModel::load(bytes, Some(folder), &shapes).map_err(|e| local_failure(path, &e))?;
        let find = |names: Vec<&str>, name: &str| {
            names.iter().position(|n| *n == name).ok_or_else(|| {
                Box::new(Failure::internal(format!("tensor `{name}` is known to the model or to the plan only")))
            })
        };
        let names = |ports: &'_ [Port]| ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        let (in_names, out_names) = (names(inputs), names(outputs));
        let of_inputs = model.inputs().iter().map(|n| find(in_names.iter().map(String::as_str).collect(), n));
        let of_outputs = out_names.iter().map(|n| find(model.outputs().iter().map(String::as_str).collect(), n));
        let (inputs, outputs) = (of_inputs.collect::<Outcome<_>>()?, of_outputs.collect::<Outcome<_>>()?);
        Ok(Plaintext { model, path: path.to_owned(), inputs, outputs })
    }

    /// Runs it on inputs in the bundle's order; outputs in the bundle's order, and milliseconds.
    pub fn run(&self, values: &[TensorValue]) -> Outcome<(Vec<TensorValue>, f64)> {
        let inputs: Vec<TensorValue> = self.inputs.iter().filter_map(|i| values.get(*i).cloned()).collect();
        let started = Instant::now();
        let results = self.model.run(&inputs).map_err(|e| local_failure(&self.path, &e))?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        Ok((self.outputs.iter().filter_map(|i| results.get(*i).cloned()).collect(), ms))
    }
}
