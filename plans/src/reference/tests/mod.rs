//! Tests of the reference against definitions written out index by index.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod linear;
mod number;
mod run;

use super::tensor::Tensor;
use crate::value::Shape;

/// A small generator (splitmix64), so that cases are the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[low, high]`.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.word() % (high - low + 1) as u64) as i64
    }

    pub(crate) fn tensor<S>(&mut self, shape: &[usize], mut f: impl FnMut(&mut Random) -> S) -> Tensor<S> {
        let shape = Shape(shape.to_vec());
        let data = (0..shape.len()).map(|_| f(self)).collect();
        Tensor { shape, data }
    }
}
