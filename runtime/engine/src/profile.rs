//! Where the time of an execution goes, for benchmarks. The clock comes from outside, and without one nothing is read.

use std::cell::Cell;

use pponnx_kernels::Kernels;
use pponnx_plans::op::Op;

use crate::buffers::Buffers;

/// A part of a role's work on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Scanning a tensor, choosing its scale, rounding to integers.
    Encode,
    /// Expanding a mask or pad and adding it.
    Mask,
    /// Ring elements to bytes and back.
    Pack,
    /// Checking an edge's answer.
    Check,
    /// Integers to real numbers, with scale and bias.
    Decode,
    /// Local segments.
    Local,
    /// Linear maps.
    Apply,
    /// Everything else.
    Other,
}

impl Stage {
    /// Every stage, in the order of its number.
    pub const ALL: [Stage; 8] = [
        Stage::Encode,
        Stage::Mask,
        Stage::Pack,
        Stage::Check,
        Stage::Decode,
        Stage::Local,
        Stage::Apply,
        Stage::Other,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Encode => "encode",
            Stage::Mask => "mask",
            Stage::Pack => "pack",
            Stage::Check => "check",
            Stage::Decode => "decode",
            Stage::Local => "local",
            Stage::Apply => "apply",
            Stage::Other => "other",
        }
    }
}

impl Stage {
    /// The stage that a step belongs to where it runs by itself.
    pub(crate) fn of(op: &Op) -> Stage {
        match op {
            Op::Encode { .. } => Stage::Encode,
            Op::Mask { .. } | Op::Unpad { .. } | Op::Draw { .. } | Op::Pad { .. } => Stage::Mask,
            Op::Send { .. } | Op::Store { .. } | Op::Recv { .. } | Op::Load { .. } => Stage::Pack,
            Op::Expose { .. } | Op::Lift { .. } => Stage::Pack,
            Op::Check { .. } => Stage::Check,
            Op::Decode { .. } => Stage::Decode,
            Op::Local { .. } => Stage::Local,
            Op::Apply { .. } => Stage::Apply,
            Op::Return { .. } | Op::Sub { .. } | Op::DealCheck { .. } => Stage::Other,
        }
    }
}

/// Nanoseconds spent, by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages([u64; Stage::ALL.len()]);

impl Stages {
    /// Nanoseconds of one stage.
    pub fn of(&self, stage: Stage) -> u64 {
        self.0[stage as usize]
    }

    /// Nanoseconds of all stages.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A clock that counts nanoseconds from any moment, such as the CPU time of the thread.
pub type Clock = fn() -> u64;

/// Adds up the time of stages. Off without a clock: then it costs a comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    clock: Option<Clock>,
    stages: [Cell<u64>; Stage::ALL.len()],
}

impl Profile {
    /// On with a clock, off without.
    pub(crate) fn new(clock: Option<Clock>) -> Profile {
        Profile { clock, ..Profile::default() }
    }

    /// Runs one piece of a stage and counts its time.
    pub(crate) fn measure<T>(&self, stage: Stage, piece: impl FnOnce() -> T) -> T {
        let started = self.start();
        let result = piece();
        self.stop(stage, started);
        result
    }

    /// The time on the clock, for [`Profile::stop`].
    pub(crate) fn start(&self) -> u64 {
        self.clock.map_or(0, |clock| clock())
    }

    /// Counts the time since `started` to a stage.
    pub(crate) fn stop(&self, stage: Stage, started: u64) {
        if let Some(clock) = self.clock {
            let cell = &self.stages[stage as usize];
            cell.set(cell.get() + clock().saturating_sub(started));
        }
    }

    /// What was counted so far.
    pub(crate) fn stages(&self) -> Stages {
        Stages(self.stages.each_ref().map(Cell::get))
    }
}

/// What a pass over a tensor works with.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) profile: &'a Profile,
    pub(crate) buffers: &'a Buffers,
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn tick() -> u64 {
        NOW.set(NOW.get() + 10);
        NOW.get()
    }

    #[test]
    fn times_add_up_by_stage() {
        let profile = Profile::new(Some(tick));
        assert_eq!(profile.measure(Stage::Mask, || 7), 7);
        profile.measure(Stage::Mask, tick);
        profile.measure(Stage::Local, || ());
        let stages = profile.stages();
        assert_eq!((stages.of(Stage::Mask), stages.of(Stage::Local), stages.total()), (30, 10, 40));
    }

    #[test]
    fn no_clock_no_times() {
        let profile = Profile::new(None);
        profile.measure(Stage::Mask, || ());
        assert_eq!(profile.stages(), Stages::default());
    }

    #[test]
    fn stages_have_their_numbers_and_names() {
        let names: std::collections::BTreeSet<&str> = Stage::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(names.len(), Stage::ALL.len());
        assert!(Stage::ALL.iter().enumerate().all(|(i, s)| *s as usize == i));
    }
}
