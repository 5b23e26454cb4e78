//! Edge B: computes corrections from the mask stream alone. No message to it depends on an input.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_engine::{Execution, LoadedPlan, Outgoing, Progress, Secrets};
use pponnx_keys::{AcceptError, KeyFile, SessionKey, SessionNonce};
use pponnx_net::{ClientTls, Connection, Deadline, FrameWriter, NetError, ServerTls};
use pponnx_plans::value::Role;
use pponnx_wire::codec::encode_data_header;
use pponnx_wire::message::{Abort, AbortCode, Correction, Message, PeerRole, Refuse, RefuseCode, Session, Sid};
use pponnx_wire::states::edge::{AwaitHelloAtB, AwaitOpen, DeviceAtB};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::compute::{Threads, blocking, is_light};
use crate::crowd::Crowd;
use crate::edge_a::LISTED_TWICE;
use crate::error::NodeError;
use crate::relay::{Credit, Uplink};
use crate::serve::{self, EdgeSettings, Limits, Observer, PeerEntry, Running, ServedPlan, stopped};
use crate::topology::Corrections;

struct Shared {
    plans: BTreeMap<[u8; 32], ServedPlan>,
    devices: Vec<PeerEntry>,
    limits: Limits,
    threads: Arc<Threads>,
    uplink: Option<Arc<Uplink>>,
    observer: Option<Observer>,
}

/// Starts edge B.
///
/// # Errors
/// [`NodeError::Settings`] for an unusable address, identity or plan.
pub async fn serve(settings: EdgeSettings) -> Result<Running, NodeError> {
    let mut plans = BTreeMap::new();
    let mut relays = false;
    for served in settings.plans {
        if served.plan.role() != Role::EdgeB {
            return Err(NodeError::Settings(format!("a plan of {} at edge B", served.plan.role())));
        }
        relays |= Corrections::of(served.plan.bundle()).attaches();
        if plans.insert(*served.plan.digest(), served).is_some() {
            return Err(NodeError::Settings(LISTED_TWICE.into()));
        }
    }
    let each = plans.values().map(|served| served.plan.kernels().threads()).max().unwrap_or(1);
    let allowed: Vec<_> = settings.devices.iter().map(|d| d.pin).collect();
    let tls = ServerTls::new(&settings.identity, move |pin| allowed.contains(pin)).map_err(NodeError::from_own)?;
    let mut background = JoinSet::new();
    let uplink = match (relays, settings.edge_a) {
        (false, _) => None,
        (true, None) => {
            return Err(NodeError::Settings("a relay plan needs edge A's address and pin: add [[edge]]".into()));
        }
        (true, Some(edge)) => {
            let client = ClientTls::new(&settings.identity, &[edge.pin]).map_err(NodeError::from_own)?;
            let (uplink, outgoing) = Uplink::new();
            background.spawn(Arc::clone(&uplink).keep_up(edge.address, client, settings.limits.handshake, outgoing));
            Some(uplink)
        }
    };
    let shared = Arc::new(Shared {
        plans,
        devices: settings.devices,
        limits: settings.limits,
        threads: Arc::new(Threads::new(each)),
        uplink,
        observer: settings.observer,
    });
    serve::run(&settings.listen, tls, settings.limits, background, move |connection, stop| {
        let shared = Arc::clone(&shared);
        async move {
            let peer = *connection.peer();
            if let Err(error) = caller(&shared, connection, stop).await {
                tracing::warn!(peer = ?peer.addr, %error, "connection ended");
            }
        }
    })
    .await
}

fn lost(error: NetError) -> NodeError {
    NodeError::connecting(Role::Device, error)
}

async fn caller(shared: &Shared, mut c: Connection, stop: watch::Receiver<bool>) -> Result<(), NodeError> {
    let hello = c.reader.read(Deadline::after(shared.limits.handshake)).await.map_err(lost)?;
    if let (Some(observer), Message::Hello(said)) = (&shared.observer, &hello) {
        observer(said.role, &hello);
    }
    let state = match AwaitHelloAtB.handle(hello) {
        Ok(state) => state,
        Err(error) => {
            if let Some(refuse) = error.refusal() {
                turn_down(&mut c, refuse).await;
            }
            return Err(NodeError::protocol(Role::Device, error));
        }
    };
    let (served, state) = match admit(shared, &c, state) {
        Ok(admitted) => admitted,
        Err(refuse) => {
            turn_down(&mut c, refuse.clone()).await;
            return Err(NodeError::Refused { edge: Role::Device, refuse });
        }
    };
    device(shared, c, served, state, stop).await
}

