//! From bytes to a [`Network`].
//!
//! The recipe is deliberate. No declutter: it dissolves 1x1 convolutions and loses ONNX names. Nodes are renamed,
//! because the reader trips over repeated names. The translation is traced, because an operator that does nothing
//! overwrites the label of its producer. `compute_const_facts` finds constants that `prop_consts` leaves alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use pponnx_plans::valid::limits::ELEMENTS as MAX_ELEMENTS;
use pponnx_plans::value::Shape;
use prost::bytes::Bytes;
use tract_onnx::model::ParseResult;
use tract_onnx::prelude::*;
use tract_onnx::tract_core;
use tract_onnx::tract_core::internal::translator::Translate;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::{Onnx, pb};

use super::check::{self, name_of, reads};
use super::guard::guarded;
use super::stream::{self, ModelData};
use super::{Constant, Fact, FrontOptions, Message, ModelSource, Network, OnnxNode, Outlet, dtype_of, shapes, typed};
use crate::diag::{CompileError, Diagnostic};

/// Reads a model and reports everything that is wrong with it.
///
/// # Errors
/// All problems found: an unreadable file, unsupported or refused operators, tensors nobody makes, open dimensions, or
/// what the ONNX reader says.
pub fn read(source: &ModelSource, options: &FrontOptions) -> Result<Network, CompileError> {
    let Opened { name: fallback, bytes, hasher, data, dir } = open(source)?;
    let dir = dir.as_ref().and_then(|d| d.to_str());
    let mut fw = tract_onnx::onnx().with_ignore_value_info(true);
    let mut proto = pb::ModelProto::decode(bytes).map_err(|e| {
        let text = format!("`{fallback}` is not an ONNX model, or incomplete: {e}");
        Diagnostic::new("not-onnx", text).hint("export the model again")
    })?;
    if let Some(data) = data {
        fw.provider = Arc::new(data);
    }
    CompileError::unless_empty(strays(&proto))?;
    let (mut found, mut notes) = check::walk(&fw, &proto, dir);
    if let Some(graph) = proto.graph.as_mut() {
        found.extend(shapes::pin(graph, options, &mut notes));
    }
    CompileError::unless_empty(found)?;
    let opset = check::opset(&proto);
    if !(9..=18).contains(&opset) {
        notes.push(format!("operator set {opset}: the reader is tested with 9 to 18"));
    }
    let digest = digest(hasher, &proto, dir)?;
    let order = sort(&proto)?;
    let Some(graph) = proto.graph.as_mut() else {
        return Err(Diagnostic::new("not-onnx", "the file holds no network").into());
    };
    let mut old: Vec<Option<pb::NodeProto>> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    let mut nodes = Vec::with_capacity(order.len());
    for index in order {
        let Some(node) = old[index].take() else { continue };
        nodes.push(OnnxNode { name: name_of(&node, index), index, reads: reads(&node), proto: node });
    }
    let prefix = free_prefix(graph);
    graph.node = nodes
        .iter()
        .enumerate()
        .map(|(i, n)| pb::NodeProto { name: format!("{prefix}{i}"), ..n.proto.clone() })
        .collect();
    let name = if graph.name.is_empty() { fallback } else { graph.name.clone() };
    let fixed: BTreeSet<String> = graph.initializer.iter().map(|i| i.name.clone()).collect();
    let inputs: Vec<String> = graph.input.iter().map(|i| i.name.clone()).filter(|n| !fixed.contains(n)).collect();
    let outputs = graph.output.iter().map(|o| o.name.clone()).collect();
    let explain = |text: String| explain(&text, &prefix, &nodes);
    let translated = guarded(|| translate(&fw, &mut proto, dir, &prefix))
        .map_err(|panic| explain(format!("the ONNX reader fails: {panic}")))?
        .map_err(|e| explain(format!("{e:#}")))?;
    let Translated { typed, facts, outlets, known, problems } = translated;
    CompileError::unless_empty(problems.into_iter().map(explain).collect())?;
    Ok(Network {
        name,
        digest,
        ir_version: proto.ir_version,
        opsets: proto.opset_import,
        nodes,
        typed,
        facts,
        outlets,
        known,
        inputs,
        outputs,
        notes,
    })
}

