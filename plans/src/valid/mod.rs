//! The validator: only a bundle that keeps every rule becomes a [`ValidBundle`], and the runtime takes nothing else.
//!
//! It knows operations, roles and slots, but not how schemes are written: that a bundle hides its data follows from what
//! its programs do. A scheme's name says only whose keys it uses, and that `plain` hides nothing.
//!
//! **Types** (`shape`)
//!
//! | rule | sentence |
//! |---|---|
//! | T01 | There is one program a role, in the order of [`Role::ALL`]; only the device's has parameters, the input ports. |
//! | T02 | Numbers of table entries and steps, ranks and elements stay within [`limits`]; no tensor is empty. |
//! | T03 | An operand is defined before it is read. |
//! | T04 | An operation stands in a program of a role that may execute it. |
//! | T05 | A slot, map, constant or range that is named exists. |
//! | T06 | Operands have the types their operation takes. |
//! | T07 | Declared results are those the operation yields. |
//! | T08 | A map's operations fit each other and its constants. |
//! | T09 | Constants have the type and a shape for their use: weights `i16` or `i32`, scale `f64`, bias `f32` and group `u32` broadcast to the result, sub-models `u8` of one axis. |
//! | T10 | Rings have 2 to 60 bits, one ring a map, and weights of 16 bits up to ring width 32. |
//! | T11 | Masks belong to uploads, pads to downloads, stored tensors to corrections. |
//! | T12 | A range has entries for every group, a patch that fits the tensor, and a bound for every ring in which the tensor's results are checked. |
//! | T13 | The device's program ends with its only `return`, whose operands are the output ports. |
//! | T14 | The scheme and the mask stream are ones this version has keys for. |
//!
//! That group numbers are below the number of groups stands in the constant's bytes; the engine checks it when it
//! loads a plan.
//!
//! **Pairing** (`pairing`)
//!
//! | rule | sentence |
//! |---|---|
//! | P01 | Each slot is sent (or stored) exactly once and received (or loaded) exactly once. |
//! | P02 | The two ends are those of the slot's kind: uploads go from the device to edge A, downloads back, corrections from edge B or the owner's stock to edge A or the device. |
//! | P03 | All programs run to their end: none waits for what is sent later. |
//! | P04 | Edge B receives nothing, and the owner neither sends nor receives. |
//!
//! **Secrecy** (`secrecy`, on the formal sums of `algebra`)
//!
//! | rule | sentence |
//! |---|---|
//! | S01 | The device sends nothing but the masked tensor of the very slot it sends on. |
//! | S02 | A mask is added once on the device and drawn at most once elsewhere. |
//! | S03 | `expose` stands in bundles of scheme `plain` only. |
//! | S04 | A pad is added at most once, and undone exactly if it was added. |
//! | S05 | Everything edge A receives is hidden at once: each message has a mask or pad of its own, fresh given the others. |
//! | S06 | A drawn mask feeds only maps and pads. |
//! | S07 | Where the device lifts, all masks and pads have cancelled and one map of encoded tensors remains. |
//! | S08 | Formal sums stay small enough to follow. |
//! | S09 | Masks and pads come from the scheme's keys: away from the device only edge B uses them (session keys) or only the owner (dealt keys, under the ledger); nobody does in `plain`. |
//!
//! **Integrity** (`integrity`)
//!
//! | rule | sentence |
//! |---|---|
//! | K01 | Only checked values are decoded. |
//! | K02 | A check names the map and the inputs of which its value is the result. |
//! | K03 | The source of a decoding is one of the inputs of the check. |
//! | K04 | The owner deals check vectors exactly once for each map that is checked, and for no other. |
//!
//! **Cost** (`cost`): the declared cost is the counted one: rounds C01, bytes C02, mult-adds C03.

use std::fmt;
use std::ops::Deref;

use crate::plan::Bundle;
use crate::value::Role;

mod algebra;
mod cost;
mod integrity;
mod pairing;
mod secrecy;
mod shape;

#[cfg(test)]
pub(crate) mod examples;
#[cfg(test)]
mod tests;

pub use cost::cost;

