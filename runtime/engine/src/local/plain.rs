//! Whole networks in plaintext.

use std::path::Path;

use pponnx_plans::value::{DType, Shape};
use tract_onnx::model::ParseResult;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{TractErrorContext, ensure};

use super::LocalError;
use super::backend::{Plan, dtype_of, guarded, input_facts, prepared, run, tidied};
use crate::value::TensorValue;

/// The whole network in plaintext, as the reference of `verify`.
pub struct PlainModel {
    plan: Plan,
    facts: Vec<(DatumType, Shape)>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl PlainModel {
    /// Reads an ONNX model and pins the shapes of its inputs.
    ///
    /// `dir` is the folder of its external data, if it has some; `shapes` names inputs with the shape each is to get,
    /// needed where the model leaves an axis open.
    ///
    /// # Errors
    /// [`LocalError::Read`] when the back end refuses the model, [`LocalError::Shape`] when a name in `shapes` is not
    /// an input.
    pub fn load(bytes: &[u8], dir: Option<&Path>, shapes: &[(String, Vec<usize>)]) -> Result<PlainModel, LocalError> {
        let framework = onnx().with_ignore_value_info(!shapes.is_empty());
        let (proto, inputs, outputs) = guarded(LocalError::Read, || {
            let mut proto = framework.proto_model_for_read(&mut &bytes[..])?;
            let graph = tidied(&mut proto)?;
            let is_constant = |name: &str| graph.initializer.iter().any(|t| t.name == name);
            let inputs: Vec<String> =
                graph.input.iter().map(|i| i.name.clone()).filter(|name| !is_constant(name)).collect();
            let outputs: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
            Ok((proto, inputs, outputs))
        })?;
        if let Some((name, _)) = shapes.iter().find(|(name, _)| !inputs.contains(name)) {
            return Err(LocalError::Shape(format!("{name:?} is no input; inputs are {inputs:?}")));
        }
        let dir = dir.map(|d| d.to_string_lossy().into_owned());
        guarded(LocalError::Read, || {
            let plan = prepared(|| {
                let ParseResult { mut model, .. } = framework.parse(&proto, dir.as_deref())?;
                let outlets = model.input_outlets()?.to_vec();
                ensure!(outlets.len() == inputs.len(), "the graph reads a tensor that nobody makes");
                for (name, shape) in shapes {
                    let slot = inputs.iter().position(|i| i == name).context("unknown input")?;
                    let dtype = model.outlet_fact(outlets[slot])?.datum_type();
                    let fact = InferenceFact::shape(shape.as_slice());
                    let fact = match dtype {
                        Some(dtype) => fact.with_datum_type(dtype),
                        None => fact,
                    };
                    model.set_input_fact(slot, fact)?;
                }
                Ok(model)
            })?;
            let facts = input_facts(&plan)?;
            Ok(PlainModel { plan, facts, inputs, outputs })
        })
    }

    /// Names of the inputs, in the order `run` takes them.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Shapes and element types of the inputs; `None` for a type that no tensor of ours can have.
    pub fn input_types(&self) -> Vec<(Option<DType>, Shape)> {
        self.facts.iter().map(|(dtype, shape)| (dtype_of(*dtype), shape.clone())).collect()
    }

    /// Names of the outputs, in the order `run` returns them.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Runs the network.
    ///
    /// # Errors
    /// [`LocalError::Run`] as [`crate::LocalModel::run`].
    pub fn run(&self, inputs: &[TensorValue]) -> Result<Vec<TensorValue>, LocalError> {
        run(&self.plan, &self.facts, &inputs.iter().collect::<Vec<_>>())
    }
}
