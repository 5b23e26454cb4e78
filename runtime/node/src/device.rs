//! The device: opens a session, runs requests, releases checked results only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pponnx_engine::{CheckMaterial, EngineError, Execution, LoadedPlan, Outgoing, Progress, Secrets, TensorValue};
use pponnx_keys::{AcceptError, KeyFile, Ledger, PairStore, SessionKey, SessionNonce};
use pponnx_net::{ClientTls, Connection, Deadline, Identity, NetError, Phase, Pin, Traffic, connect};
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::codec::encode_data_header;
use pponnx_wire::message::{Abort, AbortCode, DeviceId, Message};
use pponnx_wire::states::Established;
use pponnx_wire::states::device::{SessionReply, greet_edge_a, greet_edge_b};
use pponnx_wire::{Limits as FrameLimits, Misbehaviour, WireError};
use zeroize::Zeroizing;

use crate::edge_a::{blocking, largest};
use crate::error::NodeError;
use crate::topology::Corrections;

/// Most attempts to open a session: one, one past the epoch that edge B names, and some for a second process of this
/// device. An edge B that goes on naming higher epochs would otherwise hold the device for ever.
const MAX_OPENINGS: u32 = 4;

/// Where an edge is, and who it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeAddress {
    /// `host:port`.
    pub address: String,
    /// Pin of its identity.
    pub pin: Pin,
}

/// Limits on waiting.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection and its handshakes.
    pub connect: Duration,
    /// For each answer of an edge.
    pub reply: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect: Duration::from_secs(10), reply: Duration::from_secs(30) }
    }
}

/// The device's secrets and stores.
pub struct Material {
    /// The key file; its epoch advances at every start of a session.
    pub key: PathBuf,
    /// Check vectors.
    pub check: Arc<CheckMaterial>,
    /// `one-time`: stored corrections.
    pub pairs: Option<PairStore>,
    /// Owner-dealt schemes: the ledger of request numbers, open and locked.
    pub ledger: Option<Ledger>,
}

/// Draws the session nonce. A parameter, so that tests can repeat one on purpose.
pub type DrawNonce = Box<dyn Fn() -> Result<[u8; 32], NodeError> + Send + Sync>;

/// A device's settings.
pub struct DeviceSettings {
    /// The plan, loaded for the device.
    pub plan: Arc<LoadedPlan>,
    /// The device's name.
    pub device: DeviceId,
    /// Its key and certificate.
    pub identity: Identity,
    /// Edge A.
    pub edge_a: EdgeAddress,
    /// Edge B, in schemes that have one.
    pub edge_b: Option<EdgeAddress>,
    /// Secrets and stores.
    pub material: Material,
    /// Limits on waiting.
    pub timeouts: Timeouts,
    /// Where nonces come from; [`system_nonce`] outside tests.
    pub nonce: DrawNonce,
}

/// Fresh bytes from the system.
///
/// # Errors
/// [`NodeError::Random`].
pub fn system_nonce() -> Result<[u8; 32], NodeError> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| NodeError::Random(e.to_string()))?;
    Ok(bytes)
}

/// What a request cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// The request's number.
    pub request: u64,
    /// Waits for an edge on the critical path.
    pub rounds: u64,
    /// Payload bytes, device to edges.
    pub bytes_up: u64,
    /// Payload bytes, edges to device.
    pub bytes_down: u64,
    /// All bytes on the device's sockets during the request: frames and TLS included, TCP and IP headers not.
    pub socket_bytes: u64,
    /// CPU time of the device's computation (encode, mask, check, decode, local segments), in milliseconds.
    pub device_cpu_ms: f64,
    /// From the input to the result, in milliseconds.
    pub wall_ms: f64,
}

/// A finished request.
pub struct Inference {
    /// Outputs in the order of the bundle's table.
    pub outputs: Vec<TensorValue>,
    /// Cost.
    pub stats: Stats,
}

struct Link {
    edge: Role,
    connection: Connection,
    established: Established,
}

