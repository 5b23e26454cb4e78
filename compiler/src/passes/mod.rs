//! Passes over the network, one a file.

pub mod quantise;
pub mod rows;
