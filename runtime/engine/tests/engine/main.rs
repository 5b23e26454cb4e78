//! The engine on hand-made bundles: all roles in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adversary;
mod conformance;
mod loading;
mod local;
mod native;
mod nets;
mod onnx;
mod rig;
