//! Edge B's link to edge A under `relay`: one connection for all sessions, kept up for as long as edge B runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pponnx_net::{ClientTls, Deadline, FrameReader, FrameWriter, NetError, connect};
use pponnx_plans::value::Role;
use pponnx_wire::message::{Message, Session, Sid};
use pponnx_wire::states::{Established, edge};
use tokio::sync::{mpsc, watch};

use crate::error::NodeError;
use crate::sessions::lock;

/// Corrections that may wait for the link: what comes on top of edge A's credit.
const QUEUE: usize = 4;

/// Longest pause between two attempts to reach edge A.
const SLOWEST: Duration = Duration::from_secs(5);

/// What edge A said about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    /// Nothing yet.
    Unknown,
    /// Corrections of requests below this may be sent.
    Upto(u64),
    /// The session is over: turned down, or the link was lost.
    Closed,
}

/// The link, shared by all sessions.
pub(crate) struct Uplink {
    queue: mpsc::Sender<Message>,
    sessions: Mutex<HashMap<Sid, watch::Sender<Credit>>>,
    up: watch::Sender<bool>,
}

impl Uplink {
    /// The link, and the other end of its queue for [`Uplink::keep_up`].
    pub(crate) fn new() -> (Arc<Uplink>, mpsc::Receiver<Message>) {
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let (up, _) = watch::channel(false);
        (Arc::new(Uplink { queue, sessions: Mutex::default(), up }), outgoing)
    }

    /// Announces a session and waits until edge A grants credit for it.
    ///
    /// # Errors
    /// A sentence for the device: edge A is not reachable, or turned the session down.
    pub(crate) async fn open(&self, session: Session, within: Duration) -> Result<watch::Receiver<Credit>, String> {
        let mut up = self.up.subscribe();
        // the guard of a watched value must not be held while other things are awaited
        let reachable = tokio::time::timeout(within, up.wait_for(|up| *up)).await.is_ok_and(|r| r.is_ok());
        if !reachable {
            return Err(format!("edge B has no connection to edge A (waited {:.1} s)", within.as_secs_f64()));
        }
        let sid = session.sid;
        let (grant, mut credit) = watch::channel(Credit::Unknown);
        lock(&self.sessions).insert(sid, grant);
        self.send(Message::Session(session)).await?;
        let answer = tokio::time::timeout(within, credit.wait_for(|c| *c != Credit::Unknown)).await;
        let answer = answer.map(|r| r.map(|c| *c));
        match answer {
            Ok(Ok(Credit::Upto(_))) => Ok(credit),
            Ok(_) => Err("edge A turned the session down; its log says why".into()),
            Err(_) => {
                self.close(sid).await;
                Err(format!("edge A did not answer edge B within {:.1} s", within.as_secs_f64()))
            }
        }
    }

    /// Queues a message; waits while the queue is full.
    pub(crate) async fn send(&self, message: Message) -> Result<(), String> {
        self.queue.send(message).await.map_err(|_| "edge B is shutting down".to_string())
    }

    /// Ends a session.
    pub(crate) async fn close(&self, sid: Sid) {
        let known = lock(&self.sessions).remove(&sid).is_some();
        if known && *self.up.borrow() {
            // an edge that shuts down closes the link, which ends the session as well
            let _ = self.send(Message::SessionClosed { sid }).await;
        }
    }

    /// Connects to edge A, again and again, and moves messages both ways. Never returns.
    pub(crate) async fn keep_up(
        self: Arc<Uplink>,
        address: String,
        tls: ClientTls,
        handshake: Duration,
        mut outgoing: mpsc::Receiver<Message>,
    ) {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.connected(&address, &tls, handshake, &mut outgoing).await {
                Ok(()) => tracing::info!("edge A closed the link"),
                Err(error) => tracing::warn!(%error, "link to edge A"),
            }
            let was_up = self.up.send_replace(false);
            for (_, grant) in lock(&self.sessions).drain() {
                grant.send_replace(Credit::Closed);
            }
            // what was meant for the lost connection would be misread on the next one
            while outgoing.try_recv().is_ok() {}
            if was_up {
                pause = Duration::from_millis(100);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SLOWEST);
        }
    }

    async fn connected(
        &self,
        address: &str,
        tls: &ClientTls,
        handshake: Duration,
        outgoing: &mut mpsc::Receiver<Message>,
    ) -> Result<(), NodeError> {
        let failed = |e: NetError| NodeError::connecting(Role::EdgeA, e);
        let c = connect(address, tls, Deadline::after(handshake)).await.map_err(failed)?;
        let (mut reader, mut writer): (FrameReader, FrameWriter) = c.split();
        let (state, hello) = edge::greet_edge_a([0; 32]);
        writer.write(&hello).await.map_err(failed)?;
        writer.flush().await.map_err(failed)?;
        let welcome = reader.read(Deadline::after(handshake)).await.map_err(failed)?;
        let (_, mut established) = state.handle(welcome).map_err(|e| NodeError::protocol(Role::EdgeA, e))?;
        tracing::info!(address, "link to edge A is up");
        self.up.send_replace(true);
        loop {
            tokio::select! {
                message = reader.read(Deadline::never()) => match message {
                    Ok(message) => {
                        if self.take_from_edge_a(&mut established, message)? {
                            return Ok(());
                        }
                    }
                    Err(NetError::Closed { mid_frame: false }) => return Ok(()),
                    Err(e) => return Err(failed(e)),
                },
                Some(message) = outgoing.recv() => {
                    writer.write(&message).await.map_err(failed)?;
                    if outgoing.is_empty() {
                        writer.flush().await.map_err(failed)?;
                    }
                }
            }
        }
    }

    /// True when edge A says goodbye.
    fn take_from_edge_a(&self, established: &mut Established, message: Message) -> Result<bool, NodeError> {
        match established.receive(message).map_err(|e| NodeError::protocol(Role::EdgeA, e))? {
            Message::Credit { sid, upto_request } => {
                if let Some(grant) = lock(&self.sessions).get(&sid) {
                    grant.send_replace(Credit::Upto(upto_request));
                }
            }
            Message::SessionClosed { sid } => {
                if let Some(grant) = lock(&self.sessions).remove(&sid) {
                    grant.send_replace(Credit::Closed);
                }
            }
            Message::Goodbye => return Ok(true),
            _ => {}
        }
        Ok(false)
    }
}
