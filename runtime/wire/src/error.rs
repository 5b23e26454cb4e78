//! Errors of the wire, by who is to blame.

use crate::kind::Kind;
use crate::message::{PeerRole, Refuse};
use crate::{LOWEST_VERSION, VERSION, message::RefuseCode};

/// What went wrong between two ends. After any of them the connection is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are no message of this protocol: a foreign program, a damaged peer, or an attack.
    #[error("the peer sent an invalid message: {0}; is the address that of a pponnx edge, and of the same version?")]
    InvalidMessage(Invalid),
    /// A valid message that breaks the rules of the link.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(Misbehaviour),
    /// Both ends obey, but cannot work together.
    #[error("the peer does not fit: {0}")]
    PeerIncompatible(Incompatible),
    /// The peer said no, and why.
    #[error("the peer refused: {0}")]
    Refused(Refuse),
    /// Our own caller asked for something the protocol has no words for.
    #[error("internal misuse of the wire: {0}; this is a bug in pponnx")]
    ApiMisuse(Misuse),
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No message type has this code.
    #[error("unknown message type {0:#04x}")]
    UnknownKind(u8),
    /// The length in the header is not one this type can have, or above the limit.
    #[error("{kind} of {length} bytes, where {min} to {max} are allowed")]
    Length {
        /// Message type.
        kind: Kind,
        /// Length of the body in the header, in bytes.
        length: u64,
        /// Fewest bytes allowed.
        min: u64,
        /// Most bytes allowed on this connection at this time.
        max: u64,
    },
    /// The body ends before the message does.
    #[error("{kind} is cut short: {missing} bytes missing in {field}")]
    Truncated {
        /// Message type.
        kind: Kind,
        /// Field being read.
        field: &'static str,
        /// Bytes missing.
        missing: usize,
    },
    /// The message ends before the body does.
    #[error("{kind} has {extra} bytes too many")]
    Trailing {
        /// Message type.
        kind: Kind,
        /// Bytes left over.
        extra: usize,
    },
    /// A field holds a value outside its set.
    #[error("{kind} has an invalid {field}")]
    Field {
        /// Message type.
        kind: Kind,
        /// The field.
        field: &'static str,
    },
}

/// How a peer broke the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// Another message was due.
    #[error("expected {expected}, got {got}")]
    Unexpected {
        /// What this state waits for.
        expected: &'static str,
        /// What came.
        got: Kind,
    },
    /// The end of this role never sends this.
    #[error("{from} may not send {got}")]
    NotAllowed {
        /// The peer's role.
        from: PeerRole,
        /// What came.
        got: Kind,
    },
    /// A request number did not rise.
    #[error("Begin of request {request} after request {last}; numbers must rise")]
    RequestNotRising {
        /// The number that came.
        request: u64,
        /// The highest before.
        last: u64,
    },
    /// Data or an abort of a request that never began.
    #[error("{got} of request {request}, which never began")]
    NotBegun {
        /// What came.
        got: Kind,
        /// Its request.
        request: u64,
    },
    /// A session's name where none belongs, or none where one does.
    #[error("{got} with a session name where none belongs, or without one where it does")]
    SessionName {
        /// What came.
        got: Kind,
    },
    /// `EpochBehind` names an epoch below the one offered.
    #[error("edge B says epoch {offered} is used, yet the highest it names is {highest}")]
    EpochNotBehind {
        /// The epoch we offered.
        offered: u64,
        /// The highest the peer named.
        highest: u64,
    },
    /// Too many attempts to open a session on one connection.
    #[error("{tries} attempts to open a session on one connection")]
    TooManyTries {
        /// Attempts seen.
        tries: u32,
    },
    /// The welcome names a version above the one offered.
    #[error("the welcome names version {chosen}, above the {offered} offered")]
    VersionAboveOffer {
        /// Version in the welcome.
        chosen: u16,
        /// Version in our hello.
        offered: u16,
    },
}

/// Why two honest ends cannot work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// No common version.
    #[error("it speaks protocol version {theirs}, this one {LOWEST_VERSION} to {VERSION}; update the older of the two")]
    Version {
        /// The peer's version.
        theirs: u16,
    },
    /// The caller is of a role this end does not serve.
    #[error("{caller} called {own}; check which address belongs to which edge")]
    Role {
        /// The caller's role.
        caller: PeerRole,
        /// Our role.
        own: PeerRole,
    },
    /// The device id is zero where one is needed, or not where none belongs.
    #[error("a hello of {caller} with an unfit device id; run `pponnx keygen` again")]
    DeviceId {
        /// The caller's role.
        caller: PeerRole,
    },
    /// Device and edge B derived different sessions.
    #[error(
        "edge B derived another session than the device; their device keys differ, copy the folders of one and the same `pponnx keygen` again"
    )]
    SessionName,
}

/// How our own code misused this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// The body does not fit a frame's 32-bit length.
    #[error("{kind} with a payload of {bytes} bytes does not fit a frame")]
    TooLong {
        /// Message type.
        kind: Kind,
        /// Payload bytes.
        bytes: usize,
    },
    /// Header and payload disagree.
    #[error("the header announces {announced} bytes of payload, {given} were given")]
    PayloadLength {
        /// Bytes in the header.
        announced: usize,
        /// Bytes given.
        given: usize,
    },
    /// Our role never sends this on this link.
    #[error("{own} may not send {kind} to {peer}")]
    NotOurs {
        /// Our role.
        own: PeerRole,
        /// The peer's role.
        peer: PeerRole,
        /// Message type.
        kind: Kind,
    },
}

impl WireError {
    /// What to tell the peer before closing, where it helps it: only incompatibility has an answer. To bytes that are
    /// no message, and to broken rules, silence is the answer.
    pub fn refusal(&self) -> Option<Refuse> {
        let WireError::PeerIncompatible(why) = self else {
            return None;
        };
        let code = match why {
            Incompatible::Version { .. } => RefuseCode::Version,
            Incompatible::Role { .. } => RefuseCode::WrongRole,
            Incompatible::DeviceId { .. } => RefuseCode::UnknownDevice,
            Incompatible::SessionName => return None,
        };
        Some(Refuse::new(code, ""))
    }
}

impl From<Invalid> for WireError {
    fn from(invalid: Invalid) -> WireError {
        WireError::InvalidMessage(invalid)
    }
}

impl From<Misbehaviour> for WireError {
    fn from(how: Misbehaviour) -> WireError {
        WireError::PeerMisbehaved(how)
    }
}

impl From<Incompatible> for WireError {
    fn from(why: Incompatible) -> WireError {
        WireError::PeerIncompatible(why)
    }
}

impl From<Misuse> for WireError {
    fn from(how: Misuse) -> WireError {
        WireError::ApiMisuse(how)
    }
}
