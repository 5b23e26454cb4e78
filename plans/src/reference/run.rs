//! All roles of one request in one process: what a bundle computes, step by step.
//!
//! Slow and single-threaded; the runtime must produce the same integers. Streams are given by the caller, so that
//! tests can fix them, exhaust them or tamper with what travels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::EvalError;
use super::check;
use super::linear;
use super::number::{self, Broadcast, NumberError};
use super::scalar::Fp;
use super::tensor::Tensor;
use crate::constant::{ConstDecl, ConstStore, read_f32, read_f64, read_u32};
use crate::map::CheckForm;
use crate::op::Op;
use crate::plan::Bundle;
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};

/// A plain tensor: an input or output of the network or of a local segment. Little-endian, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain {
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Shape,
    /// Elements.
    pub bytes: Vec<u8>,
}

impl Plain {
    /// A tensor of `f32`.
    pub fn f32(shape: impl Into<Shape>, data: &[f32]) -> Plain {
        let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        Plain { dtype: DType::F32, shape: shape.into(), bytes }
    }

    /// The elements of a tensor of `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        read_f32(&self.bytes)
    }

    fn fits(&self, declared: &ValueType) -> bool {
        matches!(declared, ValueType::Tensor(d, s) if *d == self.dtype && *s == self.shape)
            && self.shape.checked_len().and_then(|n| n.checked_mul(self.dtype.bytes())) == Some(self.bytes.len())
    }
}

/// Runs local segments.
pub trait Locals {
    /// Runs the sub-model held in constant `model`, whose bytes are given too.
    ///
    /// # Errors
    /// What went wrong, for the user.
    fn run(&mut self, model: ConstId, bytes: &[u8], inputs: &[&Plain]) -> Result<Vec<Plain>, String>;
}

/// Which of a slot's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The mask of an upload: side 0.
    Mask,
    /// The pad of a download: side 1.
    Pad,
}

/// Where masks, pads and check vectors come from. The same arguments must give the same words throughout a request:
/// the device and the dealer both ask.
pub trait Streams {
    /// `len` words of a slot's stream; only the low `k` bits of each count.
    fn words(&mut self, slot: SlotId, side: Side, len: usize) -> Vec<u64>;

    /// `len` elements of a map's check secret: part 0 is `a`, part 1 is `beta`.
    fn field(&mut self, map: MapId, part: u8, len: usize) -> Vec<Fp>;

    /// What arrives when `words` travel over a slot, or wait in stock. Tests tamper here.
    fn carry(&mut self, slot: SlotId, words: Vec<u64>) -> Vec<u64> {
        let _ = slot;
        words
    }
}

/// What one request yields.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The outputs of the network.
    pub outputs: Vec<Plain>,
    /// The signed results `z = L(x)` of each map that was checked, in order of the checks.
    pub results: BTreeMap<MapId, Vec<Vec<i64>>>,
    /// What travelled over each slot, as residues, before tampering.
    pub sent: BTreeMap<SlotId, Vec<u64>>,
    /// Exponents chosen for each encoded value of the device, one a group.
    pub exponents: BTreeMap<ValueId, Vec<i32>>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// A result disagrees with its check: some edge did not follow the plan.
    #[error("check failed: segment {name}")]
    Check {
        /// The map.
        map: MapId,
        /// Its segment.
        name: String,
    },
    /// The request's data has no integer form.
    #[error("{role}, step {step}: {source}")]
    Number {
        /// Whose step.
        role: Role,
        /// Which step.
        step: usize,
        /// Why.
        source: NumberError,
    },
    /// A map does not fit its operands or constants.
    #[error("{role}, step {step}: {source}")]
    Eval {
        /// Whose step.
        role: Role,
        /// Which step.
        step: usize,
        /// Why.
        source: EvalError,
    },
    /// A local segment failed.
    #[error("local segment {model}: {message}")]
    Local {
        /// The constant that holds its sub-model.
        model: ConstId,
        /// What it said.
        message: String,
    },
    /// A constant is missing from the store, or has another size than declared.
    #[error("constant {0} is missing or has another size than declared; compile again")]
    Constant(ConstId),
    /// Inputs that are not those of the bundle.
    #[error("the inputs are not those the bundle declares: {0}")]
    Inputs(String),
    /// The bundle breaks a rule of the validator.
    #[error("{role}, step {step}: the bundle is not valid ({reason})")]
    Invalid {
        /// Whose step.
        role: Role,
        /// Which step.
        step: usize,
        /// What does not hold.
        reason: &'static str,
    },
}

