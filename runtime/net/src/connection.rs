//! A connection as two halves that read and write messages.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use pponnx_wire::codec::{self, BulkHeader};
use pponnx_wire::{Correction, Data, Frame, FrameAssembler, Limits, Message, Misuse, WireError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroize;

use crate::clock::Deadline;
use crate::error::{NetError, Phase};
use crate::identity::Pin;
use crate::tls::TlsFacts;
use crate::traffic::Traffic;

/// Bytes of the read buffer: control frames and the beginnings of bulk ones. Four TLS records.
const READ_BUFFER: usize = 64 * 1024;

/// A payload part of at least this many bytes is read straight to where it belongs: one TLS record.
const DIRECT_READ: usize = 16 * 1024;

/// A frame of at most this many bytes is gathered with its neighbours before it is sent.
const GATHER: usize = 16 * 1024;

/// Gathered bytes are sent once they are this many.
const GATHERED: usize = 64 * 1024;

/// How long a peer may take no bytes at all, unless [`FrameWriter::set_stall_limit`] says otherwise.
pub const DEFAULT_STALL_LIMIT: Duration = Duration::from_secs(30);

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// Pin of the key it proved to hold; `None` in memory.
    pub pin: Option<Pin>,
    /// Its address; `None` in memory.
    pub addr: Option<SocketAddr>,
    /// What the TLS handshake agreed on; `None` in memory.
    pub tls: Option<TlsFacts>,
}

/// An open connection. The halves are public: use them in place, or take them apart with [`Connection::split`].
pub struct Connection {
    /// The half that reads.
    pub reader: FrameReader,
    /// The half that writes.
    pub writer: FrameWriter,
    peer: Peer,
    traffic: Traffic,
}

