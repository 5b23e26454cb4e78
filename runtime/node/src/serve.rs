//! What both edges share: settings, accepting, limits, graceful shutdown.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pponnx_engine::LoadedPlan;
use pponnx_keys::{Marks, PairStore};
use pponnx_net::{Connection, Deadline, Identity, Listener, Pin, ServerTls};
use pponnx_wire::message::{DeviceId, Message, PeerRole};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::device::EdgeAddress;
use crate::error::NodeError;
use crate::meter::Meter;

/// A peer that may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// Name of the device.
    pub device: DeviceId,
    /// Pin of its identity.
    pub pin: Pin,
}

/// A plan that an edge serves.
pub struct ServedPlan {
    /// The plan, loaded for this edge's role.
    pub plan: Arc<LoadedPlan>,
    /// Edge B: folder of the devices' mask keys.
    pub keys: Option<PathBuf>,
    /// Edge A, `stockpile`: stock of corrections by device.
    pub stock: BTreeMap<DeviceId, Arc<PairStore>>,
    /// Edge A, owner-dealt schemes: highest request number of each device.
    pub marks: Option<Arc<Marks>>,
}

/// Bounds on what peers can make an edge hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Sessions at once whose corrections edge A holds.
    pub sessions: usize,
    /// Requests of one device at once (0 counts as 1).
    pub in_flight: u32,
    /// Requests for which corrections are made ahead, per session (`relay`).
    pub prefetch: u64,
    /// Time for a TLS handshake and for each message of ours.
    pub handshake: Duration,
    /// Time that edge A waits for a correction, and a device's next message within a request may take.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            sessions: 64,
            in_flight: 8,
            prefetch: 4,
            handshake: Duration::from_secs(10),
            wait: Duration::from_secs(30),
        }
    }
}

/// Sees every message that an edge receives: for tests and for the demonstration of what an edge sees.
pub type Observer = Arc<dyn Fn(PeerRole, &Message) + Send + Sync>;

/// An edge's settings.
pub struct EdgeSettings {
    /// Address to listen on; port 0 takes a free one.
    pub listen: String,
    /// The edge's key and certificate.
    pub identity: Identity,
    /// Plans, any number of bundles.
    pub plans: Vec<ServedPlan>,
    /// Devices that may call.
    pub devices: Vec<PeerEntry>,
    /// Edge A: pins of the edges B that may call.
    pub callers: Vec<Pin>,
    /// Edge B under `relay`: where edge A is.
    pub edge_a: Option<EdgeAddress>,
    /// Bounds.
    pub limits: Limits,
    /// Sees received messages.
    pub observer: Option<Observer>,
}

/// A running edge. Dropping it stops it at once; [`Running::stop`] lets requests finish.
pub struct Running {
    /// The address in use.
    pub address: SocketAddr,
    pub(crate) meter: Arc<Meter>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<Result<(), NodeError>>>,
}

impl Running {
    /// What requests cost this edge; edge A only.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Takes no new callers, waits for requests in progress (at most `grace`), and ends.
    ///
    /// # Errors
    /// What ended the edge before it was told to.
    pub async fn stop(mut self, grace: Duration) -> Result<(), NodeError> {
        // the edge may have ended by itself; its own result is what counts then
        let _ = self.stop.send(true);
        let Some(task) = self.task.take() else { return Ok(()) };
        let handle = task.abort_handle();
        match tokio::time::timeout(grace, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(join)) => Err(NodeError::Internal(join.to_string())),
            Err(_) => {
                handle.abort();
                Ok(())
            }
        }
    }

    /// Waits until the edge ends by itself.
    ///
    /// # Errors
    /// What ended it.
    pub async fn wait(&mut self) -> Result<(), NodeError> {
        match self.task.as_mut() {
            Some(task) => task.await.map_err(|e| NodeError::Internal(e.to_string()))?,
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Listens and gives each connection, after its TLS handshake, to `handle`.
pub(crate) async fn run<F, H>(
    listen: &str,
    tls: ServerTls,
    limits: Limits,
    mut background: JoinSet<()>,
    handle: F,
) -> Result<Running, NodeError>
where
    F: Fn(Connection, watch::Receiver<bool>) -> H + Send + Sync + 'static,
    H: Future<Output = ()> + Send + 'static,
{
    let listener = Listener::bind(listen).await.map_err(NodeError::from_own)?;
    let address = listener.local_addr().map_err(NodeError::from_own)?;
    let (stop, told) = watch::channel(false);
    let handle = Arc::new(handle);
    let room = Arc::new(Semaphore::new(limits.connections));
    let task = tokio::spawn(async move {
        let mut callers = JoinSet::new();
        let told_all = told;
        let mut told = told_all.clone();
        loop {
            let incoming = tokio::select! {
                incoming = listener.accept() => incoming.map_err(NodeError::from_own)?,
                () = stopped(&mut told) => break,
                Some(_) = callers.join_next(), if !callers.is_empty() => continue,
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                tracing::warn!(caller = %incoming.addr(), limit = limits.connections, "too many connections");
                continue;
            };
            let (tls, handle, told) = (tls.clone(), Arc::clone(&handle), told_all.clone());
            callers.spawn(async move {
                let caller = incoming.addr();
                match incoming.handshake(&tls, Deadline::after(limits.handshake)).await {
                    Ok(connection) => handle(connection, told).await,
                    Err(error) => tracing::warn!(%caller, %error, "handshake failed"),
                }
                drop(permit);
            });
        }
        drop(listener);
        while callers.join_next().await.is_some() {}
        background.shutdown().await;
        Ok(())
    });
    Ok(Running { address, meter: Arc::default(), stop, task: Some(task) })
}

/// Waits until the edge is told to stop. The guard of the watched value does not outlive this, as it must not be held
/// while other things are awaited.
pub(crate) async fn stopped(told: &mut watch::Receiver<bool>) {
    // an edge whose handle is gone without a word stops as well
    let _ = told.wait_for(|t| *t).await;
}

impl NodeError {
    /// An error of our own port or identity.
    pub(crate) fn from_own(source: pponnx_net::NetError) -> NodeError {
        NodeError::Settings(source.to_string())
    }
}
