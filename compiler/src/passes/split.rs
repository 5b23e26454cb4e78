//! Puts maps and local segments in execution order.

use std::collections::{BTreeMap, BTreeSet};

use pponnx_plans::plan::Port;
use pponnx_plans::value::ValueId;

use super::classify::{Decision, Placement, classify};
use super::fold::{Folded, fold};
use crate::cut::cut;
use crate::diag::{CompileError, Diagnostic};
use crate::ir::graph::{Graph, Value};
use crate::ir::split::{LocalSegment, NodeInfo, Part, Place, RealMap, SplitGraph, Stage, TensorId, TensorInfo};
use crate::source::Network;

/// Splits the graph. Nodes whose map cannot be built stay on the device.
///
/// # Errors
/// If a tensor without fixed shape crosses between device and edges, or a constant has no ONNX form.
pub fn split(network: &Network, mut graph: Graph) -> Result<SplitGraph, CompileError> {
    let (placement, folded) = settle(&graph);
    let mut splitter = Splitter { tensors: Vec::new(), ids: BTreeMap::new(), found: Vec::new() };
    let constants = constant_outputs(network, &mut graph);
    let inputs = splitter.ports(&graph, &graph.inputs.clone());
    let output_values: Vec<ValueId> = {
        let by_name: BTreeMap<&String, ValueId> = constants.iter().map(|(n, v)| (n, *v)).collect();
        let value = |n: &String| by_name.get(n).or_else(|| graph.by_name.get(n)).copied();
        network.outputs.iter().filter_map(value).collect()
    };
    let needed = Needed::new(&graph, &placement, &folded);
    let last = placement.decisions.iter().map(|d| match d {
        Decision::Folded(_) => 0,
        Decision::Local(s, _) | Decision::Outsourced(s, _) => *s,
    });
    let last = last.max().unwrap_or(0);
    let mut maps = placement.maps.iter().zip(folded).collect::<Vec<_>>().into_iter().peekable();
    let mut parts = Vec::new();
    for stage in 0..=last {
        if stage % 2 == 0 {
            let constants = if stage == 0 { &constants[..] } else { &[] };
            match splitter.local(network, &graph, &placement, &needed, stage, constants) {
                Ok(segment) => parts.extend(segment.map(Part::Local)),
                Err(diagnostic) => splitter.found.push(*diagnostic),
            }
        } else {
            let mut list = Vec::new();
            while let Some((nodes, folded)) = maps.next_if(|(m, _)| m.stage == stage) {
                let nodes = nodes.nodes.iter().map(|i| network.nodes[*i].index).collect();
                list.push(splitter.map(&graph, nodes, folded));
            }
            if !list.is_empty() {
                parts.push(Part::Stage(Stage { maps: list }));
            }
        }
    }
    let mut outputs = splitter.ports(&graph, &output_values);
    for (port, name) in outputs.iter_mut().zip(&network.outputs) {
        port.0.name.clone_from(name);
    }
    CompileError::unless_empty(splitter.found)?;
    let (inputs, input_tensors) = inputs.into_iter().unzip();
    let (outputs, output_tensors) = outputs.into_iter().unzip();
    Ok(SplitGraph {
        model: network.name.clone(),
        model_digest: network.digest,
        inputs,
        input_tensors,
        outputs,
        output_tensors,
        tensors: splitter.tensors,
        parts,
        nodes: node_infos(network, &graph, &placement),
        notes: network.notes.clone(),
    })
}

/// Classifies until every map can be built.
fn settle(graph: &Graph) -> (Placement, Vec<Folded>) {
    let mut forced = BTreeMap::new();
    loop {
        let placement = classify(graph, &forced);
        let attempts: Vec<_> = placement.maps.iter().map(|m| fold(graph, &m.nodes)).collect();
        let mut folded = Vec::with_capacity(attempts.len());
        let before = forced.len();
        for attempt in attempts {
            match attempt {
                Ok(f) => folded.push(f),
                Err(e) => drop(forced.insert(e.node, e.reason)),
            }
        }
        // Every round forces at least one more node, so this ends.
        if forced.len() == before {
            return (placement, folded);
        }
    }
}

/// Outputs of the network that are constants get values of their own.
fn constant_outputs(network: &Network, graph: &mut Graph) -> Vec<(String, ValueId)> {
    let mut made: BTreeMap<String, ValueId> = BTreeMap::new();
    for name in &network.outputs {
        let Some(constant) = network.known.get(name).filter(|_| !graph.by_name.contains_key(name)) else { continue };
        made.entry(name.clone()).or_insert_with(|| {
            let v = ValueId(graph.values.len() as u32);
            let (dtype, shape) = (constant.dtype(), Some(constant.shape()));
            graph.values.push(Value { name: Some(name.clone()), dtype, shape });
            v
        });
    }
    made.into_iter().collect()
}

/// Which tensors are read, and by whom.
struct Needed {
    /// Readers of a tensor: stages of local nodes, and `None` for maps and the network's outputs.
    readers: BTreeMap<ValueId, BTreeSet<Option<usize>>>,
}

