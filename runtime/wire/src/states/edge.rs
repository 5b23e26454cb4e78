//! The edges' handshakes.
//!
//! ```text
//! edge A   AwaitHelloAtA -> Caller::Device(DeviceAtA) -> welcome -> AwaitAttach -> (sid, Established)
//!                                                                       `-> without_session -> Established
//!                        -> Caller::EdgeB(EdgeBAtA)   -> welcome -> Established
//! edge B   AwaitHelloAtB -> DeviceAtB -> welcome -> AwaitOpen -> Opening -> opened -> Established
//!                                                       ^------------------- behind
//! edge B   greet_edge_a -> AwaitWelcome -> (Welcome, Established)
//! ```
//!
//! Where an end turns a caller down, it sends a [`Refuse`](crate::message::Refuse) (for errors of this module:
//! [`WireError::refusal`]), drops the state and closes. Whether the device id belongs to the TLS identity of the
//! connection is for the role to check: this crate sees no identity.

use super::{End, Established, surprise, take_welcome};
use crate::error::{Incompatible, Misbehaviour, WireError};
use crate::message::{BundleDigest, Hello, Message, PeerRole, SessionNonce, Sid, Welcome};
use crate::{LOWEST_VERSION, VERSION};

/// Most attempts to open a session on one connection: one at an old epoch, one past it, and some slack for a clone of
/// the card racing us.
const MAX_OPENINGS: u32 = 8;

/// The first message of whoever called.
fn take_hello(message: Message, own: PeerRole) -> Result<Hello, WireError> {
    let Message::Hello(hello) = message else {
        return Err(surprise("Hello", &message));
    };
    if hello.version < LOWEST_VERSION {
        return Err(Incompatible::Version { theirs: hello.version }.into());
    }
    let served = match (own, hello.role) {
        (PeerRole::EdgeA, PeerRole::Device | PeerRole::EdgeB) | (PeerRole::EdgeB, PeerRole::Device) => true,
        (PeerRole::Device, _) | (_, PeerRole::EdgeA) | (PeerRole::EdgeB, PeerRole::EdgeB) => false,
    };
    if !served {
        return Err(Incompatible::Role { caller: hello.role, own }.into());
    }
    if (hello.role == PeerRole::Device) == (hello.device == [0; 16]) {
        return Err(Incompatible::DeviceId { caller: hello.role }.into());
    }
    Ok(hello)
}

/// Answer to a hello, in the highest version both speak.
fn welcome(hello: &Hello, mark: Option<u64>, in_flight: u32) -> (u16, Message) {
    let version = hello.version.min(VERSION);
    (version, Message::Welcome(Welcome { version, mark, in_flight }))
}

/// Edge A accepted a connection.
#[derive(Debug)]
pub struct AwaitHelloAtA;

/// Who called edge A.
#[derive(Debug)]
pub enum Caller {
    /// A device.
    Device(DeviceAtA),
    /// Edge B.
    EdgeB(EdgeBAtA),
}

impl AwaitHelloAtA {
    /// Takes the first message.
    ///
    /// # Errors
    /// A version or role that does not fit, or a surprise.
    pub fn handle(self, message: Message) -> Result<Caller, WireError> {
        let hello = take_hello(message, PeerRole::EdgeA)?;
        Ok(match hello.role {
            PeerRole::EdgeB => Caller::EdgeB(EdgeBAtA(hello)),
            PeerRole::Device | PeerRole::EdgeA => Caller::Device(DeviceAtA(hello)),
        })
    }
}

/// A device called edge A and waits for an answer.
#[derive(Debug)]
pub struct DeviceAtA(Hello);

impl DeviceAtA {
    /// What the device said.
    pub fn hello(&self) -> &Hello {
        &self.0
    }

    /// Accepts it. `mark`: see [`Welcome::mark`].
    pub fn welcome(self, mark: Option<u64>, in_flight: u32) -> (AwaitAttach, Message) {
        let (version, message) = welcome(&self.0, mark, in_flight);
        (AwaitAttach { version }, message)
    }
}

/// The device was welcomed by edge A.
#[derive(Debug)]
pub struct AwaitAttach {
    version: u16,
}

