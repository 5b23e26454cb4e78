//! Measuring: models, kernels, edges under load.

pub mod args;
pub mod clock;
pub mod device;
pub mod edge;
pub mod gemm;
pub mod kernels;
pub mod layer;
pub mod model;
pub mod ort;
pub mod roles;
pub mod shapes;
pub mod stats;
pub mod talker;
