//! ONNX to bundle: reading, splitting, quantising, schemes.
//!
//! Compiling is a pure function of the model and the options: no randomness, key, clock or network.
#![forbid(unsafe_code)]

pub mod ir;
pub mod lower;
pub mod passes;
pub mod precision;
pub mod report;
pub mod schemes;
pub mod diag;
pub mod source;
pub mod cut;
pub mod front;
pub mod import;
pub mod ops;
