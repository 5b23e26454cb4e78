//! Counters of what went over a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::{io, io::IoSlice};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What went in one direction. All are totals since the connection began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Whole frames.
    pub frames: u64,
    /// Bytes of these frames as given to TLS: headers, fixed parts, payloads.
    pub frame_bytes: u64,
    /// Bytes of payload among them: packed ring elements.
    pub payload_bytes: u64,
    /// Bytes on the socket: TLS handshake and records included, TCP and IP headers not.
    pub socket_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Direction {
    frames: AtomicU64,
    frame_bytes: AtomicU64,
    payload_bytes: AtomicU64,
    socket_bytes: AtomicU64,
}

impl Direction {
    // The counters are statistics: nothing is synchronised through them, so relaxed order will do.
    pub(crate) fn count_frame(&self, frame_bytes: u64, payload_bytes: u64) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        self.payload_bytes.fetch_add(payload_bytes, Ordering::Relaxed);
    }

    fn count_socket(&self, bytes: usize) {
        self.socket_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Counters {
        Counters {
            frames: self.frames.load(Ordering::Relaxed),
            frame_bytes: self.frame_bytes.load(Ordering::Relaxed),
            payload_bytes: self.payload_bytes.load(Ordering::Relaxed),
            socket_bytes: self.socket_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Handle to the counters of one connection; stays valid after the connection is split or gone.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    pub(crate) sent: Arc<Direction>,
    pub(crate) received: Arc<Direction>,
}

impl Traffic {
    /// What this end sent so far. Frames count when they are given to the writer.
    pub fn sent(&self) -> Counters {
        self.sent.read()
    }

    /// What this end received so far. Frames count when they are complete.
    pub fn received(&self) -> Counters {
        self.received.read()
    }
}

/// A byte stream that counts what passes.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    stream: S,
    traffic: Traffic,
}

impl<S> Counted<S> {
    pub(crate) fn new(stream: S, traffic: Traffic) -> Counted<S> {
        Counted { stream, traffic }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.traffic.received.count_socket(buf.filled().len() - before);
        poll
    }
}

impl<S> Counted<S> {
    fn count_written(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = poll {
            self.traffic.sent.count_socket(count);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.count_written(poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.count_written(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
