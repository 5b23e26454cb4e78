//! The typed messages. Layouts are in [`crate::codec`], who may send what when in [`crate::states`].
//!
//! Payloads are packed ring elements (`ceil(k * n / 8)` bytes, `pponnx-kernels` packs them); this crate never looks
//! inside. They and the session nonce are left out of every `Debug` output, since under `plain` a payload is the input.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::kind::Kind;
use crate::text::Text;

/// Names one device to the edges; not secret. Zero stands for "no device".
pub type DeviceId = [u8; 16];

/// Name of a session towards edge A: `KDF("pponnx sid 1", S)[..16]`. Tells nothing about the session key `S`.
pub type Sid = [u8; 16];

/// Digest of a bundle: all roles' programs, weights, ring, scheme.
pub type BundleDigest = [u8; 32];

/// The role a peer plays on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PeerRole {
    /// Holds the input, dials both edges.
    Device = 1,
    /// Works on masked values.
    EdgeA = 2,
    /// Makes corrections; sees nothing that depends on the input.
    EdgeB = 3,
}

impl PeerRole {
    /// The role with this code, if there is one.
    pub fn of_code(code: u8) -> Option<PeerRole> {
        match code {
            1 => Some(PeerRole::Device),
            2 => Some(PeerRole::EdgeA),
            3 => Some(PeerRole::EdgeB),
            _ => None,
        }
    }

    /// Code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for PeerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerRole::Device => "device",
            PeerRole::EdgeA => "edge A",
            PeerRole::EdgeB => "edge B",
        })
    }
}

/// First message on a connection, from the end that dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Highest protocol version the sender speaks.
    pub version: u16,
    /// What the sender is.
    pub role: PeerRole,
    /// The sender's device id; zero from edge B.
    pub device: DeviceId,
    /// The bundle the sender runs. From edge B: zero where it serves several (each [`Session`] names its own).
    pub bundle: BundleDigest,
    /// Reserved: the sender writes 0, the receiver ignores it.
    pub flags: u32,
}

/// Answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version both will speak: not above the `Hello`'s.
    pub version: u16,
    /// Owner-dealt schemes: highest request number edge A has ever seen of this device (it refuses that one and all
    /// below); `None` if it saw none, or in a scheme that keeps no mark.
    pub mark: Option<u64>,
    /// Most requests the device may have open at once on this connection.
    pub in_flight: u32,
}

/// Why a connection or request is turned down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseCode {
    /// No common protocol version.
    Version,
    /// The device id is unknown, or does not belong to the TLS identity.
    UnknownDevice,
    /// The edge does not serve this bundle.
    UnknownBundle,
    /// The caller reached an edge of the wrong role.
    WrongRole,
    /// Too many connections or requests; try later.
    Busy,
    /// The request number is at or below the mark: a restored backup or a cloned card.
    StaleRequest,
    /// The epoch was used before; `highest` is the highest used.
    EpochBehind {
        /// Highest epoch seen of this device.
        highest: u64,
    },
    /// The edge failed; its log says why.
    Internal,
    /// The edge is going down; another address, or later.
    ShuttingDown,
}

impl RefuseCode {
    /// Code and detail on the wire; the detail is zero where the code has none.
    pub(crate) fn parts(self) -> (u16, u64) {
        match self {
            RefuseCode::Version => (1, 0),
            RefuseCode::UnknownDevice => (2, 0),
            RefuseCode::UnknownBundle => (3, 0),
            RefuseCode::WrongRole => (4, 0),
            RefuseCode::Busy => (5, 0),
            RefuseCode::StaleRequest => (6, 0),
            RefuseCode::EpochBehind { highest } => (7, highest),
            RefuseCode::Internal => (8, 0),
            RefuseCode::ShuttingDown => (9, 0),
        }
    }

    /// Inverse of [`RefuseCode::parts`]; nothing else is accepted.
    pub(crate) fn of_parts(code: u16, detail: u64) -> Option<RefuseCode> {
        let found = match code {
            1 => RefuseCode::Version,
            2 => RefuseCode::UnknownDevice,
            3 => RefuseCode::UnknownBundle,
            4 => RefuseCode::WrongRole,
            5 => RefuseCode::Busy,
            6 => RefuseCode::StaleRequest,
            7 => RefuseCode::EpochBehind { highest: detail },
            8 => RefuseCode::Internal,
            9 => RefuseCode::ShuttingDown,
            _ => return None,
        };
        (found.parts() == (code, detail)).then_some(found)
    }

