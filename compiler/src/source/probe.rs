//! Tries a local segment, runs ONNX models for tests, and loads them for measurements.

use std::path::Path;
use std::sync::Arc;

use pponnx_plans::value::{DType, Shape};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::SimplePlan;

use super::guard::guarded;

/// A tensor of the kind that crosses segments, as `f32`; other types hold the same numbers.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Element type in the model.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
    /// Elements.
    pub data: Vec<f32>,
}

type Plan = Arc<SimplePlan<TypedFact, Box<dyn TypedOp>>>;

/// How far a model is rewritten before it runs, as in the runtime: later stages are for models that an earlier one
/// breaks.
const STAGES: [fn(InferenceModel) -> TractResult<TypedModel>; 3] =
    [|m| m.into_optimized(), |m| m.into_typed()?.into_decluttered(), |m| m.into_typed()];

/// Loads an ONNX model and runs it once.
///
/// # Errors
/// What the reader or the operators say, panics included.
pub fn probe(onnx: &[u8], inputs: &[Sample]) -> Result<Vec<Sample>, String> {
    let attempt = |stage| flat(guarded(|| prepare(onnx, stage)));
    let mut first = None;
    for stage in STAGES {
        match attempt(stage) {
            Ok(plan) => return flat(guarded(|| run(&plan, inputs))),
            Err(e) => first = first.or(Some(e)),
        }
    }
    Err(first.unwrap_or_default())
}

/// Loads a model and types it, and does nothing with it: what compiling takes is measured against this.
///
/// # Errors
/// What the reader says, panics included.
pub fn load_and_type(path: &Path) -> Result<(), String> {
    let typed = || tract_onnx::onnx().with_ignore_value_info(true).model_for_path(path)?.into_typed().map(drop);
    flat(guarded(typed))
}

fn flat<T>(result: Result<TractResult<T>, String>) -> Result<T, String> {
    result.and_then(|r| r.map_err(|e| format!("{e:#}")))
}

fn prepare(onnx: &[u8], stage: fn(InferenceModel) -> TractResult<TypedModel>) -> TractResult<Plan> {
    stage(tract_onnx::onnx().model_for_read(&mut &onnx[..])?)?.into_runnable()
}

fn run(plan: &Plan, inputs: &[Sample]) -> TractResult<Vec<Sample>> {
    let tensors = inputs.iter().map(|s| {
        let t = Tensor::from_shape(&s.shape.0, &s.data)?;
        Ok(t.cast_to_dt(datum_type(s.dtype))?.into_owned().into_tvalue())
    });
    let outputs = plan.run(tensors.collect::<TractResult<TVec<_>>>()?)?;
    let sample = |t: TValue| {
        let cast = t.cast_to::<f32>()?;
        let data = cast.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        let dtype = super::dtype_of(t.datum_type()).unwrap_or(DType::F32);
        Ok(Sample { dtype, shape: Shape(t.shape().to_vec()), data })
    };
    outputs.into_iter().map(sample).collect()
}

fn datum_type(dtype: DType) -> DatumType {
    match dtype {
        DType::Bool => DatumType::Bool,
        DType::U8 => DatumType::U8,
        DType::I8 => DatumType::I8,
        DType::U16 => DatumType::U16,
        DType::I16 => DatumType::I16,
        DType::U32 => DatumType::U32,
        DType::I32 => DatumType::I32,
        DType::U64 => DatumType::U64,
        DType::I64 => DatumType::I64,
        DType::F16 => DatumType::F16,
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
    }
}
