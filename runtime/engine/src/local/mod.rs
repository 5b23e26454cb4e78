//! Local segments, which the device runs itself, and whole models in plaintext.
//!
//! A segment of common f32 operators is compiled to a few fused passes over buffers ([`LocalModel::is_native`]);
//! every other one runs in tract. No other module of this crate knows tract.

mod backend;
mod fuse;
mod graph;
mod lower;
mod native;
mod plain;
mod proto;

use std::borrow::Cow;

use pponnx_kernels::Kernels;
use pponnx_plans::value::Shape;
use tract_onnx::prelude::*;

use self::backend::{Plan, guarded, input_facts, prepared, resolved, tidied};
use self::native::Native;
pub use self::plain::PlainModel;
use crate::value::TensorValue;

/// Why a model could not be read or run. The texts come from the ONNX back end.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The bytes are no model that the back end can read.
    #[error("cannot read the model: {0}")]
    Read(String),
    /// The model does not have the inputs or shapes asked for.
    #[error("the model does not fit the request: {0}")]
    Shape(String),
    /// An operator failed on these inputs.
    #[error("cannot run the model: {0}")]
    Run(String),
}

/// A local segment of a plan, ready to run. Cheap to share between requests.
pub struct LocalModel {
    name: String,
    body: Body,
}

/// What runs a segment.
enum Body {
    Native(Native),
    Tract { plan: Plan, inputs: Vec<(DatumType, Shape)> },
}

impl LocalModel {
    /// Reads an ONNX model whose inputs have fixed types and shapes. Native operators run on the fastest kernels.
    ///
    /// # Errors
    /// [`LocalError::Read`] when the back end refuses the model, or panics on it.
    pub fn load(bytes: &[u8]) -> Result<LocalModel, LocalError> {
        LocalModel::load_with(bytes, Some(Kernels::detect()))
    }

    /// Reads a model for native operators on these kernels; without kernels, tract runs all of it.
    ///
    /// # Errors
    /// As [`LocalModel::load`].
    pub fn load_with(bytes: &[u8], kernels: Option<Kernels>) -> Result<LocalModel, LocalError> {
        guarded(LocalError::Read, || {
            let framework = onnx();
            let mut proto = framework.proto_model_for_read(&mut &bytes[..])?;
            let name = tidied(&mut proto)?.name.clone();
            if let Some(native) = kernels.and_then(|kernels| Some(Native::new(lower::program(&proto)?, kernels))) {
                return Ok(LocalModel { name, body: Body::Native(native) });
            }
            let plan = prepared(|| framework.parse(&proto, None).and_then(resolved))?;
            let inputs = input_facts(&plan)?;
            Ok(LocalModel { name, body: Body::Tract { plan, inputs } })
        })
    }

    /// The name of the model's graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it runs as native operators.
    pub fn is_native(&self) -> bool {
        matches!(self.body, Body::Native(_))
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        match &self.body {
            Body::Native(native) => native.outputs(),
            Body::Tract { plan, .. } => plan.model().outputs.len(),
        }
    }

    /// Runs the model. Inputs and outputs are in the order of its graph.
    ///
    /// # Errors
    /// [`LocalError::Run`] when an operator fails or panics, or an input does not fit.
    pub fn run(&self, inputs: &[&TensorValue]) -> Result<Vec<TensorValue>, LocalError> {
        self.run_owned(inputs.iter().map(|x| Cow::Borrowed(*x)).collect())
    }

    /// Runs the model on inputs of which those that are given away are written over where that saves a copy.
    ///
    /// # Errors
    /// As [`LocalModel::run`].
    pub fn run_owned(&self, inputs: Vec<Cow<'_, TensorValue>>) -> Result<Vec<TensorValue>, LocalError> {
        match &self.body {
            Body::Native(native) => native.run(inputs).map_err(|e| LocalError::Run(e.to_string())),
            Body::Tract { plan, inputs: facts } => {
                backend::run(plan, facts, &inputs.iter().map(|x| &**x).collect::<Vec<_>>())
            }
        }
    }
}
