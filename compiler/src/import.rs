//! From the network as read to the graph: asks [`crate::ops::ALL`] who claims each typed node.

use std::collections::{BTreeMap, BTreeSet};

use pponnx_plans::value::{DType, Shape, ValueId};

use crate::ir::graph::{Graph, Node, Step, Value, Work};
use crate::ops::lowering::Lowering;
use crate::ops::{Claim, Operand, lower};
use crate::source::{Kind, Network, Outlet, TypedNode};

/// The graph of a network.
pub fn import(network: &Network) -> Graph {
    let mut importer = Importer { network, graph: Graph::default(), value_of: BTreeMap::new() };
    for name in &network.inputs {
        if let Some(outlet) = network.outlets.get(name) {
            let v = importer.fresh(*outlet);
            importer.graph.values[v.index()].name = Some(name.clone());
            importer.graph.by_name.insert(name.clone(), v);
            importer.graph.inputs.push(v);
        }
    }
    let mut typed_of: BTreeMap<usize, Vec<&TypedNode>> = BTreeMap::new();
    for t in &network.typed {
        if let Some(origin) = t.origin {
            typed_of.entry(origin).or_default().push(t);
        }
    }
    for i in 0..network.nodes.len() {
        importer.node(i, typed_of.get(&i).map_or(&[], |t| &t[..]));
    }
    let mut graph = importer.graph;
    graph.outputs = network.outputs.iter().filter_map(|name| graph.by_name.get(name).copied()).collect();
    bury_the_dead(&mut graph);
    graph
}

/// Marks nodes whose results nobody reads.
fn bury_the_dead(graph: &mut Graph) {
    let mut live: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    for node in graph.nodes.iter_mut().rev() {
        if matches!(node.work, Work::Folded(_)) {
            continue;
        }
        if node.outputs.iter().any(|o| live.contains(o)) {
            live.extend(&node.inputs);
        } else {
            node.work = Work::Folded("its result is not used".into());
        }
    }
}

struct Importer<'n> {
    network: &'n Network,
    graph: Graph,
    value_of: BTreeMap<Outlet, ValueId>,
}

