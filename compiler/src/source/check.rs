//! The walk before parsing: finds every problem of a model at once, under ONNX node names.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb;

use super::guard::guarded;
use super::refuse;
use crate::diag::Diagnostic;

/// The name under which a node is reported.
pub(super) fn name_of(node: &pb::NodeProto, index: usize) -> String {
    if node.name.is_empty() { format!("#{index}") } else { node.name.clone() }
}

/// Tensor names that a node reads: inputs, then captures of its subgraphs. No empty names, no repeats.
pub(super) fn reads(node: &pb::NodeProto) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut names: Vec<String> = node.input.clone();
    for body in subgraphs(node) {
        captures(body, &BTreeSet::new(), &mut names);
    }
    names.retain(|n| !n.is_empty() && seen.insert(n.clone()));
    names
}

/// Subgraphs in a node's attributes.
pub(super) fn subgraphs(node: &pb::NodeProto) -> impl Iterator<Item = &pb::GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

/// Names that a subgraph reads but does not make.
fn captures(graph: &pb::GraphProto, outer: &BTreeSet<String>, names: &mut Vec<String>) {
    let mut made = outer.clone();
    made.extend(graph.input.iter().map(|i| i.name.clone()));
    made.extend(graph.initializer.iter().map(|i| i.name.clone()));
    made.extend(graph.node.iter().flat_map(|n| n.output.clone()));
    for node in &graph.node {
        names.extend(node.input.iter().filter(|n| !made.contains(*n)).cloned());
        for body in subgraphs(node) {
            captures(body, &made, names);
        }
    }
    names.extend(graph.output.iter().map(|o| o.name.clone()).filter(|n| !made.contains(n)));
}

/// Everything that is wrong with the model, and remarks for the user.
pub(super) fn walk(fw: &Onnx, model: &pb::ModelProto, dir: Option<&str>) -> (Vec<Diagnostic>, Vec<String>) {
    let mut found = Vec::new();
    let mut notes = Vec::new();
    let Some(graph) = &model.graph else {
        found.push(Diagnostic::new("not-onnx", "the file holds no network").hint("is it an ONNX model, and complete?"));
        return (found, notes);
    };
    if graph.node.is_empty() && graph.output.is_empty() {
        found.push(Diagnostic::new("not-onnx", "the network has neither nodes nor outputs"));
        return (found, notes);
    }
    for f in &model.functions {
        let name = f.name.as_deref().unwrap_or("");
        found.push(
            Diagnostic::new(
                "function",
                format!("the model defines the function `{name}`, and functions are not inlined"),
            )
            .hint("inline functions before compiling (`onnx.inliner.inline_local_functions`)"),
        );
    }
    for s in &graph.sparse_initializer {
        let name = s.values.as_ref().map_or("", |v| &v.name);
        found.push(
            Diagnostic::new("sparse-initialiser", format!("initialiser `{name}` is sparse")).hint("store it densely"),
        );
    }
    let opset = opset(model);
    for (index, node) in graph.node.iter().enumerate() {
        operator(fw, node, &name_of(node, index), opset, graph, &mut found, &mut notes);
    }
    names(graph, &mut found);
    if found.is_empty() {
        attributes(fw, model, graph, dir, &mut found);
    }
    (found, notes)
}

/// Version of the standard operator set.
pub(super) fn opset(model: &pb::ModelProto) -> i64 {
    let standard = model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
    standard.map_or(0, |o| o.version)
}

