//! Errors of the running roles. Each names the edge, and the segment where there is one.

use std::time::Duration;

use pponnx_engine::EngineError;
use pponnx_keys::{AcceptError, LedgerError, MarkError, PairError, StoreError};
use pponnx_net::NetError;
use pponnx_plans::value::Role;
use pponnx_wire::WireError;
use pponnx_wire::message::{Abort, Refuse, RefuseCode};

/// Why a role could not start, or a request not finish.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No connection to an edge.
    #[error("{edge}: {source}")]
    Connect {
        /// Which edge.
        edge: Role,
        /// What happened.
        #[source]
        source: NetError,
    },
    /// An edge was reached, and the connection then failed during a request.
    #[error(
        "{edge} was lost during request {request}, in segment {segment:?}: {source}; the request number is burnt, start again for a new one"
    )]
    Lost {
        /// Which edge.
        edge: Role,
        /// The request.
        request: u64,
        /// The segment whose data were on the way.
        segment: String,
        /// What happened.
        #[source]
        source: NetError,
    },
    /// An edge did not answer in time.
    #[error("{edge} did not answer in segment {segment:?} of request {request} within {:.1} s; is it overloaded, or its link down? The limit is reply_timeout_s under [net] of the configuration", after.as_secs_f64())]
    Silent {
        /// Which edge.
        edge: Role,
        /// The request.
        request: u64,
        /// The segment that was waited for.
        segment: String,
        /// How long.
        after: Duration,
    },
    /// An edge turned the device down.
    #[error("{edge} refuses: {refuse}")]
    Refused {
        /// Which edge.
        edge: Role,
        /// Its reason.
        refuse: Refuse,
    },
    /// An edge gave up on a request.
    #[error("{edge}{}: {abort}", in_segment(segment))]
    Aborted {
        /// Which edge.
        edge: Role,
        /// The segment concerned, where the edge named one.
        segment: Option<String>,
        /// Its reason.
        abort: Abort,
        /// Whether it holds dealt key pairs, and has none for this request.
        stock: bool,
    },
    /// A peer broke the protocol.
    #[error("{edge} broke the protocol{}: {source}", in_segment(segment))]
    Protocol {
        /// Which peer.
        edge: Role,
        /// The segment that was waited for, during a request.
        segment: Option<String>,
        /// How.
        #[source]
        source: WireError,
    },
    /// Loading, checking or computing failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A key, check, pair or ledger file is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No request number.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No key pair.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// An epoch that cannot be used.
    #[error(transparent)]
    Epoch(#[from] AcceptError),
    /// A request number that edge A has seen.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Settings that contradict the bundle.
    #[error("{0}")]
    Settings(String),
    /// The system's random source failed.
    #[error("the system's random source failed: {0}; nothing can be masked without it")]
    Random(String),
    /// An earlier request failed on these connections.
    #[error("this session ended with an earlier error; start the device again")]
    SessionOver,
    /// A task of ours died.
    #[error("internal error: {0}")]
    Internal(String),
}

fn in_segment(segment: &Option<String>) -> String {
    segment.as_ref().map(|s| format!(", in segment {s:?}")).unwrap_or_default()
}

impl NodeError {
    /// Sorts an error of a connection that is being set up.
    pub fn connecting(edge: Role, source: NetError) -> NodeError {
        match source {
            NetError::Wire(WireError::Refused(refuse)) => NodeError::Refused { edge, refuse },
            NetError::Wire(source) => NodeError::Protocol { edge, segment: None, source },
            source => NodeError::Connect { edge, source },
        }
    }

    /// Sorts an error of the protocol.
    pub fn protocol(edge: Role, source: WireError) -> NodeError {
        match source {
            WireError::Refused(refuse) => NodeError::Refused { edge, refuse },
            source => NodeError::Protocol { edge, segment: None, source },
        }
    }

    /// Whether request numbers or key pairs ran out or were used before.
    pub fn is_spent(&self) -> bool {
        match self {
            NodeError::Ledger(e) => !matches!(e, LedgerError::Store(_) | LedgerError::Block { .. }),
            NodeError::Pair(PairError::OutOfPairs { .. }) | NodeError::Mark(MarkError::Stale { .. }) => true,
            NodeError::Refused { refuse, .. } => matches!(refuse.code, RefuseCode::StaleRequest),
            NodeError::Engine(EngineError::OutOfPairs { .. }) | NodeError::Aborted { stock: true, .. } => true,
            _ => false,
        }
    }
}
