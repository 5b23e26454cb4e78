//! Edge A: multiplies what devices upload, subtracts corrections, answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pponnx_engine::{EngineError, Execution, LoadedPlan, Progress, Secrets};
use pponnx_keys::{MarkError, PairError};
use pponnx_net::{Connection, Deadline, FrameReader, FrameWriter, NetError, Pin, ServerTls};
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::codec::encode_data_header;
use pponnx_wire::message::{Abort, AbortCode, Message, PeerRole, Refuse, RefuseCode, Sid};
use pponnx_wire::states::Established;
use pponnx_wire::states::edge::{AwaitHelloAtA, Caller, DeviceAtA, EdgeBAtA};
use pponnx_wire::{Kind, Limits as FrameLimits, WireError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::error::NodeError;
use crate::meter::{Meter, RequestCost};
use crate::serve::{self, EdgeSettings, Limits, Observer, PeerEntry, Running, ServedPlan, stopped};
use crate::sessions::{NoCorrection, Session, Sessions, lock};
use crate::topology::Corrections;

/// Of two entries for one plan only one would count.
pub(crate) const LISTED_TWICE: &str = "the same plan is listed twice; remove one [[plan]]";

struct Shared {
    plans: BTreeMap<[u8; 32], ServedPlan>,
    devices: Vec<PeerEntry>,
    callers: Vec<Pin>,
    limits: Limits,
    sessions: Sessions,
    /// Devices with dealt key pairs that are connected, by device and bundle.
    dealt: Mutex<BTreeSet<([u8; 16], [u8; 32])>>,
    /// Told when one of them hangs up.
    hung_up: Notify,
    /// Requests under way: the link to edge B outlives them when the edge stops.
    busy: watch::Sender<usize>,
    observer: Option<Observer>,
    meter: Arc<Meter>,
}

/// Counts one request in [`Shared::busy`] for as long as it lives.
struct Busy<'a>(&'a watch::Sender<usize>);

impl Busy<'_> {
    fn start(count: &watch::Sender<usize>) -> Busy<'_> {
        count.send_modify(|n| *n += 1);
        Busy(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Waits until the edge is told to stop and no request needs corrections any more. Safe to cancel.
async fn stopped_and_idle(stop: &mut watch::Receiver<bool>, busy: &watch::Sender<usize>) {
    stopped(stop).await;
    // the sender lives as long as the edge
    let _ = busy.subscribe().wait_for(|n| *n == 0).await;
}

/// A place in [`Shared::dealt`], given up when dropped.
struct Place<'a> {
    shared: &'a Shared,
    who: ([u8; 16], [u8; 32]),
}

/// How long a device's new connection waits for its old one to end: a device that starts again at once is faster than
/// the news that it hung up.
const HANG_UP: Duration = Duration::from_secs(3);

impl Place<'_> {
    /// One connection at a time per device and bundle where masks hang on request numbers: of two copies of a device, the
    /// second must not get as far as uploading under a number that the first is using.
    async fn take(shared: &Shared, who: ([u8; 16], [u8; 32])) -> Option<Place<'_>> {
        let wait = async {
            loop {
                let hung_up = shared.hung_up.notified();
                tokio::pin!(hung_up);
                // registered before the look, so that nothing that happens in between is missed
                hung_up.as_mut().enable();
                if lock(&shared.dealt).insert(who) {
                    return Place { shared, who };
                }
                hung_up.await;
            }
        };
        tokio::time::timeout(HANG_UP, wait).await.ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.shared.dealt).remove(&self.who);
        self.shared.hung_up.notify_waiters();
    }
}

