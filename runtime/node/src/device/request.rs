//! One request on the device: compute, send, wait, until the program is done.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use pponnx_engine::{EngineError, Execution, Outgoing, Progress, Secrets, TensorValue};
use pponnx_net::{Deadline, NetError, Phase};
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::WireError;
use pponnx_wire::codec::encode_data_header;
use pponnx_wire::message::{Abort, AbortCode, Message};

use super::line::{Heard, Inbox, Line};
use super::numbers::Turn;
use super::{Device, Inference, Stats};
use crate::error::NodeError;
use crate::topology::Corrections;

/// Ends the session unless the request came through: a caller that drops a request leaves the edges in the middle of it.
struct Ending<'a> {
    over: &'a AtomicBool,
    begun: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if self.begun {
            self.over.store(true, Ordering::Relaxed);
        }
    }
}

struct Run<'a> {
    device: &'a Device,
    execution: Execution,
    stats: Stats,
    /// Until the request has begun.
    turn: Option<Turn<'a>>,
    from_a: Inbox<'a>,
    from_b: Option<Inbox<'a>>,
    ending: Ending<'a>,
}

pub(super) async fn run(device: &Device, inputs: Vec<TensorValue>) -> Result<Inference, NodeError> {
    let place = device.room.acquire().await;
    if place.is_err() || device.over.load(Ordering::Relaxed) {
        return Err(NodeError::SessionOver);
    }
    let started = Instant::now();
    // The ledger reaches the disk before the number is used.
    let turn = in_place(!device.corrections.needs_ledger(), || device.numbers.take())?;
    let request = turn.request;
    let mut loaded = BTreeMap::new();
    if let Some(pairs) = &device.pairs {
        loaded.extend(pairs.take(request)?.into_iter().map(|(slot, bytes)| (SlotId(slot), bytes)));
    }
    let (session, check) = (Arc::clone(&device.session), Arc::clone(&device.check));
    let secrets = Secrets::Device { session, check, loaded };
    let execution = Execution::new(Arc::clone(&device.plan), request, secrets, inputs)?;
    let join = |line| Line::join(line, request, device.plan.receives().count());
    let mut run = Run {
        device,
        execution,
        stats: Stats { request, ..Stats::default() },
        turn: Some(turn),
        from_a: join(&device.edge_a),
        from_b: device.edge_b.as_ref().map(join),
        ending: Ending { over: &device.over, begun: false },
    };
    let before = device.socket_bytes();
    if let Err(error) = run.drive().await {
        if run.ending.begun {
            device.over.store(true, Ordering::Relaxed);
            if matches!(
                error,
                NodeError::Engine(EngineError::IntegrityCheckFailed { .. } | EngineError::PeerMisbehaved { .. })
            ) {
                // What an edge sent is wrong: nothing more of this session leaves, other requests included.
                device.distrusted.store(true, Ordering::Relaxed);
            }
            // edge A frees what it holds for the request; it may be the one that is gone
            let abort = Abort::new(request, AbortCode::Cancelled, None, "");
            let _ = device.edge_a.say(&Message::Abort(abort)).await;
        }
        return Err(error);
    }
    run.ending.begun = false;
    let mut stats = run.stats;
    stats.socket_bytes = device.socket_bytes() - before;
    stats.stages = run.execution.stages();
    stats.wall_ms = started.elapsed().as_secs_f64() * 1e3;
    Ok(Inference { outputs: run.execution.finish()?, stats })
}