/// A device with an open session.
pub struct Device {
    plan: Arc<LoadedPlan>,
    session: Arc<SessionKey>,
    material: Material,
    edge_a: Link,
    edge_b: Option<Link>,
    corrections: Corrections,
    timeouts: Timeouts,
    next: u64,
    over: bool,
}

impl Device {
    /// Connects to the edges and opens a session.
    ///
    /// # Errors
    /// [`NodeError`]: an edge that is not reachable, not the pinned one or not willing; unusable key, ledger or pairs.
    pub async fn start(settings: DeviceSettings) -> Result<Device, NodeError> {
        let DeviceSettings { plan, device, identity, edge_a, edge_b, material, timeouts, nonce } = settings;
        let corrections = Corrections::of(plan.bundle());
        let digest = *plan.digest();
        let edge_b = match (corrections.needs_edge_b(), edge_b) {
            (true, Some(b)) if b.pin == edge_a.pin => {
                return Err(NodeError::Settings(
                    "edge A and edge B have the same key: one operator could undo the masks; use two that do not collude"
                        .into(),
                ));
            }
            (true, Some(b)) => Some(b),
            (true, None) => return Err(NodeError::Settings("this scheme needs an edge B: add [[edge]]".into())),
            (false, _) => None,
        };
        let (session, link_b) = match &edge_b {
            Some(b) => {
                let (session, link) =
                    open_with_edge_b(&plan, device, &identity, b, &material.key, timeouts, &nonce).await?;
                (session, Some(link))
            }
            None => {
                let path = material.key.clone();
                let file = blocking(move || {
                    let file = KeyFile::read(&path)?;
                    file.require(&path, &device, &digest)?;
                    Ok::<_, NodeError>(file)
                });
                (SessionKey::dealt(&file.await??.key), None)
            }
        };
        let mut material = material;
        if corrections.needs_ledger() != material.ledger.is_some() {
            return Err(NodeError::Settings("schemes with dealt key pairs, and only they, need a ledger".into()));
        }
        if let (Some(ledger), Some(pairs)) = (&mut material.ledger, &material.pairs) {
            ledger.set_limit(pairs.end());
        }
        let edge = Role::EdgeA;
        let mut connection = dial(edge, &edge_a, &identity, timeouts).await?;
        let (state, hello) = greet_edge_a(device, digest);
        let welcome = exchange(edge, &mut connection, hello, timeouts).await?;
        let greeted = state.handle(welcome).map_err(|e| NodeError::protocol(edge, e))?;
        if let Some(ledger) = &material.ledger {
            ledger.require_ahead_of(greeted.welcome().mark)?;
        }
        let established = if corrections.attaches() {
            let (established, attach) = greeted.attach(session.sid());
            send(edge, &mut connection, &attach).await?;
            established
        } else {
            greeted.without_session()
        };
        connection.reader.set_limits(FrameLimits::with_payload(largest(std::iter::once(&plan), edge)));
        Ok(Device {
            plan,
            session: Arc::new(session),
            material,
            edge_a: Link { edge, connection, established },
            edge_b: link_b,
            corrections,
            timeouts,
            next: 0,
            over: false,
        })
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Arc<LoadedPlan> {
        &self.plan
    }

    /// Runs one request. Its number is burnt whatever happens.
    ///
    /// Inputs that do not fit the plan, NaN and infinity are refused before anything is sent, and the session goes on;
    /// after any other error it is over.
    ///
    /// # Errors
    /// [`NodeError`]; no result is released.
    pub async fn infer(&mut self, inputs: Vec<TensorValue>) -> Result<Inference, NodeError> {
        if self.over {
            return Err(NodeError::SessionOver);
        }
        let started = Instant::now();
        let request = self.take_number()?;
        let mut loaded = BTreeMap::new();
        if let Some(pairs) = &self.material.pairs {
            loaded.extend(pairs.take(request)?.into_iter().map(|(slot, bytes)| (SlotId(slot), bytes)));
        }
        let (session, check) = (Arc::clone(&self.session), Arc::clone(&self.material.check));
        let secrets = Secrets::Device { session, check, loaded };
        let execution = Execution::new(Arc::clone(&self.plan), request, secrets, inputs)?;
        let mut run = Run { execution, stats: Stats { request, ..Stats::default() }, begun: false };
        let before = self.socket_bytes();
        // until the request is through: a caller that drops this future leaves the connections in the middle of it
        self.over = true;
        let result = self.drive(&mut run).await;
        if let Err(error) = result {
            if run.begun {
                // edge A frees what it holds for the request; it may be the one that is gone
                let abort = Abort::new(request, AbortCode::Cancelled, None, "");
                let _ = send(Role::EdgeA, &mut self.edge_a.connection, &Message::Abort(abort)).await;
            }
            self.over = run.begun;
            return Err(error);
        }
        self.over = false;
        let mut stats = run.stats;
        stats.socket_bytes = self.socket_bytes() - before;
        stats.wall_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(Inference { outputs: run.execution.finish()?, stats })
    }

    /// Says goodbye to the edges.
    pub async fn stop(mut self) {
        for link in [Some(&mut self.edge_a), self.edge_b.as_mut()].into_iter().flatten() {
            // a courtesy; the edges notice a closed connection as well
            let _ = send(link.edge, &mut link.connection, &Message::Goodbye).await;
        }
    }

    fn socket_bytes(&self) -> u64 {
        let of = |t: Traffic| t.sent().socket_bytes + t.received().socket_bytes;
        of(self.edge_a.connection.traffic()) + self.edge_b.as_ref().map_or(0, |l| of(l.connection.traffic()))
    }

    fn take_number(&mut self) -> Result<u64, NodeError> {
        match &mut self.material.ledger {
            Some(ledger) => Ok(ledger.next_request()?),
            None => {
                let request = self.next;
                self.next += 1;
                Ok(request)
            }
        }
    }

    async fn drive(&mut self, run: &mut Run) -> Result<(), NodeError> {
        loop {
            let before = cpu_ms();
            let progress = in_place(|| run.execution.resume());
            run.stats.device_cpu_ms += cpu_ms() - before;
            let progress = progress?;
            let ready = run.execution.outgoing();
            if !run.begun {
                let slot = match (ready.first(), progress) {
                    (Some(out), _) => Some(out.slot),
                    (None, Progress::Wait { slot, .. }) => Some(slot),
                    (None, Progress::Done) => None,
                };
                self.begin(run, slot.map(|s| segment_of(&self.plan, s)).unwrap_or_default()).await?;
            }
            match progress {
                Progress::Done => return self.upload(run, ready).await,
                Progress::Wait { .. } if !ready.is_empty() => {
                    run.stats.rounds += 1;
                    self.upload(run, ready).await?;
                }
                Progress::Wait { from, slot } => self.receive(run, from, slot).await?,
            }
        }
    }

    /// Tells the edges that a request starts: once the first values are encoded, so that an unusable input costs them
    /// nothing.
    async fn begin(&mut self, run: &mut Run, segment: String) -> Result<(), NodeError> {
        run.begun = true;
        let request = run.stats.request;
        let begin = Message::Begin { request };
        let written = self.edge_a.connection.writer.write(&begin).await;
        written.map_err(|e| lost(Role::EdgeA, request, &segment, e))?;
        if self.corrections == Corrections::EdgeB(Role::Device)
            && let Some(link) = &mut self.edge_b
        {
            let sent = async {
                link.connection.writer.write(&begin).await?;
                link.connection.writer.flush().await
            };
            sent.await.map_err(|e| lost(Role::EdgeB, request, &segment, e))?;
        }
        Ok(())
    }

    /// Sends what is ready, and meanwhile takes in what edge A answers already: an edge that answers one upload while
    /// the next is on its way would otherwise wait for this end to read, and this end for the edge.
    async fn upload(&mut self, run: &mut Run, ready: Vec<Outgoing>) -> Result<(), NodeError> {
        let request = run.stats.request;
        let segment = ready.first().map(|out| segment_of(&self.plan, out.slot)).unwrap_or_default();
        let Link { edge, connection, established } = &mut self.edge_a;
        let (edge, reader, writer) = (*edge, &mut connection.reader, &mut connection.writer);
        let write = async {
            for out in &ready {
                let header = encode_data_header(request, out.slot.0, out.payload.len())?;
                writer.write_data(&header, &out.payload).await?;
            }
            writer.flush().await
        };
        tokio::pin!(write);
        loop {
            let message = tokio::select! {
                written = &mut write => {
                    written.map_err(|e| lost(edge, request, &segment, e))?;
                    break;
                }
                message = reader.read(Deadline::never()) => message.map_err(|e| lost(edge, request, &segment, e))?,
            };
            if let Some((slot, payload)) =
                payload_of(&self.plan, self.corrections, established, (edge, request, &segment), message)?
            {
                run.supply(&self.plan, edge, slot, payload)?;
            }
        }
        run.stats.bytes_up += ready.iter().map(|out| out.payload.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Waits for the next payload of this request from an edge, for whatever slot.
    async fn receive(&mut self, run: &mut Run, from: Role, slot: SlotId) -> Result<(), NodeError> {
        let (request, segment) = (run.stats.request, segment_of(&self.plan, slot));
        let link = match (from, self.edge_b.as_mut()) {
            (Role::EdgeB, Some(link)) => link,
            _ => &mut self.edge_a,
        };
        let deadline = Deadline::after(self.timeouts.reply);
        loop {
            let message = link.connection.reader.read(deadline).await.map_err(|e| match e {
                NetError::Timeout { phase: Phase::Read, .. } => {
                    let after = self.timeouts.reply;
                    NodeError::Silent { edge: from, request, segment: segment.clone(), after }
                }
                e => lost(from, request, &segment, e),
            })?;
            let at = (from, request, segment.as_str());
            if let Some((slot, payload)) = payload_of(&self.plan, self.corrections, &mut link.established, at, message)?
            {
                return run.supply(&self.plan, from, slot, payload);
            }
        }
    }
}

struct Run {
    execution: Execution,
    stats: Stats,
    begun: bool,
}

impl Run {
    fn supply(&mut self, plan: &LoadedPlan, from: Role, slot: SlotId, payload: Vec<u8>) -> Result<(), NodeError> {
        self.stats.bytes_down += payload.len() as u64;
        self.execution.supply(from, slot, payload).map_err(|e| match e {
            // the engine knows slots by number; a person knows segments by name
            EngineError::PeerMisbehaved { role, slot, what } => {
                let what = format!("{what} (segment {:?})", segment_of(plan, slot));
                EngineError::PeerMisbehaved { role, slot, what }.into()
            }
            e => e.into(),
        })
    }
}

/// Name of the segment that a slot belongs to.
fn segment_of(plan: &LoadedPlan, slot: SlotId) -> String {
    plan.slot(slot).map(|s| s.name.clone()).unwrap_or_default()
}

/// The payload in a message of an edge during a request; `None` for what remains of earlier requests.
fn payload_of(
    plan: &LoadedPlan,
    corrections: Corrections,
    established: &mut Established,
    (edge, request, segment): (Role, u64, &str),
    message: Message,
) -> Result<Option<(SlotId, Vec<u8>)>, NodeError> {
    match established.receive(message).map_err(|e| lost(edge, request, segment, e.into()))? {
        Message::Data(data) if data.request == request => Ok(Some((SlotId(data.slot), data.payload))),
        Message::Abort(abort) if abort.request == request => {
            let segment = abort.slot.and_then(|s| plan.slot(SlotId(s)).ok()).map(|s| s.name.clone());
            let stock = corrections == Corrections::Dealt(edge) && abort.code == AbortCode::NoCorrection;
            Err(NodeError::Aborted { edge, segment, abort, stock })
        }
        Message::Goodbye => Err(lost(edge, request, segment, NetError::Closed { mid_frame: false })),
        _ => Ok(None),
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

/// Computes on this thread: the device has nothing else to do meanwhile, but a runtime of several threads may.
fn in_place<T>(f: impl FnOnce() -> T) -> T {
    let several = tokio::runtime::Handle::try_current()
        .is_ok_and(|h| h.runtime_flavor() != tokio::runtime::RuntimeFlavor::CurrentThread);
    if several { tokio::task::block_in_place(f) } else { f() }
}

/// CPU time of this thread, in milliseconds.
fn cpu_ms() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
}

async fn dial(edge: Role, at: &EdgeAddress, identity: &Identity, t: Timeouts) -> Result<Connection, NodeError> {
    let failed = |e| NodeError::connecting(edge, e);
    let tls = ClientTls::new(identity, &[at.pin]).map_err(failed)?;
    let mut connection = connect(&at.address, &tls, Deadline::after(t.connect)).await.map_err(failed)?;
    // an edge that takes no upload is as silent as one that gives no answer
    connection.writer.set_stall_limit(t.reply);
    Ok(connection)
}

async fn send(edge: Role, connection: &mut Connection, message: &Message) -> Result<(), NodeError> {
    let failed = |e| NodeError::connecting(edge, e);
    connection.writer.write(message).await.map_err(failed)?;
    connection.writer.flush().await.map_err(failed)
}

async fn exchange(edge: Role, c: &mut Connection, message: Message, t: Timeouts) -> Result<Message, NodeError> {
    send(edge, c, &message).await?;
    c.reader.read(Deadline::after(t.connect)).await.map_err(|e| NodeError::connecting(edge, e))
}

/// Advances the epoch, draws a nonce and opens a session; tries again past the epoch that edge B names if ours was used.
async fn open_with_edge_b(
    plan: &Arc<LoadedPlan>,
    device: DeviceId,
    identity: &Identity,
    at: &EdgeAddress,
    key: &std::path::Path,
    timeouts: Timeouts,
    nonce: &DrawNonce,
) -> Result<(SessionKey, Link), NodeError> {
    let edge = Role::EdgeB;
    let digest = *plan.digest();
    let mut connection = dial(edge, at, identity, timeouts).await?;
    let (state, hello) = greet_edge_b(device, digest);
    let welcome = exchange(edge, &mut connection, hello, timeouts).await?;
    let mut greeted = state.handle(welcome).map_err(|e| NodeError::protocol(edge, e))?;
    let mut past: Option<u64> = None;
    for tries in 1u32.. {
        if tries > MAX_OPENINGS {
            return Err(NodeError::protocol(edge, Misbehaviour::TooManyTries { tries }.into()));
        }
        let path = key.to_path_buf();
        let advanced = blocking(move || {
            KeyFile::read(&path)?.require(&path, &device, &digest)?;
            match past {
                None => KeyFile::advance(&path).map_err(AcceptError::from),
                Some(past) => match KeyFile::advance_past(&path, past) {
                    // another process of this device went past it meanwhile
                    Err(AcceptError::Behind { .. }) => KeyFile::advance(&path).map_err(AcceptError::from),
                    advanced => advanced,
                },
            }
        });
        let file = advanced.await??;
        let drawn = Zeroizing::new(nonce()?);
        let session = SessionKey::session(&file.key, &SessionNonce(*drawn));
        let (waiting, open) = greeted.open(file.key.epoch(), *drawn, session.sid());
        send(edge, &mut connection, &open).await?;
        // edge B may first have to reach edge A
        let deadline = Deadline::after(timeouts.connect.saturating_mul(3));
        let reply = connection.reader.read(deadline).await.map_err(|e| NodeError::connecting(edge, e))?;
        match waiting.handle(reply).map_err(|e| NodeError::protocol(edge, e))? {
            SessionReply::Open(established) => {
                connection.reader.set_limits(FrameLimits::with_payload(largest(std::iter::once(plan), edge)));
                return Ok((session, Link { edge, connection, established }));
            }
            SessionReply::Behind { highest, retry } => {
                greeted = retry;
                past = Some(highest);
            }
        }
    }
    Err(NodeError::Internal("more attempts than numbers".into()))
}