/// Starts edge A.
///
/// # Errors
/// [`NodeError::Settings`] for an unusable address, identity or plan.
pub async fn serve(settings: EdgeSettings) -> Result<Running, NodeError> {
    let mut plans = BTreeMap::new();
    for served in settings.plans {
        if served.plan.role() != Role::EdgeA {
            return Err(NodeError::Settings(format!("a plan of {} at edge A", served.plan.role())));
        }
        if Corrections::of(served.plan.bundle()).needs_ledger() && served.marks.is_none() {
            return Err(NodeError::Settings(
                "a plan with dealt key pairs needs a folder of marks: without it a restored device would reuse numbers"
                    .into(),
            ));
        }
        if plans.insert(*served.plan.digest(), served).is_some() {
            return Err(NodeError::Settings(LISTED_TWICE.into()));
        }
    }
    let allowed: Vec<Pin> = settings.devices.iter().map(|d| d.pin).chain(settings.callers.iter().copied()).collect();
    let tls = ServerTls::new(&settings.identity, move |pin| allowed.contains(pin)).map_err(NodeError::from_own)?;
    let shared = Arc::new(Shared {
        plans,
        devices: settings.devices,
        callers: settings.callers,
        limits: settings.limits,
        sessions: Sessions::default(),
        dealt: Mutex::default(),
        hung_up: Notify::new(),
        busy: watch::Sender::new(0),
        observer: settings.observer,
        meter: Arc::default(),
    });
    let meter = Arc::clone(&shared.meter);
    let mut running = serve::run(&settings.listen, tls, settings.limits, JoinSet::new(), move |connection, stop| {
        let shared = Arc::clone(&shared);
        async move {
            let peer = *connection.peer();
            if let Err(error) = caller(&shared, connection, stop).await {
                tracing::warn!(peer = ?peer.addr, %error, "connection ended");
            }
        }
    })
    .await?;
    running.meter = meter;
    Ok(running)
}

async fn caller(shared: &Shared, mut c: Connection, stop: watch::Receiver<bool>) -> Result<(), NodeError> {
    let pin = c.peer().pin;
    let hello = c.reader.read(Deadline::after(shared.limits.handshake)).await;
    let hello = hello.map_err(|e| NodeError::connecting(Role::Device, e))?;
    if let (Some(observer), Message::Hello(said)) = (&shared.observer, &hello) {
        observer(said.role, &hello);
    }
    match AwaitHelloAtA.handle(hello) {
        Ok(Caller::Device(state)) => device(shared, c, state, pin, stop).await,
        Ok(Caller::EdgeB(state)) => edge_b(shared, c, state, pin, stop).await,
        Err(error) => {
            if let Some(refuse) = error.refusal() {
                turn_down(&mut c.writer, refuse).await;
            }
            Err(NodeError::protocol(Role::Device, error))
        }
    }
}

/// Says why a caller is turned down. Whether it can still hear it changes nothing here.
async fn turn_down(writer: &mut FrameWriter, refuse: Refuse) {
    let said = async {
        writer.write(&Message::Refuse(refuse)).await?;
        writer.flush().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "a caller did not wait for the reason");
    }
}

fn refused(edge: Role, refuse: Refuse) -> NodeError {
    NodeError::Refused { edge, refuse }
}

// ---------------------------------------------------------------------------------------------- towards edge B

async fn edge_b(
    shared: &Shared,
    c: Connection,
    state: EdgeBAtA,
    pin: Option<Pin>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    let (mut reader, mut writer) = c.split();
    if !pin.is_some_and(|p| shared.callers.contains(&p)) {
        let refuse = Refuse::new(RefuseCode::WrongRole, "this identity is not that of an edge B");
        turn_down(&mut writer, refuse.clone()).await;
        return Err(refused(Role::EdgeB, refuse));
    }
    let (mut established, welcome) = state.welcome();
    let lost = |e: NetError| NodeError::connecting(Role::EdgeB, e);
    writer.write(&welcome).await.map_err(lost)?;
    writer.flush().await.map_err(lost)?;
    reader.set_limits(FrameLimits::with_payload(largest(shared.plans.values().map(|p| &p.plan), Role::EdgeB)));

    let (link, mut outgoing) = mpsc::unbounded_channel();
    let mut own: Vec<Sid> = Vec::new();
    let result = loop {
        let message = tokio::select! {
            message = reader.read(Deadline::never()) => message,
            Some(message) = outgoing.recv() => {
                let sent = async {
                    writer.write(&message).await?;
                    writer.flush().await
                };
                match sent.await {
                    Ok(()) => continue,
                    Err(e) => break Err(lost(e)),
                }
            }
            () = stopped_and_idle(&mut stop, &shared.busy) => break Ok(()),
        };
        let message = match message.map_err(NodeErrorOrEnd::from) {
            Ok(message) => message,
            Err(NodeErrorOrEnd::End) => break Ok(()),
            Err(NodeErrorOrEnd::Error(e)) => break Err(lost(e)),
        };
        if let Some(observer) = &shared.observer {
            observer(PeerRole::EdgeB, &message);
        }
        match established.receive(message) {
            Ok(message) => {
                if let Err(what) = from_edge_b(shared, message, &link, &mut own) {
                    break Err(NodeError::Settings(format!("edge B misbehaved: {what}")));
                }
            }
            Err(e) => break Err(NodeError::protocol(Role::EdgeB, e)),
        }
    };
    for sid in own {
        shared.sessions.remove(&sid);
    }
    result
}

