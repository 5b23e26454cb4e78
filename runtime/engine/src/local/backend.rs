//! tract: reads ONNX models, prepares them and runs them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pponnx_plans::value::{DType, Shape};
use tract_onnx::model::ParseResult;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::TractErrorContext;
use tract_onnx::tract_core::plan::SimplePlan;

use super::LocalError;
use crate::value::{Elements, TensorValue};

/// A model ready to run.
pub type Plan = Arc<SimplePlan<TypedFact, Box<dyn TypedOp>>>;

/// How far a model is rewritten before it runs. Later stages are fallbacks for models that an earlier one breaks.
const STAGES: [fn(InferenceModel) -> TractResult<TypedModel>; 3] =
    [|m| m.into_optimized(), |m| m.into_typed()?.into_decluttered(), |m| m.into_typed()];

/// Runs back-end code; its errors and its panics become ours.
pub fn guarded<T>(
    error: impl Fn(String) -> LocalError + Copy,
    body: impl FnOnce() -> TractResult<T>,
) -> Result<T, LocalError> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result.map_err(|e| error(format!("{e:#}"))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
            Err(error(format!("the back end panicked: {}", text.unwrap_or_else(|| "no message".into()))))
        }
    }
}

/// The runnable plan of the first stage that works; the error of the first that does not.
pub fn prepared(model: impl Fn() -> TractResult<InferenceModel>) -> TractResult<Plan> {
    let mut first = None;
    for stage in STAGES {
        let attempt = catch_unwind(AssertUnwindSafe(|| model().and_then(stage).and_then(|m| m.into_runnable())));
        match attempt {
            Ok(Ok(plan)) => return Ok(plan),
            Ok(Err(e)) => first = first.or(Some(e)),
            Err(_) => first = first.or(Some(TractError::msg("the back end panicked while preparing the model"))),
        }
    }
    Err(first.unwrap_or_else(|| TractError::msg("no way to prepare the model")))
}

/// The model, unless it reads tensors that nobody makes.
pub fn resolved(result: ParseResult) -> TractResult<InferenceModel> {
    match result.unresolved_inputs.first() {
        Some(name) => Err(TractError::msg(format!("the graph reads {name:?}, which nobody makes"))),
        None => Ok(result.model),
    }
}

/// The graph of a model, its nodes sorted and renamed: two may share a name in ONNX but not in tract.
pub fn tidied(proto: &mut pb::ModelProto) -> TractResult<&mut pb::GraphProto> {
    let graph = proto.graph.as_mut().context("the file holds no graph")?;
    sort(graph)?;
    for (i, node) in graph.node.iter_mut().enumerate() {
        node.name = format!("#{i}");
    }
    Ok(graph)
}

/// Puts nodes in an order in which every tensor is made before it is read. tract takes any order, but a file may
/// hold a cycle, which must be an error and not a hang.
fn sort(graph: &mut pb::GraphProto) -> TractResult<()> {
    let made: std::collections::HashSet<String> = graph.node.iter().flat_map(|n| n.output.iter().cloned()).collect();
    let mut ready = std::collections::HashSet::new();
    let mut waiting = std::mem::take(&mut graph.node);
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut later = Vec::new();
        for node in waiting {
            if node.input.iter().all(|i| !made.contains(i) || ready.contains(i)) {
                ready.extend(node.output.iter().cloned());
                graph.node.push(node);
            } else {
                later.push(node);
            }
        }
        if later.len() == before {
            return Err(TractError::msg("the graph has a cycle"));
        }
        waiting = later;
    }
    Ok(())
}

/// Element types and shapes of a plan's inputs.
pub fn input_facts(plan: &Plan) -> TractResult<Vec<(DatumType, Shape)>> {
    let model = plan.model();
    let facts = model.input_outlets()?.iter().map(|o| {
        let fact = model.outlet_fact(*o)?;
        let shape =
            fact.shape.as_concrete().context("an input has an open axis; fix it with --shape NAME=1x3x224x224")?;
        Ok((fact.datum_type, Shape(shape.to_vec())))
    });
    facts.collect()
}

