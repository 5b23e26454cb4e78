//! The contract between compiler and runtime.
//!
//! A [`Bundle`](plan::Bundle) holds one straight-line program per role, the linear maps they apply, the
//! slots over which tensors travel and the constants they read, by digest. The compiler writes bundles,
//! [`valid::validate`] admits them, the runtime executes what was admitted, and [`mod@reference`] says
//! what every operation means, in integers.
#![forbid(unsafe_code)]

pub mod binary;
pub mod constant;
pub mod digest;
pub mod field;
pub mod file;
pub mod footprint;
pub mod map;
pub mod map_shape;
pub mod op;
pub mod plan;
pub mod reference;
mod roles;
pub mod text;
pub mod valid;
pub mod value;

#[cfg(test)]
mod sample;