fn operator(
    fw: &Onnx,
    node: &pb::NodeProto,
    name: &str,
    opset: i64,
    graph: &pb::GraphProto,
    found: &mut Vec<Diagnostic>,
    notes: &mut Vec<String>,
) {
    let op = &node.op_type;
    if !node.domain.is_empty() && node.domain != "ai.onnx" {
        let text =
            format!("operator `{op}` belongs to the domain `{}`, of which no operator is supported", node.domain);
        found.push(Diagnostic::new("foreign-domain", text).at(name).hint("export with standard ONNX operators only"));
    } else if !fw.op_register.0.contains_key(op) {
        let text = format!("operator `{op}` is not supported");
        let hint = "replace it by supported operators when exporting, or remove it from the network";
        found.push(Diagnostic::new("unsupported-operator", text).at(name).hint(hint));
    } else {
        refuse::refuse(node, opset, graph, |d| found.push(d.at(name)));
        notes.extend(refuse::doubtful(node).map(|why| format!("node `{name}`: {why}")));
    }
    for body in subgraphs(node) {
        for (index, inner) in body.node.iter().enumerate() {
            let name = format!("{name}/{}", name_of(inner, index));
            operator(fw, inner, &name, opset, body, found, notes);
        }
    }
}

/// Tensors that nobody makes, and tensors that are made twice.
fn names(graph: &pb::GraphProto, found: &mut Vec<Diagnostic>) {
    let mut makers: BTreeMap<&str, String> = BTreeMap::new();
    let initialisers: BTreeSet<&str> = graph.initializer.iter().map(|i| i.name.as_str()).collect();
    let mut twice = |name: &str, by: &str, first: &str| {
        let text = format!("tensor `{name}` is made twice, first by {first}");
        found.push(Diagnostic::new("tensor-made-twice", text).at(by));
    };
    let mut given: BTreeSet<&str> = BTreeSet::new();
    for (kind, list) in [
        ("an initialiser", graph.initializer.iter().map(|i| i.name.as_str()).collect::<Vec<_>>()),
        ("an input", graph.input.iter().map(|i| i.name.as_str()).collect()),
    ] {
        given.clear();
        for name in list {
            if !given.insert(name) {
                twice(name, kind, kind);
            }
            makers.insert(name, kind.to_string());
        }
    }
    for (index, node) in graph.node.iter().enumerate() {
        let by = name_of(node, index);
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if let Some(first) = makers.insert(output, format!("node `{by}`")) {
                twice(output, &by, &first);
            }
        }
    }
    for (index, node) in graph.node.iter().enumerate() {
        for name in reads(node).iter().filter(|n| !makers.contains_key(n.as_str())) {
            let text = format!("reads tensor `{name}`, which nothing makes");
            found.push(Diagnostic::new("undefined-tensor", text).at(name_of(node, index)));
        }
    }
    for output in graph.output.iter().filter(|o| !makers.contains_key(o.name.as_str())) {
        let text = format!("output `{}` of the network is made by nothing", output.name);
        found.push(Diagnostic::new("undefined-tensor", text));
    }
    if graph.output.is_empty() {
        found.push(Diagnostic::new("no-output", "the network has no output"));
    }
    if graph.input.iter().all(|i| initialisers.contains(i.name.as_str())) {
        found.push(Diagnostic::new("no-input", "the network has no input, so there is nothing to protect"));
    }
}

/// Attributes that the reader rejects. Only tried where no operator was rejected as such.
fn attributes(
    fw: &Onnx,
    model: &pb::ModelProto,
    graph: &pb::GraphProto,
    dir: Option<&str>,
    found: &mut Vec<Diagnostic>,
) {
    let context = ParsingContext {
        onnx_operator_set_version: opset(model),
        framework: fw,
        model,
        parent_graphs: vec![graph],
        model_dir: dir,
        template: Default::default(),
    };
    for (index, node) in graph.node.iter().enumerate() {
        let Some(build) = fw.op_register.0.get(&node.op_type) else { continue };
        if subgraphs(node).next().is_some() {
            continue;
        }
        let problem = match guarded(|| build(&context, node).map(drop)) {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => format!("{e:#}"),
            Err(panic) => format!("the ONNX reader fails on it: {panic}"),
        };
        let text = format!("`{}` with these attributes cannot be read: {problem}", node.op_type);
        found.push(Diagnostic::new("bad-attribute", text).at(name_of(node, index)));
    }
}
