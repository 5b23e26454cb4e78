//! What a bundle's programs ask of connections and stores. Read off the programs, so that a new scheme needs no line here.

use std::sync::Arc;

use pponnx_engine::LoadedPlan;
use pponnx_plans::op::Op;
use pponnx_plans::plan::Bundle;
use pponnx_plans::value::Role;

/// Where corrections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrections {
    /// Edge B computes them and sends them to this role: edge A (`relay`) or the device (`two-edge`).
    EdgeB(Role),
    /// The owner dealt them to this role: the device (`one-time`) or edge A (`stockpile`).
    Dealt(Role),
    /// There are none (`plain`, or a network without outsourced segments).
    None,
}

impl Corrections {
    /// Reads it off the programs.
    pub fn of(bundle: &Bundle) -> Corrections {
        let find = |role: Role, f: fn(&Op) -> Option<Role>| {
            bundle.program(role).into_iter().flat_map(|p| &p.steps).find_map(|s| f(&s.op))
        };
        let sent = find(Role::EdgeB, |op| match op {
            Op::Send { to, .. } => Some(*to),
            _ => None,
        });
        let stored = find(Role::Offline, |op| match op {
            Op::Store { to, .. } => Some(*to),
            _ => None,
        });
        match (sent, stored) {
            (Some(role), _) => Corrections::EdgeB(role),
            (None, Some(role)) => Corrections::Dealt(role),
            (None, None) => Corrections::None,
        }
    }

    /// Whether the device opens a session with edge B.
    pub fn needs_edge_b(self) -> bool {
        matches!(self, Corrections::EdgeB(_))
    }

    /// Whether request numbers come from a ledger.
    pub fn needs_ledger(self) -> bool {
        matches!(self, Corrections::Dealt(_))
    }

    /// Whether edge A needs to know the session, because corrections arrive under its name.
    pub fn attaches(self) -> bool {
        self == Corrections::EdgeB(Role::EdgeA)
    }
}

/// The largest payload that `from` sends in any of these plans.
pub(crate) fn largest<'a>(plans: impl Iterator<Item = &'a Arc<LoadedPlan>>, from: Role) -> u32 {
    let bytes = plans.flat_map(|p| {
        p.receives().filter(move |(role, _)| *role == from).filter_map(|(role, slot)| p.expects(role, slot))
    });
    u32::try_from(bytes.max().unwrap_or(0)).unwrap_or(u32::MAX)
}
