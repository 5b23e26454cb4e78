//! The protobuf messages of the binary form. Tags are never reused; `FORMAT.md` has the same tables.
//!
//! The nesting of these messages stands a second time in [`super::limit`], which counts them before they are built.

/// A whole bundle.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bundle {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "2")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "3")]
    pub inputs: Vec<Port>,
    #[prost(message, repeated, tag = "4")]
    pub outputs: Vec<Port>,
    #[prost(message, repeated, tag = "5")]
    pub constants: Vec<Constant>,
    #[prost(message, repeated, tag = "6")]
    pub maps: Vec<Map>,
    #[prost(message, repeated, tag = "7")]
    pub slots: Vec<Slot>,
    #[prost(message, repeated, tag = "8")]
    pub ranges: Vec<Range>,
    #[prost(message, repeated, tag = "9")]
    pub programs: Vec<Program>,
    #[prost(message, optional, tag = "10")]
    pub cost: Option<Cost>,
}

/// Name and settings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub model: String,
    #[prost(bytes = "vec", tag = "2")]
    pub model_digest: Vec<u8>,
    #[prost(string, tag = "3")]
    pub scheme: String,
    #[prost(string, tag = "4")]
    pub precision: String,
    #[prost(string, tag = "5")]
    pub suite: String,
    #[prost(uint64, tag = "6")]
    pub total_mult_adds: u64,
}

/// An input or output of the network.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Port {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub dtype: u32,
    #[prost(uint64, repeated, tag = "3")]
    pub shape: Vec<u64>,
}

/// A declared constant.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Constant {
    #[prost(bytes = "vec", tag = "1")]
    pub digest: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub dtype: u32,
    #[prost(uint64, repeated, tag = "3")]
    pub shape: Vec<u64>,
}

/// A linear map.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Map {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub inputs: Vec<Sizes>,
    #[prost(message, repeated, tag = "3")]
    pub ops: Vec<Operation>,
    #[prost(uint32, tag = "4")]
    pub output: u32,
}

/// A slot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Slot {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint32, tag = "2")]
    pub k: u32,
    #[prost(uint64, repeated, tag = "3")]
    pub shape: Vec<u64>,
    #[prost(string, tag = "4")]
    pub name: String,
}

/// The bounds of one `encode`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Range {
    #[prost(message, repeated, tag = "1")]
    pub bounds: Vec<Bound>,
}

/// One bound.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bound {
    #[prost(uint32, tag = "1")]
    pub k: u32,
    #[prost(uint64, repeated, tag = "2")]
    pub major: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub minor: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub square: Vec<u64>,
    #[prost(message, optional, tag = "5")]
    pub patch: Option<Patch>,
}

/// Where a bound's sums of squares are taken. The lists belong to kind 2, a window.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Patch {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint64, repeated, tag = "2")]
    pub kernel: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub strides: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub dilations: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    pub pads_before: Vec<u64>,
    #[prost(uint64, repeated, tag = "6")]
    pub pads_after: Vec<u64>,
}

/// The program of one role.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Program {
    #[prost(uint32, tag = "1")]
    pub role: u32,
    #[prost(message, repeated, tag = "2")]
    pub params: Vec<Type>,
    #[prost(message, repeated, tag = "3")]
    pub steps: Vec<Step>,
}

/// One step of a program.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Step {
    #[prost(message, optional, tag = "1")]
    pub op: Option<Operation>,
    #[prost(message, repeated, tag = "2")]
    pub results: Vec<Type>,
}

/// The type of a value: kind 0 tensor, 1 encoded, 2 ring, 3 lifted, 4 checked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Type {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// Tensors only.
    #[prost(uint32, tag = "2")]
    pub dtype: u32,
    /// Ring, lifted and checked values only.
    #[prost(uint32, tag = "3")]
    pub k: u32,
    #[prost(uint64, repeated, tag = "4")]
    pub shape: Vec<u64>,
}

/// An operation of a program or of a linear map: its code and its fields in the order of the table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Operation {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<Field>,
}

/// One field of an operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Field {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub kind: Option<Kind>,
}

/// The kinds of fields, as [`crate::field::Attr`] has them.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    #[prost(uint32, tag = "1")]
    Value(u32),
    #[prost(message, tag = "2")]
    Values(Handles),
    #[prost(uint32, tag = "3")]
    Slot(u32),
    #[prost(uint32, tag = "4")]
    Map(u32),
    #[prost(uint32, tag = "5")]
    Const(u32),
    #[prost(message, tag = "6")]
    MaybeConst(Maybe),
    #[prost(uint32, tag = "7")]
    Role(u32),
    #[prost(uint64, tag = "8")]
    Int(u64),
    #[prost(message, tag = "9")]
    Ints(Sizes),
}

/// Several handles.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Handles {
    #[prost(uint32, repeated, tag = "1")]
    pub ids: Vec<u32>,
}

/// A handle that may be absent.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Maybe {
    #[prost(uint32, optional, tag = "1")]
    pub id: Option<u32>,
}

/// Several sizes, for example those of a shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sizes {
    #[prost(uint64, repeated, tag = "1")]
    pub sizes: Vec<u64>,
}

/// Declared cost.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Cost {
    #[prost(uint64, tag = "1")]
    pub rounds: u64,
    #[prost(uint64, tag = "2")]
    pub bytes_up: u64,
    #[prost(uint64, tag = "3")]
    pub bytes_down: u64,
    #[prost(uint64, tag = "4")]
    pub bytes_edge_link: u64,
    #[prost(uint64, tag = "5")]
    pub mult_adds_edge_a: u64,
    #[prost(uint64, tag = "6")]
    pub mult_adds_edge_b: u64,
}
