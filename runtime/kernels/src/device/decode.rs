//! Checked integers to real numbers, row by row, with the activation that follows.

use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::vector::{Level, Task};

/// What is done to a decoded value at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Nothing.
    None,
    /// The larger one of the value and +0.0; -0.0 becomes +0.0.
    Relu,
    /// `min(max(y, min), max)`. Equal values take the bound's bits, so that a zero bound gives its own sign.
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
}

/// The constants of a decoding: rows of `run` neighbours share a factor and a bias, and after the last row of the
/// table its first one comes again (the next batch entry).
#[derive(Clone, Copy, Debug)]
pub struct DecodeRows<'a> {
    /// Elements of a row, at least 1; 1 where each element has its own constants.
    pub run: usize,
    /// One factor a row, `scale * 2^-a`.
    pub factors: &'a [f64],
    /// One bias a row.
    pub biases: &'a [f32],
    /// What follows.
    pub activation: Activation,
}

impl Kernels {
    /// `out = activation(f32(f64(z) * factor + f64(bias)))`: one product, one sum, one rounding to f32, never fused.
    /// `z` are the elements from number `start` of the tensor.
    ///
    /// # Errors
    /// Slices of different lengths; tables of different lengths, or empty ones.
    pub fn decode_rows_i32(
        self,
        z: &[i32],
        start: usize,
        rows: &DecodeRows<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        self.decode_rows(z, start, rows, out)
    }

    /// As [`Kernels::decode_rows_i32`].
    ///
    /// # Errors
    /// Slices of different lengths; tables of different lengths, or empty ones.
    pub fn decode_rows_i64(
        self,
        z: &[i64],
        start: usize,
        rows: &DecodeRows<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        self.decode_rows(z, start, rows, out)
    }

    fn decode_rows<T: Real>(
        self,
        z: &[T],
        start: usize,
        rows: &DecodeRows<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        length("decode output", z.len(), out.len())?;
        length("decode biases", rows.factors.len(), rows.biases.len())?;
        if rows.run == 0 || rows.factors.is_empty() {
            return Err(KernelError::Zero { what: "rows of a decoding" });
        }
        self.run(Decode { z, start, rows: *rows, out });
        Ok(())
    }
}

/// An integer that becomes a real number.
trait Real: Copy {
    fn real(self) -> f64;
}

impl Real for i32 {
    #[inline(always)]
    fn real(self) -> f64 {
        self.into()
    }
}

impl Real for i64 {
    #[inline(always)]
    fn real(self) -> f64 {
        self as f64
    }
}

struct Decode<'a, T> {
    z: &'a [T],
    start: usize,
    rows: DecodeRows<'a>,
    out: &'a mut [f32],
}

impl<T: Real> Task for Decode<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        // Comparisons as the vector instructions for maximum and minimum make them.
        match self.rows.activation {
            Activation::None => self.each(|y| y),
            Activation::Relu => self.each(|y| if y > 0.0 { y } else { 0.0 }),
            Activation::Clip { min, max } => self.each(|y| {
                let y = if y > min { y } else { min };
                if y < max { y } else { max }
            }),
        }
    }
}

impl<T: Real> Decode<'_, T> {
    #[inline(always)]
    fn each(self, activation: impl Fn(f32) -> f32 + Copy) {
        let Decode { z, start, rows: DecodeRows { run, factors, biases, .. }, out } = self;
        let one = move |z: T, factor: f64, bias: f32| activation((z.real() * factor + f64::from(bias)) as f32);
        let (mut z, mut out) = (z, out);
        if run == 1 {
            let mut at = start % factors.len();
            while !z.is_empty() {
                let now = (factors.len() - at).min(z.len());
                let (z_now, z_later) = z.split_at(now);
                let (out_now, out_later) = out.split_at_mut(now);
                let constants = factors[at..at + now].iter().zip(&biases[at..at + now]);
                for ((out, z), (factor, bias)) in out_now.iter_mut().zip(z_now).zip(constants) {
                    *out = one(*z, *factor, *bias);
                }
                (z, out, at) = (z_later, out_later, 0);
            }
            return;
        }
        let (mut row, mut within) = (start / run % factors.len(), start % run);
        while !z.is_empty() {
            let now = (run - within).min(z.len());
            let (z_now, z_later) = z.split_at(now);
            let (out_now, out_later) = out.split_at_mut(now);
            let (factor, bias) = (factors[row], biases[row]);
            for (out, z) in out_now.iter_mut().zip(z_now) {
                *out = one(*z, factor, bias);
            }
            (z, out, within) = (z_later, out_later, 0);
            row = if row + 1 == factors.len() { 0 } else { row + 1 };
        }
    }
}