impl Run<'_> {
    async fn drive(&mut self) -> Result<(), NodeError> {
        loop {
            let progress = self.compute(Execution::resume)?;
            let ready = self.execution.outgoing();
            match progress {
                Progress::Done => return self.upload(ready, None).await,
                Progress::Wait { slot, .. } if !ready.is_empty() || self.turn.is_some() => {
                    self.stats.rounds += u64::from(!ready.is_empty());
                    self.upload(ready, Some(slot)).await?;
                    // The edges are busy now: what needs none of their answers is done meanwhile.
                    self.compute(Execution::prepare_ahead)?;
                }
                Progress::Wait { from, slot } => self.receive(from, slot).await?,
            }
        }
    }

    /// Computes on this thread and counts its time.
    fn compute<T>(&mut self, work: impl FnOnce(&mut Execution) -> T) -> T {
        let before = cpu_ms();
        let result = in_place(self.device.light, || work(&mut self.execution));
        self.stats.device_cpu_ms += cpu_ms() - before;
        result
    }

    /// Sends what is ready, and meanwhile takes in what edge A answers already: an edge that answers one upload while
    /// the next is on its way would otherwise wait for this end to read, and this end for the edge.
    ///
    /// The edges learn of the request here, once its first values are encoded, so that an unusable input costs them
    /// nothing.
    async fn upload(&mut self, ready: Vec<Outgoing>, waits_for: Option<SlotId>) -> Result<(), NodeError> {
        let (device, request) = (self.device, self.stats.request);
        if device.distrusted.load(Ordering::Relaxed) {
            return Err(NodeError::SessionOver);
        }
        let segment = device.segment(ready.first().map(|out| out.slot).or(waits_for));
        let mut turn = self.turn.take();
        if let Some(turn) = &turn {
            turn.first().await;
            self.ending.begun = true;
            if let (Corrections::EdgeB(Role::Device), Some(line)) = (device.corrections, &device.edge_b) {
                let said = metered(&mut self.stats.link_cpu_ms, line.say(&Message::Begin { request })).await;
                said.map_err(|e| lost(Role::EdgeB, request, &segment, e))?;
            }
        }
        let mut early = Vec::new();
        let (line, inbox) = (&device.edge_a, &mut self.from_a);
        let write = async {
            let mut writer = line.writer.lock().await;
            if turn.is_some() {
                writer.write(&Message::Begin { request }).await?;
                turn = None;
            }
            for out in &ready {
                let header = encode_data_header(request, out.slot.0, out.payload.len())?;
                writer.write_data(&header, &out.payload).await?;
            }
            writer.flush().await
        };
        let both = async {
            tokio::pin!(write);
            loop {
                tokio::select! {
                    written = &mut write => return written,
                    heard = inbox.hear(Deadline::never()) => early.push(heard?),
                }
            }
        };
        let done = metered(&mut self.stats.link_cpu_ms, both).await;
        done.map_err(|e| lost(line.edge, request, &segment, e))?;
        self.stats.bytes_up += ready.iter().map(|out| out.payload.len() as u64).sum::<u64>();
        ready.into_iter().for_each(|out| self.execution.recycle(out.payload));
        early.into_iter().try_for_each(|heard| self.take(Role::EdgeA, heard))
    }

    /// Waits for the next payload of this request from an edge, for whatever slot.
    async fn receive(&mut self, from: Role, slot: SlotId) -> Result<(), NodeError> {
        let (device, request) = (self.device, self.stats.request);
        let inbox = match (from, self.from_b.as_mut()) {
            (Role::EdgeB, Some(inbox)) => inbox,
            _ => &mut self.from_a,
        };
        let hear = inbox.hear(Deadline::after(device.timeouts.reply));
        let heard = metered(&mut self.stats.link_cpu_ms, hear).await.map_err(|e| match e {
            NetError::Timeout { phase: Phase::Read, .. } => {
                let (segment, after) = (device.segment(Some(slot)), device.timeouts.reply);
                NodeError::Silent { edge: from, request, segment, after }
            }
            e => lost(from, request, &device.segment(Some(slot)), e),
        })?;
        self.take(from, heard)
    }

    /// Hands a payload to the execution.
    fn take(&mut self, from: Role, heard: Heard) -> Result<(), NodeError> {
        let device = self.device;
        let (slot, payload) = match heard {
            Heard::Data(slot, payload) => (slot, payload),
            Heard::Abort(abort) => {
                let segment = abort.slot.map(|s| device.segment(Some(SlotId(s)))).filter(|s| !s.is_empty());
                let stock = device.corrections == Corrections::Dealt(from) && abort.code == AbortCode::NoCorrection;
                return Err(NodeError::Aborted { edge: from, segment, abort, stock });
            }
        };
        self.stats.bytes_down += payload.len() as u64;
        self.execution.supply(from, slot, payload).map_err(|e| match e {
            // the engine knows slots by number; a person knows segments by name
            EngineError::PeerMisbehaved { role, slot, what } => {
                let what = format!("{what} (segment {:?})", device.segment(Some(slot)));
                EngineError::PeerMisbehaved { role, slot, what }.into()
            }
            e => e.into(),
        })
    }
}

fn lost(edge: Role, request: u64, segment: &str, source: NetError) -> NodeError {
    let segment = segment.to_string();
    match source {
        NetError::Wire(WireError::Refused(refuse)) => NodeError::Refused { edge, refuse },
        NetError::Wire(source) => NodeError::Protocol { edge, segment: Some(segment), source },
        source => NodeError::Lost { edge, request, segment, source },
    }
}

/// Computes on this thread. Long work is announced to a runtime of several threads, which then gives this one's other
/// tasks to another; for short work that costs more than it saves.
fn in_place<T>(light: bool, f: impl FnOnce() -> T) -> T {
    let several = !light
        && tokio::runtime::Handle::try_current()
            .is_ok_and(|h| h.runtime_flavor() != tokio::runtime::RuntimeFlavor::CurrentThread);
    if several { tokio::task::block_in_place(f) } else { f() }
}

/// CPU time of this thread, in milliseconds.
fn cpu_ms() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
}

/// A future whose CPU time is added up, on whatever threads it is polled.
struct Metered<'a, F> {
    spent: &'a mut f64,
    future: Pin<Box<F>>,
}

fn metered<F: Future>(spent: &mut f64, future: F) -> Metered<'_, F> {
    Metered { spent, future: Box::pin(future) }
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = cpu_ms();
        let poll = self.future.as_mut().poll(cx);
        *self.spent += cpu_ms() - before;
        poll
    }
}