/// A model, before it is decoded.
struct Opened {
    /// For messages, and for a network without a name.
    name: String,
    /// The model, without the initialisers that `data` has.
    bytes: Bytes,
    /// Has seen the whole file.
    hasher: blake3::Hasher,
    data: Option<ModelData>,
    dir: Option<PathBuf>,
}

fn open(source: &ModelSource) -> Result<Opened, Diagnostic> {
    let opened: Opened = match source {
        ModelSource::Path(path) => {
            let unreadable = |e: std::io::Error| {
                let text = format!("cannot read `{}`: {e}", path.display());
                Diagnostic::new("unreadable-file", text).hint("check the path")
            };
            let dir = path.parent().unwrap_or(Path::new("."));
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let name = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
            let file = std::fs::File::open(path).map_err(unreadable)?;
            let folder = dir.canonicalize().map_err(unreadable)?;
            // The reader takes folders as text only.
            let slim = if dir.to_str().is_some() { stream::slim(&file).map_err(unreadable)? } else { None };
            let (bytes, hasher, data) = match slim {
                Some(slim) => (Bytes::from(slim.bytes), slim.hasher, Some(ModelData { file, folder })),
                None => {
                    let bytes = std::fs::read(path).map_err(unreadable)?;
                    let hasher = hashed(&bytes);
                    (bytes.into(), hasher, None)
                }
            };
            Opened { name, bytes, hasher, data, dir: Some(dir.to_path_buf()) }
        }
        ModelSource::Bytes { name, bytes, dir } => Opened {
            name: name.clone(),
            bytes: bytes.clone().into(),
            hasher: hashed(bytes),
            data: None,
            dir: dir.clone(),
        },
    };
    if opened.bytes.is_empty() {
        return Err(Diagnostic::new("not-onnx", format!("`{}` is empty", opened.name)));
    }
    Ok(opened)
}

fn hashed(bytes: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    hasher
}

/// External data that lies elsewhere than beside the model: a file from a stranger must not make us read others.
fn strays(proto: &pb::ModelProto) -> Vec<Diagnostic> {
    let tensors = proto.graph.iter().flat_map(|g| &g.initializer);
    let located = tensors.flat_map(|t| t.external_data.iter().filter(|e| e.key == "location").map(move |e| (t, e)));
    located
        .filter(|(_, e)| {
            !Path::new(&e.value).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        })
        .map(|(t, e)| {
            let text = format!("tensor `{}` names external data outside the model's folder: `{}`", t.name, e.value);
            Diagnostic::new("external-data", text).hint("put the file beside the model and save the model again")
        })
        .collect()
}

