//! Measuring: models, kernels, edges under load.

pub mod args;
pub mod clock;
pub mod device;
pub mod model;
pub mod ort;
pub mod roles;
pub mod stats;
pub mod talker;
