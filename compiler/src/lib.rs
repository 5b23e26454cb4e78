//! ONNX to bundle: reading, splitting, quantising, schemes.
//!
//! Compiling is a pure function of the model and the options: no randomness, key, clock or network.
#![forbid(unsafe_code)]

pub mod cut;
pub mod diag;
pub mod front;
pub mod import;
pub mod ir;
pub mod lower;
pub mod ops;
pub mod passes;
pub mod pipeline;
pub mod precision;
pub mod report;
pub mod schemes;
pub mod source;

pub use diag::{CompileError, Diagnostic};
pub use pipeline::{Compiled, Options, compile};
pub use precision::Precision;
pub use source::{FrontOptions, ModelSource};
