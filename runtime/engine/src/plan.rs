//! A plan made ready to run on one role: weights packed, local segments prepared, constants broadcast.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pponnx_kernels::Kernels;
use pponnx_keys::{Mask, Suite};
use pponnx_plans::constant::{ConstDecl, ConstStore, read_f32, read_f64, read_u32};
use pponnx_plans::map::LinearMap;
use pponnx_plans::op::Op;
use pponnx_plans::plan::{Bundle, Program, Range, Slot, Step};
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::{ConstId, DType, MapId, Role, SlotId, ValueId, ValueType};

use crate::buffers::Buffers;
use crate::decode::{DecodeTable, Table};
use crate::error::EngineError;
use crate::fuse::{self, Fused};
use crate::linear::PackedMap;
use crate::local::LocalModel;
use crate::memory::Value;
use crate::profile::Clock;
use crate::ring;
use crate::site::{CheckSite, EncodeSite, check_site, encode_site, groups_of};
use crate::value::TensorValue;

/// A local segment and its name in messages.
pub(crate) struct LocalSite {
    model: LocalModel,
    name: String,
}

impl LocalSite {
    /// Runs the segment; its outputs must be of the types that the plan says.
    pub(crate) fn run(
        &self,
        inputs: Vec<Cow<'_, TensorValue>>,
        types: &[ValueType],
    ) -> Result<Vec<TensorValue>, EngineError> {
        let segment = || self.name.clone();
        let outputs =
            self.model.run_owned(inputs).map_err(|source| EngineError::Local { segment: segment(), source })?;
        if !outputs.iter().map(TensorValue::value_type).eq(types.iter().cloned()) {
            let have: Vec<String> = outputs.iter().map(|o| o.value_type().to_string()).collect();
            let want: Vec<String> = types.iter().map(ToString::to_string).collect();
            return Err(EngineError::mismatch(format!(
                "local segment {} returned {} where the plan says {}; compile the model again",
                segment(),
                have.join(", "),
                want.join(", ")
            )));
        }
        Ok(outputs)
    }
}

enum Extra {
    None,
    Encode(EncodeSite),
    Check(CheckSite),
    Decode(Box<DecodeTable>),
    Local(LocalSite),
}

/// What was found out about a step at load.
pub(crate) struct Prepared {
    /// Number of the step's first result.
    pub(crate) first_result: usize,
    /// Values that no later step reads, to be freed after this one.
    pub(crate) frees: Vec<ValueId>,
    /// Those among them that the step reads once, so that it may work on them in place.
    pub(crate) takes: Vec<ValueId>,
    /// Whether linear maps alone read what the step receives, so that it may stay packed.
    pub(crate) packed: bool,
    extra: Extra,
}

impl Prepared {
    fn wrong<T>(&self) -> Result<T, EngineError> {
        Err(EngineError::mismatch("a step was not prepared"))
    }

    pub(crate) fn encode_site(&self) -> Result<&EncodeSite, EngineError> {
        if let Extra::Encode(site) = &self.extra { Ok(site) } else { self.wrong() }
    }

    pub(crate) fn check_site(&self) -> Result<&CheckSite, EngineError> {
        if let Extra::Check(site) = &self.extra { Ok(site) } else { self.wrong() }
    }

    pub(crate) fn decode_table(&self) -> Result<&DecodeTable, EngineError> {
        if let Extra::Decode(table) = &self.extra { Ok(table) } else { self.wrong() }
    }

    pub(crate) fn local(&self) -> Result<&LocalSite, EngineError> {
        if let Extra::Local(site) = &self.extra { Ok(site) } else { self.wrong() }
    }
}

/// The mask stream that a bundle asks for. Edge A makes no masks, so its processor may lack the instructions.
fn suite(bundle: &Bundle, role: Role) -> Result<Suite, EngineError> {
    let name = &bundle.header.suite;
    let suite = Suite::from_name(name);
    let suite = suite.ok_or_else(|| EngineError::mismatch(format!("unknown mask stream {name:?}")))?;
    if role != Role::EdgeA && !suite.is_available() {
        return Err(EngineError::mismatch(format!(
            "mask stream {name:?} needs a processor with AES instructions, which this one lacks; compile the model with \
             `--suite chacha20`"
        )));
    }
    Ok(suite)
}