fn admit<'a>(shared: &'a Shared, c: &Connection, state: DeviceAtB) -> Result<(&'a ServedPlan, DeviceAtB), Refuse> {
    let hello = state.hello();
    let known = shared.devices.iter().any(|d| d.device == hello.device && Some(d.pin) == c.peer().pin);
    match (known, shared.plans.get(&hello.bundle)) {
        (true, Some(served)) => Ok((served, state)),
        (true, None) => Err(Refuse::new(RefuseCode::UnknownBundle, "")),
        (false, _) => Err(Refuse::new(RefuseCode::UnknownDevice, "")),
    }
}

async fn turn_down(c: &mut Connection, refuse: Refuse) {
    let said = async {
        c.writer.write(&Message::Refuse(refuse)).await?;
        c.writer.flush().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "a caller did not wait for the reason");
    }
}

async fn device(
    shared: &Shared,
    mut c: Connection,
    served: &ServedPlan,
    state: DeviceAtB,
    mut stop: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    let hello = state.hello().clone();
    let (mut open, welcome) = state.welcome(shared.limits.in_flight.max(1));
    c.writer.write(&welcome).await.map_err(lost)?;
    c.writer.flush().await.map_err(lost)?;
    let (session, mut established) = loop {
        match open_session(shared, &mut c, served, open, hello.device).await? {
            Opened::Session { key, epoch_opened } => {
                break (key, epoch_opened);
            }
            Opened::Behind(again) => open = again,
        }
    };
    let sid = session.sid();
    let corrections = Corrections::of(served.plan.bundle());
    let maker = Maker {
        threads: Arc::clone(&shared.threads),
        light: is_light(&served.plan),
        plan: Arc::clone(&served.plan),
        session,
    };
    let mut work = JoinSet::new();
    if let (true, Some(uplink)) = (corrections.attaches(), &shared.uplink) {
        let announced = Session { sid, device: hello.device, bundle: hello.bundle };
        match uplink.open(announced, shared.limits.handshake).await {
            Ok(credit) => {
                work.spawn(run_ahead(Arc::clone(uplink), maker.clone(), sid, credit));
            }
            Err(why) => {
                let refuse = Refuse::new(RefuseCode::Busy, why);
                turn_down(&mut c, refuse.clone()).await;
                return Err(NodeError::Refused { edge: Role::EdgeB, refuse });
            }
        }
    }
    c.writer.write(&Message::SessionOpen { sid }).await.map_err(lost)?;
    c.writer.flush().await.map_err(lost)?;
    let (mut reader, writer) = c.split();
    let writer = Mutex::new(writer);
    let allowed = shared.limits.in_flight.max(1) as usize;
    let mut requests = Crowd::new();
    let result = loop {
        let message = tokio::select! {
            // Requests go first: each that is done is counted out before the next message is read.
            biased;
            ((), done) = requests.next(), if !requests.is_empty() => match done {
                Ok(()) => continue,
                Err(e) => break Err(e),
            },
            Some(done) = work.join_next(), if !work.is_empty() => {
                // edge A is gone: the device learns it from edge A; ending its session frees its keys here
                break done.map_err(|e| NodeError::Internal(e.to_string())).and_then(|r| r);
            }
            () = stopped(&mut stop), if requests.is_empty() => break Ok(()),
            message = reader.read(Deadline::never()) => message,
        };
        let message = match message {
            Ok(message) => message,
            Err(NetError::Closed { mid_frame: false }) => break Ok(()),
            Err(e) => break Err(lost(e)),
        };
        if let Some(observer) = &shared.observer {
            observer(PeerRole::Device, &message);
        }
        let message = match established.receive(message) {
            Ok(message) => message,
            Err(e) => break Err(NodeError::protocol(Role::Device, e)),
        };
        if matches!(message, Message::Begin { .. } | Message::Ping { .. }) && requests.len() > allowed {
            break Err(NodeError::Settings(format!("the device began more than {allowed} requests at once")));
        }
        match message {
            Message::Begin { request } if corrections == Corrections::EdgeB(Role::Device) => {
                requests.push((), answer(&writer, &maker, request));
            }
            Message::Ping { token } => requests.push((), say(&writer, Message::Pong { token })),
            Message::Goodbye => break Ok(()),
            _ => {}
        }
    };
    work.shutdown().await;
    if let Some(uplink) = &shared.uplink {
        uplink.close(sid).await;
    }
    result
}

enum Opened {
    Session { key: Arc<SessionKey>, epoch_opened: pponnx_wire::states::Established },
    Behind(AwaitOpen),
}