fn from_edge_b(
    shared: &Shared,
    message: Message,
    link: &mpsc::UnboundedSender<Message>,
    own: &mut Vec<Sid>,
) -> Result<(), String> {
    // every message but the first of a session must be of a session that this link announced
    let find = |sid: &Sid, own: &[Sid]| {
        let session = own.contains(sid).then(|| shared.sessions.find(sid)).flatten();
        session.ok_or("a message for a session that it did not announce")
    };
    match message {
        Message::Session(announced) => {
            let sid = announced.sid;
            let session = shared
                .plans
                .get(&announced.bundle)
                .map(|served| Session::new(&announced, Arc::clone(&served.plan), shared.limits.prefetch, link.clone()));
            let taken = session.filter(|s| shared.sessions.insert(Arc::clone(s), shared.limits.sessions));
            if let Some(session) = taken {
                own.push(sid);
                session.open();
            } else {
                tracing::warn!("a session was turned down: unknown bundle, name in use, or too many sessions");
                // edge B tells its device
                let _ = link.send(Message::SessionClosed { sid });
            }
        }
        Message::Correction(correction) => {
            // a session that just ended may have corrections on the way
            if let Ok(session) = find(&correction.sid, own) {
                session.put(correction)?;
            }
        }
        Message::Abort(abort) => {
            if let Some(session) = abort.sid.and_then(|sid| find(&sid, own).ok()) {
                session.abort(abort);
            }
        }
        Message::SessionClosed { sid } => {
            shared.sessions.remove(&sid);
            own.retain(|s| *s != sid);
        }
        Message::Ping { token } => {
            // a closed link ends this task anyway
            let _ = link.send(Message::Pong { token });
        }
        _ => {}
    }
    Ok(())
}

/// The end of a connection between requests is no error.
enum NodeErrorOrEnd {
    End,
    Error(NetError),
}

impl From<NetError> for NodeErrorOrEnd {
    fn from(error: NetError) -> NodeErrorOrEnd {
        match error {
            NetError::Closed { mid_frame: false } => NodeErrorOrEnd::End,
            other => NodeErrorOrEnd::Error(other),
        }
    }
}

/// The largest payload that `from` sends in any of these plans.
pub(crate) fn largest<'a>(plans: impl Iterator<Item = &'a Arc<LoadedPlan>>, from: Role) -> u32 {
    let bytes = plans.flat_map(|p| {
        p.receives().filter(move |(role, _)| *role == from).filter_map(|(role, slot)| p.expects(role, slot))
    });
    u32::try_from(bytes.max().unwrap_or(0)).unwrap_or(u32::MAX)
}

// -------------------------------------------------------------------------------------------- towards a device

