//! Decides for every ONNX node whether it runs at the edges or on the device, and in which stage.
//!
//! Even stages run on the device, odd ones at the edges. A node with weights (heavy) takes the next odd stage after
//! its inputs, a node that is not affine the next even one. Affine nodes without weights (light) join a heavy node
//! behind which they stand, under three rules:
//!
//! 1. one heavy node per path in a stage, since residues cannot be rescaled in between;
//! 2. the tensor between them has no other reader, and all inputs come from one stage and from the same uploads, so
//!    that each map has one result and no product is computed twice;
//! 3. it must pay: unless it is a factor or a constant term, which cost nothing, a light node stays on the device
//!    where no fewer elements cross in consequence.
//!
//! Zero padding in front of a convolution joins it, since the convolution can pad.

use std::collections::{BTreeMap, BTreeSet};

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use crate::ir::graph::{Graph, Node, StepOp, Work};

/// Where a node goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to do at run time.
    Folded(String),
    /// Device, in this even stage.
    Local(usize, String),
    /// Edges, in this odd stage.
    Outsourced(usize, String),
}

/// Nodes that become one linear map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapNodes {
    /// The odd stage.
    pub stage: usize,
    /// Nodes by index, in execution order; the last one makes the result.
    pub nodes: Vec<usize>,
}

/// The decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One per node.
    pub decisions: Vec<Decision>,
    /// Maps by stage, then in execution order of their last nodes.
    pub maps: Vec<MapNodes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Class {
    Folded(String),
    Local(String),
    Heavy,
    Light,
}

/// Places all nodes. `forced` nodes stay on the device whatever they are, for the reason given.
pub fn classify(graph: &Graph, forced: &BTreeMap<usize, String>) -> Placement {
    let classes: Vec<Class> = graph.nodes.iter().enumerate().map(|(i, n)| class(n, forced.get(&i))).collect();
    let mut readers: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
    let mut maker: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if !matches!(classes[i], Class::Folded(_)) {
            node.inputs.iter().for_each(|v| readers.entry(*v).or_default().push(i));
            node.outputs.iter().for_each(|v| {
                let _ = maker.insert(*v, i);
            });
        }
    }
    let mut placer = Placer { graph, classes, readers, maker, sunk: BTreeMap::new(), joined: BTreeMap::new() };
    placer.sink();
    placer.stages();
    placer.place()
}

fn class(node: &Node, forced: Option<&String>) -> Class {
    match (&node.work, forced) {
        (Work::Folded(why), _) => Class::Folded(why.clone()),
        (Work::Local(why), _) | (Work::Affine(_), Some(why)) => Class::Local(why.clone()),
        (Work::Affine(steps), None) => match steps.iter().filter(|s| s.op.is_heavy()).count() {
            0 => Class::Light,
            1 if node.outputs.len() == 1 => Class::Heavy,
            _ => Class::Local("it holds several products".into()),
        },
    }
}

/// A node in a map.
#[derive(Clone, Debug)]
struct Joined {
    stage: usize,
    uploads: BTreeSet<ValueId>,
}

struct Placer<'g> {
    graph: &'g Graph,
    classes: Vec<Class>,
    readers: BTreeMap<ValueId, Vec<usize>>,
    maker: BTreeMap<ValueId, usize>,
    /// Paddings and the convolution that takes each over.
    sunk: BTreeMap<usize, usize>,
    /// Nodes in maps.
    joined: BTreeMap<usize, Joined>,
}

