//! Edge A's end of a device's connection: handshake, then requests, several at once.

use pponnx_net::{Connection, Deadline, FrameReader, NetError, Pin};
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::message::{Abort, AbortCode, DeviceId, Message, PeerRole, Refuse, RefuseCode};
use pponnx_wire::states::Established;
use pponnx_wire::states::edge::DeviceAtA;
use pponnx_wire::{Kind, Limits as FrameLimits};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, watch};

use super::{NodeErrorOrEnd, Place, Shared, refused, turn_down};
use crate::compute::{blocking, is_light};
use crate::crowd::Crowd;
use crate::error::NodeError;
use crate::serve::{ServedPlan, stopped};
use crate::sessions::Session;
use crate::topology::{Corrections, largest};
use pponnx_net::FrameWriter;

/// Answers to pings that may wait behind a payload.
const PONGS: usize = 4;

/// What all requests of a connection share.
pub(super) struct Conversation<'a> {
    pub(super) shared: &'a Shared,
    pub(super) served: &'a ServedPlan,
    pub(super) session: Option<Arc<Session>>,
    pub(super) device: DeviceId,
    /// What belongs together is written under one lock, ended by a flush.
    pub(super) writer: Mutex<FrameWriter>,
    /// Marks are raised in the order in which requests begin.
    pub(super) marking: Mutex<()>,
    /// Whether requests are computed where messages are read.
    pub(super) light: bool,
}

/// A request under way, or (without a number) an answer to a ping.
struct Open {
    request: Option<u64>,
    /// Where its uploads go; none once the device has given it up.
    inbox: Option<mpsc::Sender<(SlotId, Vec<u8>)>>,
}

type Requests<'a> = Crowd<'a, Open, Result<(), NodeError>>;

fn lost(error: NetError) -> NodeError {
    NodeError::connecting(Role::Device, error)
}

pub(super) async fn converse(
    shared: &Shared,
    c: Connection,
    state: DeviceAtA,
    pin: Option<Pin>,
    stop: watch::Receiver<bool>,
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
    let (attach, welcome) = state.welcome(mark, shared.limits.in_flight.max(1));
    writer.write(&welcome).await.map_err(lost)?;
    writer.flush().await.map_err(lost)?;
    let (session, established) = if corrections.attaches() {
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
    let conversation = Conversation {
        shared,
        served,
        session,
        device: hello.device,
        writer: Mutex::new(writer),
        marking: Mutex::new(()),
        light: is_light(&served.plan),
    };
    conversation.go_on(reader, established, stop).await
}

impl Conversation<'_> {
    /// Takes messages and moves requests along until the device or the edge ends it.
    async fn go_on(
        &self,
        mut reader: FrameReader,
        mut established: Established,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), NodeError> {
        let mut requests = Requests::new();
        let mut stopping = false;
        loop {
            let message = tokio::select! {
                // Requests go first: each has begun its work, and each that is done is counted out, before the next
                // message is read.
                biased;
                (open, done) = requests.next(), if !requests.is_empty() => {
                    if let (Some(request), Some(session)) = (open.request, &self.session) {
                        session.finish(request);
                    }
                    done?;
                    continue;
                }
                () = stopped(&mut stop), if !stopping => {
                    stopping = true;
                    continue;
                }
                () = std::future::ready(()), if stopping && requests.is_empty() => {
                    // the device is between requests: tell it rather than vanish; it may be gone already
                    let mut writer = self.writer.lock().await;
                    let _ = writer.write(&Message::Goodbye).await;
                    let _ = writer.flush().await;
                    return Ok(());
                }
                message = reader.read(Deadline::never()) => message,
            };
            let running = requests.tags().filter(|open| open.inbox.is_some()).count();
            let message = match message.map_err(NodeErrorOrEnd::from) {
                Ok(message) => message,
                Err(NodeErrorOrEnd::End) if running == 0 => return Ok(()),
                Err(NodeErrorOrEnd::End) => return Err(lost(NetError::Closed { mid_frame: false })),
                Err(NodeErrorOrEnd::Error(e)) => return Err(lost(e)),
            };
            if let Some(observer) = &self.shared.observer {
                observer(PeerRole::Device, &message);
            }
            if message.kind() == Kind::OpenSession
                && let Ok(mut writer) = self.writer.try_lock()
            {
                // under two-edge the first sign of exchanged addresses
                turn_down(&mut writer, Refuse::new(RefuseCode::WrongRole, "this is edge A")).await;
            }
            match established.receive(message).map_err(|e| NodeError::protocol(Role::Device, e))? {
                Message::Begin { request } => self.begin(&mut requests, request, running, stopping)?,
                Message::Data(data) => self.pass(&mut requests, data.request, SlotId(data.slot), data.payload)?,
                Message::Abort(abort) => {
                    // One that is over already needs nothing.
                    if let Some(open) = requests.find_mut(|open| open.request == Some(abort.request)) {
                        open.inbox = None;
                    }
                }
                Message::Ping { token } => {
                    if requests.tags().filter(|open| open.request.is_none()).count() >= PONGS {
                        return Err(NodeError::Settings("the device sends pings and reads no answers".into()));
                    }
                    requests.push(Open { request: None, inbox: None }, self.say(Message::Pong { token }));
                }
                Message::Goodbye if running > 0 => {
                    return Err(NodeError::Settings("the device left a request unfinished".into()));
                }
                Message::Goodbye => return Ok(()),
                _ => {}
            }
        }
    }

    fn begin<'a>(
        &'a self,
        requests: &mut Requests<'a>,
        request: u64,
        running: usize,
        stopping: bool,
    ) -> Result<(), NodeError> {
        let allowed = self.shared.limits.in_flight.max(1) as usize;
        // Requests that the device gave up may still compute.
        if running >= allowed || requests.len() >= 2 * allowed + PONGS {
            return Err(NodeError::Settings(format!("the device began more than {allowed} requests at once")));
        }
        if let Some(session) = &self.session {
            session.begin(request);
        }
        if stopping {
            let abort = Abort::new(request, AbortCode::ShuttingDown, None, "");
            requests.push(Open { request: Some(request), inbox: None }, self.say(Message::Abort(abort)));
            return Ok(());
        }
        // One more than the plan has is enough to notice an upload too many.
        let (sender, uploads) = mpsc::channel(self.served.plan.receives().count() + 2);
        requests.push(Open { request: Some(request), inbox: Some(sender) }, self.request(request, uploads));
        Ok(())
    }

    fn pass(&self, requests: &mut Requests<'_>, request: u64, slot: SlotId, payload: Vec<u8>) -> Result<(), NodeError> {
        let open = requests.find_mut(|open| open.request == Some(request));
        // Nobody waits for what remains of a request that is over.
        let Some(inbox) = open.and_then(|open| open.inbox.as_ref()) else { return Ok(()) };
        match inbox.try_send((slot, payload)) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(NodeError::Settings(format!("the device sent more for request {request} than its plan says")))
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Writes one message and flushes.
    pub(super) async fn say(&self, message: Message) -> Result<(), NodeError> {
        let mut writer = self.writer.lock().await;
        writer.write(&message).await.map_err(lost)?;
        writer.flush().await.map_err(lost)
    }
}
