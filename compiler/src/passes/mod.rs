//! Passes over the network, one a file.

pub mod quantise;
pub mod rows;
pub mod classify;
pub mod fold;
pub mod split;