async fn device(
    shared: &Shared,
    c: Connection,
    state: DeviceAtA,
    pin: Option<Pin>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    let (mut reader, mut writer) = c.split();
    let hello = state.hello().clone();
    let known = shared.devices.iter().any(|d| d.device == hello.device && Some(d.pin) == pin);
    let refuse = |code| Refuse::new(code, "");
    let served = match (known, shared.plans.get(&hello.bundle)) {
        (true, Some(served)) => Ok(served),
        (true, None) => Err(refuse(RefuseCode::UnknownBundle)),
        (false, _) => Err(refuse(RefuseCode::UnknownDevice)),
    };
    let served = match served {
        Ok(served) => served,
        Err(refuse) => {
            turn_down(&mut writer, refuse.clone()).await;
            return Err(refused(Role::Device, refuse));
        }
    };
    let corrections = Corrections::of(served.plan.bundle());
    let place = match corrections.needs_ledger() {
        true => Some(Place::take(shared, (hello.device, hello.bundle)).await),
        false => None,
    };
    if let Some(None) = place {
        let why = "this device is connected already: a copy of it, or a connection that has not ended yet";
        let refuse = Refuse::new(RefuseCode::Busy, why);
        turn_down(&mut writer, refuse.clone()).await;
        return Err(refused(Role::Device, refuse));
    }
    let mark = match &served.marks {
        Some(marks) if corrections.needs_ledger() => {
            let (marks, device) = (Arc::clone(marks), hello.device);
            blocking(move || marks.mark(&device)).await??
        }
        _ => None,
    };
    let lost = |e: NetError| NodeError::connecting(Role::Device, e);
    let (attach, welcome) = state.welcome(mark, 1);
    writer.write(&welcome).await.map_err(lost)?;
    writer.flush().await.map_err(lost)?;
    let (session, mut established) = if corrections.attaches() {
        let message = reader.read(Deadline::after(shared.limits.handshake)).await.map_err(lost)?;
        if let Some(observer) = &shared.observer {
            observer(PeerRole::Device, &message);
        }
        let kind = message.kind();
        let (sid, established) = match attach.handle(message) {
            Ok(attached) => attached,
            Err(error) => {
                if kind == Kind::OpenSession {
                    turn_down(&mut writer, Refuse::new(RefuseCode::WrongRole, "this is edge A")).await;
                }
                return Err(NodeError::protocol(Role::Device, error));
            }
        };
        let session = shared.sessions.find(&sid).filter(|s| s.device == hello.device && s.bundle == hello.bundle);
        let Some(session) = session else {
            let refuse = Refuse::new(RefuseCode::Busy, "edge B announced no such session of this device");
            turn_down(&mut writer, refuse.clone()).await;
            return Err(refused(Role::Device, refuse));
        };
        (Some(session), established)
    } else {
        (None, attach.without_session())
    };
    reader.set_limits(FrameLimits::with_payload(largest(std::iter::once(&served.plan), Role::Device)));
    loop {
        let message = tokio::select! {
            message = reader.read(Deadline::never()) => message,
            () = stopped(&mut stop) => {
                // the device is between requests: tell it rather than vanish; it may be gone already
                let _ = writer.write(&Message::Goodbye).await;
                let _ = writer.flush().await;
                return Ok(());
            }
        };
        let message = match message.map_err(NodeErrorOrEnd::from) {
            Ok(message) => message,
            Err(NodeErrorOrEnd::End) => return Ok(()),
            Err(NodeErrorOrEnd::Error(e)) => return Err(lost(e)),
        };
        if let Some(observer) = &shared.observer {
            observer(PeerRole::Device, &message);
        }
        if message.kind() == Kind::OpenSession {
            // under two-edge the first sign of exchanged addresses
            turn_down(&mut writer, Refuse::new(RefuseCode::WrongRole, "this is edge A")).await;
        }
        match established.receive(message).map_err(|e| NodeError::protocol(Role::Device, e))? {
            Message::Begin { request } => {
                let _busy = Busy::start(&shared.busy);
                let mut link = Link { shared, reader: &mut reader, writer: &mut writer, established: &mut established };
                let done = link.request(served, session.as_deref(), hello.device, request).await;
                if let Some(session) = &session {
                    session.finish(request);
                }
                done?;
            }
            Message::Ping { token } => {
                writer.write(&Message::Pong { token }).await.map_err(lost)?;
                writer.flush().await.map_err(lost)?;
            }
            Message::Goodbye => return Ok(()),
            // what remains of a request that was aborted while it was on its way
            Message::Data(_) | Message::Abort(_) => {}
            _ => {}
        }
    }
}

/// A device's connection during a request.
struct Link<'a> {
    shared: &'a Shared,
    reader: &'a mut FrameReader,
    writer: &'a mut FrameWriter,
    established: &'a mut Established,
}

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

