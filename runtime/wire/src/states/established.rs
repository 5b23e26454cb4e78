//! The rules of a link after its handshake.

use crate::error::{Misbehaviour, Misuse, WireError};
use crate::kind::Kind;
use crate::message::{Message, PeerRole};

/// One end of a link: our role, then the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The device's end towards edge A.
    DeviceToA,
    /// The device's end towards edge B.
    DeviceToB,
    /// Edge A's end towards a device.
    AToDevice,
    /// Edge B's end towards a device.
    BToDevice,
    /// Edge A's end towards edge B.
    AToB,
    /// Edge B's end towards edge A.
    BToA,
}

impl End {
    /// All ends.
    pub const ALL: [End; 6] = [End::DeviceToA, End::DeviceToB, End::AToDevice, End::BToDevice, End::AToB, End::BToA];

    /// The other end of the same link.
    pub fn opposite(self) -> End {
        match self {
            End::DeviceToA => End::AToDevice,
            End::DeviceToB => End::BToDevice,
            End::AToDevice => End::DeviceToA,
            End::BToDevice => End::DeviceToB,
            End::AToB => End::BToA,
            End::BToA => End::AToB,
        }
    }

    /// The role at this end.
    pub fn own(self) -> PeerRole {
        match self {
            End::DeviceToA | End::DeviceToB => PeerRole::Device,
            End::AToDevice | End::AToB => PeerRole::EdgeA,
            End::BToDevice | End::BToA => PeerRole::EdgeB,
        }
    }

    /// The role at the other end.
    pub fn peer(self) -> PeerRole {
        self.opposite().own()
    }

    /// What this end may send once the handshake is over; the other end accepts exactly this.
    ///
    /// Towards edge B there is nothing that could carry the input: no `Data`, no `Abort` (its time and text may depend
    /// on values), no `Refuse` of a request.
    pub fn may_send(self) -> &'static [Kind] {
        use Kind::*;
        match self {
            End::DeviceToA => &[Begin, Data, Abort, Ping, Pong, Goodbye],
            End::AToDevice => &[Data, Abort, Refuse, Ping, Pong, Goodbye],
            End::DeviceToB => &[Begin, Ping, Pong, Goodbye],
            End::BToDevice => &[Data, Abort, Refuse, Ping, Pong, Goodbye],
            End::BToA => &[Session, SessionClosed, Correction, Abort, Ping, Pong, Goodbye],
            End::AToB => &[Credit, SessionClosed, Ping, Pong, Goodbye],
        }
    }
}

/// A link whose handshake is over: lets through what the peer may say.
///
/// Only the receiving half changes it, so it lives with the task that reads; a writing task asks
/// [`End::may_send`] or [`Established::check_send`] of its own copy of the [`End`].
#[derive(Debug)]
pub struct Established {
    end: End,
    version: u16,
    begun: Option<u64>,
}

impl Established {
    pub(crate) fn new(end: End, version: u16) -> Established {
        Established { end, version, begun: None }
    }

    /// Which end of which link.
    pub fn end(&self) -> End {
        self.end
    }

    /// The version both speak.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Passes on a message that the peer may send now.
    ///
    /// At an edge, towards a device: request numbers of `Begin` must rise, and `Data` and `Abort` must belong to a
    /// number not above the last begun (the role itself knows which of those are still open). Slots, lengths and
    /// sessions are checked by the role, which knows the plan.
    ///
    /// # Errors
    /// [`WireError::Refused`] for a `Refuse`; [`WireError::PeerMisbehaved`] for anything else that breaks a rule.
    pub fn receive(&mut self, message: Message) -> Result<Message, WireError> {
        let got = message.kind();
        if !self.end.opposite().may_send().contains(&got) {
            return Err(Misbehaviour::NotAllowed { from: self.end.peer(), got }.into());
        }
        match &message {
            Message::Refuse(refuse) => return Err(WireError::Refused(refuse.clone())),
            Message::Begin { request } => {
                if let Some(last) = self.begun.filter(|last| request <= last) {
                    return Err(Misbehaviour::RequestNotRising { request: *request, last }.into());
                }
                self.begun = Some(*request);
            }
            Message::Data(data) => self.need_begun(got, data.request)?,
            Message::Abort(abort) => {
                if abort.sid.is_some() != (self.end == End::AToB) {
                    return Err(Misbehaviour::SessionName { got }.into());
                }
                self.need_begun(got, abort.request)?;
            }
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::Goodbye
            | Message::OpenSession { .. }
            | Message::SessionOpen { .. }
            | Message::EpochBehind { .. }
            | Message::Attach { .. }
            | Message::Session(_)
            | Message::SessionClosed { .. }
            | Message::Credit { .. }
            | Message::Correction(_) => {}
        }
        Ok(message)
    }

    /// Whether our end may send this.
    ///
    /// # Errors
    /// [`WireError::ApiMisuse`] if not: a bug of ours, not of the peer.
    pub fn check_send(&self, kind: Kind) -> Result<(), WireError> {
        if self.end.may_send().contains(&kind) {
            return Ok(());
        }
        Err(Misuse::NotOurs { own: self.end.own(), peer: self.end.peer(), kind }.into())
    }

    /// At an edge, a device speaks only of requests it has begun.
    fn need_begun(&self, got: Kind, request: u64) -> Result<(), WireError> {
        let from_device = matches!(self.end, End::AToDevice | End::BToDevice);
        if from_device && self.begun.is_none_or(|last| request > last) {
            return Err(Misbehaviour::NotBegun { got, request }.into());
        }
        Ok(())
    }
}
