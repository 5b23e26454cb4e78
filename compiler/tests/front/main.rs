//! The front end on whole models and on operator cases: the split network must compute what the model computes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod errors;
mod float;
mod npz;
mod operators;
mod shared;
mod stream;
