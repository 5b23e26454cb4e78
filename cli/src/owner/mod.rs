//! The owner's work behind `compile` and `keygen`: folders for each role, keys, key pairs.
//!
//! Nothing here is deterministic, and nothing of it is in the compiler.

pub mod deal;
pub mod folders;
pub mod report;
pub mod staging;
