//! Handshakes as state machines, and the rules of an established link.
//!
//! A handshake has one struct per state. `handle(self, message)` eats the state and gives the next one, so a state
//! cannot be used twice; a surprise is an error that names what was expected and what came. Each handshake ends in an
//! [`Established`], which lets through only what the peer's role may say on that link.
//!
//! * [`device`]: the device's end, towards edge A and edge B.
//! * [`edge`]: the edges' ends: towards a device, and towards each other.

mod established;

pub mod device;
pub mod edge;

pub use established::{End, Established};

use crate::error::{Incompatible, Misbehaviour, WireError};
use crate::message::{Message, Welcome};
use crate::{LOWEST_VERSION, VERSION};

/// The error for `got` where `expected` was due; a refusal keeps its own words.
fn surprise(expected: &'static str, got: &Message) -> WireError {
    match got {
        Message::Refuse(refuse) => WireError::Refused(refuse.clone()),
        other => Misbehaviour::Unexpected { expected, got: other.kind() }.into(),
    }
}

/// The dialling end's first answer.
fn take_welcome(message: Message) -> Result<Welcome, WireError> {
    let Message::Welcome(welcome) = message else {
        return Err(surprise("Welcome", &message));
    };
    if welcome.version > VERSION {
        return Err(Misbehaviour::VersionAboveOffer { chosen: welcome.version, offered: VERSION }.into());
    }
    if welcome.version < LOWEST_VERSION {
        return Err(Incompatible::Version { theirs: welcome.version }.into());
    }
    Ok(welcome)
}