/// Digest of the file, which `hasher` has seen, then of each external file it names, in order of their names.
fn digest(mut hasher: blake3::Hasher, proto: &pb::ModelProto, dir: Option<&str>) -> Result<[u8; 32], Diagnostic> {
    let graph = proto.graph.iter();
    let locations: BTreeSet<&str> = graph
        .flat_map(|g| &g.initializer)
        .flat_map(|t| &t.external_data)
        .filter(|e| e.key == "location" && e.value != stream::HERE)
        .map(|e| e.value.as_str())
        .collect();
    for location in locations {
        let path = Path::new(dir.unwrap_or(".")).join(location);
        let data = std::fs::read(&path).map_err(|e| {
            let text = format!("cannot read the external data `{}`: {e}", path.display());
            Diagnostic::new("unreadable-file", text).hint("it belongs beside the model file")
        })?;
        hasher.update(&(location.len() as u64).to_le_bytes());
        hasher.update(location.as_bytes());
        hasher.update(&(data.len() as u64).to_le_bytes());
        hasher.update(&data);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// An execution order that keeps the file's order where it is one.
fn sort(proto: &pb::ModelProto) -> Result<Vec<usize>, Diagnostic> {
    let nodes = proto.graph.as_ref().map_or(&[][..], |g| &g.node[..]);
    let mut maker: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, n) in nodes.iter().enumerate() {
        maker.extend(n.output.iter().filter(|o| !o.is_empty()).map(|o| (o.as_str(), i)));
    }
    let mut waits: Vec<usize> = vec![0; nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        let sources: BTreeSet<usize> = reads(n).iter().filter_map(|r| maker.get(r.as_str()).copied()).collect();
        waits[i] = sources.len();
        for s in sources {
            readers[s].push(i);
        }
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|i| waits[*i] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for r in &readers[i] {
            waits[*r] -= 1;
            if waits[*r] == 0 {
                ready.insert(*r);
            }
        }
    }
    match (0..nodes.len()).find(|i| waits[*i] > 0) {
        None => Ok(order),
        Some(i) => {
            let text = "the node depends on its own result".to_string();
            Err(Diagnostic::new("cycle", text).at(name_of(&nodes[i], i)))
        }
    }
}

/// A beginning that no tensor name has, so that new node names clash with nothing.
fn free_prefix(graph: &pb::GraphProto) -> String {
    let mut prefix = "#".to_string();
    let names = || {
        let tensors = graph.initializer.iter().map(|i| &i.name).chain(graph.input.iter().map(|i| &i.name));
        tensors.chain(graph.node.iter().flat_map(|n| &n.output))
    };
    while names().any(|n| n.starts_with(&prefix)) {
        prefix.push('#');
    }
    prefix
}

/// A complaint of the reader under the name of the ONNX node it mentions first.
fn explain(text: &str, prefix: &str, nodes: &[OnnxNode]) -> Diagnostic {
    let number = |at: usize| {
        let rest = &text[at + prefix.len()..];
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        nodes.get(digits.parse::<usize>().ok()?)
    };
    // The reader writes `#12 "#3" Conv` for typed node 12 named #3: our names stand in quotes.
    let quoted = text.match_indices(&format!("\"{prefix}")).find_map(|(at, _)| number(at + 1));
    let node = quoted.or_else(|| text.match_indices(&format!("node {prefix}")).find_map(|(at, _)| number(at + 5)));
    let diagnostic = Diagnostic::new("unreadable-network", text.to_string())
        .hint("check the model with the ONNX checker; shapes may not fit the operators");
    match node {
        Some(n) => diagnostic.at(n.name.clone()),
        None => diagnostic,
    }
}

/// What the reader says about the network.
struct Translated {
    typed: Vec<super::TypedNode>,
    facts: Vec<Fact>,
    outlets: BTreeMap<String, Outlet>,
    known: BTreeMap<String, Constant>,
    problems: Vec<String>,
}

fn translate(fw: &Onnx, proto: &mut pb::ModelProto, dir: Option<&str>, prefix: &str) -> TractResult<Translated> {
    let ParseResult { mut model, outlets_by_name, unresolved_inputs } = fw.parse(proto, dir)?;
    ensure!(unresolved_inputs.is_empty(), "nothing makes the tensors {unresolved_inputs:?}");
    let graph = proto.graph.as_mut().context("no graph")?;
    // An output that is also an input or a constant lost its fact when it was declared as output.
    let fixed: BTreeSet<String> = graph.initializer.iter().map(|i| i.name.clone()).collect();
    for input in graph.input.iter().filter(|i| !fixed.contains(&i.name)) {
        let Some(pb::type_proto::Value::TensorType(t)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            bail!("input {} has no type", input.name);
        };
        let dt: DatumType = pb::tensor_proto::DataType::try_from(t.elem_type)?.try_into()?;
        let dims = t.shape.iter().flat_map(|s| &s.dim).map(|d| match &d.value {
            Some(pb::tensor_shape_proto::dimension::Value::DimValue(v)) => Ok(usize::try_from(*v)?),
            _ => bail!("input {} has an open axis", input.name),
        });
        let dims: TVec<usize> = dims.collect::<TractResult<_>>()?;
        let outlet = *outlets_by_name.get(&input.name).context("input without outlet")?;
        model.set_outlet_fact(outlet, InferenceFact::dt_shape(dt, &dims))?;
    }
    graph.initializer.clear();
    model.analyse(false)?;
    bounded(&model)?;
    let mut known: BTreeMap<String, Constant> = BTreeMap::new();
    for (name, outlet) in &outlets_by_name {
        if let Some(value) = model.outlet_fact(*outlet)?.value.concretize() {
            known.insert(name.clone(), Constant(value));
        }
    }
    let traced = Traced::default();
    let (mut typed, outlet_of) = traced.translate_model_with_mappings(&model)?;
    // Node names survive folding and compaction, numbers do not.
    let mut places: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    for (name, outlet) in &outlets_by_name {
        if let Some(o) = outlet_of.get(outlet) {
            places.insert(name, (typed.node(o.node).name.clone(), o.slot));
        }
    }
    typed.prop_consts()?;
    typed.compute_const_facts()?;
    let typed = typed.into_compact()?;
    let mut first: Vec<Outlet> = Vec::with_capacity(typed.nodes().len());
    let mut facts = Vec::new();
    for node in typed.nodes() {
        first.push(facts.len());
        facts.extend(node.outputs.iter().map(|o| fact(&o.fact)));
    }
    let by_name: HashMap<&str, usize> = typed.nodes().iter().map(|n| (n.name.as_str(), n.id)).collect();
    let mut outlets = BTreeMap::new();
    for (name, (node, slot)) in places {
        let Some(id) = by_name.get(node.as_str()) else { continue };
        if slot < typed.node(*id).outputs.len() {
            let outlet = first[*id] + slot;
            if let Some(value) = &facts[outlet].constant {
                known.entry(name.to_string()).or_insert_with(|| value.clone());
            }
            outlets.insert(name.to_string(), outlet);
        }
    }
    let origin = traced.0.into_inner();
    let onnx_index = |id: usize| model.node(id).name.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
    let nodes = typed.nodes().iter().map(|n| super::TypedNode {
        kind: typed::kind(&typed, n),
        inputs: n.inputs.iter().map(|i| first[i.node] + i.slot).collect(),
        outputs: (0..n.outputs.len()).map(|slot| first[n.id] + slot).collect(),
        origin: origin.get(&n.name).copied().and_then(onnx_index),
    });
    let problems = typed.nodes().iter().filter_map(|n| typed::problem(&typed, n)).collect();
    Ok(Translated { typed: nodes.collect(), facts, outlets, known, problems })
}

/// Refuses tensors that no plan could hold before anything tries to compute them.
fn bounded(model: &InferenceModel) -> TractResult<()> {
    for node in model.nodes() {
        for output in &node.outputs {
            // A shape that is not known yet is looked at again by the validator.
            let Some(dims) = output.fact.shape.concretize() else { continue };
            let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.to_usize().ok()?));
            let shape = dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            ensure!(
                count.is_some_and(|n| n <= MAX_ELEMENTS),
                "node \"{}\": a tensor of shape [{shape}] has more than {MAX_ELEMENTS} elements",
                node.name
            );
        }
    }
    Ok(())
}