/// The plan of one role, ready to run. Immutable: requests share it through an `Arc`.
pub struct LoadedPlan {
    bundle: Arc<ValidBundle>,
    digest: [u8; 32],
    suite: Suite,
    role: Role,
    kernels: Kernels,
    runs: Vec<Option<Fused>>,
    buffers: Buffers,
    program: Program,
    types: Vec<ValueType>,
    steps: Vec<Prepared>,
    maps: BTreeMap<MapId, PackedMap>,
    recvs: BTreeMap<SlotId, Role>,
    loads: Vec<SlotId>,
    clock: Option<Clock>,
}

impl LoadedPlan {
    /// Prepares the program of `role`. `constants` must hold what [`Bundle::constants_of`] names for it; the
    /// weights of the maps it applies are packed once, here.
    ///
    /// # Errors
    /// [`EngineError::Constant`] for a constant that is missing, of another size, or holds NaN, infinity or a group
    /// number beyond the groups; [`EngineError::Local`] for a sub-model that cannot be read;
    /// [`EngineError::PlanMismatch`] for a mask stream that this build or this processor does not have.
    pub fn load(
        bundle: impl Into<Arc<ValidBundle>>,
        role: Role,
        constants: &ConstStore,
        kernels: Kernels,
    ) -> Result<LoadedPlan, EngineError> {
        let bundle: Arc<ValidBundle> = bundle.into();
        let suite = suite(&bundle, role)?;
        let program = bundle.program(role).cloned().unwrap_or_else(|| Program::new(role));
        let types = program.types();
        let mut steps = Vec::with_capacity(program.steps.len());
        let mut maps = BTreeMap::new();
        let mut first_result = program.params.len();
        let mut unread = unread_from(&program);
        let readers = program.steps.iter().filter(|s| !matches!(s.op, Op::Apply { .. }));
        let unpacked: BTreeSet<usize> = readers.flat_map(|s| s.op.operands()).map(|v| v.index()).collect();
        for (i, step) in program.steps.iter().enumerate() {
            let mut frees = unread.remove(&i).unwrap_or_default();
            frees.sort_unstable();
            let operands = step.op.operands();
            let once = |v: &&ValueId| operands.iter().filter(|o| o == v).count() == 1;
            let takes = frees.iter().filter(once).copied().collect();
            let extra = extra(&bundle, &program, constants, &kernels, i, step)?;
            let packed = !unpacked.contains(&first_result);
            steps.push(Prepared { first_result, frees, takes, packed, extra });
            if let Op::Apply { map, .. } = &step.op
                && !maps.contains_key(map)
            {
                maps.insert(*map, PackedMap::load(&bundle, constants, *map, &kernels)?);
            }
            first_result += step.results.len();
        }
        let recvs = program.steps.iter().filter_map(|s| match s.op {
            Op::Recv { from, slot } => Some((slot, from)),
            _ => None,
        });
        let loads = program.steps.iter().filter_map(|s| match s.op {
            Op::Load { slot } => Some(slot),
            _ => None,
        });
        Ok(LoadedPlan {
            digest: *bundle.digest(),
            suite,
            recvs: recvs.collect(),
            loads: loads.collect(),
            bundle,
            role,
            kernels,
            runs: fuse::runs(&program),
            buffers: Buffers::default(),
            program,
            types,
            steps,
            maps,
            clock: None,
        })
    }

    /// The same, with executions that count where their time goes ([`crate::profile`]).
    pub fn with_clock(mut self, clock: Clock) -> LoadedPlan {
        self.clock = Some(clock);
        self
    }

    pub(crate) fn clock(&self) -> Option<Clock> {
        self.clock
    }

    /// The bundle the plan belongs to.
    pub fn bundle(&self) -> &Arc<ValidBundle> {
        &self.bundle
    }

    /// Digest of the bundle.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The mask stream of the bundle.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Whose plan it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The kernels it runs on.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The same plan, evaluated step by step, as the validator reasons about it, and not in fused runs. Slower, with
    /// the same results: for conformance tests.
    #[must_use]
    pub fn stepwise(mut self) -> LoadedPlan {
        self.runs.clear();
        self
    }

    /// Slots whose stored corrections a request of this role takes, in the order of the program.
    pub fn loads(&self) -> &[SlotId] {
        &self.loads
    }

    /// What this role receives in a request: slots and senders.
    pub fn receives(&self) -> impl Iterator<Item = (Role, SlotId)> {
        self.recvs.iter().map(|(slot, from)| (*from, *slot))
    }

