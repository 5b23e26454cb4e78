//! Two connected ends in memory: the same [`Connection`], no TLS, no sockets. For tests.

use crate::connection::{Connection, Peer};
use crate::traffic::{Counted, Traffic};

/// A pair of connected ends; `capacity` bytes fit in each direction before a writer must wait.
pub fn pair(capacity: usize) -> (Connection, Connection) {
    let (a, b) = tokio::io::duplex(capacity);
    (end(a), end(b))
}

/// A connection over one end of a byte pipe, and the raw other end: to send bytes that are no message.
pub fn with_raw_peer(capacity: usize) -> (Connection, tokio::io::DuplexStream) {
    let (a, b) = tokio::io::duplex(capacity);
    (end(a), b)
}

fn end(stream: tokio::io::DuplexStream) -> Connection {
    let traffic = Traffic::default();
    Connection::new(Counted::new(stream, traffic.clone()), Peer::default(), None, traffic)
}
