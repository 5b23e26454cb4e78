//! How much memory a role needs for a plan, told from the bundle alone, before anything is allocated.
//!
//! An estimate from the sizes of constants and values. Kernels add padding, and local sub-models what their operators
//! need inside.

use std::collections::BTreeMap;

use crate::map::{LinearMap, MapOp};
use crate::op::Op;
use crate::plan::{Bundle, Program};
use crate::reference::linear;
use crate::value::{ConstId, DType, MapId, Role, Shape, ValueId, ValueType};

/// Bytes; sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Held as long as the plan is: constants, and on the device check vectors.
    pub resident: u64,
    /// Largest constant: the one that is read while it is packed.
    pub largest: u64,
    /// Values of one request where most of them live at once.
    pub request: u64,
}

impl Footprint {
    /// What the role needs to load the plan and to run one request.
    pub fn total(&self) -> u64 {
        self.resident.saturating_add(self.largest.max(self.request))
    }
}

/// The memory that a role needs for a bundle.
pub fn footprint(bundle: &Bundle, role: Role) -> Footprint {
    let mut found = Footprint::default();
    for id in bundle.constants_of(role) {
        let bytes = bundle.constants.get(id.index()).map_or(0, |decl| decl.bytes() as u64);
        found.resident = found.resident.saturating_add(bytes);
        found.largest = found.largest.max(bytes);
    }
    let Some(program) = bundle.program(role) else { return found };
    let checked = program.steps.iter().filter_map(|step| match step.op {
        Op::Check { map, .. } => bundle.maps.get(map.index()),
        _ => None,
    });
    let vectors = checked.flat_map(|map| &map.inputs).map(|shape| bytes(shape, 8));
    found.resident = vectors.fold(found.resident, u64::saturating_add);
    found.request = request(bundle, program);
    found
}

fn bytes(shape: &Shape, each: u64) -> u64 {
    (shape.len() as u64).saturating_mul(each)
}

/// Bytes of a word of a ring of width k.
fn word(k: u32) -> u64 {
    if k <= 32 { 4 } else { 8 }
}

fn size(value: &ValueType) -> u64 {
    match value {
        ValueType::Tensor(dtype, shape) => bytes(shape, dtype.bytes() as u64),
        ValueType::Encoded(shape) => bytes(shape, DType::I32.bytes() as u64),
        ValueType::Ring(k, shape) | ValueType::Lifted(k, shape) | ValueType::Checked(k, shape) => {
            bytes(shape, word(*k))
        }
    }
}

/// The most bytes that live at once, each value from the step that makes it to the last that reads it.
fn request(bundle: &Bundle, program: &Program) -> u64 {
    let types = program.types();
    let mut inner: BTreeMap<MapId, u64> = BTreeMap::new();
    let mut live = Live::new(types.iter().map(size).collect());
    for (i, step) in program.steps.iter().enumerate() {
        live.reads(i, &step.op.operands());
    }
    let mut next = program.params.len();
    live.begin(0..next);
    for (i, step) in program.steps.iter().enumerate() {
        let extra = match &step.op {
            Op::Apply { map, .. } => {
                let k = step.results.first().map_or(64, |t| if let ValueType::Ring(k, _) = t { *k } else { 64 });
                let of = || bundle.maps.get(map.index()).map_or(0, |m| inside(bundle, m, word(k)));
                *inner.entry(*map).or_insert_with(of)
            }
            _ => 0,
        };
        let made = next..next + step.results.len();
        next = made.end;
        live.begin(made);
        live.step(i, extra);
    }
    live.most
}

/// What the values between the operations of a map take at most.
fn inside(bundle: &Bundle, map: &LinearMap, word: u64) -> u64 {
    let Ok(shapes) = linear::shapes(map, |c: &ConstId| bundle.constants.get(c.index()).map(|d| &d.shape)) else {
        return 0;
    };
    let mut live = Live::new(shapes.iter().map(|s| bytes(s, word)).collect());
    for (i, op) in map.ops.iter().enumerate() {
        live.reads(i, &MapOp::operands(op));
    }
    // Inputs and result belong to the program.
    for (i, _) in map.ops.iter().enumerate() {
        let made = map.inputs.len() + i;
        if made != map.output.index() {
            live.begin(made..made + 1);
        }
        live.step(i, 0);
    }
    live.most
}

/// Sizes of values, and which of them are needed.
struct Live {
    sizes: Vec<u64>,
    /// Step that reads the value last.
    last: Vec<usize>,
    begun: Vec<usize>,
    now: u64,
    most: u64,
}

impl Live {
    fn new(sizes: Vec<u64>) -> Live {
        let last = vec![0; sizes.len()];
        Live { sizes, last, begun: Vec::new(), now: 0, most: 0 }
    }

    fn reads(&mut self, step: usize, operands: &[ValueId]) {
        for v in operands {
            if let Some(last) = self.last.get_mut(v.index()) {
                *last = step;
            }
        }
    }

    fn begin(&mut self, values: std::ops::Range<usize>) {
        for v in values {
            self.now = self.now.saturating_add(self.sizes.get(v).copied().unwrap_or(0));
            self.begun.push(v);
        }
        self.most = self.most.max(self.now);
    }

    /// The step has run, with `extra` bytes of its own.
    fn step(&mut self, step: usize, extra: u64) {
        self.most = self.most.max(self.now.saturating_add(extra));
        let (sizes, last) = (&self.sizes, &self.last);
        self.begun.retain(|v| last.get(*v).is_some_and(|last| *last > step));
        self.now = self.begun.iter().fold(0, |sum, v| sum.saturating_add(sizes.get(*v).copied().unwrap_or(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn constants_and_the_widest_moment_count() {
        let (bundle, _) = sample::relay();
        let of = |role| footprint(&bundle, role);
        // Weights of three rows of four i16.
        assert_eq!((of(Role::EdgeA).resident, of(Role::EdgeA).largest), (24, 24));
        for role in [Role::Device, Role::EdgeA, Role::EdgeB] {
            let found = of(role);
            let all: u64 = bundle.program(role).map_or(0, |p| p.types().iter().map(size).sum());
            assert!(found.request > 0 && found.request <= all, "{role}: {found:?} of {all}");
            assert!(found.total() >= found.resident + found.request);
        }
        // The device holds no weights, but a check vector of four elements.
        let constants: u64 =
            bundle.constants_of(Role::Device).iter().map(|id| bundle.constants[id.index()].bytes() as u64).sum();
        assert_eq!(of(Role::Device).resident, constants + 4 * 8);
    }

    #[test]
    fn absurd_shapes_saturate() {
        let (mut bundle, _) = sample::relay();
        bundle.constants[0].shape = Shape(vec![usize::MAX, 3]);
        for program in &mut bundle.programs {
            for value in program.steps.iter_mut().flat_map(|s| &mut s.results) {
                if let ValueType::Ring(_, shape) = value {
                    *shape = Shape(vec![usize::MAX / 2, usize::MAX]);
                }
            }
        }
        assert_eq!(footprint(&bundle, Role::EdgeA).total(), u64::MAX);
        bundle.programs.clear();
        assert_eq!(footprint(&bundle, Role::EdgeA), Footprint::default());
    }
}
