//! Functions of one and of two numbers, in place; means and softmax of rows.

use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::portable::loops::loops;
use crate::vector::{Level, Task};

/// A function of one number. NaN stays NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// `min(max(x, low), high)`.
    Clip {
        /// The least result.
        low: f32,
        /// The largest result.
        high: f32,
    },
    /// `x` where it is not negative, `slope * x` where it is.
    Leaky {
        /// Slope below zero.
        slope: f32,
    },
    /// `e^x`, within two units in the last place.
    Exp,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `min(max(slope * x + offset, 0), 1)`.
    HardSigmoid {
        /// Slope in the middle.
        slope: f32,
        /// Value at zero.
        offset: f32,
    },
    /// `x * min(max(x / 6 + 1 / 2, 0), 1)`.
    HardSwish,
    /// The square root.
    Sqrt,
    /// `-x`.
    Neg,
    /// The magnitude.
    Abs,
}

/// A function of two numbers, `x` and `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `x + y`.
    Add,
    /// `x - y`.
    Sub,
    /// `y - x`.
    SubFrom,
    /// `x * y`.
    Mul,
    /// `x / y`.
    Div,
    /// `y / x`.
    DivInto,
    /// The larger.
    Max,
    /// The smaller.
    Min,
    /// `x` where it is not negative, `x * y` where it is.
    Slope,
}

impl Kernels {
    /// Replaces each element by its function.
    pub fn unary(self, f: Unary, x: &mut [f32]) {
        match f {
            Unary::Clip { low, high } => clip(self, x, low, high),
            Unary::Leaky { slope } => leaky(self, x, slope),
            Unary::Exp => exp_all(self, x),
            Unary::Sigmoid => sigmoid(self, x),
            Unary::HardSigmoid { slope, offset } => hard_sigmoid(self, x, slope, offset),
            Unary::HardSwish => hard_swish(self, x),
            Unary::Sqrt => square_root(self, x),
            Unary::Neg => negate(self, x),
            Unary::Abs => magnitude(self, x),
        }
    }

    /// Replaces each element of `x` by its function with the element of `y` at the same place.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn binary(self, f: Binary, x: &mut [f32], y: &[f32]) -> Result<(), KernelError> {
        length("second operand", x.len(), y.len())?;
        with_each(self, f, x, y);
        Ok(())
    }

    /// Replaces each element of `x` by its function with `y`.
    pub fn binary_scalar(self, f: Binary, x: &mut [f32], y: f32) {
        with_one(self, f, x, y);
    }

    /// The mean of each row of `row` elements.
    ///
    /// # Errors
    /// Another number of elements than `out` has rows; rows of no elements.
    pub fn means(self, x: &[f32], row: usize, out: &mut [f32]) -> Result<(), KernelError> {
        rows(x.len(), row, out.len())?;
        row_means(self, x, row, out);
        Ok(())
    }

    /// Replaces each row of `row` elements by `e^x`, divided by the sum of the row.
    ///
    /// # Errors
    /// A number of elements that rows do not fill; rows of no elements.
    pub fn softmax(self, x: &mut [f32], row: usize) -> Result<(), KernelError> {
        rows(x.len(), row, x.len() / row.max(1))?;
        row_softmax(self, x, row);
        Ok(())
    }
}

/// `Err` unless so many rows have so many elements.
fn rows(elements: usize, row: usize, rows: usize) -> Result<(), KernelError> {
    if row == 0 {
        return Err(KernelError::Zero { what: "row length" });
    }
    length("rows", rows.checked_mul(row).ok_or(KernelError::TooLarge { what: "rows" })?, elements)
}

/// The larger; `b` where one is NaN. One instruction, unlike `f32::max`.
#[inline(always)]
pub fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller; `b` where one is NaN.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// `e^x`. The exponent of two is rounded off by adding a number so large that its last place is 1; the rest, at most
/// `ln(2) / 2`, goes through a polynomial (its coefficients are those of the Cephes library's `expf`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    const LN2_HIGH: f32 = 0.693_359_4; // nine bits, so that its products with exponents are exact
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = smaller(89.0, larger(-104.0, x));
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + c;
    }
    let e = p * (r * r) + r + 1.0;
    // In two steps: the exponent alone reaches beyond those of normal numbers.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    e * power(half) * power(n.wrapping_sub(half))
}

#[inline(always)]
fn apply(x: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = f(*x, *y);
    }
}

#[inline(always)]
fn apply_one(x: &mut [f32], y: f32, f: impl Fn(f32, f32) -> f32) {
    for x in x {
        *x = f(*x, y);
    }
}

/// Calls `$apply` with the function of two numbers, one loop each.
macro_rules! for_binary {
    ($f:expr, $apply:ident($x:expr, $y:expr)) => {
        match $f {
            Binary::Add => $apply($x, $y, |x, y| x + y),
            Binary::Sub => $apply($x, $y, |x, y| x - y),
            Binary::SubFrom => $apply($x, $y, |x, y| y - x),
            Binary::Mul => $apply($x, $y, |x, y| x * y),
            Binary::Div => $apply($x, $y, |x, y| x / y),
            Binary::DivInto => $apply($x, $y, |x, y| y / x),
            Binary::Max => $apply($x, $y, |x, y| larger(y, x)),
            Binary::Min => $apply($x, $y, |x, y| smaller(y, x)),
            Binary::Slope => $apply($x, $y, |x, y| if x < 0.0 { x * y } else { x }),
        }
    };
}

loops! {
    fn clip<'a>(x: &'a mut [f32], low: f32, high: f32) -> () {
        for x in x {
            *x = smaller(high, larger(low, *x));
        }
    }

    fn leaky<'a>(x: &'a mut [f32], slope: f32) -> () {
        for x in x {
            *x = if *x < 0.0 { slope * *x } else { *x };
        }
    }

    fn exp_all<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x = exp(*x);
        }
    }

    fn sigmoid<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x = 1.0 / (1.0 + exp(-*x));
        }
    }

    fn hard_sigmoid<'a>(x: &'a mut [f32], slope: f32, offset: f32) -> () {
        for x in x {
            *x = smaller(1.0, larger(0.0, slope * *x + offset));
        }
    }

    fn hard_swish<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x *= smaller(1.0, larger(0.0, *x * (1.0 / 6.0) + 0.5));
        }
    }

    fn square_root<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x = x.sqrt();
        }
    }

    fn negate<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x = -*x;
        }
    }

    fn magnitude<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x = x.abs();
        }
    }

    fn with_each<'a>(f: Binary, x: &'a mut [f32], y: &'a [f32]) -> () {
        for_binary!(f, apply(x, y))
    }

    fn with_one<'a>(f: Binary, x: &'a mut [f32], y: f32) -> () {
        for_binary!(f, apply_one(x, y))
    }

    fn row_means<'a>(x: &'a [f32], row: usize, out: &'a mut [f32]) -> () {
        for (x, out) in x.chunks_exact(row).zip(out) {
            *out = super::sum(x) / row as f32;
        }
    }

    fn row_softmax<'a>(x: &'a mut [f32], row: usize) -> () {
        for x in x.chunks_exact_mut(row) {
            let top = x.iter().fold(f32::NEG_INFINITY, |top, x| larger(top, *x));
            for x in &mut *x {
                *x = exp(*x - top);
            }
            let sum = super::sum(x);
            for x in x {
                *x /= sum;
            }
        }
    }
}
