//! Errors of the transport; each says what to do.

use std::fmt;
use std::io;
use std::time::Duration;

use pponnx_wire::WireError;

use crate::identity::{IdentityError, Pin};
use crate::verify::{CallerRejected, PinRejected};

/// What a connection was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Looking up a host name.
    Resolve,
    /// Opening a TCP connection.
    Connect,
    /// TLS handshake.
    Handshake,
    /// Waiting for a message.
    Read,
    /// Waiting for the peer to take bytes.
    Write,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Resolve => "looking up the host name",
            Phase::Connect => "connecting",
            Phase::Handshake => "TLS handshake",
            Phase::Read => "waiting for a message",
            Phase::Write => "sending",
        })
    }
}

/// What went wrong on a connection. After any of them but a `Timeout` of [`Phase::Read`] it is unusable.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No TCP connection, or the address means nothing.
    #[error("cannot reach {addr}: {source}; check the address, that the edge runs (`pponnx serve`), and the firewall")]
    Unreachable {
        /// The address as configured.
        addr: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The port cannot be listened on.
    #[error("cannot listen on {addr}: {source}; is the port taken, or is another edge running?")]
    Listen {
        /// The address as configured.
        addr: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A deadline passed.
    #[error("timed out after {:.1} s ({phase}); the peer is silent or the link too slow", after.as_secs_f64())]
    Timeout {
        /// What was going on.
        phase: Phase,
        /// Time waited.
        after: Duration,
    },
    /// The dialled end holds another key than the one pinned.
    #[error(
        "the peer's identity is {found}, expected {}; wrong address, a re-created identity, or an attack. If the change is intended, put the new pin into [[edge]] of the configuration",
        Pins(expected)
    )]
    PinMismatch {
        /// The pins that would have been accepted.
        expected: Vec<Pin>,
        /// The pin that was presented.
        found: Pin,
    },
    /// A caller whose key nobody allowed.
    #[error(
        "a caller with the unknown identity {found}; to allow it, add this pin to [[device]] or [[edge]] of the edge's configuration"
    )]
    UnknownPin {
        /// The pin that was presented.
        found: Pin,
    },
    /// The peer does not accept our key.
    #[error("the peer rejects this end's identity {own} ({alert}); add this pin to the peer's configuration")]
    Rejected {
        /// Our own pin.
        own: Pin,
        /// The TLS alert.
        alert: String,
    },
    /// The peer closed the connection.
    #[error(
        "the peer closed the connection{}; see its log for the reason",
        if *mid_frame { " in the middle of a message" } else { "" }
    )]
    Closed {
        /// Whether a frame was incomplete.
        mid_frame: bool,
    },
    /// A write was given up half way; the peer cannot make sense of what would follow.
    #[error("an earlier write on this connection was cancelled or failed; open a new connection")]
    WriterBroken,
    /// What came is no protocol of ours, or breaks its rules.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The system failed us.
    #[error("network error ({phase}): {source}")]
    Io {
        /// What was going on.
        phase: Phase,
        /// The system's reason.
        source: io::Error,
    },
    /// TLS failed for another reason than an identity.
    #[error("TLS failed: {0}; does the address belong to a pponnx edge of a fitting version?")]
    Tls(#[source] rustls::Error),
    /// A key or certificate of ours is unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Pins in an error message.
struct Pins<'a>(&'a [Pin]);

impl fmt::Display for Pins<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, pin) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" or ")?;
            }
            fmt::Display::fmt(pin, f)?;
        }
        Ok(())
    }
}

impl NetError {
    /// Whether the peer went away or was not there: worth another address or a later try.
    pub fn is_disconnect(&self) -> bool {
        match self {
            NetError::Unreachable { .. } | NetError::Timeout { .. } | NetError::Closed { .. } => true,
            NetError::Listen { .. }
            | NetError::PinMismatch { .. }
            | NetError::UnknownPin { .. }
            | NetError::Rejected { .. }
            | NetError::WriterBroken
            | NetError::Wire(_)
            | NetError::Io { .. }
            | NetError::Tls(_)
            | NetError::Identity(_) => false,
        }
    }

    /// Sorts an error of the stream. `own` is our pin, where the stream is TLS.
    pub(crate) fn of_io(source: io::Error, phase: Phase, mid_frame: bool, own: Option<Pin>) -> NetError {
        if let Some(tls) = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return NetError::of_tls(tls.clone(), own);
        }
        match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::WriteZero
            | io::ErrorKind::NotConnected => NetError::Closed { mid_frame },
            _ => NetError::Io { phase, source },
        }
    }

    /// Sorts an error of TLS: identities apart from the rest.
    pub(crate) fn of_tls(error: rustls::Error, own: Option<Pin>) -> NetError {
        use rustls::{AlertDescription as Alert, CertificateError, Error};
        match (&error, own) {
            (Error::InvalidCertificate(CertificateError::Other(other)), _) => {
                if let Some(PinRejected { expected, found }) = other.0.downcast_ref() {
                    return NetError::PinMismatch { expected: expected.clone(), found: *found };
                }
                if let Some(CallerRejected { found }) = other.0.downcast_ref() {
                    return NetError::UnknownPin { found: *found };
                }
                NetError::Tls(error)
            }
            (
                Error::AlertReceived(
                    alert @ (Alert::CertificateUnknown
                    | Alert::BadCertificate
                    | Alert::AccessDenied
                    | Alert::UnknownCA
                    | Alert::CertificateRequired),
                ),
                Some(own),
            ) => NetError::Rejected { own, alert: format!("{alert:?}") },
            _ => NetError::Tls(error),
        }
    }
}