/// Sizes beyond which a bundle is refused (rule T02).
pub mod limits {
    /// Entries of each table of a bundle, steps of a program, operations of a map.
    pub const ENTRIES: usize = 1 << 20;
    /// Axes of a tensor.
    pub const RANK: usize = 16;
    /// Elements of one tensor.
    pub const ELEMENTS: usize = 1 << 31;
    /// Elements of all values of one program or map together.
    pub const TOTAL: u64 = 1 << 44;
    /// Terms of a formal sum (rule S08).
    pub const TERMS: usize = 256;
    /// Terms of all formal sums of a bundle together (rule S08).
    pub const ALL_TERMS: usize = 1 << 22;
    /// Maps applied one after another to one value (rule S08).
    pub const CHAIN: usize = 16;
    /// Violations after which the validator stops listing them.
    pub const VIOLATIONS: usize = 100;
}

/// The scheme that hides nothing.
pub(crate) const PLAIN: &str = "plain";

/// Schemes, each with the role that shares the device's mask streams. It decides which key they come from: that of a
/// session with edge B, or the owner's, whose numbers the ledger keeps from being used twice (protocol section 3).
const DEALERS: [(&str, Option<Role>); 5] = [
    ("relay", Some(Role::EdgeB)),
    ("two-edge", Some(Role::EdgeB)),
    ("one-time", Some(Role::Offline)),
    ("stockpile", Some(Role::Offline)),
    (PLAIN, None),
];

/// The role that shares mask streams with the device, if the scheme is known.
fn dealer(scheme: &str) -> Option<Option<Role>> {
    DEALERS.iter().find(|(name, _)| *name == scheme).map(|(_, role)| *role)
}

/// A rule that a bundle breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the rule, see the module's documentation.
    pub rule: &'static str,
    /// The role whose program breaks it, if it is one's.
    pub role: Option<Role>,
    /// The step of that program, counted from 0.
    pub step: Option<usize>,
    /// What is wrong, naming slots, maps and segments.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] ", self.rule)?;
        match (self.role, self.step) {
            (Some(role), Some(step)) => write!(f, "{role}, step {step}: ")?,
            (Some(role), None) => write!(f, "{role}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Violation {}

/// A bundle that keeps every rule. Only [`validate`] makes one.
#[derive(Clone, Debug)]
pub struct ValidBundle {
    bundle: Bundle,
    digest: [u8; 32],
}

impl ValidBundle {
    /// The digest that names the bundle in streams, files and messages.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl Deref for ValidBundle {
    type Target = Bundle;

    fn deref(&self) -> &Bundle {
        &self.bundle
    }
}

/// Admits a bundle, or lists the rules it breaks. Never panics, whatever the bundle.
///
/// Types come first; the other families are looked at only in a bundle of sound types.
///
/// # Errors
/// All violations found, at most [`limits::VIOLATIONS`].
pub fn validate(bundle: Bundle) -> Result<ValidBundle, Vec<Violation>> {
    let mut report = Report::default();
    shape::check(&bundle, &mut report);
    if report.is_clean() {
        let schedule = pairing::check(&bundle, &mut report);
        secrecy::check_steps(&bundle, &mut report);
        integrity::check_deals(&bundle, &mut report);
        if let Some(schedule) = schedule {
            let trace = algebra::trace(&bundle, &schedule, &mut report);
            secrecy::check_views(&bundle, &trace, &mut report);
            integrity::check_trace(&bundle, &trace, &mut report);
        }
        cost::check(&bundle, &mut report);
    }
    if report.is_clean() {
        let digest = crate::digest::bundle_digest(&bundle);
        return Ok(ValidBundle { bundle, digest });
    }
    Err(report.violations)
}

/// The violations found so far.
#[derive(Default)]
struct Report {
    violations: Vec<Violation>,
}

impl Report {
    fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    fn add(&mut self, rule: &'static str, role: Option<Role>, step: Option<usize>, message: impl Into<String>) {
        if self.violations.len() < limits::VIOLATIONS {
            self.violations.push(Violation { rule, role, step, message: message.into() });
        }
    }

    fn bundle(&mut self, rule: &'static str, message: impl Into<String>) {
        self.add(rule, None, None, message);
    }

    fn at(&mut self, rule: &'static str, role: Role, step: usize, message: impl Into<String>) {
        self.add(rule, Some(role), Some(step), message);
    }
}
