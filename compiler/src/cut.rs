//! Cuts local segments out of the ONNX graph, each a model of its own.
//!
//! Constants are baked in, never recomputed: a chain of Shape, Gather, Concat would drag activations in. Tensors that
//! an operator without effect renamed go by their first name. Encoding is deterministic.

use std::collections::{BTreeMap, BTreeSet};

use pponnx_plans::value::ValueId;

use crate::diag::Diagnostic;
use crate::ir::graph::{Graph, Value};
use crate::source::{Message, Network, onnx_type, pb};

/// A model cut from the network.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Tensors it reads, in the order of its inputs.
    pub inputs: Vec<ValueId>,
    /// The encoded model.
    pub onnx: Vec<u8>,
}

/// Name of a value in sub-models.
fn name_of(graph: &Graph, v: ValueId) -> String {
    let name = graph.values.get(v.index()).and_then(|v| v.name.clone());
    name.unwrap_or_else(|| format!("{v}"))
}

/// Cuts these nodes (by index, in execution order). `outputs` are tensors that others read; `constants` are outputs of
/// the network that do not depend on its input and are handed out by this segment.
///
/// # Errors
/// If a constant or a tensor has a type that ONNX cannot hold.
pub fn cut(
    network: &Network,
    graph: &Graph,
    nodes: &[usize],
    outputs: &[ValueId],
    constants: &[(String, ValueId)],
) -> Result<Cut, Diagnostic> {
    let made: BTreeSet<ValueId> = nodes.iter().flat_map(|i| graph.nodes[*i].outputs.clone()).collect();
    let made_names: BTreeSet<&String> = nodes.iter().flat_map(|i| &network.nodes[*i].proto.output).collect();
    let mut inputs: Vec<ValueId> = Vec::new();
    let mut baked: BTreeMap<String, pb::TensorProto> = BTreeMap::new();
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    let mut protos = Vec::with_capacity(nodes.len());
    for i in nodes {
        let node = &network.nodes[*i];
        let internal = |e: String| Diagnostic::new("cut", e).at(node.name.clone());
        for name in &node.reads {
            match (network.known.get(name), graph.by_name.get(name)) {
                (Some(_), _) if made_names.contains(name) => {}
                (Some(value), _) => {
                    if !baked.contains_key(name) {
                        baked.insert(name.clone(), value.initialiser(name).map_err(internal)?);
                    }
                }
                (None, Some(v)) => {
                    let first = name_of(graph, *v);
                    if first != *name {
                        renamed.insert(name.clone(), first);
                    }
                    if !made.contains(v) && !inputs.contains(v) {
                        inputs.push(*v);
                    }
                }
                (None, None) => return Err(internal(format!("reads `{name}`, which has no value"))),
            }
        }
        protos.push(clean(&node.proto));
    }
    for node in &mut protos {
        rename(node, &renamed);
    }
    let mut graph_outputs: Vec<pb::ValueInfoProto> = Vec::new();
    for v in outputs {
        graph_outputs.push(info(graph, *v)?);
    }
    for (i, (name, v)) in constants.iter().enumerate() {
        let internal = |e: String| Diagnostic::new("cut", e);
        let Some(value) = network.known.get(name) else {
            return Err(internal(format!("`{name}` is not constant")));
        };
        let source = format!("{name} constant {i}");
        baked.insert(source.clone(), value.initialiser(&source).map_err(internal)?);
        let output = vec![name_of(graph, *v)];
        protos.push(pb::NodeProto { op_type: "Identity".into(), input: vec![source], output, ..Default::default() });
        graph_outputs.push(info(graph, *v)?);
    }
    let sub = pb::ModelProto {
        ir_version: network.ir_version.max(4),
        opset_import: network.opsets.clone(),
        graph: Some(pb::GraphProto {
            name: "local".into(),
            node: protos,
            initializer: baked.into_values().collect(),
            input: inputs.iter().map(|v| info(graph, *v)).collect::<Result<_, _>>()?,
            output: graph_outputs,
            ..Default::default()
        }),
        ..Default::default()
    };
    Ok(Cut { inputs, onnx: sub.encode_to_vec() })
}

/// A node without name and remarks.
fn clean(node: &pb::NodeProto) -> pb::NodeProto {
    let mut node = pb::NodeProto { name: String::new(), doc_string: String::new(), ..node.clone() };
    for a in &mut node.attribute {
        a.doc_string.clear();
    }
    node
}

/// Replaces names that a node and its subgraphs read.
fn rename(node: &mut pb::NodeProto, names: &BTreeMap<String, String>) {
    if names.is_empty() {
        return;
    }
    for input in &mut node.input {
        if let Some(name) = names.get(input) {
            input.clone_from(name);
        }
    }
    for body in node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs)) {
        // ONNX forbids a subgraph to define a name of its surroundings again.
        for inner in &mut body.node {
            rename(inner, names);
        }
        for output in &mut body.output {
            if let Some(name) = names.get(&output.name) {
                output.name.clone_from(name);
            }
        }
    }
}

fn info(graph: &Graph, v: ValueId) -> Result<pb::ValueInfoProto, Diagnostic> {
    let name = name_of(graph, v);
    let known = graph.values.get(v.index()).and_then(|Value { dtype, shape, .. }| Some(((*dtype)?, shape.clone()?)));
    let Some((dtype, shape)) = known else {
        let text = format!("tensor `{name}` must cross between device and edges, but its type or shape is not fixed");
        return Err(
            Diagnostic::new("dynamic-tensor", text).hint("operators such as NonZero must not feed linear layers")
        );
    };
    let dim = |d: &usize| pb::tensor_shape_proto::Dimension {
        value: Some(pb::tensor_shape_proto::dimension::Value::DimValue(*d as i64)),
        ..Default::default()
    };
    let tensor = pb::type_proto::Tensor {
        elem_type: onnx_type(dtype),
        shape: Some(pb::TensorShapeProto { dim: shape.0.iter().map(dim).collect() }),
    };
    let value = Some(pb::type_proto::Value::TensorType(tensor));
    Ok(pb::ValueInfoProto { name, r#type: Some(pb::TypeProto { value, ..Default::default() }), ..Default::default() })
}