    /// Whether the same call may succeed later, unchanged.
    pub fn is_temporary(self) -> bool {
        match self {
            RefuseCode::Busy | RefuseCode::ShuttingDown | RefuseCode::Internal => true,
            RefuseCode::Version
            | RefuseCode::UnknownDevice
            | RefuseCode::UnknownBundle
            | RefuseCode::WrongRole
            | RefuseCode::StaleRequest
            | RefuseCode::EpochBehind { .. } => false,
        }
    }
}

impl fmt::Display for RefuseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefuseCode::Version => f.write_str("no common protocol version; update the older of the two"),
            RefuseCode::UnknownDevice => f.write_str("unknown device; add it to [[device]] in the edge's edge.toml"),
            RefuseCode::UnknownBundle => {
                f.write_str("unknown bundle; copy the folders of one and the same `pponnx compile` to all machines")
            }
            RefuseCode::WrongRole => f.write_str("wrong role; check which address belongs to which edge"),
            RefuseCode::Busy => f.write_str("busy; try later"),
            RefuseCode::StaleRequest => f.write_str(
                "request number used before; the device's state was restored or cloned, run `pponnx keygen`",
            ),
            RefuseCode::EpochBehind { highest } => write!(f, "epoch used before; the highest seen is {highest}"),
            RefuseCode::Internal => f.write_str("internal error; see the log of the edge"),
            RefuseCode::ShuttingDown => f.write_str("shutting down; try another address or later"),
        }
    }
}

/// Turns down a connection or a request; the sender closes afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    /// Why.
    pub code: RefuseCode,
    /// More, for a person; may be empty.
    pub message: Text,
}

impl Refuse {
    /// A refusal with a word for the person who reads it.
    pub fn new(code: RefuseCode, message: impl Into<Text>) -> Refuse {
        Refuse { code, message: message.into() }
    }
}

impl fmt::Display for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message) }
    }
}

/// Why one request ends without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum AbortCode {
    /// The sender gave up for its own reasons.
    Cancelled = 1,
    /// A deadline of the sender passed.
    Timeout = 2,
    /// What arrived does not fit the plan (slot, length, order).
    BadData = 3,
    /// Edge A has no correction for this request: none in stock, or edge B is gone.
    NoCorrection = 4,
    /// Too much work; try again with a new request number.
    Overloaded = 5,
    /// The sender failed; its log says why.
    Internal = 6,
    /// The sender is going down.
    ShuttingDown = 7,
    /// The session of the request is closed or unknown.
    NoSession = 8,
}

impl AbortCode {
    /// The code with this number, if there is one.
    pub fn of_code(code: u16) -> Option<AbortCode> {
        Some(match code {
            1 => AbortCode::Cancelled,
            2 => AbortCode::Timeout,
            3 => AbortCode::BadData,
            4 => AbortCode::NoCorrection,
            5 => AbortCode::Overloaded,
            6 => AbortCode::Internal,
            7 => AbortCode::ShuttingDown,
            8 => AbortCode::NoSession,
            _ => return None,
        })
    }

    /// Code on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for AbortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AbortCode::Cancelled => "cancelled",
            AbortCode::Timeout => "a deadline passed",
            AbortCode::BadData => "data does not fit the plan",
            AbortCode::NoCorrection => "no correction at edge A; is edge B up, or the stock used up?",
            AbortCode::Overloaded => "overloaded; try again",
            AbortCode::Internal => "internal error; see the log of the edge",
            AbortCode::ShuttingDown => "shutting down",
            AbortCode::NoSession => "the session is closed or unknown; open a new one",
        })
    }
}

/// One request ends without a result; its number is burnt. The connection lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// The session, on the link from edge B to edge A, which carries many; `None` on a device's link.
    pub sid: Option<Sid>,
    /// The request.
    pub request: u64,
    /// Why.
    pub code: AbortCode,
    /// The slot concerned, where there is one.
    pub slot: Option<u32>,
    /// More, for a person; may be empty.
    pub message: Text,
}

impl Abort {
    /// An abort on a device's link.
    pub fn new(request: u64, code: AbortCode, slot: Option<u32>, message: impl Into<Text>) -> Abort {
        Abort { sid: None, request, code, slot, message: message.into() }
    }

    /// An abort on the link from edge B to edge A.
    pub fn of_session(sid: Sid, request: u64, code: AbortCode, slot: Option<u32>, message: impl Into<Text>) -> Abort {
        Abort { sid: Some(sid), request, code, slot, message: message.into() }
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} aborted", self.request)?;
        if let Some(slot) = self.slot {
            write!(f, " at slot {slot}")?;
        }
        write!(f, ": {}", self.code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message) }
    }
}

