//! The running roles: device client and edge servers, joining engine, wire and net.
//!
//! | module | purpose |
//! |---|---|
//! | [`device`] | [`Device`]: opens a session, runs requests |
//! | [`edge_a`] | edge A: multiplies masked uploads, holds corrections |
//! | [`edge_b`] | edge B: computes corrections, ahead of demand (`relay`) or during the request (`two-edge`) |
//! | [`serve`] | accepting, limits and graceful shutdown of both |
//! | [`meter`] | what requests cost an edge, for benchmarks |
//! | [`topology`] | what a bundle's programs ask of the connections |
//! | [`error`] | [`NodeError`], which names edge, segment and time |
//!
//! **Invariant**: nothing here decides what is sent; programs of a validated bundle do. These modules carry payloads between
//! executions, connections and stores.
#![forbid(unsafe_code)]

mod compute;
mod crowd;
pub mod device;
pub mod edge_a;
pub mod edge_b;
pub mod error;
pub mod meter;
mod relay;
pub mod serve;
mod sessions;
pub mod topology;

pub use device::{Device, DeviceSettings, EdgeAddress, Inference, Material, Stats, Timeouts};
pub use error::NodeError;
pub use meter::{Meter, RequestCost};
pub use serve::{EdgeSettings, Limits, Observer, PeerEntry, Running, ServedPlan};
