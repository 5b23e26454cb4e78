//! Operators that the device runs between linear layers, on f32: functions of one and of two numbers, pooling, means,
//! local response normalisation, softmax.
//!
//! Every loop does one rounding an operation, in an order that does not depend on the instruction set, so results are
//! the same bits everywhere. Roots and quotients are the exactly rounded ones, never the processor's estimates.

mod lrn;
mod pointwise;
mod pool;

pub use lrn::LrnSpec;
pub use pointwise::{Binary, Unary};
pub use pool::PoolSpec;

use crate::error::KernelError;

/// The first `n` elements of a scratch buffer that keeps its memory between calls, all `value`.
fn scratch(buffer: &mut Vec<f32>, value: f32, n: usize) -> Result<&mut [f32], KernelError> {
    buffer.clear();
    buffer.try_reserve_exact(n).map_err(|_| KernelError::Memory { bytes: n.saturating_mul(size_of::<f32>()) })?;
    buffer.resize(n, value);
    Ok(buffer)
}

/// Lanes of sums, so that their order is the same on every instruction set.
const LANES: usize = 16;

/// The sum, by lanes.
#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        let (low, high) = lanes.split_at_mut(width);
        for (a, b) in low.iter_mut().zip(high) {
            *a += *b;
        }
    }
    lanes[0]
}
