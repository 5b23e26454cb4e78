//! One request at edge A: multiply what the device uploads, subtract corrections, answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_engine::{EngineError, Execution, Outgoing, Progress, Secrets};
use pponnx_keys::{MarkError, PairError};
use pponnx_net::{NetError, Phase};
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::codec::encode_data_header;
use pponnx_wire::message::{Abort, AbortCode, Message, Refuse, RefuseCode};
use tokio::sync::mpsc;

use super::device::Conversation;
use super::{Busy, turn_down};
use crate::compute::blocking;
use crate::error::NodeError;
use crate::meter::RequestCost;
use crate::sessions::NoCorrection;
use crate::topology::Corrections;

/// How a request that this edge gave up is told to the device.
struct GiveUp {
    code: AbortCode,
    slot: Option<SlotId>,
    why: String,
}

enum Ended {
    /// The device gave up.
    ByDevice,
    /// We give up; the connection lives on.
    Here(GiveUp),
}

fn lost(error: NetError) -> NodeError {
    NodeError::connecting(Role::Device, error)
}

type Uploads = mpsc::Receiver<(SlotId, Vec<u8>)>;

impl Conversation<'_> {
    /// Runs a request that the device has begun.
    ///
    /// # Errors
    /// What ends the connection, and with it every other request on it.
    pub(super) async fn request(&self, request: u64, uploads: Uploads) -> Result<(), NodeError> {
        let _busy = Busy::start(&self.shared.busy);
        match self.run(request, uploads).await? {
            Ok(()) | Err(Ended::ByDevice) => Ok(()),
            Err(Ended::Here(GiveUp { code, slot, why })) => {
                tracing::warn!(request, %code, why, "request abandoned");
                self.say(Message::Abort(Abort::new(request, code, slot.map(|s| s.0), why))).await
            }
        }
    }

    async fn run(&self, request: u64, mut uploads: Uploads) -> Result<Result<(), Ended>, NodeError> {
        let give_up = |code, slot, why: String| Ok(Err(Ended::Here(GiveUp { code, slot, why })));
        let (served, device) = (self.served, self.device);
        // elsewhere numbers start again at every session
        if let Some(marks) = served.marks.clone().filter(|_| Corrections::of(served.plan.bundle()).needs_ledger()) {
            let _in_order = self.marking.lock().await;
            match blocking(move || marks.check_and_raise(&device, request)).await? {
                Ok(()) => {}
                Err(stale @ MarkError::Stale { .. }) => {
                    let mut writer = self.writer.lock().await;
                    turn_down(&mut writer, Refuse::new(RefuseCode::StaleRequest, "")).await;
                    return Err(stale.into());
                }
                Err(e) => return give_up(AbortCode::Internal, None, e.to_string()),
            }
        }
        let mut loaded = BTreeMap::new();
        if !served.plan.loads().is_empty() {
            let Some(stock) = served.stock.get(&device).cloned() else {
                return give_up(AbortCode::NoCorrection, None, "no stock for this device".into());
            };
            match blocking(move || stock.take(request)).await? {
                Ok(pairs) => loaded.extend(pairs.into_iter().map(|(slot, bytes)| (SlotId(slot), bytes))),
                Err(e @ PairError::OutOfPairs { .. }) => {
                    return give_up(AbortCode::NoCorrection, None, e.to_string());
                }
                Err(e) => return give_up(AbortCode::Internal, None, e.to_string()),
            }
        }
        let secrets = Secrets::EdgeA { loaded };
        let mut execution = Execution::new(Arc::clone(&served.plan), request, secrets, Vec::new())?;
        let mut cost = RequestCost { request, ..RequestCost::default() };
        loop {
            let work = move || {
                let progress = execution.resume();
                (execution, progress)
            };
            let (back, progress) = cost.compute(&self.shared.threads, self.light, work).await?;
            execution = back;
            if uploads.is_closed() {
                return Ok(Err(Ended::ByDevice));
            }
            self.answer(request, execution.outgoing()).await?;
            match progress {
                Ok(Progress::Done) => {
                    self.shared.meter.add(cost);
                    return Ok(Ok(()));
                }
                Ok(Progress::Wait { from: Role::EdgeB, slot }) => {
                    match cost.correction(self.correction(request, slot)).await {
                        Ok(payload) => execution.supply(Role::EdgeB, slot, payload)?,
                        Err(gone) => return Ok(Err(Ended::Here(gone))),
                    }
                }
                Ok(Progress::Wait { .. }) => match self.upload(&mut uploads).await? {
                    Some((slot, payload)) => match execution.supply(Role::Device, slot, payload) {
                        Ok(()) => {}
                        Err(e) => return give_up(AbortCode::BadData, Some(slot), e.to_string()),
                    },
                    None => return Ok(Err(Ended::ByDevice)),
                },
                Err(e @ EngineError::PeerMisbehaved { .. }) => {
                    return give_up(AbortCode::BadData, None, e.to_string());
                }
                Err(e) => return give_up(AbortCode::Internal, None, e.to_string()),
            }
        }
    }

    /// Sends what is ready, in one piece.
    async fn answer(&self, request: u64, ready: Vec<Outgoing>) -> Result<(), NodeError> {
        if ready.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.lock().await;
        for out in ready {
            let header = encode_data_header(request, out.slot.0, out.payload.len());
            let header = header.map_err(|e| NodeError::protocol(Role::EdgeA, e))?;
            writer.write_data(&header, &out.payload).await.map_err(lost)?;
        }
        writer.flush().await.map_err(lost)
    }

    /// The device's next upload; `None` if it gave the request up.
    async fn upload(&self, uploads: &mut Uploads) -> Result<Option<(SlotId, Vec<u8>)>, NodeError> {
        let after = self.shared.limits.wait;
        let waited = tokio::time::timeout(after, uploads.recv()).await;
        waited.map_err(|_| lost(NetError::Timeout { phase: Phase::Read, after }))
    }

    /// The correction that edge B made for a slot.
    async fn correction(&self, request: u64, slot: SlotId) -> Result<Vec<u8>, GiveUp> {
        let gone = |code, why| GiveUp { code, slot: Some(slot), why };
        let Some(session) = &self.session else { return Err(gone(AbortCode::NoSession, String::new())) };
        let wait = self.shared.limits.wait;
        match tokio::time::timeout(wait, session.take(request, slot)).await {
            Ok(Ok(payload)) => Ok(payload),
            Ok(Err(NoCorrection::Closed)) => Err(gone(AbortCode::NoSession, "edge B ended the session".into())),
            Ok(Err(NoCorrection::Aborted(abort))) => Err(gone(AbortCode::NoCorrection, abort.to_string())),
            Ok(Err(NoCorrection::NotHeld)) => {
                Err(gone(AbortCode::NoCorrection, "the correction was used or dropped".into()))
            }
            Err(_) => {
                let why = format!("edge B sent none within {:.1} s", wait.as_secs_f64());
                Err(gone(AbortCode::NoCorrection, why))
            }
        }
    }
}