    /// The declaration of a slot.
    ///
    /// # Errors
    /// [`EngineError::PlanMismatch`] if the bundle has no such slot.
    pub fn slot(&self, slot: SlotId) -> Result<&Slot, EngineError> {
        let decl = self.bundle.slots.get(slot.index());
        decl.ok_or_else(|| EngineError::mismatch(format!("the bundle has no slot {slot}")))
    }

    /// Number of payload bytes that `from` sends this role over a slot; `None` if it sends nothing there.
    pub fn expects(&self, from: Role, slot: SlotId) -> Option<u64> {
        self.recvs.get(&slot).filter(|r| **r == from)?;
        self.bundle.slots.get(slot.index()).map(Slot::bytes)
    }

    pub(crate) fn types(&self) -> &[ValueType] {
        &self.types
    }

    pub(crate) fn step(&self, pc: usize) -> Option<(&Step, &Prepared)> {
        self.program.steps.get(pc).zip(self.steps.get(pc))
    }

    /// Buffers for requests.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The run of steps that begins there.
    pub(crate) fn run_at(&self, pc: usize) -> Option<&Fused> {
        self.runs.get(pc).and_then(Option::as_ref)
    }

    pub(crate) fn range(&self, index: usize) -> Result<&Range, EngineError> {
        self.bundle.ranges.get(index).ok_or_else(|| EngineError::mismatch(format!("the bundle has no range {index}")))
    }

    pub(crate) fn ring_width(&self, id: ValueId) -> Result<u32, EngineError> {
        ring_width(&self.types, id.index())
    }

    /// The result of a map, `y`.
    pub(crate) fn apply(&self, map: MapId, y: usize, inputs: &[&Value]) -> Result<Value, EngineError> {
        let (packed, decl) = self.map(map)?;
        packed.apply(decl, ring_width(&self.types, y)?, inputs, &self.kernels)
    }

    /// The payload of a slot: a map's result, less a correction or plus a pad.
    pub(crate) fn answer(
        &self,
        map: MapId,
        inputs: &[&Value],
        correction: Option<&[u8]>,
        pad: Option<Mask>,
        slot: &Slot,
    ) -> Result<Vec<u8>, EngineError> {
        let (packed, decl) = self.map(map)?;
        match pad {
            None => packed.answer(decl, slot, inputs, correction, &self.kernels, &self.buffers),
            Some(pad) => {
                let result = packed.apply(decl, slot.k, inputs, &self.kernels)?;
                ring::pack(&ring::add(result, pad)?, slot, &self.kernels)
            }
        }
    }

    fn map(&self, map: MapId) -> Result<(&PackedMap, &LinearMap), EngineError> {
        let packed = self.maps.get(&map).ok_or_else(|| EngineError::mismatch(format!("map {map} was not packed")))?;
        let decl = self.bundle.maps.get(map.index());
        Ok((packed, decl.ok_or_else(|| EngineError::mismatch(format!("the bundle has no map {map}")))?))
    }

    /// Fails unless `inputs` are the parameters of the program.
    pub(crate) fn accepts(&self, inputs: &[TensorValue]) -> Result<(), EngineError> {
        if inputs.len() != self.program.params.len() {
            return Err(EngineError::InvalidInput {
                name: self.bundle.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
                what: format!("{} tensors given where {} are needed", inputs.len(), self.program.params.len()),
            });
        }
        for (i, (input, wanted)) in inputs.iter().zip(&self.program.params).enumerate() {
            if &input.value_type() != wanted {
                return Err(EngineError::InvalidInput {
                    name: self.bundle.inputs.get(i).map(|p| p.name.clone()).unwrap_or_default(),
                    what: format!("it is {} and must be {wanted}", input.value_type()),
                });
            }
        }
        Ok(())
    }
}

fn ring_width(types: &[ValueType], index: usize) -> Result<u32, EngineError> {
    match types.get(index) {
        Some(ValueType::Ring(k, _)) => Ok(*k),
        _ => Err(EngineError::mismatch(format!("value %{index} is not a ring tensor"))),
    }
}

