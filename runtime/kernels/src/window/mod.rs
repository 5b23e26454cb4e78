//! Convolution and transposed convolution.
//!
//! Both become sums over *taps*: `y[q] = sum_k w[k] * x[offset[k] + q]`, where `q` runs over consecutive words. To that
//! end each group's input is *staged*: copied with its zero padding, one plane for each residue of the stride, so that
//! neighbouring outputs read neighbouring words whatever the stride. Rows lie one after the other, so `q` runs over
//! whole planes and the few positions between rows are computed and dropped. A transposed convolution is one such sum
//! for each residue of its stride, over the taps that reach it.

mod axis;
mod pack;
mod plan;
mod run;
mod stage;

pub use pack::{Packed, PackedConv, PackedConvTranspose};
pub use run::run;