/// Runs a plan on inputs of these types and shapes.
pub fn run(plan: &Plan, facts: &[(DatumType, Shape)], inputs: &[&TensorValue]) -> Result<Vec<TensorValue>, LocalError> {
    guarded(LocalError::Run, || {
        if inputs.len() != facts.len() {
            return Err(TractError::msg(format!("{} inputs where the model has {}", inputs.len(), facts.len())));
        }
        let mut tensors = TVec::new();
        for (i, (value, (dtype, shape))) in inputs.iter().zip(facts).enumerate() {
            if value.shape() != shape {
                return Err(TractError::msg(format!("input {i} is {}, not {shape}", value.shape())));
            }
            tensors.push(to_tract(value, *dtype)?.into_tvalue());
        }
        plan.run(tensors)?.iter().map(|t| from_tract(t)).collect()
    })
}

/// A tract tensor; `wanted` may be its symbolic integer type where ours is i64.
fn to_tract(value: &TensorValue, wanted: DatumType) -> TractResult<Tensor> {
    let shape = &value.shape().0;
    let tensor = match value.elements() {
        Elements::Bool(v) => Tensor::from_shape(shape, v),
        Elements::U8(v) => Tensor::from_shape(shape, v),
        Elements::I8(v) => Tensor::from_shape(shape, v),
        Elements::U16(v) => Tensor::from_shape(shape, v),
        Elements::I16(v) => Tensor::from_shape(shape, v),
        Elements::U32(v) => Tensor::from_shape(shape, v),
        Elements::I32(v) => Tensor::from_shape(shape, v),
        Elements::U64(v) => Tensor::from_shape(shape, v),
        Elements::I64(v) => Tensor::from_shape(shape, v),
        Elements::F16(v) => Tensor::from_shape(shape, &v.iter().map(|b| f16::from_bits(*b)).collect::<Vec<_>>()),
        Elements::F32(v) => Tensor::from_shape(shape, v),
        Elements::F64(v) => Tensor::from_shape(shape, v),
    }?;
    let have = tensor.datum_type();
    if have == wanted {
        return Ok(tensor);
    }
    if have == DatumType::I64 && wanted == DatumType::TDim {
        return Ok(tensor.cast_to::<TDim>()?.into_owned());
    }
    Err(TractError::msg(format!("an input of {have:?} where the model reads {wanted:?}")))
}

fn from_tract(tensor: &Tensor) -> TractResult<TensorValue> {
    let tensor = match tensor.datum_type() {
        DatumType::TDim => tensor.cast_to::<i64>()?,
        _ => std::borrow::Cow::Borrowed(tensor),
    };
    let view = tensor.try_as_plain_ram()?;
    let elements = match tensor.datum_type() {
        DatumType::Bool => Elements::Bool(view.as_slice::<bool>()?.to_vec()),
        DatumType::U8 => Elements::U8(view.as_slice::<u8>()?.to_vec()),
        DatumType::I8 => Elements::I8(view.as_slice::<i8>()?.to_vec()),
        DatumType::U16 => Elements::U16(view.as_slice::<u16>()?.to_vec()),
        DatumType::I16 => Elements::I16(view.as_slice::<i16>()?.to_vec()),
        DatumType::U32 => Elements::U32(view.as_slice::<u32>()?.to_vec()),
        DatumType::I32 => Elements::I32(view.as_slice::<i32>()?.to_vec()),
        DatumType::U64 => Elements::U64(view.as_slice::<u64>()?.to_vec()),
        DatumType::I64 => Elements::I64(view.as_slice::<i64>()?.to_vec()),
        DatumType::F16 => Elements::F16(view.as_slice::<f16>()?.iter().map(|h| h.to_bits()).collect()),
        DatumType::F32 => Elements::F32(view.as_slice::<f32>()?.to_vec()),
        DatumType::F64 => Elements::F64(view.as_slice::<f64>()?.to_vec()),
        other => return Err(TractError::msg(format!("an output of element type {other:?}, which plans do not know"))),
    };
    TensorValue::new(tensor.shape(), elements).map_err(|e| TractError::msg(e.to_string()))
}

/// Our element type for one of tract; `None` for a type that no tensor of ours can have.
pub fn dtype_of(dtype: DatumType) -> Option<DType> {
    Some(match dtype {
        DatumType::Bool => DType::Bool,
        DatumType::U8 => DType::U8,
        DatumType::I8 => DType::I8,
        DatumType::U16 => DType::U16,
        DatumType::I16 => DType::I16,
        DatumType::U32 => DType::U32,
        DatumType::I32 => DType::I32,
        DatumType::U64 => DType::U64,
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::F16 => DType::F16,
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        _ => return None,
    })
}
