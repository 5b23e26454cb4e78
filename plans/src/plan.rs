//! Programs, slots, ranges and the bundle that holds them.

use crate::constant::ConstDecl;
use crate::map::LinearMap;
use crate::op::Op;
use crate::value::{DType, Role, Shape, ValueId, ValueType};

/// One step of a program: an operation and the types of the values it defines.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub op: Op,
    /// Types of the results, which take the next free value numbers.
    pub results: Vec<ValueType>,
}

/// The straight-line program of one role. Values are numbered from zero: first the parameters, then results in
/// order of definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Who runs it.
    pub role: Role,
    /// Types of the parameters: the request's inputs on the device, none elsewhere.
    pub params: Vec<ValueType>,
    /// Steps in order.
    pub steps: Vec<Step>,
}

impl Program {
    /// An empty program.
    pub fn new(role: Role) -> Program {
        Program { role, params: Vec::new(), steps: Vec::new() }
    }

    /// Appends a step and returns the number of its first result.
    pub fn push(&mut self, op: Op, results: Vec<ValueType>) -> ValueId {
        let id = ValueId(self.value_count() as u32);
        self.steps.push(Step { op, results });
        id
    }

    /// How many values the program defines, parameters included.
    pub fn value_count(&self) -> usize {
        self.params.len() + self.steps.iter().map(|s| s.results.len()).sum::<usize>()
    }

    /// Types of all values, by number.
    pub fn types(&self) -> Vec<ValueType> {
        self.params.iter().chain(self.steps.iter().flat_map(|s| &s.results)).cloned().collect()
    }
}

/// What a slot carries. It fixes which mask stream belongs to it: side 0 for uploads, side 1 for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// Device to edge A: a masked input of linear maps.
    Upload,
    /// An edge to the device: the result of a linear map.
    Download,
    /// Edge B to edge A, or the owner's stock: a correction.
    Correction,
}

impl SlotKind {
    /// Every kind. The position is its code in the binary form.
    pub const ALL: [SlotKind; 3] = [SlotKind::Upload, SlotKind::Download, SlotKind::Correction];

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<SlotKind> {
        SlotKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name used in text forms.
    pub fn name(self) -> &'static str {
        match self {
            SlotKind::Upload => "upload",
            SlotKind::Download => "download",
            SlotKind::Correction => "correction",
        }
    }
}

/// One tensor that is transferred or stored for every request. In `relay` and `stockpile` the correction and
/// the reply of a map share one pad, so the pad is named by the reply's (download) slot in both roles.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// What it carries.
    pub kind: SlotKind,
    /// Ring width in bits.
    pub k: u32,
    /// Shape of the tensor.
    pub shape: Shape,
    /// Name of the segment, for messages.
    pub name: String,
}

impl Slot {
    /// Bytes of the packed tensor on the wire: exactly `k` bits an element.
    pub fn bytes(&self) -> u64 {
        (self.shape.len() as u64).saturating_mul(u64::from(self.k)).div_ceil(8)
    }
}

/// Sums of squares that the Cauchy-Schwarz bound takes over: which inputs one output row can read.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// All elements of the group.
    Whole,
    /// The last axis, of each row on its own.
    LastAxis,
    /// A window of the axes from 2 on, all channels of the group.
    Window {
        /// Window size per axis.
        kernel: Vec<usize>,
        /// Step per axis.
        strides: Vec<usize>,
        /// Spacing of taps per axis.
        dilations: Vec<usize>,
        /// Zeros in front per axis.
        pads_before: Vec<usize>,
        /// Zeros behind per axis.
        pads_after: Vec<usize>,
    },
}

/// A sound bound for one consumer of an encoded tensor (`docs/formats.md`, range rules). The vectors have one entry
/// for all, or one for each of equal parts of axis 1, at least as fine as the groups that share an exponent. With h and l
/// the largest encoded positive and negative magnitude of the part, every result is below
/// `max(h,l) * major + min(h,l) * minor` in magnitude.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Width of the ring in which the result must fit.
    pub k: u32,
    /// max over rows of max(P, N): P, N sums of positive and of absolute negative weights.
    pub major: Vec<u64>,
    /// max over rows of min(P, N).
    pub minor: Vec<u64>,
    /// max over rows of the sum of squared weights; empty if the Cauchy-Schwarz bound does not apply.
    pub square: Vec<u64>,
    /// Where the sums of squares are taken.
    pub patch: Patch,
}

/// All bounds that one `encode` must keep.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Range {
    /// One per consuming map.
    pub bounds: Vec<Bound>,
}

/// An input or output of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// ONNX tensor name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, fixed at compile time.
    pub shape: Shape,
}

/// The mask streams that a bundle may ask for, the default first. The bytes of each are in `docs/formats.md`.
pub const SUITES: [&str; 3] = ["chacha20", "chacha12", "aes128-ctr"];

/// Facts about a bundle that name it but do not change what it computes.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Header {
    /// Name of the model, from its file.
    pub model: String,
    /// BLAKE3 digest of the model file.
    pub model_digest: [u8; 32],
    /// Scheme: `relay`, `two-edge`, `one-time`, `stockpile` or `plain`.
    pub scheme: String,
    /// Precision: `fast`, `balanced` or `precise`.
    pub precision: String,
    /// Mask stream: one of [`SUITES`].
    pub suite: String,
    /// Multiply-adds of the whole network, outsourced and local.
    pub total_mult_adds: u64,
}

/// Cost of one request, declared by the compiler and recomputed by the validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cost {
    /// Waits of the device on the critical path.
    pub rounds: u64,
    /// Payload bytes, device to edges.
    pub bytes_up: u64,
    /// Payload bytes, edges to device.
    pub bytes_down: u64,
    /// Payload bytes, edge B to edge A.
    pub bytes_edge_link: u64,
    /// Multiply-adds of the linear maps edge A applies.
    pub mult_adds_edge_a: u64,
    /// Multiply-adds of the linear maps edge B applies.
    pub mult_adds_edge_b: u64,
}

/// Everything the roles agree on. Contains no secret and no weight: constants stand here by digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Name and settings.
    pub header: Header,
    /// Inputs of the network: the device program's parameters.
    pub inputs: Vec<Port>,
    /// Outputs of the network: what the device program returns.
    pub outputs: Vec<Port>,
    /// Constants, by handle.
    pub constants: Vec<ConstDecl>,
    /// Linear maps, by handle.
    pub maps: Vec<LinearMap>,
    /// Slots, by handle.
    pub slots: Vec<Slot>,
    /// Ranges, by index.
    pub ranges: Vec<Range>,
    /// Programs, in the order of [`Role::ALL`]; a role without part in the scheme has an empty one.
    pub programs: Vec<Program>,
    /// Declared cost.
    pub cost: Cost,
}

impl Bundle {
    /// The program of a role; `None` if the bundle lacks it, which the validator refuses.
    pub fn program(&self, role: Role) -> Option<&Program> {
        self.programs.iter().find(|p| p.role == role)
    }

    /// Whether a role has something to do in this bundle.
    pub fn has_role(&self, role: Role) -> bool {
        self.program(role).is_some_and(|p| !p.steps.is_empty())
    }
}