impl Needed {
    fn new(graph: &Graph, placement: &Placement, folded: &[Folded]) -> Needed {
        let mut readers: BTreeMap<ValueId, BTreeSet<Option<usize>>> = BTreeMap::new();
        for v in folded.iter().flat_map(|f| &f.inputs).chain(&graph.outputs) {
            readers.entry(*v).or_default().insert(None);
        }
        for (node, decision) in graph.nodes.iter().zip(&placement.decisions) {
            if let Decision::Local(stage, _) = decision {
                node.inputs.iter().for_each(|v| {
                    let _ = readers.entry(*v).or_default().insert(Some(*stage));
                });
            }
        }
        Needed { readers }
    }

    fn outside(&self, v: ValueId, stage: usize) -> bool {
        self.readers.get(&v).is_some_and(|r| r.iter().any(|s| *s != Some(stage)))
    }
}

struct Splitter {
    tensors: Vec<TensorInfo>,
    ids: BTreeMap<ValueId, TensorId>,
    found: Vec<Diagnostic>,
}

impl Splitter {
    fn tensor(&mut self, graph: &Graph, v: ValueId) -> TensorId {
        if let Some(id) = self.ids.get(&v) {
            return *id;
        }
        let value = graph.values.get(v.index());
        let name = value.and_then(|v| v.name.clone()).unwrap_or_else(|| v.to_string());
        let known = value.and_then(|v| Some((v.dtype?, v.shape.clone()?)));
        if known.is_none() {
            let text = format!("tensor `{name}` crosses between segments, but its type or shape is not fixed");
            self.found.push(Diagnostic::new("dynamic-tensor", text));
        }
        let (dtype, shape) = known.unwrap_or((pponnx_plans::value::DType::F32, Default::default()));
        let id = TensorId(self.tensors.len());
        self.tensors.push(TensorInfo { name, dtype, shape });
        self.ids.insert(v, id);
        id
    }

    fn ports(&mut self, graph: &Graph, values: &[ValueId]) -> Vec<(Port, TensorId)> {
        let mut ports = Vec::new();
        for v in values {
            let id = self.tensor(graph, *v);
            let t = &self.tensors[id.0];
            ports.push((Port { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() }, id));
        }
        ports
    }

    fn map(&mut self, graph: &Graph, nodes: Vec<usize>, folded: Folded) -> RealMap {
        let Folded { map, inputs, output, post, bias } = folded;
        RealMap {
            map,
            inputs: inputs.iter().map(|v| self.tensor(graph, *v)).collect(),
            output: self.tensor(graph, output),
            post: post.map(|d| (d.shape, d.data)),
            bias,
            nodes,
        }
    }

    fn local(
        &mut self,
        network: &Network,
        graph: &Graph,
        placement: &Placement,
        needed: &Needed,
        stage: usize,
        constants: &[(String, ValueId)],
    ) -> Result<Option<LocalSegment>, Box<Diagnostic>> {
        let here = |d: &Decision| matches!(d, Decision::Local(s, _) if *s == stage);
        let nodes: Vec<usize> = (0..graph.nodes.len()).filter(|i| here(&placement.decisions[*i])).collect();
        let made = nodes.iter().flat_map(|i| &graph.nodes[*i].outputs);
        let outputs: Vec<ValueId> = made.copied().filter(|v| needed.outside(*v, stage)).collect();
        if outputs.is_empty() && constants.is_empty() {
            return Ok(None);
        }
        let name = nodes.first().map(|i| graph.nodes[*i].name.clone());
        let name = name.or_else(|| constants.first().map(|(n, _)| n.clone())).unwrap_or_default();
        let cut = cut(network, graph, &nodes, &outputs, constants)?;
        let handed = outputs.iter().chain(constants.iter().map(|(_, v)| v));
        Ok(Some(LocalSegment {
            name,
            inputs: cut.inputs.iter().map(|v| self.tensor(graph, *v)).collect(),
            outputs: handed.map(|v| self.tensor(graph, *v)).collect(),
            onnx: cut.onnx,
            nodes: nodes.iter().map(|i| network.nodes[*i].index).collect(),
        }))
    }
}

fn node_infos(network: &Network, graph: &Graph, placement: &Placement) -> Vec<NodeInfo> {
    let mut infos: Vec<(usize, NodeInfo)> = Vec::with_capacity(graph.nodes.len());
    for (i, (node, decision)) in graph.nodes.iter().zip(&placement.decisions).enumerate() {
        let (place, reason) = match decision {
            Decision::Folded(why) => (Place::Folded, why),
            Decision::Local(_, why) => (Place::Local, why),
            Decision::Outsourced(_, why) => (Place::Outsourced, why),
        };
        let proto = &network.nodes[i].proto;
        let output = proto.output.first().and_then(|name| {
            let known = network.known.get(name).map(crate::source::Constant::shape);
            let computed = || graph.values.get(graph.by_name.get(name)?.index())?.shape.clone();
            Some((name.clone(), known.or_else(computed)?))
        });
        let mult_adds = if place == Place::Folded { 0 } else { node.mult_adds };
        let info =
            NodeInfo { name: node.name.clone(), op: node.op.clone(), place, reason: reason.clone(), mult_adds, output };
        infos.push((network.nodes[i].index, info));
    }
    infos.sort_by_key(|(index, _)| *index);
    infos.into_iter().map(|(_, info)| info).collect()
}