impl Connection {
    pub(crate) fn new<S>(stream: S, peer: Peer, own: Option<Pin>, traffic: Traffic) -> Connection
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let reader = FrameReader {
            io: Box::new(read),
            buffer: vec![0; READ_BUFFER],
            start: 0,
            end: 0,
            assembler: FrameAssembler::new(Limits::handshake()),
            own,
            traffic: traffic.clone(),
        };
        let writer = FrameWriter {
            io: Box::new(write),
            buffer: Vec::new(),
            secret: false,
            broken: false,
            stall: DEFAULT_STALL_LIMIT,
            own,
            traffic: traffic.clone(),
        };
        Connection { reader, writer, peer, traffic }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Counters of this connection.
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// The two halves, for two tasks.
    pub fn split(self) -> (FrameReader, FrameWriter) {
        (self.reader, self.writer)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The half that reads. Starts with [`Limits::handshake`]: no payload is accepted before
/// [`FrameReader::set_limits`] allows one.
pub struct FrameReader {
    io: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    assembler: FrameAssembler,
    own: Option<Pin>,
    traffic: Traffic,
}

impl FrameReader {
    /// What this connection accepts from now on: set the payload to the largest slot the peer may send, once the
    /// bundle is known.
    pub fn set_limits(&mut self, limits: Limits) {
        self.assembler.set_limits(limits);
    }

    /// The next message.
    ///
    /// Safe to cancel: if the future is dropped, or the deadline passes, nothing is lost and the next call goes on
    /// where this one stopped.
    ///
    /// # Errors
    /// [`NetError::Timeout`], [`NetError::Closed`], [`NetError::Wire`] for bytes that are no message,
    /// [`NetError::Rejected`] if the peer turned our identity down (TLS 1.3 tells a client only now), and others.
    pub async fn read(&mut self, deadline: Deadline) -> Result<Message, NetError> {
        let frame = deadline.bound(Phase::Read, self.next_frame()).await?;
        self.traffic.received.count_frame(frame.wire_len(), frame.payload.len() as u64);
        Ok(codec::decode(frame)?)
    }

    async fn next_frame(&mut self) -> Result<Frame, NetError> {
        loop {
            // What is in the buffer comes first.
            if self.start < self.end {
                let mut input = self.buffer.get(self.start..self.end).unwrap_or_default();
                let frame = self.assembler.feed(&mut input)?;
                self.start = self.end - input.len();
                if let Some(frame) = frame {
                    return Ok(frame);
                }
            }
            let space = self.assembler.space();
            if space.len() >= DIRECT_READ {
                let read = self.io.read(space).await;
                let count = self.received(read)?;
                if let Some(frame) = self.assembler.advance(count)? {
                    return Ok(frame);
                }
            } else {
                let read = self.io.read(&mut self.buffer).await;
                let count = self.received(read)?;
                (self.start, self.end) = (0, count);
            }
        }
    }

    /// Bytes that came, or why none will.
    fn received(&self, read: std::io::Result<usize>) -> Result<usize, NetError> {
        let mid_frame = !self.assembler.at_boundary();
        match read {
            Ok(0) => Err(NetError::Closed { mid_frame }),
            Ok(count) => Ok(count),
            Err(error) => Err(NetError::of_io(error, Phase::Read, mid_frame, self.own)),
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        // The buffer may have held a session nonce.
        self.buffer.zeroize();
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameReader")
    }
}

/// The half that writes. Small frames are gathered: nothing is sure to be on its way before [`FrameWriter::flush`].
///
/// Where a write fails with [`NetError::Closed`], the peer's reason (a `Refuse`, [`NetError::Rejected`]) may still wait
/// in the other half: read once before giving up.
///
/// *Not* safe to cancel: after a dropped or failed write every further one gives [`NetError::WriterBroken`], because
/// the peer would read the middle of a frame as a header.
pub struct FrameWriter {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: Vec<u8>,
    secret: bool,
    broken: bool,
    stall: Duration,
    own: Option<Pin>,
    traffic: Traffic,
}

impl FrameWriter {
    /// How long the peer may take no bytes at all before a write fails with [`NetError::Timeout`].
    pub fn set_stall_limit(&mut self, limit: Duration) {
        self.stall = limit;
    }

    /// Writes any message. The payload of a bulk message is not copied if it is large.
    ///
    /// # Errors
    /// [`NetError::Timeout`], [`NetError::Closed`], [`NetError::WriterBroken`], and others.
    pub async fn write(&mut self, message: &Message) -> Result<(), NetError> {
        match message {
            Message::Data(Data { request, slot, payload }) => {
                let header = codec::encode_data_header(*request, *slot, payload.len())?;
                self.write_data(&header, payload).await
            }
            Message::Correction(Correction { sid, request, slot, payload }) => {
                let header = codec::encode_correction_header(sid, *request, *slot, payload.len())?;
                self.write_data(&header, payload).await
            }
            control => {
                let before = self.buffer.len();
                codec::encode_into(control, &mut self.buffer)?;
                self.secret |= matches!(control, Message::OpenSession { .. });
                self.traffic.sent.count_frame((self.buffer.len() - before) as u64, 0);
                if self.buffer.len() >= GATHERED { self.send(&[]).await } else { Ok(()) }
            }
        }
    }

    /// Writes a bulk message from its header and payload: see [`codec::encode_data_header`] and
    /// [`codec::encode_correction_header`]. A large payload goes from the slice to TLS in the same write as its header.
    ///
    /// # Errors
    /// As [`FrameWriter::write`]; [`Misuse::PayloadLength`] if the header announces another length.
    pub async fn write_data(&mut self, header: &BulkHeader, payload: &[u8]) -> Result<(), NetError> {
        let (announced, given) = (header.payload_len(), payload.len());
        if announced != given {
            return Err(WireError::from(Misuse::PayloadLength { announced, given }).into());
        }
        self.buffer.extend_from_slice(header.as_bytes());
        self.traffic.sent.count_frame((header.as_bytes().len() + given) as u64, given as u64);
        if given > GATHER {
            return self.send(payload).await;
        }
        self.buffer.extend_from_slice(payload);
        if self.buffer.len() >= GATHERED { self.send(&[]).await } else { Ok(()) }
    }

    /// Sends all that was written.
    ///
    /// # Errors
    /// As [`FrameWriter::write`].
    pub async fn flush(&mut self) -> Result<(), NetError> {
        self.send(&[]).await?;
        let (own, limit) = (self.own, Deadline::after(self.stall));
        let io = &mut self.io;
        limit
            .bound(Phase::Write, async { io.flush().await.map_err(|e| NetError::of_io(e, Phase::Write, false, own)) })
            .await
    }

    /// Sends all that was written and tells the peer that nothing will follow.
    ///
    /// # Errors
    /// As [`FrameWriter::write`].
    pub async fn close(mut self) -> Result<(), NetError> {
        self.flush().await?;
        let (own, limit) = (self.own, Deadline::after(self.stall));
        let io = &mut self.io;
        limit
            .bound(Phase::Write, async {
                io.shutdown().await.map_err(|e| NetError::of_io(e, Phase::Write, false, own))
            })
            .await
    }

    /// Gives the gathered bytes and `payload` to the stream.
    async fn send(&mut self, payload: &[u8]) -> Result<(), NetError> {
        if self.broken {
            return Err(NetError::WriterBroken);
        }
        self.broken = true;
        let (mut head, mut tail) = (self.buffer.as_slice(), payload);
        while !(head.is_empty() && tail.is_empty()) {
            let (own, io) = (self.own, &mut self.io);
            let write = async {
                let parts = [IoSlice::new(head), IoSlice::new(tail)];
                io.write_vectored(&parts).await.map_err(|e| NetError::of_io(e, Phase::Write, false, own))
            };
            let count = Deadline::after(self.stall).bound(Phase::Write, write).await?;
            if count == 0 {
                return Err(NetError::Closed { mid_frame: false });
            }
            let from_head = count.min(head.len());
            head = head.get(from_head..).unwrap_or_default();
            tail = tail.get(count - from_head..).unwrap_or_default();
        }
        if self.secret {
            self.buffer.zeroize();
            self.secret = false;
        }
        self.buffer.clear();
        self.broken = false;
        Ok(())
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameWriter")
    }
}
