//! Passes over the network, one a file.

pub mod classify;
pub mod fold;
pub mod quantise;
pub mod rows;
pub mod split;
pub mod weights;
