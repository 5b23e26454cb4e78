//! From messages to the crate's types. What a message leaves unsaid or says twice is caught by the comparison of the
//! re-encoded bytes in [`super::decode`].

use super::error::FormatError;
use super::message as m;
use crate::constant::{ConstDecl, Digest};
use crate::field::Attr;
use crate::map::{LinearMap, MapOp};
use crate::op::Op;
use crate::plan::{Bound, Bundle, Cost, Header, Patch, Port, Program, Range, Slot, SlotKind, Step};
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};

type Result<T> = std::result::Result<T, FormatError>;

fn need<T>(what: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| FormatError::Corrupt(format!("{what} is missing")))
}

fn all<M, T>(messages: Vec<M>, read: impl Fn(M) -> Result<T>) -> Result<Vec<T>> {
    messages.into_iter().map(read).collect()
}

fn pick<T: Copy>(what: &'static str, list: &[T], code: u32) -> Result<T> {
    list.get(code as usize).copied().ok_or(FormatError::Unknown { what, code })
}

fn sizes(sizes: Vec<u64>) -> Result<Vec<usize>> {
    let size = |found: u64| {
        let limit = usize::MAX as u64;
        usize::try_from(found).map_err(|_| FormatError::TooLarge { what: "size of an axis", found, limit })
    };
    all(sizes, size)
}

fn shape(list: Vec<u64>) -> Result<Shape> {
    sizes(list).map(Shape)
}

fn dtype(code: u32) -> Result<DType> {
    pick("element type", &DType::ALL, code)
}

fn digest(what: &str, bytes: Vec<u8>) -> Result<Digest> {
    let len = bytes.len();
    bytes.try_into().map_err(|_| FormatError::Corrupt(format!("{what} has {len} bytes, not 32")))
}

pub(super) fn bundle(b: m::Bundle) -> Result<Bundle> {
    Ok(Bundle {
        header: header(need("the header", b.header)?)?,
        inputs: all(b.inputs, port)?,
        outputs: all(b.outputs, port)?,
        constants: all(b.constants, constant)?,
        maps: all(b.maps, map)?,
        slots: all(b.slots, slot)?,
        ranges: all(b.ranges, |r| Ok(Range { bounds: all(r.bounds, bound)? }))?,
        programs: all(b.programs, program)?,
        cost: cost(need("the cost", b.cost)?),
    })
}

fn header(h: m::Header) -> Result<Header> {
    Ok(Header {
        model: h.model,
        model_digest: digest("the digest of the model", h.model_digest)?,
        scheme: h.scheme,
        precision: h.precision,
        suite: h.suite,
        total_mult_adds: h.total_mult_adds,
    })
}

fn cost(c: m::Cost) -> Cost {
    let m::Cost { rounds, bytes_up, bytes_down, bytes_edge_link, mult_adds_edge_a, mult_adds_edge_b } = c;
    Cost { rounds, bytes_up, bytes_down, bytes_edge_link, mult_adds_edge_a, mult_adds_edge_b }
}

fn port(p: m::Port) -> Result<Port> {
    Ok(Port { name: p.name, dtype: dtype(p.dtype)?, shape: shape(p.shape)? })
}

fn constant(c: m::Constant) -> Result<ConstDecl> {
    Ok(ConstDecl {
        digest: digest("the digest of a constant", c.digest)?,
        dtype: dtype(c.dtype)?,
        shape: shape(c.shape)?,
    })
}

fn slot(s: m::Slot) -> Result<Slot> {
    Ok(Slot { kind: pick("kind of slot", &SlotKind::ALL, s.kind)?, k: s.k, shape: shape(s.shape)?, name: s.name })
}

fn bound(b: m::Bound) -> Result<Bound> {
    let patch = need("the patch of a bound", b.patch)?;
    let patch = match patch.kind {
        0 => Patch::Whole,
        1 => Patch::LastAxis,
        2 => Patch::Window {
            kernel: sizes(patch.kernel)?,
            strides: sizes(patch.strides)?,
            dilations: sizes(patch.dilations)?,
            pads_before: sizes(patch.pads_before)?,
            pads_after: sizes(patch.pads_after)?,
        },
        code => {
            return Err(FormatError::Unknown { what: "kind of patch", code });
        }
    };
    Ok(Bound { k: b.k, major: b.major, minor: b.minor, square: b.square, patch })
}

fn map(map: m::Map) -> Result<LinearMap> {
    let op = |o: m::Operation| {
        let (code, fields) = fields(o, MapOp::<ConstId>::signature, "map operation")?;
        MapOp::from_fields(code, fields).ok_or_else(|| unfit("map operation", code))
    };
    let inputs = all(map.inputs, |s| shape(s.sizes))?;
    Ok(LinearMap { name: map.name, inputs, ops: all(map.ops, op)?, output: ValueId(map.output) })
}

fn program(p: m::Program) -> Result<Program> {
    Ok(Program {
        role: pick("role", &Role::ALL, p.role)?,
        params: all(p.params, value_type)?,
        steps: all(p.steps, step)?,
    })
}

fn step(step: m::Step) -> Result<Step> {
    let (code, fields) = fields(need("the operation of a step", step.op)?, Op::signature, "operation")?;
    let op = Op::from_fields(code, fields).ok_or_else(|| unfit("operation", code))?;
    Ok(Step { op, results: all(step.results, value_type)? })
}

fn value_type(t: m::Type) -> Result<ValueType> {
    let shape = shape(t.shape)?;
    match t.kind {
        0 => Ok(ValueType::Tensor(dtype(t.dtype)?, shape)),
        1 => Ok(ValueType::Encoded(shape)),
        2 => Ok(ValueType::Ring(t.k, shape)),
        3 => Ok(ValueType::Lifted(t.k, shape)),
        4 => Ok(ValueType::Checked(t.k, shape)),
        code => Err(FormatError::Unknown { what: "kind of value", code }),
    }
}

fn unfit(what: &str, code: u32) -> FormatError {
    FormatError::Corrupt(format!("the fields of the {what} with code {code} are not those of its table"))
}

/// Code and fields of an operation, after a look whether the code is known at all.
fn fields<S>(o: m::Operation, signature: impl Fn(u32) -> Option<S>, what: &'static str) -> Result<(u32, Vec<Attr>)> {
    if signature(o.code).is_none() {
        return Err(FormatError::Unknown { what, code: o.code });
    }
    Ok((o.code, all(o.fields, |f| attr(need("a field of an operation", f.kind)?))?))
}

fn attr(kind: m::Kind) -> Result<Attr> {
    Ok(match kind {
        m::Kind::Value(v) => Attr::Value(ValueId(v)),
        m::Kind::Values(vs) => Attr::Values(vs.ids.into_iter().map(ValueId).collect()),
        m::Kind::Slot(s) => Attr::Slot(SlotId(s)),
        m::Kind::Map(map) => Attr::Map(MapId(map)),
        m::Kind::Const(c) => Attr::Const(ConstId(c)),
        m::Kind::MaybeConst(c) => Attr::MaybeConst(c.id.map(ConstId)),
        m::Kind::Role(code) => Attr::Role(pick("role", &Role::ALL, code)?),
        m::Kind::Int(n) => Attr::Int(n),
        m::Kind::Ints(list) => Attr::Ints(list.sizes),
    })
}