impl Importer<'_> {
    /// A new value for a typed value.
    fn fresh(&mut self, outlet: Outlet) -> ValueId {
        let (dtype, shape) = self.network.facts.get(outlet).map_or((None, None), |f| (f.dtype, f.shape.clone()));
        let v = ValueId(self.graph.values.len() as u32);
        self.graph.values.push(Value { name: None, dtype, shape });
        self.value_of.insert(outlet, v);
        v
    }

    fn node(&mut self, index: usize, typed: &[&TypedNode]) {
        let network = self.network;
        let onnx = &network.nodes[index];
        let outputs: Vec<(&String, Outlet)> = onnx
            .proto
            .output
            .iter()
            .filter(|o| !network.known.contains_key(*o))
            .filter_map(|o| Some((o, *network.outlets.get(o)?)))
            .collect();
        let mut inputs: Vec<ValueId> = Vec::new();
        for v in onnx.reads.iter().filter_map(|r| self.graph.by_name.get(r)) {
            if !inputs.contains(v) {
                inputs.push(*v);
            }
        }
        let named = onnx.proto.output.iter().filter(|o| !o.is_empty());
        let constant = named.clone().count() > 0 && named.clone().all(|o| network.known.contains_key(o));
        let work = if constant {
            Work::Folded("its result is constant".into())
        } else if outputs.is_empty() {
            Work::Folded("its result is not used".into())
        } else {
            let first = self.graph.values.len();
            let mut steps = Vec::new();
            match self.affine(typed, &onnx.proto.op_type, &mut steps) {
                Ok(()) if outputs.iter().all(|(_, o)| self.value_of.contains_key(o)) => {
                    if steps.is_empty() {
                        Work::Folded("it changes nothing at run time".into())
                    } else {
                        Work::Affine(steps)
                    }
                }
                result => {
                    self.graph.values.truncate(first);
                    self.value_of.retain(|_, v| v.index() < first);
                    Work::Local(result.err().unwrap_or_else(|| "no linear form is known".into()))
                }
            }
        };
        let mut made = Vec::new();
        for (name, outlet) in outputs {
            let v = match self.value_of.get(&outlet) {
                Some(v) => *v,
                None => self.fresh(outlet),
            };
            let value = &mut self.graph.values[v.index()];
            value.name.get_or_insert_with(|| name.clone());
            self.graph.by_name.insert(name.clone(), v);
            if !inputs.contains(&v) && !made.contains(&v) {
                made.push(v);
            }
        }
        self.graph.nodes.push(Node {
            name: onnx.name.clone(),
            op: onnx.proto.op_type.clone(),
            inputs,
            outputs: made,
            work,
            mult_adds: typed.iter().map(|t| self.mult_adds(t)).fold(0, u64::saturating_add),
        });
    }

    /// Steps of all typed nodes of one ONNX node.
    fn affine(&mut self, typed: &[&TypedNode], op: &str, steps: &mut Vec<Step>) -> Result<(), String> {
        let network = self.network;
        for t in typed {
            if t.outputs.iter().all(|o| network.facts[*o].constant.is_some()) {
                continue;
            }
            let shape = checked_types(network, t, op)?;
            let operands = t.inputs.iter().map(|i| match (&network.facts[*i].constant, self.value_of.get(i)) {
                (Some(c), _) => Ok(Operand::Constant(c)),
                (None, Some(v)) => Ok(Operand::Value(*v, self.graph.shape(*v))),
                (None, None) => Err("an operand of it is missing".to_string()),
            });
            let operands: Vec<Operand<'_>> = operands.collect::<Result<_, _>>()?;
            let claim = Claim { kind: &t.kind, operands, shape };
            let mut lowering = Lowering::new(&mut self.graph.values);
            let result = lower(&claim, &mut lowering)?;
            steps.append(&mut lowering.steps);
            self.value_of.extend(t.outputs.first().map(|o| (*o, result)));
        }
        Ok(())
    }

    /// Multiply-adds of a typed node: output elements times weights each of them reads.
    fn mult_adds(&self, t: &TypedNode) -> u64 {
        let shape = |o: Option<&Outlet>| o.and_then(|o| self.network.facts.get(*o)?.shape.as_ref());
        let product = |dims: &[usize]| dims.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
        let (Some(y), Some(x)) = (shape(t.outputs.first()), shape(t.inputs.first())) else { return 0 };
        if t.outputs.iter().all(|o| self.network.facts[*o].constant.is_some()) {
            return 0;
        }
        match (&t.kind, shape(t.inputs.get(1))) {
            (Kind::Conv(..), Some(w)) => product(&y.0).saturating_mul(product(w.0.get(1..).unwrap_or_default())),
            // The kernel is [O, I/groups, ..]: each input element meets O/groups kernels.
            (Kind::ConvTranspose(_, groups, _), Some(w)) => {
                let per_group = w.0.first().map_or(0, |o| o / groups.max(&1)) as u64;
                product(&x.0).saturating_mul(per_group).saturating_mul(product(w.0.get(2..).unwrap_or_default()))
            }
            (Kind::Einsum(axes), Some(w)) => axes.iter().fold(1u64, |n, axis| {
                let size = |shape: &Shape, list: &[usize]| list.first().and_then(|a| shape.0.get(*a)).copied();
                let d = size(x, &axis.inputs[0]).unwrap_or(1).max(size(w, &axis.inputs[1]).unwrap_or(1));
                n.saturating_mul(d as u64)
            }),
            _ => 0,
        }
    }
}

/// The shape of a node's only result, after checking that it computes in `f32` on tensors of fixed shape.
fn checked_types<'n>(network: &'n Network, t: &TypedNode, op: &str) -> Result<&'n Shape, String> {
    // First, so that a node which is local anyway says why in the operator's terms.
    if let Kind::Other(name) = &t.kind {
        return Err(if name == op { format!("this {op} has no linear form") } else { format!("{op} is not linear") });
    }
    let [output] = t.outputs.as_slice() else { return Err("it has several results".into()) };
    for fact in t.inputs.iter().chain([output]).map(|i| &network.facts[*i]).filter(|f| f.constant.is_none()) {
        if fact.dtype != Some(DType::F32) {
            return Err(format!("it computes on {}", fact.dtype.map_or("another type", DType::name)));
        }
        if fact.shape.is_none() {
            return Err("its shape depends on the input's values".into());
        }
    }
    network.facts[*output].shape.as_ref().ok_or_else(|| "its shape is not fixed".into())
}
