//! Local response normalisation: each element divided by a power of the mean square of its neighbours in other channels.

use super::scratch;
use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::portable::loops::loops;
use crate::vector::{Level, Task};

/// Local response normalisation over the channels of a `[N, C, pixels]` tensor:
/// `x / (bias + alpha / size * sum of squares)^beta`, the sum over `size` channels, of which
/// `(size - 1) / 2` (rounded down) come before the element's own.
#[derive(Clone, Debug, PartialEq)]
pub struct LrnSpec {
    /// Channels.
    pub channels: usize,
    /// Elements of a channel.
    pub pixels: usize,
    /// Channels in a sum.
    pub size: usize,
    /// Factor of the mean square.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// What the mean square is added to.
    pub bias: f32,
}

/// Pixels taken at once: the squares of a window of channels stay in the first cache.
const PIXELS: usize = 512;

impl LrnSpec {
    /// `Err` unless the sizes are sensible.
    ///
    /// # Errors
    /// Sizes of zero, or beyond what is addressed.
    pub fn validate(&self) -> Result<(), KernelError> {
        for (what, value) in [("channels", self.channels), ("pixels", self.pixels), ("LRN size", self.size)] {
            if value == 0 {
                return Err(KernelError::Zero { what });
            }
        }
        self.channels.checked_mul(self.pixels).ok_or(KernelError::TooLarge { what: "LRN input" })?;
        Ok(())
    }

    /// Channels of a sum before the element's own and after it, where there are so many.
    fn reach(&self) -> (usize, usize) {
        let before = (self.size - 1) / 2;
        (before.min(self.channels), (self.size - 1 - before).min(self.channels))
    }
}

impl Kernels {
    /// Normalises in place. `buffer` is scratch space that keeps its memory between calls.
    ///
    /// # Errors
    /// As [`LrnSpec::validate`]; a number of elements that images do not fill.
    pub fn lrn(self, spec: &LrnSpec, x: &mut [f32], buffer: &mut Vec<f32>) -> Result<(), KernelError> {
        spec.validate()?;
        let image = spec.channels * spec.pixels;
        length("LRN input", x.len() / image * image, x.len())?;
        let (before, after) = spec.reach();
        let rows = (before + after + 2).checked_mul(PIXELS).ok_or(KernelError::TooLarge { what: "LRN size" })?;
        let rows = scratch(buffer, 0.0, rows)?;
        normalise(self, spec, x, rows);
        Ok(())
    }
}

/// Squares of the channel from `at` on, zero beyond the last.
#[inline(always)]
fn squares(image: &[f32], at: usize, out: &mut [f32]) {
    match image.get(at..at + out.len()) {
        Some(x) => x.iter().zip(out).for_each(|(x, out)| *out = x * x),
        None => out.fill(0.0),
    }
}

#[inline(always)]
fn divide(x: &mut [f32], sums: &[f32], bias: f32, scale: f32, power: impl Fn(f32) -> f32) {
    for (x, sum) in x.iter_mut().zip(sums) {
        *x /= power(bias + scale * sum);
    }
}

loops! {
    fn normalise<'a>(spec: &'a LrnSpec, x: &'a mut [f32], rows: &'a mut [f32]) -> () {
        let (sums, rows) = rows.split_at_mut(PIXELS);
        let (before, after) = spec.reach();
        let size = before + after + 1;
        let scale = spec.alpha / spec.size as f32;
        for image in x.chunks_exact_mut(spec.channels * spec.pixels) {
            for first in (0..spec.pixels).step_by(PIXELS) {
                let n = PIXELS.min(spec.pixels - first);
                let sums = &mut sums[..n];
                for c in 0..after {
                    squares(image, c * spec.pixels + first, &mut rows[c % size * PIXELS..][..n]);
                }
                for c in 0..spec.channels {
                    let next = c + after;
                    squares(image, next * spec.pixels + first, &mut rows[next % size * PIXELS..][..n]);
                    sums.fill(0.0);
                    // Channels in their order: another order would round differently.
                    for other in c.saturating_sub(before)..=next {
                        let row = &rows[other % size * PIXELS..][..n];
                        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                    }
                    let x = &mut image[c * spec.pixels + first..][..n];
                    let (bias, beta) = (spec.bias, spec.beta);
                    if beta == 0.75 {
                        divide(x, sums, bias, scale, |s| { let root = s.sqrt(); root * root.sqrt() });
                    } else if beta == 0.5 {
                        divide(x, sums, bias, scale, f32::sqrt);
                    } else if beta == 1.0 {
                        divide(x, sums, bias, scale, |s| s);
                    } else {
                        divide(x, sums, bias, scale, |s| s.powf(beta));
                    }
                }
            }
        }
    }
}
