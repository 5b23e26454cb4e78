//! The interpreter of plans for every role, free of sockets, clocks and random sources.
#![forbid(unsafe_code)]

pub mod error;
pub mod local;
pub mod value;