/// The 32 fresh random bytes a device draws at every start; session key = `KDF(K_e || nonce)`. A thief of the epoch key
/// needs it to open recorded traffic, hence it is zeroised and never printed.
#[derive(PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SessionNonce([u8; 32]);

impl SessionNonce {
    /// Wraps the bytes.
    pub fn new(bytes: [u8; 32]) -> SessionNonce {
        SessionNonce(bytes)
    }

    /// The bytes, for the key derivation.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for SessionNonce {
    fn from(bytes: [u8; 32]) -> SessionNonce {
        SessionNonce(bytes)
    }
}

impl fmt::Debug for SessionNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionNonce(..)")
    }
}

/// One transferred tensor of a request, between the device and an edge.
#[derive(PartialEq, Eq)]
pub struct Data {
    /// The request.
    pub request: u64,
    /// The slot of the plan.
    pub slot: u32,
    /// Packed ring elements.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data")
            .field("request", &self.request)
            .field("slot", &self.slot)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// One masked correction, from edge B to edge A.
#[derive(PartialEq, Eq)]
pub struct Correction {
    /// The session.
    pub sid: Sid,
    /// The request.
    pub request: u64,
    /// The slot of the plan.
    pub slot: u32,
    /// Packed ring elements.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correction")
            .field("sid", &self.sid)
            .field("request", &self.request)
            .field("slot", &self.slot)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// Edge B tells edge A that a device opened a session: A then gives credit and accepts `Attach` from that device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Name of the session.
    pub sid: Sid,
    /// The device it belongs to.
    pub device: DeviceId,
    /// The bundle it runs.
    pub bundle: BundleDigest,
}

/// Any message. Not `Clone`: it may own a large payload or a secret nonce.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// First message of the dialling end.
    Hello(Hello),
    /// Answer to `Hello`.
    Welcome(Welcome),
    /// A connection or request is turned down.
    Refuse(Refuse),
    /// Asks for a `Pong` with the same token.
    Ping {
        /// Anything; comes back.
        token: u64,
    },
    /// Answers a `Ping`.
    Pong {
        /// The token of the `Ping`.
        token: u64,
    },
    /// One request ends without a result.
    Abort(Abort),
    /// The sender will send nothing more and close.
    Goodbye,
    /// Device to edge B: derive the session key from this epoch and nonce.
    OpenSession {
        /// Epoch of the device's key.
        epoch: u64,
        /// Fresh random bytes.
        nonce: SessionNonce,
    },
    /// Edge B to device: done; this is the session's name.
    SessionOpen {
        /// Name of the session.
        sid: Sid,
    },
    /// Edge B to device: the epoch was used before; ratchet past `highest` and open again.
    EpochBehind {
        /// Highest epoch edge B has seen of this device.
        highest: u64,
    },
    /// Device to edge A: the corrections of my requests are those of this session.
    Attach {
        /// Name of the session.
        sid: Sid,
    },
    /// A request starts. Numbers rise on a connection. To edge B only under `two-edge`.
    Begin {
        /// The request.
        request: u64,
    },
    /// One transferred tensor of a request.
    Data(Data),
    /// Edge B to edge A: a session was opened.
    Session(Session),
    /// Between the edges, either way: the session is over, drop what belongs to it.
    SessionClosed {
        /// Name of the session.
        sid: Sid,
    },
    /// Edge A to edge B: corrections of requests below `upto_request` may be sent. Bounds what A must hold.
    Credit {
        /// Name of the session.
        sid: Sid,
        /// First request number that may *not* be produced yet.
        upto_request: u64,
    },
    /// Edge B to edge A: one masked correction.
    Correction(Correction),
}

impl Message {
    /// The type of the message.
    pub fn kind(&self) -> Kind {
        match self {
            Message::Hello(_) => Kind::Hello,
            Message::Welcome(_) => Kind::Welcome,
            Message::Refuse(_) => Kind::Refuse,
            Message::Ping { .. } => Kind::Ping,
            Message::Pong { .. } => Kind::Pong,
            Message::Abort(_) => Kind::Abort,
            Message::Goodbye => Kind::Goodbye,
            Message::OpenSession { .. } => Kind::OpenSession,
            Message::SessionOpen { .. } => Kind::SessionOpen,
            Message::EpochBehind { .. } => Kind::EpochBehind,
            Message::Attach { .. } => Kind::Attach,
            Message::Begin { .. } => Kind::Begin,
            Message::Data(_) => Kind::Data,
            Message::Session(_) => Kind::Session,
            Message::SessionClosed { .. } => Kind::SessionClosed,
            Message::Credit { .. } => Kind::Credit,
            Message::Correction(_) => Kind::Correction,
        }
    }
}
