//! Loops over vectors of numbers: portable source, compiled for each instruction set. Callers have checked lengths.

use crate::dispatch::Kernels;
use crate::vector::{Level, Task};
use crate::word::Ring;

/// Turns functions into tasks and gives each a first argument that says for which instruction set to run.
macro_rules! loops {
    ($($(#[$doc:meta])* fn $name:ident<$life:lifetime $(, $w:ident)?>($($arg:ident: $type:ty),* $(,)?) -> $out:ty $body:block)*) => {
        $(
            $(#[$doc])*
            pub fn $name<$life $(, $w: Ring)?>(kernels: Kernels, $($arg: $type),*) -> $out {
                struct Call<$life $(, $w)?> {
                    $($arg: $type,)*
                    life: std::marker::PhantomData<&$life ()>,
                }
                impl<$life $(, $w: Ring)?> Task for Call<$life $(, $w)?> {
                    type Out = $out;

                    #[inline(always)]
                    fn run<L: Level>(self) -> $out {
                        let Call { $($arg,)* life: _ } = self;
                        $body
                    }
                }
                kernels.run(Call { $($arg,)* life: std::marker::PhantomData })
            }
        )*
    };
}

pub(crate) use loops;

loops! {
    /// The largest bit pattern as a signed and as an unsigned number.
    fn scan<'a>(x: &'a [f32]) -> (i32, u32) {
        x.iter().fold((0, 0), |(hi, lo), v| (hi.max(v.to_bits() as i32), lo.max(v.to_bits())))
    }

    /// Products with a power of two, rounded half to even; saturates.
    fn encode<'a>(x: &'a [f32], scale: f32, out: &'a mut [i32]) -> () {
        for (out, x) in out.iter_mut().zip(x) {
            *out = quantise(*x, scale);
        }
    }

    /// Sign extension into words.
    fn embed<'a, W>(x: &'a [i32], out: &'a mut [W]) -> () {
        for (out, x) in out.iter_mut().zip(x) {
            *out = W::from_i32(*x);
        }
    }

    /// Wrapping sums.
    fn add_assign<'a, W>(x: &'a mut [W], other: &'a [W]) -> () {
        for (x, other) in x.iter_mut().zip(other) {
            *x = x.plus(*other);
        }
    }

    /// Wrapping differences.
    fn sub_assign<'a, W>(x: &'a mut [W], other: &'a [W]) -> () {
        for (x, other) in x.iter_mut().zip(other) {
            *x = x.minus(*other);
        }
    }

    /// Signed values of the low k bits.
    fn lift<'a, W>(x: &'a [W], k: u32, out: &'a mut [i64]) -> () {
        for (out, x) in out.iter_mut().zip(x) {
            *out = signed(x.to_u64(), k);
        }
    }

    /// `f32(f64(z) * scale + f64(bias))`: one product, one sum, one rounding, never fused.
    fn decode_row<'a>(z: &'a [i64], scale: f64, bias: f64, out: &'a mut [f32]) -> () {
        for (out, z) in out.iter_mut().zip(z) {
            *out = (*z as f64 * scale + bias) as f32;
        }
    }
}

/// A product with a power of two, rounded half to even; saturates, and NaN becomes 0.
#[inline(always)]
pub fn quantise(x: f32, scale: f32) -> i32 {
    const END: f32 = 2_147_483_648.0;
    let exact = x * scale;
    // The plain conversion of what is in range; one that saturates by itself is not vectorised.
    let inside = if exact < END { exact } else { 0.0 };
    let inside = if inside > -END { inside } else { -END };
    // SAFETY: finite and in [-2^31, 2^31), and f32 has no fractions near the ends.
    let whole = unsafe { inside.round_ties_even().to_int_unchecked() };
    if exact >= END { i32::MAX } else { whole }
}

/// Signed value of the low k bits. Without an arithmetic shift of 64 bits, which AVX2 lacks.
#[inline(always)]
pub fn signed(v: u64, k: u32) -> i64 {
    let sign = 1u64 << (k - 1);
    ((v & (u64::MAX >> (64 - k))) ^ sign).wrapping_sub(sign) as i64
}
