//! What the choice of exponents needs to know of a tensor: sums of squares over the windows of a linear map.

use super::exponent_scale;
use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::vector::{Level, Task};

/// No `q` is larger: the caller's exponent keeps all values at most 2^15, and others count as that.
const LARGEST: f32 = 32768.0;

impl Kernels {
    /// `sums += q^2`, `q = ceil(|x| * 2^exponent)`, which must be at most 2^15 (larger ones count as that).
    ///
    /// # Errors
    /// Slices of different lengths; an exponent outside [-126, 126].
    pub fn add_squares(self, x: &[f32], exponent: i32, sums: &mut [u64]) -> Result<(), KernelError> {
        length("sums of squares", x.len(), sums.len())?;
        self.run(AddSquares { x, scale: exponent_scale(exponent)?, sums });
        Ok(())
    }

    /// The sum of `q^2`, `q = ceil(|x| * 2^exponent)`, which must be at most 2^15 (larger ones count as that).
    ///
    /// # Errors
    /// An exponent outside [-126, 126].
    pub fn sum_squares(self, x: &[f32], exponent: i32) -> Result<u64, KernelError> {
        Ok(self.run(SumSquares { x, scale: exponent_scale(exponent)? }))
    }
}

/// `ceil(|x| * scale)^2`, at most 2^30. A power of two makes the product exact, or so small that it may vanish: what
/// is not zero counts as something.
#[inline(always)]
fn square(x: f32, scale: f32) -> u32 {
    let exact = x.abs() * scale;
    let exact = if exact < LARGEST { exact } else { LARGEST };
    let exact = if exact > 0.0 || x == 0.0 { exact } else { f32::MIN_POSITIVE };
    // SAFETY: in [0, 2^15]; NaN was not below the largest value.
    let whole: i32 = unsafe { exact.to_int_unchecked() };
    let q = (whole + i32::from((whole as f32) < exact)) as u32;
    q * q
}

struct AddSquares<'a> {
    x: &'a [f32],
    scale: f32,
    sums: &'a mut [u64],
}

impl Task for AddSquares<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for (sum, x) in self.sums.iter_mut().zip(self.x) {
            *sum += u64::from(square(*x, self.scale));
        }
    }
}

struct SumSquares<'a> {
    x: &'a [f32],
    scale: f32,
}

impl Task for SumSquares<'_> {
    type Out = u64;

    #[inline(always)]
    fn run<L: Level>(self) -> u64 {
        self.x.iter().map(|x| u64::from(square(*x, self.scale))).sum()
    }
}
