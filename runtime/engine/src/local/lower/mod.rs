//! From ONNX nodes to native operators. What is not known here, or is anything but f32 of fixed shapes, is left to
//! the back end: every `None` of this folder means that and nothing worse.

mod arithmetic;
mod moves;
mod reduce;
mod views;

use std::collections::HashMap;

use tract_onnx::pb;

use super::fuse::{Program, fuse};
use super::graph::{Buf, Graph, Kind, Op, View};
use super::proto::{Constant, Node, constant, fixed};

/// How an operator is lowered.
type Lower = fn(&mut Builder, &Node) -> Option<()>;

/// Every operator with a native form.
const LOWER: [(&str, Lower); 34] = [
    ("Abs", arithmetic::abs),
    ("Add", arithmetic::add),
    ("AveragePool", reduce::average_pool),
    ("Clip", arithmetic::clip),
    ("Concat", moves::concat),
    ("Constant", views::constant),
    ("Div", arithmetic::div),
    ("Dropout", views::dropout),
    ("Exp", arithmetic::exp),
    ("Flatten", views::flatten),
    ("Gather", moves::gather),
    ("GlobalAveragePool", reduce::global_average_pool),
    ("HardSigmoid", arithmetic::hard_sigmoid),
    ("HardSwish", arithmetic::hard_swish),
    ("Identity", views::identity),
    ("LRN", reduce::lrn),
    ("LeakyRelu", arithmetic::leaky_relu),
    ("Max", arithmetic::max),
    ("MaxPool", reduce::max_pool),
    ("Min", arithmetic::min),
    ("Mul", arithmetic::mul),
    ("Neg", arithmetic::neg),
    ("PRelu", arithmetic::prelu),
    ("ReduceMean", reduce::reduce_mean),
    ("Relu", arithmetic::relu),
    ("Reshape", views::reshape),
    ("Sigmoid", arithmetic::sigmoid),
    ("Slice", moves::slice),
    ("Softmax", reduce::softmax),
    ("Split", moves::split),
    ("Squeeze", views::squeeze),
    ("Sub", arithmetic::sub),
    ("Transpose", moves::transpose),
    ("Unsqueeze", views::unsqueeze),
];

/// What a name of the model stands for.
#[derive(Clone, Debug)]
pub enum Value {
    /// A constant.
    Constant(Constant),
    /// A buffer in a shape.
    View(View),
}

/// A graph in the making.
pub struct Builder {
    names: HashMap<String, Value>,
    graph: Graph,
}

/// The native form of a model whose nodes are sorted; `None` if the back end must run it.
pub fn program(model: &pb::ModelProto) -> Option<Program> {
    let standard = |o: &&pb::OperatorSetIdProto| o.domain.is_empty() || o.domain == "ai.onnx";
    let opset = model.opset_import.iter().filter(standard).map(|o| o.version).max()?;
    // Operators may mean something else in a version that nobody has seen.
    let known = opset <= 24 && model.functions.is_empty();
    Some(fuse(lower(model.graph.as_ref().filter(|_| known)?, opset)?))
}

fn lower(graph: &pb::GraphProto, opset: i64) -> Option<Graph> {
    if !graph.sparse_initializer.is_empty() || graph.output.is_empty() {
        return None;
    }
    let mut b = Builder { names: HashMap::new(), graph: Graph::default() };
    for t in &graph.initializer {
        b.bind(&t.name, Value::Constant(constant(t)?))?;
    }
    for info in &graph.input {
        if !matches!(b.names.get(&info.name), Some(Value::Constant(_))) {
            let shape = fixed(info)?;
            let view = b.buffer(shape.clone())?;
            b.graph.inputs.push(shape);
            b.bind(&info.name, Value::View(view))?;
        }
    }
    for proto in &graph.node {
        let node = Node::new(proto, opset)?;
        let (_, lower) = LOWER.iter().find(|(op, _)| *op == node.op())?;
        lower(&mut b, &node)?;
    }
    for info in &graph.output {
        match b.names.get(&info.name)? {
            Value::View(view) if view.shape == fixed(info)? => b.graph.outputs.push(view.clone()),
            Value::View(_) | Value::Constant(_) => return None,
        }
    }
    Some(b.graph)
}

/// Number of elements of a shape that has some.
fn elements(shape: &[usize]) -> Option<usize> {
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    // Bytes must be addressable.
    (n > 0 && n <= isize::MAX as usize / size_of::<f32>()).then_some(n)
}

/// An axis that may be counted from the end.
fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}

impl Builder {
    /// A new buffer for a tensor of this shape.
    fn buffer(&mut self, shape: Vec<usize>) -> Option<View> {
        self.graph.lens.push(elements(&shape)?);
        Some(View { buf: self.graph.lens.len() - 1, shape })
    }

    /// Gives a value its name; a name has one value.
    fn bind(&mut self, name: &str, value: Value) -> Option<()> {
        (!name.is_empty() && self.names.insert(name.into(), value).is_none()).then_some(())
    }

    fn value(&self, node: &Node, i: usize) -> Option<&Value> {
        self.names.get(node.input(i)?)
    }

    /// An input that is computed.
    fn view(&self, node: &Node, i: usize) -> Option<View> {
        match self.value(node, i)? {
            Value::View(view) => Some(view.clone()),
            Value::Constant(_) => None,
        }
    }

    /// An input that is a constant of integers; `Some(None)` where it is left out.
    fn ints(&self, node: &Node, i: usize) -> Option<Option<Vec<i64>>> {
        if node.input(i).is_none() {
            return Some(None);
        }
        match self.value(node, i)? {
            Value::Constant(Constant::Int(_, data)) => Some(Some(data.clone())),
            Value::Constant(Constant::Float(..)) | Value::View(_) => None,
        }
    }

    /// An input that is one constant number; `Some(None)` where it is left out.
    fn number(&self, node: &Node, i: usize) -> Option<Option<f32>> {
        if node.input(i).is_none() {
            return Some(None);
        }
        match self.value(node, i)? {
            Value::Constant(Constant::Float(_, data)) if data.len() == 1 => Some(data.first().copied()),
            Value::Constant(_) | Value::View(_) => None,
        }
    }

    /// The only output is this buffer in another shape.
    fn same(&mut self, node: &Node, buf: Buf, shape: Vec<usize>) -> Option<()> {
        let n = elements(&shape)?;
        if self.graph.lens.get(buf) != Some(&n) {
            return None;
        }
        self.bind(only_output(node)?, Value::View(View { buf, shape }))
    }

    /// Appends an operator; its result is the only output.
    fn push(&mut self, node: &Node, kind: Kind, from: Vec<Buf>, shape: Vec<usize>) -> Option<()> {
        let name = only_output(node)?;
        self.push_as(name, kind, from, shape)
    }

    /// Appends an operator whose result has this name.
    fn push_as(&mut self, name: &str, kind: Kind, from: Vec<Buf>, shape: Vec<usize>) -> Option<()> {
        let view = self.buffer(shape)?;
        self.graph.ops.push(Op { kind, from, to: view.buf });
        self.bind(name, Value::View(view))
    }
}

/// The output of a node that has one.
fn only_output<'a>(node: &Node<'a>) -> Option<&'a str> {
    let (first, rest) = node.outputs().split_first()?;
    rest.iter().all(String::is_empty).then_some(first)
}
