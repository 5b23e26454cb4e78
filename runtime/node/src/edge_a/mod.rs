//! Edge A: multiplies what devices upload, subtracts corrections, answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pponnx_net::{Connection, Deadline, FrameWriter, NetError, Pin, ServerTls};
use pponnx_plans::value::Role;
use pponnx_wire::message::{Message, Refuse};
use pponnx_wire::states::edge::{AwaitHelloAtA, Caller};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::compute::Threads;
use crate::error::NodeError;
use crate::meter::Meter;
use crate::serve::{self, EdgeSettings, Limits, Observer, PeerEntry, Running, ServedPlan, stopped};
use crate::sessions::{Sessions, lock};
use crate::topology::Corrections;

mod device;
mod link;
mod request;

/// Of two entries for one plan only one would count.
pub(crate) const LISTED_TWICE: &str = "the same plan is listed twice; remove one [[plan]]";

struct Shared {
    plans: BTreeMap<[u8; 32], ServedPlan>,
    devices: Vec<PeerEntry>,
    callers: Vec<Pin>,
    limits: Limits,
    threads: Threads,
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
    let each = plans.values().map(|served| served.plan.kernels().threads()).max().unwrap_or(1);
    let allowed: Vec<Pin> = settings.devices.iter().map(|d| d.pin).chain(settings.callers.iter().copied()).collect();
    let tls = ServerTls::new(&settings.identity, move |pin| allowed.contains(pin)).map_err(NodeError::from_own)?;
    let shared = Arc::new(Shared {
        plans,
        devices: settings.devices,
        callers: settings.callers,
        limits: settings.limits,
        threads: Threads::new(each),
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
        Ok(Caller::Device(state)) => device::converse(shared, c, state, pin, stop).await,
        Ok(Caller::EdgeB(state)) => link::converse(shared, c, state, pin, stop).await,
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
