//! The interpreter of plans for every role.
//!
//! A validated bundle becomes a [`LoadedPlan`] for one role, once; each request is an [`Execution`] of it. Executions
//! take payloads in and hand payloads out, and know no socket, clock or random source. The owner's part is
//! [`offline`], the integrity check [`check`]; [`local`] alone knows the ONNX back end.
//!
//! **Invariant**: a valid plan never makes the engine panic, and neither does anything an edge sends.
//!
//! **Invariant**: nothing is decoded, and nothing returned, before the integrity check of its segment has passed.
#![forbid(unsafe_code)]

mod buffers;
pub mod check;
mod decode;
mod encode;
pub mod error;
mod fuse;
pub mod interp;
mod linear;
pub mod local;
mod memory;
pub mod offline;
pub mod plan;
pub mod profile;
mod reveal;
mod ring;
pub mod simulate;
mod site;
mod upload;
pub mod value;

pub use check::{CheckMaterial, Verified};
pub use error::EngineError;
pub use interp::{Execution, Outgoing, Progress, Secrets};
pub use local::{LocalError, LocalModel, PlainModel};
pub use plan::LoadedPlan;
pub use profile::{Stage, Stages};
pub use simulate::{Outcome, Simulation};
pub use value::{Elements, TensorValue};
