//! Sums over channels: dense and grouped convolutions, matrix products, products of a few rows.
//!
//! A tile holds vectors of output channels times a few output positions in registers. Weights stream through it, and
//! activations are broadcast. For that activations are *staged*: padded, channels innermost, words split into the
//! limbs that the instruction set multiplies. A position is then an address, and a row of the filter is one run of
//! contiguous words, so there is no other rearrangement. Weights lie in the order in which tiles read them, the same
//! for every instruction set and word, so one copy serves all.

mod block;
mod conv;
mod geometry;
mod kind;
mod matmul;
mod pack;
mod run;
mod tile;

pub use conv::DenseConv;
#[cfg(target_arch = "x86_64")]
pub use kind::Limbs16;
pub use kind::{Kind, Limbs32, Whole};
pub use matmul::PackedMatMul;
pub(crate) use matmul::run as run_matmul;
pub use run::{Visit, Visiting};
