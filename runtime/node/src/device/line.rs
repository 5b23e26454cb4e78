//! A connection to an edge that several requests share.
//!
//! There is no task that reads. Whoever waits for an answer reads, and passes on what is for others: a lone request
//! reads its own answers without a change of threads.

use std::collections::BTreeMap;
use std::sync::Mutex as Plain;
use std::sync::atomic::{AtomicBool, Ordering};

use pponnx_net::{Connection, Deadline, FrameReader, FrameWriter, NetError, Phase, Traffic};
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::message::{Abort, Message};
use pponnx_wire::states::Established;
use tokio::sync::{Mutex, mpsc};

use crate::sessions::lock;

/// What an edge said about a request.
#[derive(Debug)]
pub(super) enum Heard {
    /// A payload for a slot.
    Data(SlotId, Vec<u8>),
    /// It gave up on the request.
    Abort(Abort),
}

/// The reading half: one request at a time holds it.
struct Inbound {
    reader: FrameReader,
    established: Established,
}

/// A connection after its handshake.
pub(super) struct Line {
    /// The edge at the other end.
    pub(super) edge: Role,
    /// The writing half. What belongs together is written under one lock, ended by a flush.
    pub(super) writer: Mutex<FrameWriter>,
    inbound: Mutex<Inbound>,
    waiting: Plain<BTreeMap<u64, mpsc::Sender<Heard>>>,
    /// Set once the connection is of no more use.
    over: AtomicBool,
    traffic: Traffic,
}

/// What an edge says about one request, until it is dropped.
pub(super) struct Inbox<'a> {
    line: &'a Line,
    request: u64,
    queue: mpsc::Receiver<Heard>,
}

impl Drop for Inbox<'_> {
    fn drop(&mut self) {
        lock(&self.line.waiting).remove(&self.request);
    }
}

fn closed() -> NetError {
    NetError::Closed { mid_frame: false }
}

impl Line {
    pub(super) fn new(edge: Role, connection: Connection, established: Established) -> Line {
        let traffic = connection.traffic();
        let (reader, writer) = connection.split();
        Line {
            edge,
            writer: Mutex::new(writer),
            inbound: Mutex::new(Inbound { reader, established }),
            waiting: Plain::default(),
            over: AtomicBool::new(false),
            traffic,
        }
    }

    /// Bytes on the socket so far, both ways.
    pub(super) fn socket_bytes(&self) -> u64 {
        self.traffic.sent().socket_bytes + self.traffic.received().socket_bytes
    }

    /// Registers a request for which the edge sends at most `payloads` payloads.
    pub(super) fn join(&self, request: u64, payloads: usize) -> Inbox<'_> {
        // One more than the plan has is enough to notice a payload too many.
        let (sender, queue) = mpsc::channel(payloads + 2);
        lock(&self.waiting).insert(request, sender);
        Inbox { line: self, request, queue }
    }

    /// Writes one message and flushes.
    pub(super) async fn say(&self, message: &Message) -> Result<(), NetError> {
        let mut writer = self.writer.lock().await;
        writer.write(message).await?;
        writer.flush().await
    }

    fn pass(&self, request: u64, heard: Heard) {
        // What remains of earlier requests has no taker; what overflows is more than the plan has, so the payloads before
        // it end the request.
        if let Some(taker) = lock(&self.waiting).get(&request) {
            let _ = taker.try_send(heard);
        }
    }
}

impl Inbox<'_> {
    /// The next word about this request. Safe to cancel.
    ///
    /// # Errors
    /// [`NetError::Timeout`] for this request alone; after any other error the connection is over for all.
    pub(super) async fn hear(&mut self, deadline: Deadline) -> Result<Heard, NetError> {
        deadline.bound(Phase::Read, self.next()).await
    }

    async fn next(&mut self) -> Result<Heard, NetError> {
        let line = self.line;
        let mut inbound = tokio::select! {
            biased;
            Some(heard) = self.queue.recv() => return Ok(heard),
            inbound = line.inbound.lock() => inbound,
        };
        // It may have been passed on just before the one who read let go.
        if let Ok(heard) = self.queue.try_recv() {
            return Ok(heard);
        }
        if line.over.load(Ordering::Relaxed) {
            return Err(closed());
        }
        let result = inbound.read_for(line, self.request).await;
        if result.is_err() {
            line.over.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Inbound {
    /// Reads until there is something about this request; passes on the rest.
    async fn read_for(&mut self, line: &Line, own: u64) -> Result<Heard, NetError> {
        loop {
            let message = self.reader.read(Deadline::never()).await?;
            let (request, heard) = match self.established.receive(message).map_err(NetError::from)? {
                Message::Data(data) => (data.request, Heard::Data(SlotId(data.slot), data.payload)),
                Message::Abort(abort) => (abort.request, Heard::Abort(abort)),
                Message::Goodbye => return Err(closed()),
                _ => continue,
            };
            if request == own {
                return Ok(heard);
            }
            line.pass(request, heard);
        }
    }
}