/// For each step, the values whose last reader it is; values that nobody reads fall to the step that makes them.
fn unread_from(program: &Program) -> BTreeMap<usize, Vec<ValueId>> {
    let mut last = Vec::with_capacity(program.value_count());
    last.resize(program.params.len(), 0);
    for (i, step) in program.steps.iter().enumerate() {
        last.extend(step.results.iter().map(|_| i));
        for v in step.op.operands() {
            if let Some(at) = last.get_mut(v.index()) {
                *at = i;
            }
        }
    }
    let mut by_step: BTreeMap<usize, Vec<ValueId>> = BTreeMap::new();
    for (v, i) in last.into_iter().enumerate() {
        by_step.entry(i).or_default().push(ValueId(v as u32));
    }
    by_step
}

fn extra(
    bundle: &Bundle,
    program: &Program,
    constants: &ConstStore,
    kernels: &Kernels,
    at: usize,
    step: &Step,
) -> Result<Extra, EngineError> {
    Ok(match &step.op {
        Op::Encode { x, .. } => Extra::Encode(encode_site(bundle, program, at, *x)),
        Op::Check { map, z, .. } => Extra::Check(check_site(bundle, program, *map, *z)),
        Op::Decode { source, scale, bias, group, .. } => {
            let shape = step.results.first().map(ValueType::shape).cloned().unwrap_or_default();
            let scale_table = finite(bundle, constants, *scale, DType::F64, read_f64, |v| v.is_finite())?;
            let bias_table = finite(bundle, constants, *bias, DType::F32, read_f32, |v| v.is_finite())?;
            let groups = groups_of(program, *source) as u32;
            let group_table = match group {
                Some(id) => Some(finite(bundle, constants, *id, DType::U32, read_u32, |g| *g < groups)?),
                None if groups > 1 => {
                    return Err(EngineError::mismatch(format!("step {at}: decode names no groups of {source}")));
                }
                None => None,
            };
            let table = DecodeTable::new(&shape, &scale_table, &bias_table, group_table.as_ref());
            Extra::Decode(Box::new(table.map_err(|what| EngineError::Constant { id: *scale, what })?))
        }
        Op::Local { model, .. } => {
            let (_, bytes) = constant_bytes(bundle, constants, *model)?;
            let named = |name: &str| format!("{name:?} (step {at} of the device program)");
            let loaded = LocalModel::load_with(&bytes, Some(*kernels));
            let model = loaded.map_err(|source| EngineError::Local { segment: named(""), source })?;
            Extra::Local(LocalSite { name: named(model.name()), model })
        }
        Op::Mask { .. }
        | Op::Expose { .. }
        | Op::Unpad { .. }
        | Op::Lift { .. }
        | Op::Return { .. }
        | Op::Send { .. }
        | Op::Recv { .. }
        | Op::Draw { .. }
        | Op::Pad { .. }
        | Op::Apply { .. }
        | Op::Sub { .. }
        | Op::Store { .. }
        | Op::Load { .. }
        | Op::DealCheck { .. } => Extra::None,
    })
}

/// A constant's declaration and bytes, read from the plan file where the store does not hold them.
///
/// # Errors
/// [`EngineError::Constant`] if the store lacks it, it cannot be read, or has another size.
pub(crate) fn constant_bytes<'a>(
    bundle: &'a Bundle,
    constants: &ConstStore,
    id: ConstId,
) -> Result<(&'a ConstDecl, Arc<Vec<u8>>), EngineError> {
    let wrong = |what: &str| EngineError::Constant { id, what: what.into() };
    let decl = bundle.constants.get(id.index()).ok_or_else(|| wrong("not declared"))?;
    let bytes = constants.load(&decl.digest).map_err(|e| wrong(&e.to_string()))?;
    if bytes.len() != decl.bytes() {
        return Err(wrong("another number of bytes than its shape says"));
    }
    Ok((decl, bytes))
}

/// A constant of numbers that all pass a test.
fn finite<T>(
    bundle: &Bundle,
    constants: &ConstStore,
    id: ConstId,
    dtype: DType,
    read: impl Fn(&[u8]) -> Vec<T>,
    good: impl Fn(&T) -> bool,
) -> Result<Table<T>, EngineError> {
    let (decl, bytes) = constant_bytes(bundle, constants, id)?;
    if decl.dtype != dtype {
        return Err(EngineError::Constant { id, what: format!("{} and not {}", decl.dtype.name(), dtype.name()) });
    }
    let data = read(&bytes);
    if !data.iter().all(good) {
        let what = if dtype == DType::U32 { "a group number beyond the groups" } else { "NaN or infinity" };
        return Err(EngineError::Constant { id, what: what.into() });
    }
    Ok(Table { shape: decl.shape.clone(), data })
}