impl Placer<'_> {
    /// The only reader of a tensor that is no output of the network.
    fn sole_reader(&self, v: ValueId) -> Option<usize> {
        match self.readers.get(&v).map(Vec::as_slice) {
            Some([reader]) if !self.graph.outputs.contains(&v) => Some(*reader),
            _ => None,
        }
    }

    fn steps(&self, node: usize) -> &[crate::ir::graph::Step] {
        match &self.graph.nodes[node].work {
            Work::Affine(steps) => steps,
            Work::Folded(_) | Work::Local(_) => &[],
        }
    }

    fn sink(&mut self) {
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let (Class::Light, [out]) = (&self.classes[i], node.outputs.as_slice()) else { continue };
            let [step] = self.steps(i) else { continue };
            let StepOp::Linear(MapOp::PadZero { before, after, .. }) = &step.op else { continue };
            let spatial = before.iter().chain(after).count() >= 6
                && before.iter().take(2).chain(after.iter().take(2)).all(|p| *p == 0);
            let Some(reader) = self.sole_reader(*out).filter(|r| spatial && self.classes[*r] == Class::Heavy) else {
                continue;
            };
            let convolves = |op: &StepOp| matches!(op, StepOp::Linear(MapOp::Conv { x, .. }) if x == out);
            if self.steps(reader).iter().any(|s| convolves(&s.op)) {
                self.sunk.insert(i, reader);
            }
        }
    }

    /// Which nodes form maps, and in which stages, before rule 3.
    fn stages(&mut self) {
        let mut stage_of: BTreeMap<ValueId, usize> = BTreeMap::new();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let before = node.inputs.iter().filter_map(|v| stage_of.get(v)).copied().max().unwrap_or(0);
            let stage = match &self.classes[i] {
                Class::Folded(_) => continue,
                // Transparent: the convolution counts from the padding's input.
                Class::Light if self.sunk.contains_key(&i) => before,
                Class::Heavy => {
                    let stage = before + 1 + before % 2;
                    let source = |v: &ValueId| match self.maker.get(v) {
                        Some(m) if self.sunk.contains_key(m) => self.graph.nodes[*m].inputs.clone(),
                        _ => vec![*v],
                    };
                    let uploads = node.inputs.iter().flat_map(source).collect();
                    self.joined.insert(i, Joined { stage, uploads });
                    stage
                }
                Class::Light => match self.join(node, i) {
                    Some(joined) => {
                        let stage = joined.stage;
                        self.joined.insert(i, joined);
                        stage
                    }
                    None => before + before % 2,
                },
                Class::Local(_) => before + before % 2,
            };
            stage_of.extend(node.outputs.iter().map(|v| (*v, stage)));
        }
    }

    /// Rule 2: the map that a light node can join.
    fn join(&self, node: &Node, index: usize) -> Option<Joined> {
        let [_] = node.outputs.as_slice() else { return None };
        let mut inputs = node.inputs.iter().map(|v| {
            let maker = self.maker.get(v)?;
            let joined = self.joined.get(maker)?;
            (self.sole_reader(*v) == Some(index)).then_some(joined)
        });
        let first = inputs.next()??;
        for other in inputs {
            let other = other?;
            if other.stage != first.stage || other.uploads != first.uploads {
                return None;
            }
        }
        Some(first.clone())
    }

    /// Rule 3: which nodes below and including `node` stay in the map. `wanted`: a node above pays for it.
    fn settle(&self, node: usize, wanted: bool, kept: &mut BTreeSet<usize>) -> bool {
        let n = &self.graph.nodes[node];
        let below: Vec<usize> = n.inputs.iter().filter_map(|v| self.maker.get(v).copied()).collect();
        if self.classes[node] == Class::Heavy {
            kept.insert(node);
            return true;
        }
        let elements = |list: &[ValueId]| list.iter().map(|v| self.graph.len(*v)).sum::<usize>();
        let (from, to) = (elements(&n.inputs), elements(&n.outputs));
        let steps = self.steps(node);
        let pointwise = steps.iter().all(|s| matches!(s.op, StepOp::Scale { .. } | StepOp::Shift { .. }));
        let stays = if wanted || to < from {
            below.iter().for_each(|b| {
                let _ = self.settle(*b, true, kept);
            });
            true
        } else {
            // All of them settle, whatever the first one says.
            let stays: Vec<bool> = below.iter().map(|b| self.settle(*b, false, kept)).collect();
            pointwise && !stays.contains(&false)
        };
        if stays {
            kept.insert(node);
        }
        stays
    }

    fn place(&self) -> Placement {
        let above = |node: usize| self.sole_reader(*self.graph.nodes[node].outputs.first()?);
        let mut kept = BTreeSet::new();
        for node in self.joined.keys() {
            let inner = above(*node).is_some_and(|r| self.joined.contains_key(&r) && self.classes[r] == Class::Light);
            if !inner {
                self.settle(*node, false, &mut kept);
            }
        }
        // A node's map is that of the kept light node above it, or its own.
        let mut root: BTreeMap<usize, usize> = BTreeMap::new();
        for node in kept.iter().rev() {
            let above = above(*node).filter(|r| kept.contains(r) && self.classes[*r] == Class::Light);
            root.insert(*node, above.and_then(|r| root.get(&r).copied()).unwrap_or(*node));
        }
        for (pad, conv) in &self.sunk {
            if let Some(r) = root.get(conv).copied() {
                root.insert(*pad, r);
            }
        }
        let mut groups: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (node, r) in &root {
            groups.entry((self.joined[r].stage, *r)).or_default().push(*node);
        }
        let maps = groups.into_iter().map(|((stage, _), nodes)| MapNodes { stage, nodes }).collect();
        Placement { decisions: self.decisions(&root), maps }
    }

    fn decisions(&self, root: &BTreeMap<usize, usize>) -> Vec<Decision> {
        let mut stage_of: BTreeMap<ValueId, usize> = BTreeMap::new();
        let mut decisions = Vec::with_capacity(self.graph.nodes.len());
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let before = node.inputs.iter().filter_map(|v| stage_of.get(v)).copied().max().unwrap_or(0);
            let local = before + before % 2;
            let (stage, decision) = match (&self.classes[i], root.get(&i)) {
                (Class::Folded(why), _) => (None, Decision::Folded(why.clone())),
                (Class::Local(why), _) => (Some(local), Decision::Local(local, why.clone())),
                (Class::Heavy, _) => {
                    let stage = self.joined[&i].stage;
                    (Some(stage), Decision::Outsourced(stage, "linear, with constant weights".into()))
                }
                (Class::Light, Some(r)) => {
                    let stage = self.joined[r].stage;
                    let name = &self.graph.nodes[self.heavy_of(*r, root)].name;
                    let verb = if self.sunk.contains_key(&i) { "part of" } else { "linear, computed with" };
                    let seen = if self.sunk.contains_key(&i) { before } else { stage };
                    (Some(seen), Decision::Outsourced(stage, format!("{verb} `{name}`")))
                }
                (Class::Light, None) => {
                    let why = if self.joined.contains_key(&i) {
                        "linear, but no fewer elements would cross"
                    } else {
                        "linear, but has no weights and cannot join a linear layer"
                    };
                    (Some(local), Decision::Local(local, why.into()))
                }
            };
            if let Some(stage) = stage {
                stage_of.extend(node.outputs.iter().map(|v| (*v, stage)));
            }
            decisions.push(decision);
        }
        decisions
    }

    /// The first heavy node of a map.
    fn heavy_of(&self, r: usize, root: &BTreeMap<usize, usize>) -> usize {
        let mut members = root.iter().filter(|(_, of)| **of == r).map(|(n, _)| *n);
        members.find(|n| self.classes[*n] == Class::Heavy).unwrap_or(r)
    }
}
