//! Errors of the engine, by who is to blame.

use pponnx_plans::value::{ConstId, MapId, Role, SlotId};

use crate::local::LocalError;

/// Why a plan could not be loaded or a request not finished.
///
/// Whatever the variant, the request number is burnt: a retry takes a new one (`docs/threat-model.md`).
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another role broke the protocol: a payload of wrong length, on a wrong slot, or twice.
    #[error(
        "{role} misbehaved on slot {slot}: {what}; the request is abandoned, check that both ends hold the same bundle"
    )]
    PeerMisbehaved {
        /// Who sent it.
        role: Role,
        /// The slot it was sent for.
        slot: SlotId,
        /// What was wrong.
        what: String,
    },
    /// The integrity check of a linear map failed: some edge returned a wrong answer, or a link garbled it.
    #[error("integrity check failed in segment {segment:?} (map {map}, slot {slot}): {}", blame_text(blame))]
    IntegrityCheckFailed {
        /// Name of the segment.
        segment: String,
        /// The linear map.
        map: MapId,
        /// The slot of edge A's reply.
        slot: SlotId,
        /// The edge at fault where only one can be: `None` with two edges.
        blame: Option<Role>,
    },
    /// An input of the request has the wrong element type, shape or number of elements.
    #[error("input {name:?}: {what}")]
    InvalidInput {
        /// Name of the input.
        name: String,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// A tensor to be sent holds NaN or infinity. Nothing of it was sent.
    #[error(
        "segment {segment:?}: its input holds NaN or infinity, because input {input:?} does or has too large numbers; nothing of it was sent"
    )]
    NotFinite {
        /// Name of the segment whose input it is.
        segment: String,
        /// Names of the network's inputs.
        input: String,
    },
    /// A local segment could not be read or run.
    #[error("local segment {segment}: {source}")]
    Local {
        /// Which one: step of the device program and name of the sub-model.
        segment: String,
        /// What happened.
        #[source]
        source: LocalError,
    },
    /// A constant of the plan is missing or holds a value the plan forbids.
    #[error("constant {id}: {what}; the plan file is damaged or was built for another role, copy it again")]
    Constant {
        /// The constant.
        id: ConstId,
        /// What is wrong with it.
        what: String,
    },
    /// Two things that must belong together do not: plan and check data, plan and role, plan and secrets.
    #[error("{what}")]
    PlanMismatch {
        /// What does not fit, and a remedy.
        what: String,
    },
    /// A stored correction of this request is not there: the stock of key pairs is used up or incomplete.
    #[error("no key pair for request {request} at slot {slot}; make further ones with `pponnx keygen --requests`")]
    OutOfPairs {
        /// The request.
        request: u64,
        /// The slot whose correction is missing.
        slot: SlotId,
    },
    /// The caller broke the order of calls.
    #[error("wrong use of the engine: {what}")]
    Misuse {
        /// Which call, and what must come before it.
        what: String,
    },
}

impl EngineError {
    /// A [`EngineError::PlanMismatch`] with this text.
    pub(crate) fn mismatch(what: impl Into<String>) -> EngineError {
        EngineError::PlanMismatch { what: what.into() }
    }
}

fn blame_text(blame: &Option<Role>) -> String {
    match blame {
        Some(role) => format!("{role} or the link to it returned a wrong answer; the request number is burnt"),
        None => "an edge or the link to it returned a wrong answer; the request number is burnt".into(),
    }
}
