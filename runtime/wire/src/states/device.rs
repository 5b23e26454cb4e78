//! The device's handshakes.
//!
//! ```text
//! greet_edge_a -> AwaitWelcomeA -> GreetedByA -> attach | without_session -> Established
//! greet_edge_b -> AwaitWelcomeB -> GreetedByB -> open -> AwaitSession -> SessionReply::Open -> Established
//!                                      ^---------------------------- SessionReply::Behind
//! ```

use super::{End, Established, surprise, take_welcome};
use crate::VERSION;
use crate::error::{Incompatible, Misbehaviour, WireError};
use crate::message::{BundleDigest, DeviceId, Hello, Message, PeerRole, SessionNonce, Sid, Welcome};

fn hello(device: DeviceId, bundle: BundleDigest) -> Message {
    Message::Hello(Hello { version: VERSION, role: PeerRole::Device, device, bundle, flags: 0 })
}

/// Starts the handshake with edge A: send the message, then wait.
pub fn greet_edge_a(device: DeviceId, bundle: BundleDigest) -> (AwaitWelcomeA, Message) {
    (AwaitWelcomeA(()), hello(device, bundle))
}

/// Starts the handshake with edge B: send the message, then wait.
pub fn greet_edge_b(device: DeviceId, bundle: BundleDigest) -> (AwaitWelcomeB, Message) {
    (AwaitWelcomeB(()), hello(device, bundle))
}

/// The hello went to edge A.
#[derive(Debug)]
pub struct AwaitWelcomeA(());

impl AwaitWelcomeA {
    /// Takes edge A's answer.
    ///
    /// # Errors
    /// [`WireError::Refused`], a version that does not fit, or a surprise.
    pub fn handle(self, message: Message) -> Result<GreetedByA, WireError> {
        take_welcome(message).map(GreetedByA)
    }
}

/// Edge A knows the device and serves its bundle.
#[derive(Debug)]
pub struct GreetedByA(Welcome);

impl GreetedByA {
    /// What edge A said: its mark, and how many requests may be open.
    pub fn welcome(&self) -> &Welcome {
        &self.0
    }

    /// `relay`, `two-edge`: use the session that edge B opened. Edge A sends no answer to `Attach`.
    pub fn attach(self, sid: Sid) -> (Established, Message) {
        (self.without_session(), Message::Attach { sid })
    }

    /// Owner-dealt schemes and `plain`: there is no session.
    pub fn without_session(self) -> Established {
        Established::new(End::DeviceToA, self.0.version)
    }
}

/// The hello went to edge B.
#[derive(Debug)]
pub struct AwaitWelcomeB(());

impl AwaitWelcomeB {
    /// Takes edge B's answer.
    ///
    /// # Errors
    /// [`WireError::Refused`], a version that does not fit, or a surprise.
    pub fn handle(self, message: Message) -> Result<GreetedByB, WireError> {
        take_welcome(message).map(GreetedByB)
    }
}

/// Edge B knows the device and serves its bundle.
#[derive(Debug)]
pub struct GreetedByB(Welcome);

impl GreetedByB {
    /// What edge B said.
    pub fn welcome(&self) -> &Welcome {
        &self.0
    }

    /// Asks for a session of this epoch and nonce. `sid` is the name the device derives for it: edge B must derive the
    /// same, else their keys differ.
    ///
    /// The device has advanced its epoch durably *before* this, and draws a fresh nonce for every call.
    pub fn open(self, epoch: u64, nonce: impl Into<SessionNonce>, sid: Sid) -> (AwaitSession, Message) {
        (AwaitSession { welcome: self.0, epoch, sid }, Message::OpenSession { epoch, nonce: nonce.into() })
    }
}

/// Edge B was asked for a session.
#[derive(Debug)]
pub struct AwaitSession {
    welcome: Welcome,
    epoch: u64,
    sid: Sid,
}

/// Edge B's answer to a request for a session.
#[derive(Debug)]
pub enum SessionReply {
    /// The session is open, under the name the device expected.
    Open(Established),
    /// The epoch was used before: ratchet past `highest` and call [`GreetedByB::open`] again.
    Behind {
        /// Highest epoch edge B has seen; not below the one offered.
        highest: u64,
        /// Where to go on.
        retry: GreetedByB,
    },
}

impl AwaitSession {
    /// Takes edge B's answer.
    ///
    /// # Errors
    /// [`Incompatible::SessionName`] if edge B holds another key of the device, [`Misbehaviour::EpochNotBehind`],
    /// [`WireError::Refused`], or a surprise.
    pub fn handle(self, message: Message) -> Result<SessionReply, WireError> {
        match message {
            Message::SessionOpen { sid } if sid == self.sid => {
                Ok(SessionReply::Open(Established::new(End::DeviceToB, self.welcome.version)))
            }
            Message::SessionOpen { .. } => Err(Incompatible::SessionName.into()),
            Message::EpochBehind { highest } if highest >= self.epoch => {
                Ok(SessionReply::Behind { highest, retry: GreetedByB(self.welcome) })
            }
            Message::EpochBehind { highest } => {
                Err(Misbehaviour::EpochNotBehind { offered: self.epoch, highest }.into())
            }
            other => Err(surprise("SessionOpen or EpochBehind", &other)),
        }
    }
}