fn fact(fact: &TypedFact) -> Fact {
    Fact {
        dtype: dtype_of(fact.datum_type),
        shape: fact.shape.as_concrete().map(|s| Shape(s.to_vec())),
        constant: fact.konst.as_ref().filter(|k| k.is_plain_ram()).map(|k| Constant(Arc::clone(k))),
    }
}

/// The stock translation to typed nodes, noting which node made which typed node.
#[derive(Debug, Default)]
struct Traced(RefCell<HashMap<String, usize>>);

impl Translate<InferenceFact, Box<dyn InferenceOp>, TypedFact, Box<dyn TypedOp>> for Traced {
    fn translate_node(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let old = target.nodes().len();
        let known = node.outputs.iter().all(|o| o.fact.value.is_concrete());
        let stateless = node.op.state(&EvalContext::out_of_plan())?.is_none();
        let outlets = if known && stateless && !InferenceModel::is_source(&node.op) {
            let constant = |(i, o): (usize, &Outlet_)| {
                let value = o.fact.value.concretize().context("a known value")?;
                target.add_const(format!("{}.{i}", node.name), value)
            };
            node.outputs.iter().enumerate().map(constant).collect::<TractResult<TVec<_>>>()?
        } else {
            node.op.to_typed(source, node, target, mapping)?
        };
        for outlet in &outlets {
            target.outlet_fact(*outlet)?.consistent()?;
        }
        let made = target.nodes()[old..].iter().map(|t| (t.name.clone(), node.id));
        self.0.borrow_mut().extend(made);
        Ok(outlets)
    }
}

type Outlet_ = tract_core::model::Outlet<InferenceFact>;