/// One attempt of the device to open a session. The epoch is durably used before the key exists.
async fn open_session(
    shared: &Shared,
    c: &mut Connection,
    served: &ServedPlan,
    open: AwaitOpen,
    device: [u8; 16],
) -> Result<Opened, NodeError> {
    let message = c.reader.read(Deadline::after(shared.limits.handshake)).await.map_err(lost)?;
    if let Some(observer) = &shared.observer {
        observer(PeerRole::Device, &message);
    }
    let opening = open.handle(message).map_err(|e| NodeError::protocol(Role::Device, e))?;
    let folder = served.keys.clone().ok_or_else(|| NodeError::Settings("edge B has no folder of keys".into()))?;
    let path = folder.join(KeyFile::name_for(&device));
    let (epoch, bundle) = (opening.epoch(), *served.plan.digest());
    let accepted = blocking(move || {
        KeyFile::read(&path)?.require(&path, &device, &bundle)?;
        KeyFile::accept(&path, epoch)
    })
    .await?;
    match accepted {
        Ok(file) => {
            let nonce = SessionNonce(*opening.nonce().as_bytes());
            let key = Arc::new(SessionKey::session(&file.key, &nonce));
            let (established, _) = opening.opened(key.sid());
            Ok(Opened::Session { key, epoch_opened: established })
        }
        Err(AcceptError::Behind { highest, .. }) => {
            let (again, behind) = opening.behind(highest);
            c.writer.write(&behind).await.map_err(lost)?;
            c.writer.flush().await.map_err(lost)?;
            Ok(Opened::Behind(again))
        }
        Err(error) => {
            turn_down(c, Refuse::new(RefuseCode::Internal, "edge B cannot use its key of this device")).await;
            Err(error.into())
        }
    }
}

/// Makes the corrections of one session.
#[derive(Clone)]
struct Maker {
    threads: Arc<Threads>,
    light: bool,
    plan: Arc<LoadedPlan>,
    session: Arc<SessionKey>,
}

impl Maker {
    /// Runs edge B's program for one request.
    async fn corrections_of(&self, request: u64) -> Result<Vec<Outgoing>, NodeError> {
        let (plan, session) = (Arc::clone(&self.plan), Arc::clone(&self.session));
        let work = move || {
            let mut execution = Execution::new(plan, request, Secrets::EdgeB { session }, Vec::new())?;
            match execution.resume()? {
                Progress::Done => Ok(execution.outgoing()),
                Progress::Wait { .. } => {
                    Err(NodeError::Settings("edge B's plan waits for data, which no plan may".into()))
                }
            }
        };
        self.threads.run(self.light, work).await?
    }
}

/// `relay`: corrections for request after request, as far ahead as edge A's credit allows.
async fn run_ahead(
    uplink: Arc<Uplink>,
    maker: Maker,
    sid: Sid,
    mut credit: watch::Receiver<Credit>,
) -> Result<(), NodeError> {
    let over = || NodeError::Settings("the session with edge A is over".into());
    for request in 0u64.. {
        let granted = credit.wait_for(|c| matches!(c, Credit::Closed) || matches!(c, Credit::Upto(n) if *n > request));
        let granted = granted.await.is_ok_and(|c| matches!(*c, Credit::Upto(_)));
        if !granted {
            return Err(over());
        }
        match maker.corrections_of(request).await {
            Ok(all) => {
                for Outgoing { slot, payload, .. } in all {
                    let correction = Correction { sid, request, slot: slot.0, payload };
                    uplink.send(Message::Correction(correction)).await.map_err(NodeError::Settings)?;
                }
            }
            Err(error) => {
                let abort = Abort::of_session(sid, request, AbortCode::Internal, None, "edge B failed; see its log");
                uplink.send(Message::Abort(abort)).await.map_err(NodeError::Settings)?;
                return Err(error);
            }
        }
        // Light work never waits for a thread: other sessions get their turn here.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn say(writer: &Mutex<FrameWriter>, message: Message) -> Result<(), NodeError> {
    let mut writer = writer.lock().await;
    writer.write(&message).await.map_err(lost)?;
    writer.flush().await.map_err(lost)
}

/// `two-edge`: the corrections of one request, to the device.
async fn answer(writer: &Mutex<FrameWriter>, maker: &Maker, request: u64) -> Result<(), NodeError> {
    match maker.corrections_of(request).await {
        Ok(all) => {
            let mut writer = writer.lock().await;
            for Outgoing { slot, payload, .. } in all {
                let header = encode_data_header(request, slot.0, payload.len());
                let header = header.map_err(|e| NodeError::protocol(Role::EdgeB, e))?;
                writer.write_data(&header, &payload).await.map_err(lost)?;
            }
            writer.flush().await.map_err(lost)
        }
        Err(error) => {
            tracing::warn!(request, %error, "request abandoned");
            let abort = Abort::new(request, AbortCode::Internal, None, "edge B failed; see its log");
            say(writer, Message::Abort(abort)).await
        }
    }
}