impl Link<'_> {
    async fn request(
        &mut self,
        served: &ServedPlan,
        session: Option<&Session>,
        device: [u8; 16],
        request: u64,
    ) -> Result<(), NodeError> {
        let lost = |e: NetError| NodeError::connecting(Role::Device, e);
        match self.run(served, session, device, request).await? {
            Ok(()) | Err(Ended::ByDevice) => Ok(()),
            Err(Ended::Here(GiveUp { code, slot, why })) => {
                tracing::warn!(request, %code, why, "request abandoned");
                let abort = Abort::new(request, code, slot.map(|s| s.0), why);
                self.writer.write(&Message::Abort(abort)).await.map_err(lost)?;
                self.writer.flush().await.map_err(lost)
            }
        }
    }

    async fn run(
        &mut self,
        served: &ServedPlan,
        session: Option<&Session>,
        device: [u8; 16],
        request: u64,
    ) -> Result<Result<(), Ended>, NodeError> {
        let lost = |e: NetError| NodeError::connecting(Role::Device, e);
        let give_up = |code, slot, why: String| Ok(Err(Ended::Here(GiveUp { code, slot, why })));
        // elsewhere numbers start again at every session
        if let Some(marks) = served.marks.clone().filter(|_| Corrections::of(served.plan.bundle()).needs_ledger()) {
            match blocking(move || marks.check_and_raise(&device, request)).await? {
                Ok(()) => {}
                Err(stale @ MarkError::Stale { .. }) => {
                    turn_down(self.writer, Refuse::new(RefuseCode::StaleRequest, "")).await;
                    return Err(stale.into());
                }
                Err(e) => return give_up(AbortCode::Internal, None, e.to_string()),
            }
        }
        if let Some(session) = session {
            session.begin(request);
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
            let computed = cost.compute(move || {
                let progress = execution.resume();
                (execution, progress)
            });
            let (back, progress) = computed.await?;
            execution = back;
            for out in execution.outgoing() {
                let header = encode_data_header(request, out.slot.0, out.payload.len());
                let header = header.map_err(|e| NodeError::protocol(Role::EdgeA, e))?;
                self.writer.write_data(&header, &out.payload).await.map_err(lost)?;
            }
            self.writer.flush().await.map_err(lost)?;
            match progress {
                Ok(Progress::Done) => {
                    self.shared.meter.add(cost);
                    return Ok(Ok(()));
                }
                Ok(Progress::Wait { from: Role::EdgeB, slot }) => {
                    let Some(session) = session else {
                        return give_up(AbortCode::NoSession, Some(slot), String::new());
                    };
                    let take = tokio::time::timeout(self.shared.limits.wait, session.take(request, slot));
                    let waited = cost.correction(take).await;
                    let why = match waited {
                        Ok(Ok(payload)) => {
                            execution.supply(Role::EdgeB, slot, payload)?;
                            continue;
                        }
                        Ok(Err(NoCorrection::Closed)) => {
                            return give_up(AbortCode::NoSession, Some(slot), "edge B ended the session".into());
                        }
                        Ok(Err(NoCorrection::Aborted(abort))) => abort.to_string(),
                        Ok(Err(NoCorrection::NotHeld)) => "the correction was used or dropped".into(),
                        Err(_) => {
                            format!("edge B sent none within {:.1} s", self.shared.limits.wait.as_secs_f64())
                        }
                    };
                    return give_up(AbortCode::NoCorrection, Some(slot), why);
                }
                Ok(Progress::Wait { .. }) => match self.upload(request).await? {
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

    /// The device's next upload; `None` if it aborts the request.
    async fn upload(&mut self, request: u64) -> Result<Option<(SlotId, Vec<u8>)>, NodeError> {
        loop {
            let deadline = Deadline::after(self.shared.limits.wait);
            let message = self.reader.read(deadline).await.map_err(|e| NodeError::connecting(Role::Device, e))?;
            if let Some(observer) = &self.shared.observer {
                observer(PeerRole::Device, &message);
            }
            let protocol = |e: WireError| NodeError::protocol(Role::Device, e);
            match self.established.receive(message).map_err(protocol)? {
                Message::Data(data) if data.request == request => return Ok(Some((SlotId(data.slot), data.payload))),
                Message::Abort(abort) if abort.request == request => return Ok(None),
                Message::Ping { token } => {
                    let lost = |e: NetError| NodeError::connecting(Role::Device, e);
                    self.writer.write(&Message::Pong { token }).await.map_err(lost)?;
                    self.writer.flush().await.map_err(lost)?;
                }
                Message::Begin { .. } | Message::Goodbye => {
                    return Err(NodeError::Settings("the device left a request unfinished".into()));
                }
                _ => {}
            }
        }
    }
}

/// Runs arithmetic or file access away from the threads that move frames.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(f).await.map_err(|e| NodeError::Internal(e.to_string()))
}
