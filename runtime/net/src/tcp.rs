//! Dial, listen, shake hands.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::clock::Deadline;
use crate::connection::{Connection, Peer};
use crate::error::{NetError, Phase};
use crate::inflow::Inflow;
use crate::tls::{ClientTls, ServerTls, TlsFacts, peer_pin};
use crate::traffic::{Counted, Traffic};

/// How long, and how many bytes, to listen on after turning a caller down, so that it can read why: closing at once
/// would reset the connection and destroy the alert on its way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// Silence after which the system asks whether the peer is still there, how often, and how many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Bytes that TLS may hold sealed: what it holds goes out in one system call. A payload of a layer fits; with the usual
/// 64 kB it would leave in pieces of four records. Socket buffers stay as the system sizes them: naming a size would
/// switch its own adjustment off.
const SEALED: usize = 512 * 1024;

/// Pause after the system has run out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Dials `addr` (`host:port`), tries each address it stands for, and shakes hands; all before the deadline.
///
/// The peer's refusal of *our* identity shows only in the first read ([`NetError::Rejected`]): a TLS 1.3 client is done
/// before the server has judged it.
///
/// # Errors
/// [`NetError::Unreachable`], [`NetError::Timeout`], [`NetError::PinMismatch`], [`NetError::Tls`], and others.
pub async fn connect(addr: &str, tls: &ClientTls, deadline: Deadline) -> Result<Connection, NetError> {
    let unreachable = |source| NetError::Unreachable { addr: addr.to_owned(), source };
    let lookup = async { lookup_host(addr).await.map_err(unreachable) };
    let addresses: Vec<SocketAddr> = deadline.bound(Phase::Resolve, lookup).await?.collect();
    let dial = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    };
    let (stream, address) = deadline.bound(Phase::Connect, dial).await?;
    let io_failed = |source| NetError::Io { phase: Phase::Connect, source };
    prepare(&stream).map_err(io_failed)?;

    let traffic = Traffic::default();
    let connector = TlsConnector::from(tls.config.clone());
    let name = ClientTls::server_name()?;
    let counted = Inflow::new(Counted::new(stream, traffic.clone()));
    let handshake = async {
        let done = connector.connect(name, counted).await;
        done.map_err(|error| NetError::of_io(error, Phase::Handshake, false, Some(tls.own)))
    };
    let mut stream = deadline.bound(Phase::Handshake, handshake).await?;
    let (_, state) = stream.get_mut();
    state.set_buffer_limit(Some(SEALED));
    let peer = Peer { pin: peer_pin(state), addr: Some(address), tls: TlsFacts::of(state) };
    Ok(Connection::new(stream, peer, Some(tls.own), traffic))
}

/// Small frames leave at once, and a peer that vanished without a word is noticed within about a minute.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// A port that takes calls.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on `addr` (`host:port`; port 0 takes a free one).
    ///
    /// # Errors
    /// [`NetError::Listen`].
    pub async fn bind(addr: &str) -> Result<Listener, NetError> {
        let listener = TcpListener::bind(addr).await;
        listener.map(Listener).map_err(|source| NetError::Listen { addr: addr.to_owned(), source })
    }

    /// The address in use.
    ///
    /// # Errors
    /// [`NetError::Io`].
    pub fn local_addr(&self) -> Result<SocketAddr, NetError> {
        self.0.local_addr().map_err(|source| NetError::Io { phase: Phase::Connect, source })
    }

    /// The next caller, before any handshake: do that in a task of its own, so that a silent caller holds up nobody.
    ///
    /// Callers that hang up at once, and a passing lack of descriptors, are waited out. Safe to cancel.
    ///
    /// # Errors
    /// [`NetError::Io`] if the port itself fails.
    pub async fn accept(&self) -> Result<Incoming, NetError> {
        loop {
            match self.0.accept().await {
                Ok((stream, addr)) => return Ok(Incoming { stream, addr }),
                Err(error) if is_callers(&error) => tracing::debug!(%error, "a caller hung up before it was accepted"),
                Err(error) if is_exhausted(&error) => {
                    tracing::warn!(%error, "cannot accept a caller; raise the limit of open files");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                Err(source) => {
                    return Err(NetError::Io { phase: Phase::Connect, source });
                }
            }
        }
    }
}

/// Errors of `accept` that concern one caller only.
fn is_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// The process or the system is out of descriptors or buffers: ENFILE 23, EMFILE 24, on Linux ENOBUFS 105,
/// or out of memory.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24 | 105)) || error.kind() == io::ErrorKind::OutOfMemory
}

/// A caller that has not shaken hands yet.
#[derive(Debug)]
pub struct Incoming {
    stream: TcpStream,
    addr: SocketAddr,
}

impl Incoming {
    /// Where the call comes from.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Shakes hands before the deadline. The connection's [`Connection::peer`] tells the pin that was allowed.
    ///
    /// # Errors
    /// [`NetError::UnknownPin`], [`NetError::Timeout`], [`NetError::Tls`], and others. A caller that is turned down is
    /// given up to a second to read the reason.
    pub async fn handshake(self, tls: &ServerTls, deadline: Deadline) -> Result<Connection, NetError> {
        prepare(&self.stream).map_err(|source| NetError::Io { phase: Phase::Handshake, source })?;
        let traffic = Traffic::default();
        let counted = Inflow::new(Counted::new(self.stream, traffic.clone()));
        let accept = TlsAcceptor::from(tls.config.clone()).accept(counted).into_fallible();
        let shaken = deadline.bound(Phase::Handshake, async { Ok(accept.await) }).await?;
        let mut stream = match shaken {
            Ok(stream) => stream,
            Err((error, mut stream)) => {
                let error = NetError::of_io(error, Phase::Handshake, false, Some(tls.own));
                // The outcome is known; how the farewell goes changes nothing.
                let _ = stream.shutdown().await;
                let _ = tokio::time::timeout(LINGER, discard(stream)).await;
                return Err(error);
            }
        };
        let (_, state) = stream.get_mut();
        state.set_buffer_limit(Some(SEALED));
        let peer = Peer { pin: peer_pin(state), addr: Some(self.addr), tls: TlsFacts::of(state) };
        Ok(Connection::new(stream, peer, Some(tls.own), traffic))
    }
}

/// Reads and drops what still comes, up to a limit.
async fn discard(stream: impl AsyncRead + Unpin) -> io::Result<u64> {
    tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
}
