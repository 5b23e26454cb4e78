//! The device: opens a session, runs requests, releases checked results only.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pponnx_engine::{CheckMaterial, LoadedPlan, Stages, TensorValue};
use pponnx_keys::{KeyFile, Ledger, PairStore, SessionKey};
use pponnx_net::{Identity, Pin};
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::Limits as FrameLimits;
use pponnx_wire::message::{DeviceId, Message};
use pponnx_wire::states::device::greet_edge_a;
use tokio::sync::Semaphore;

use self::line::Line;
use self::numbers::Numbers;
use self::open::{dial, exchange, open_with_edge_b, send};
use crate::compute::{blocking, is_light};
use crate::error::NodeError;
use crate::topology::{Corrections, largest};

mod line;
mod numbers;
mod open;
mod request;

/// Most requests in flight, whatever the edges allow: each holds memory here.
const MOST_IN_FLIGHT: usize = 64;

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
    /// All bytes on the device's sockets during the request: frames and TLS included, TCP and IP headers not. Those of
    /// other requests that were in flight meanwhile are among them.
    pub socket_bytes: u64,
    /// CPU time of the device's computation (encode, mask, check, decode, local segments), in milliseconds.
    pub device_cpu_ms: f64,
    /// CPU time of TLS and sockets, in milliseconds.
    pub link_cpu_ms: f64,
    /// From the input to the result, in milliseconds.
    pub wall_ms: f64,
    /// Where the device's computation went; zero unless its plan has a clock.
    pub stages: Stages,
}

/// A finished request.
pub struct Inference {
    /// Outputs in the order of the bundle's table.
    pub outputs: Vec<TensorValue>,
    /// Cost.
    pub stats: Stats,
}

/// A device with an open session.
pub struct Device {
    plan: Arc<LoadedPlan>,
    session: Arc<SessionKey>,
    check: Arc<CheckMaterial>,
    pairs: Option<PairStore>,
    numbers: Numbers,
    edge_a: Line,
    edge_b: Option<Line>,
    corrections: Corrections,
    timeouts: Timeouts,
    /// As many places as the edges take requests at once.
    room: Semaphore,
    in_flight: usize,
    /// Whether its computations are short.
    light: bool,
    /// No further request begins.
    over: AtomicBool,
    /// Nothing more is sent for requests in flight either.
    distrusted: AtomicBool,
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
        let (session, line_b, in_flight_b) = match &edge_b {
            Some(b) => {
                let (session, line, in_flight) =
                    open_with_edge_b(&plan, device, &identity, b, &material.key, timeouts, &nonce).await?;
                (session, Some(line), in_flight)
            }
            None => {
                let path = material.key.clone();
                let file = blocking(move || {
                    let file = KeyFile::read(&path)?;
                    file.require(&path, &device, &digest)?;
                    Ok::<_, NodeError>(file)
                });
                (SessionKey::dealt(&file.await??.key), None, u32::MAX)
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
        // Under `relay` edge B answers no requests, so its own limit means nothing.
        let answers = corrections == Corrections::EdgeB(Role::Device);
        let in_flight = greeted.welcome().in_flight.min(if answers { in_flight_b } else { u32::MAX });
        let in_flight = usize::try_from(in_flight).unwrap_or(usize::MAX).clamp(1, MOST_IN_FLIGHT);
        let established = if corrections.attaches() {
            let (established, attach) = greeted.attach(session.sid());
            send(edge, &mut connection, &attach).await?;
            established
        } else {
            greeted.without_session()
        };
        connection.reader.set_limits(FrameLimits::with_payload(largest(std::iter::once(&plan), edge)));
        Ok(Device {
            light: is_light(&plan),
            plan,
            session: Arc::new(session),
            check: material.check,
            pairs: material.pairs,
            numbers: Numbers::new(material.ledger),
            edge_a: Line::new(edge, connection, established),
            edge_b: line_b,
            corrections,
            timeouts,
            room: Semaphore::new(in_flight),
            in_flight,
            over: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
        })
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Arc<LoadedPlan> {
        &self.plan
    }

    /// How many requests the edges take at once.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Runs one request. Its number is burnt whatever happens.
    ///
    /// May be called again while it runs: as many requests as [`Device::in_flight`] are under way at once, further ones
    /// wait for their turn. They share nothing but the connections; each has a number and masks of its own.
    ///
    /// Inputs that do not fit the plan, NaN and infinity are refused before anything is sent, and the session goes on;
    /// after any other error, and after a request that was dropped half way, no further request begins. Those under way
    /// are finished where the connections live on, unless an edge sent something wrong.
    ///
    /// # Errors
    /// [`NodeError`]; no result is released.
    pub async fn infer(&self, inputs: Vec<TensorValue>) -> Result<Inference, NodeError> {
        request::run(self, inputs).await
    }

    /// Says goodbye to the edges.
    pub async fn stop(self) {
        for line in [Some(&self.edge_a), self.edge_b.as_ref()].into_iter().flatten() {
            // a courtesy; the edges notice a closed connection as well
            let _ = line.say(&Message::Goodbye).await;
        }
    }

    /// Bytes on the sockets of this session so far, both ways: frames and TLS included, TCP and IP headers not.
    pub fn socket_bytes(&self) -> u64 {
        self.edge_a.socket_bytes() + self.edge_b.as_ref().map_or(0, Line::socket_bytes)
    }

    /// Name of the segment that a slot belongs to.
    fn segment(&self, slot: Option<SlotId>) -> String {
        slot.and_then(|s| self.plan.slot(s).ok()).map(|s| s.name.clone()).unwrap_or_default()
    }
}
