//! Pins the shapes of the network's inputs.

use std::collections::BTreeMap;

use tract_onnx::pb;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value};

use super::FrontOptions;
use crate::diag::Diagnostic;

/// Rewrites the shapes of all inputs that are no initialisers to fixed numbers: what the model says, then what the
/// options say, then the same name elsewhere, then 1 for a lone leading axis. Complains about all the rest.
pub(super) fn pin(graph: &mut pb::GraphProto, options: &FrontOptions, notes: &mut Vec<String>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let fixed: Vec<&str> = graph.initializer.iter().map(|i| i.name.as_str()).collect();
    let free: Vec<usize> = (0..graph.input.len()).filter(|i| !fixed.contains(&graph.input[*i].name.as_str())).collect();
    for name in options.shapes.keys() {
        if !free.iter().any(|i| graph.input[*i].name == *name) {
            let names: Vec<&str> = free.iter().map(|i| graph.input[*i].name.as_str()).collect();
            let hint = format!("its inputs are: {}", names.join(", "));
            found.push(Diagnostic::new("unknown-input", format!("the network has no input `{name}`")).hint(hint));
        }
    }
    // Names of axes that the options fix.
    let mut named: BTreeMap<String, i64> = BTreeMap::new();
    for i in &free {
        let input = &graph.input[*i];
        let Some(wish) = options.shapes.get(&input.name) else { continue };
        let Some(dims) = dims_of(input) else { continue };
        if dims.len() != wish.len() {
            let text =
                format!("input `{}` has {} axes, but the shape given has {}", input.name, dims.len(), wish.len());
            found.push(Diagnostic::new("shape-conflict", text).hint("give one number an axis"));
            continue;
        }
        for (axis, (dim, size)) in dims.iter().zip(wish).enumerate() {
            let Some(size) = size.and_then(|s| i64::try_from(s).ok()) else { continue };
            match &dim.value {
                Some(Value::DimValue(v)) if *v >= 1 && *v != size => {
                    let text = format!("axis {axis} of input `{}` is {v} in the model, {size} was given", input.name);
                    found.push(Diagnostic::new("shape-conflict", text).hint("leave the size the model gives"));
                }
                Some(Value::DimParam(p)) if !p.is_empty() && *named.entry(p.clone()).or_insert(size) != size => {
                    let text = format!("axis `{p}` of input `{}` was given two sizes", input.name);
                    found.push(Diagnostic::new("shape-conflict", text).hint("axes of one name have one size"));
                }
                _ => {}
            }
        }
    }
    for i in free {
        let name = graph.input[i].name.clone();
        let wish = options.shapes.get(&name);
        match resolve(&graph.input[i], wish, &named) {
            Ok((dims, note)) => {
                notes.extend(note);
                set_dims(&mut graph.input[i], dims);
            }
            Err(diagnostic) => found.push(*diagnostic),
        }
    }
    found
}

fn dims_of(input: &pb::ValueInfoProto) -> Option<&Vec<Dimension>> {
    let pb::type_proto::Value::TensorType(t) = input.r#type.as_ref()?.value.as_ref()?;
    Some(&t.shape.as_ref()?.dim)
}

fn set_dims(input: &mut pb::ValueInfoProto, dims: Vec<i64>) {
    let Some(pb::type_proto::Value::TensorType(t)) = input.r#type.as_mut().and_then(|t| t.value.as_mut()) else {
        return;
    };
    let dim = dims.into_iter().map(|d| Dimension { value: Some(Value::DimValue(d)), ..Default::default() }).collect();
    t.shape = Some(pb::TensorShapeProto { dim });
}

type Pinned = (Vec<i64>, Option<String>);

fn resolve(
    input: &pb::ValueInfoProto,
    wish: Option<&Vec<Option<usize>>>,
    named: &BTreeMap<String, i64>,
) -> Result<Pinned, Box<Diagnostic>> {
    let name = &input.name;
    if input.r#type.as_ref().and_then(|t| t.value.as_ref()).is_none() {
        return Err(Box::new(Diagnostic::new("untyped-input", format!("input `{name}` is no tensor of known type"))));
    }
    let wished = |axis: usize| wish.and_then(|w| *w.get(axis)?).and_then(|s| i64::try_from(s).ok());
    let Some(dims) = dims_of(input) else {
        let all: Option<Vec<i64>> = wish.and_then(|w| (0..w.len()).map(wished).collect());
        return all.map(|dims| (dims, None)).ok_or_else(|| {
            let text = format!("input `{name}` has no shape");
            Box::new(Diagnostic::new("dynamic-shape", text).hint(format!("give one: --shape {name}=1,3,224,224")))
        });
    };
    let known: Vec<Option<i64>> = dims
        .iter()
        .enumerate()
        .map(|(axis, dim)| match &dim.value {
            Some(Value::DimValue(v)) if *v >= 1 => Some(*v),
            Some(Value::DimParam(p)) => wished(axis).or_else(|| named.get(p).copied()),
            _ => wished(axis),
        })
        .collect();
    let open: Vec<usize> = (0..known.len()).filter(|a| known[*a].is_none()).collect();
    let label = |axis: usize| match &dims[axis].value {
        Some(Value::DimParam(p)) if !p.is_empty() => format!("`{p}`"),
        _ => format!("number {axis}"),
    };
    match open.as_slice() {
        [] => Ok((known.into_iter().flatten().collect(), None)),
        [0] => {
            let note = format!("input `{name}`: the leading axis {} is open; compiled for 1", label(0));
            Ok((known.into_iter().map(|d| d.unwrap_or(1)).collect(), Some(note)))
        }
        _ => {
            let axes: Vec<String> = open.iter().map(|a| label(*a)).collect();
            let text = format!("input `{name}` has axes without a fixed size: {}", axes.join(", "));
            let sizes: Vec<String> = known.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
            let hint = format!("fix them: --shape {name}={}", sizes.join(","));
            Err(Box::new(Diagnostic::new("dynamic-shape", text).hint(hint)))
        }
    }
}
