//! A byte stream read in large pieces: TLS asks for a few kilobytes at a time, and each piece would be a system call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes asked for at first: a control frame or a small payload.
const FIRST: usize = 16 * 1024;

/// Bytes asked for at most. A read that fills the buffer doubles it: connections of small models stay small.
const MOST: usize = 128 * 1024;

/// Reads ahead into a buffer of its own; writes pass.
#[derive(Debug)]
pub(crate) struct Inflow<S> {
    stream: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<S> Inflow<S> {
    pub(crate) fn new(stream: S) -> Inflow<S> {
        Inflow { stream, buffer: Vec::new(), start: 0, end: 0 }
    }
}

impl<S: AsyncRead + Unpin> Inflow<S> {
    /// What was read and not yet taken; empty only at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.start == self.end {
            let full = self.end == self.buffer.len();
            let size = if full { (self.buffer.len() * 2).clamp(FIRST, MOST) } else { self.buffer.len() };
            self.buffer.resize(size, 0);
            (self.start, self.end) = (0, 0);
            let mut space = ReadBuf::new(&mut self.buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            self.end = space.filled().len();
        }
        Poll::Ready(Ok(self.buffer.get(self.start..self.end).unwrap_or_default()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inflow<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let waiting = ready!(this.poll_fill(cx))?;
        let count = waiting.len().min(buf.remaining());
        buf.put_slice(waiting.get(..count).unwrap_or_default());
        this.start += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inflow<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
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