impl AwaitAttach {
    /// `relay`, `two-edge`: takes the name of the session. The role checks that edge B announced it, for this device
    /// and bundle.
    ///
    /// # Errors
    /// A surprise.
    pub fn handle(self, message: Message) -> Result<(Sid, Established), WireError> {
        let Message::Attach { sid } = message else {
            return Err(surprise("Attach", &message));
        };
        Ok((sid, self.without_session()))
    }

    /// Owner-dealt schemes and `plain`: there is no session to attach to.
    pub fn without_session(self) -> Established {
        Established::new(End::AToDevice, self.version)
    }
}

/// Edge B called edge A and waits for an answer.
#[derive(Debug)]
pub struct EdgeBAtA(Hello);

impl EdgeBAtA {
    /// What edge B said.
    pub fn hello(&self) -> &Hello {
        &self.0
    }

    /// Accepts it. Credit follows per session, so the welcome's own limits mean nothing on this link.
    pub fn welcome(self) -> (Established, Message) {
        let (version, message) = welcome(&self.0, None, 0);
        (Established::new(End::AToB, version), message)
    }
}

/// Edge B accepted a connection.
#[derive(Debug)]
pub struct AwaitHelloAtB;

impl AwaitHelloAtB {
    /// Takes the first message.
    ///
    /// # Errors
    /// A version or role that does not fit, or a surprise.
    pub fn handle(self, message: Message) -> Result<DeviceAtB, WireError> {
        take_hello(message, PeerRole::EdgeB).map(DeviceAtB)
    }
}

/// A device called edge B and waits for an answer.
#[derive(Debug)]
pub struct DeviceAtB(Hello);

impl DeviceAtB {
    /// What the device said.
    pub fn hello(&self) -> &Hello {
        &self.0
    }

    /// Accepts it.
    pub fn welcome(self, in_flight: u32) -> (AwaitOpen, Message) {
        let (version, message) = welcome(&self.0, None, in_flight);
        (AwaitOpen { version, tries: 0 }, message)
    }
}

/// The device was welcomed by edge B.
#[derive(Debug)]
pub struct AwaitOpen {
    version: u16,
    tries: u32,
}

impl AwaitOpen {
    /// Takes the request for a session.
    ///
    /// # Errors
    /// [`Misbehaviour::TooManyTries`], or a surprise.
    pub fn handle(self, message: Message) -> Result<Opening, WireError> {
        let Message::OpenSession { epoch, nonce } = message else {
            return Err(surprise("OpenSession", &message));
        };
        let tries = self.tries + 1;
        if tries > MAX_OPENINGS {
            return Err(Misbehaviour::TooManyTries { tries }.into());
        }
        Ok(Opening { version: self.version, tries, epoch, nonce })
    }
}

/// A device asks edge B for a session: derive it and say its name, or turn the epoch down.
#[derive(Debug)]
pub struct Opening {
    version: u16,
    tries: u32,
    epoch: u64,
    nonce: SessionNonce,
}

impl Opening {
    /// Epoch of the device's key. Edge B must have stored it as used, durably, before [`Opening::opened`].
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The device's fresh nonce.
    pub fn nonce(&self) -> &SessionNonce {
        &self.nonce
    }

    /// The session is open under this name.
    pub fn opened(self, sid: Sid) -> (Established, Message) {
        (Established::new(End::BToDevice, self.version), Message::SessionOpen { sid })
    }

    /// The epoch is not above `highest`, the highest seen of this device.
    pub fn behind(self, highest: u64) -> (AwaitOpen, Message) {
        (AwaitOpen { version: self.version, tries: self.tries }, Message::EpochBehind { highest })
    }
}

/// Edge B starts the handshake with edge A: send the message, then wait. `bundle` is zero where edge B serves several.
pub fn greet_edge_a(bundle: BundleDigest) -> (AwaitWelcome, Message) {
    let hello = Hello { version: VERSION, role: PeerRole::EdgeB, device: [0; 16], bundle, flags: 0 };
    (AwaitWelcome(()), Message::Hello(hello))
}

/// Edge B's hello went to edge A.
#[derive(Debug)]
pub struct AwaitWelcome(());

impl AwaitWelcome {
    /// Takes edge A's answer.
    ///
    /// # Errors
    /// [`WireError::Refused`], a version that does not fit, or a surprise.
    pub fn handle(self, message: Message) -> Result<(Welcome, Established), WireError> {
        let welcome = take_welcome(message)?;
        let established = Established::new(End::BToA, welcome.version);
        Ok((welcome, established))
    }
}