/// Executes all programs of a bundle for one request.
///
/// The bundle should be valid; one that is not ends in [`RunError::Invalid`] at the latest where it cannot go on.
///
/// # Errors
/// [`RunError`].
pub fn run(
    bundle: &Bundle,
    constants: &ConstStore,
    inputs: &[Plain],
    streams: &mut dyn Streams,
    locals: &mut dyn Locals,
) -> Result<Outcome, RunError> {
    for (i, port) in bundle.inputs.iter().enumerate() {
        let declared = ValueType::Tensor(port.dtype, port.shape.clone());
        if !inputs.get(i).is_some_and(|x| x.fits(&declared)) {
            return Err(RunError::Inputs(format!("`{}` is {declared}", port.name)));
        }
    }
    if inputs.len() != bundle.inputs.len() {
        return Err(RunError::Inputs(format!("{} given, {} declared", inputs.len(), bundle.inputs.len())));
    }
    let mut runner = Runner {
        bundle,
        constants,
        streams,
        locals,
        values: bundle.programs.iter().map(|_| Vec::new()).collect(),
        waiting: BTreeMap::new(),
        dealt: BTreeSet::new(),
        outcome: Outcome::default(),
    };
    for (program, values) in bundle.programs.iter().zip(&mut runner.values) {
        if program.role == Role::Device {
            values.extend(inputs.iter().cloned().map(Value::Plain));
        }
    }
    let mut next = vec![0usize; bundle.programs.len()];
    loop {
        let mut moved = false;
        for (number, next) in next.iter_mut().enumerate() {
            while runner.can_step(number, *next) {
                runner.step(number, *next)?;
                *next += 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    for (program, step) in bundle.programs.iter().zip(next) {
        if step < program.steps.len() {
            return Err(RunError::Invalid { role: program.role, step, reason: "it waits for ever" });
        }
    }
    Ok(runner.outcome)
}

/// A value of a program.
#[derive(Clone)]
enum Value {
    Plain(Plain),
    Encoded { data: Tensor<i32>, exponents: Vec<i32> },
    Ring(u32, Tensor<u64>),
    Lifted(Tensor<i64>),
    Checked(Tensor<i64>),
}

/// Why a step failed; the place is added by the caller.
enum Fault {
    Number(NumberError),
    Eval(EvalError),
    Invalid(&'static str),
    Other(RunError),
}

impl From<NumberError> for Fault {
    fn from(e: NumberError) -> Fault {
        Fault::Number(e)
    }
}

impl From<EvalError> for Fault {
    fn from(e: EvalError) -> Fault {
        Fault::Eval(e)
    }
}

impl From<RunError> for Fault {
    fn from(e: RunError) -> Fault {
        Fault::Other(e)
    }
}

struct Runner<'a> {
    bundle: &'a Bundle,
    constants: &'a ConstStore,
    streams: &'a mut dyn Streams,
    locals: &'a mut dyn Locals,
    /// Values of each program, in the order of the programs.
    values: Vec<Vec<Value>>,
    /// What was sent or stored and not yet taken.
    waiting: BTreeMap<SlotId, Tensor<u64>>,
    /// Maps whose check vectors were dealt.
    dealt: BTreeSet<MapId>,
    outcome: Outcome,
}

impl<'a> Runner<'a> {
    fn can_step(&self, program: usize, step: usize) -> bool {
        match self.bundle.programs[program].steps.get(step).map(|s| &s.op) {
            None => false,
            Some(Op::Recv { slot, .. } | Op::Load { slot }) => self.waiting.contains_key(slot),
            Some(_) => true,
        }
    }

    fn step(&mut self, program: usize, index: usize) -> Result<(), RunError> {
        let role = self.bundle.programs[program].role;
        match self.execute(program, index) {
            Ok(results) => {
                self.values[program].extend(results);
                Ok(())
            }
            Err(Fault::Number(source)) => Err(RunError::Number { role, step: index, source }),
            Err(Fault::Eval(source)) => Err(RunError::Eval { role, step: index, source }),
            Err(Fault::Invalid(reason)) => Err(RunError::Invalid { role, step: index, reason }),
            Err(Fault::Other(e)) => Err(e),
        }
    }

    fn execute(&mut self, program: usize, index: usize) -> Result<Vec<Value>, Fault> {
        let bundle = self.bundle;
        let step = &bundle.programs[program].steps[index];
        let values = &self.values[program];
        let value = |v: ValueId| values.get(v.index()).ok_or(Fault::Invalid("an operand is undefined"));
        let ring = |v: ValueId| match value(v)? {
            Value::Ring(k, x) => Ok((*k, x)),
            _ => Err(Fault::Invalid("an operand is no residue")),
        };
        let encoded = |v: ValueId| match value(v)? {
            Value::Encoded { data, exponents } => Ok((data, exponents)),
            _ => Err(Fault::Invalid("an operand is not encoded")),
        };
        let one = |k: u32, x: Tensor<u64>| Ok(vec![Value::Ring(k, x)]);
        match &step.op {
            Op::Encode { x, groups, range } => {
                let Value::Plain(x) = value(*x)? else { return Err(Fault::Invalid("an operand is not plain")) };
                let range = bundle.ranges.get(*range).ok_or(Fault::Invalid("no such range"))?;
                let data = x.to_f32();
                let exponents = number::exponents(&data, &x.shape, *groups, range)?;
                self.outcome.exponents.insert(ValueId(values.len() as u32), exponents.clone());
                let data = Tensor::new(x.shape.clone(), number::encode(&data, &x.shape, &exponents)?)?;
                Ok(vec![Value::Encoded { data, exponents }])
            }
            Op::Mask { slot, x } => {
                let k = self.width(*slot)?;
                let x = encoded(*x)?.0.map(|v| number::ring(i64::from(*v), k));
                let mask = self.stream(*slot, Side::Mask, &x.shape)?;
                one(k, combine(k, &x, &mask, u64::wrapping_add))
            }
            Op::Expose { x, k } => {
                let k = u32::try_from(*k).map_err(|_| Fault::Invalid("ring too wide"))?;
                one(k, encoded(*x)?.0.map(|v| number::ring(i64::from(*v), k)))
            }
            Op::Unpad { slot, x } | Op::Pad { slot, x } => {
                let (k, x) = ring(*x)?;
                let x = x.clone();
                let pad = self.stream(*slot, Side::Pad, &x.shape)?;
                one(k, combine(k, &x, &pad, u64::wrapping_add))
            }
            Op::Lift { x } => {
                let (k, x) = ring(*x)?;
                Ok(vec![Value::Lifted(x.map(|v| number::lift(*v, k)))])
            }
            Op::Check { map, inputs, z } => {
                let Value::Lifted(z) = value(*z)? else { return Err(Fault::Invalid("an operand is not lifted")) };
                let z = z.clone();
                let inputs = inputs.iter().map(|x| Ok(encoded(*x)?.0.clone())).collect::<Result<Vec<_>, Fault>>()?;
                self.check(*map, &inputs, &z)?;
                self.outcome.results.entry(*map).or_default().push(z.data.clone());
                Ok(vec![Value::Checked(z)])
            }
            Op::Decode { z, source, scale, bias, group } => {
                let Value::Checked(z) = value(*z)? else { return Err(Fault::Invalid("an operand is not checked")) };
                let (_, exponents) = encoded(*source)?;
                let (sd, sb) = self.constant(*scale)?;
                let (bd, bb) = self.constant(*bias)?;
                let group = group.map(|g| self.constant(g)).transpose()?.map(|(d, b)| (d, read_u32(&b)));
                let (scale, bias) = (read_f64(&sb), read_f32(&bb));
                let group = group.as_ref().map(|(d, data)| Broadcast { shape: &d.shape, data });
                let scale = Broadcast { shape: &sd.shape, data: &scale };
                let bias = Broadcast { shape: &bd.shape, data: &bias };
                let data = number::decode(&z.data, &z.shape, scale, bias, group, exponents)?;
                Ok(vec![Value::Plain(Plain::f32(z.shape.clone(), &data))])
            }
            Op::Local { model, inputs } => {
                let given = inputs.iter().map(|x| match value(*x)? {
                    Value::Plain(x) => Ok(x),
                    _ => Err(Fault::Invalid("an operand is not plain")),
                });
                let given = given.collect::<Result<Vec<_>, Fault>>()?;
                let (_, bytes) = self.constant(*model)?;
                let failed = |message| RunError::Local { model: *model, message };
                let results = self.locals.run(*model, &bytes, &given).map_err(failed)?;
                if results.len() != step.results.len() || !results.iter().zip(&step.results).all(|(r, t)| r.fits(t)) {
                    return Err(failed("its results are not those the plan declares".into()).into());
                }
                Ok(results.into_iter().map(Value::Plain).collect())
            }
            Op::Return { outputs } => {
                for v in outputs {
                    let Value::Plain(x) = value(*v)? else { return Err(Fault::Invalid("an output is not plain")) };
                    self.outcome.outputs.push(x.clone());
                }
                Ok(vec![])
            }
            Op::Send { slot, x, .. } | Op::Store { slot, x, .. } => {
                let (k, x) = ring(*x)?;
                let x = x.map(|v| v & number::low_bits(k));
                self.outcome.sent.insert(*slot, x.data.clone());
                let data = self.streams.carry(*slot, x.data);
                self.waiting.insert(*slot, Tensor::new(x.shape, data)?);
                Ok(vec![])
            }
            Op::Recv { slot, .. } | Op::Load { slot } => {
                let k = self.width(*slot)?;
                let x = self.waiting.remove(slot).ok_or(Fault::Invalid("nothing was sent"))?;
                one(k, x.map(|v| v & number::low_bits(k)))
            }
            Op::Draw { slot } => {
                let k = self.width(*slot)?;
                let shape = bundle.slots.get(slot.index()).map(|s| s.shape.clone());
                let shape = shape.ok_or(Fault::Invalid("no such slot"))?;
                let words = self.stream(*slot, Side::Mask, &shape)?;
                one(k, words)
            }
            Op::Apply { map, inputs } => {
                let xs = inputs.iter().map(|x| ring(*x)).collect::<Result<Vec<_>, Fault>>()?;
                let k = xs.first().ok_or(Fault::Invalid("a map without operands"))?.0;
                let xs: Vec<Tensor<u64>> = xs.into_iter().map(|(_, x)| x.clone()).collect();
                let declared = bundle.maps.get(map.index()).ok_or(Fault::Invalid("no such map"))?;
                let weights = self.weights(*map)?;
                let y = linear::apply(declared, &xs, |c| weights.get(c))?;
                one(k, y.map(|v| v & number::low_bits(k)))
            }
            Op::Sub { a, b } => {
                let ((k, a), (_, b)) = (ring(*a)?, ring(*b)?);
                if a.shape != b.shape {
                    return Err(Fault::Invalid("operands of different shapes"));
                }
                one(k, combine(k, a, b, u64::wrapping_sub))
            }
            Op::DealCheck { map } => {
                self.dealt.insert(*map);
                Ok(vec![])
            }
        }
    }

    fn width(&self, slot: SlotId) -> Result<u32, Fault> {
        self.bundle.slots.get(slot.index()).map(|s| s.k).ok_or(Fault::Invalid("no such slot"))
    }

    fn stream(&mut self, slot: SlotId, side: Side, shape: &Shape) -> Result<Tensor<u64>, Fault> {
        let k = self.width(slot)?;
        let words = self.streams.words(slot, side, shape.len());
        Ok(Tensor::new(shape.clone(), words.into_iter().map(|w| w & number::low_bits(k)).collect())?)
    }

    fn constant(&self, c: ConstId) -> Result<(&'a ConstDecl, Arc<Vec<u8>>), RunError> {
        let decl = self.bundle.constants.get(c.index()).ok_or(RunError::Constant(c))?;
        let bytes = self.constants.load(&decl.digest).ok().filter(|b| b.len() == decl.bytes());
        bytes.map(|b| (decl, b)).ok_or(RunError::Constant(c))
    }

    fn weights(&self, map: MapId) -> Result<BTreeMap<ConstId, Tensor<i32>>, Fault> {
        let ops = self.bundle.maps.get(map.index()).into_iter().flat_map(|m| &m.ops);
        ops.filter_map(|op| op.constant())
            .map(|c| {
                let (decl, bytes) = self.constant(*c)?;
                Ok((*c, Tensor::weights(decl, &bytes)?))
            })
            .collect()
    }

    /// The device's check, with vectors made here as the owner makes them.
    fn check(&mut self, id: MapId, inputs: &[Tensor<i32>], z: &Tensor<i64>) -> Result<(), Fault> {
        let map = self.bundle.maps.get(id.index()).ok_or(Fault::Invalid("no such map"))?;
        if !self.dealt.contains(&id) {
            return Err(Fault::Invalid("no check vectors were dealt"));
        }
        let weights = self.weights(id)?;
        let form = map.check_form(|c| weights.get(c).map(|w| &w.shape));
        let (channels, positions) = check::lengths(form, &z.shape);
        let (a, beta) = (self.streams.field(id, 0, channels), self.streams.field(id, 1, positions));
        let v = check::outer(form, &z.shape, &a, &beta)?;
        let c = match (form, map.ops.first().and_then(|op| op.constant()).and_then(|c| weights.get(c))) {
            (CheckForm::ConvRankOne | CheckForm::MatMulRankOne, Some(w)) => {
                vec![check::expand(map, &w.shape, &check::rank_one(map, &a, w)?, &beta)?]
            }
            (CheckForm::Full | CheckForm::ConvRankOne | CheckForm::MatMulRankOne, _) => {
                check::full(map, &v, |c| weights.get(c))?
            }
        };
        let sides: Vec<(&[Fp], &[i32])> =
            c.iter().zip(inputs).map(|(c, x)| (c.data.as_slice(), x.data.as_slice())).collect();
        if c.len() != inputs.len() || !check::holds(&v.data, &z.data, &sides) {
            return Err(RunError::Check { map: id, name: map.name.clone() }.into());
        }
        Ok(())
    }
}

fn combine(k: u32, a: &Tensor<u64>, b: &Tensor<u64>, f: impl Fn(u64, u64) -> u64) -> Tensor<u64> {
    let data = a.data.iter().zip(&b.data).map(|(a, b)| f(*a, *b) & number::low_bits(k)).collect();
    Tensor { shape: a.shape.clone(), data }
}
