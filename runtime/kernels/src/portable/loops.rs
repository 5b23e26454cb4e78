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

/// The prime of the integrity check.
pub const P: u64 = (1 << 61) - 1;

loops! {
    /// The largest bit pattern as a signed and as an unsigned number.
    fn scan<'a>(x: &'a [f32]) -> (i32, u32) {
        x.iter().fold((0, 0), |(hi, lo), v| (hi.max(v.to_bits() as i32), lo.max(v.to_bits())))
    }

    /// Products with a power of two, rounded half to even; saturates.
    fn encode<'a>(x: &'a [f32], scale: f32, out: &'a mut [i32]) -> () {
        for (out, x) in out.iter_mut().zip(x) {
            *out = (*x * scale).round_ties_even() as i32;
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

    /// Signed value of the low k bits. Without an arithmetic shift of 64 bits, which AVX2 lacks.
    fn lift<'a, W>(x: &'a [W], k: u32, out: &'a mut [i64]) -> () {
        let keep = u64::MAX >> (64 - k);
        let sign = 1u64 << (k - 1);
        for (out, x) in out.iter_mut().zip(x) {
            *out = (((x.to_u64() & keep) ^ sign).wrapping_sub(sign)) as i64;
        }
    }

    /// `f32(f64(z) * scale + f64(bias))`: one product, one sum, one rounding, never fused.
    fn decode_row<'a>(z: &'a [i64], scale: f64, bias: f64, out: &'a mut [f32]) -> () {
        for (out, z) in out.iter_mut().zip(z) {
            *out = (*z as f64 * scale + bias) as f32;
        }
    }

    /// `sum v * x mod p`. The secret in limbs of 21 bits: `|x * limb| <= 2^52`, so 2^10 of them fit an i64.
    fn dot_p61_i32<'a>(v: &'a [u64], x: &'a [i32]) -> u64 {
        const LIMB: u64 = (1 << 21) - 1;
        let mut total = 0;
        for (v, x) in v.chunks(1 << 10).zip(x.chunks(1 << 10)) {
            let (mut s0, mut s1, mut s2) = (0i64, 0i64, 0i64);
            for (v, x) in v.iter().zip(x) {
                let x = i64::from(*x);
                s0 += x * i64::from((v & LIMB) as i32);
                s1 += x * i64::from((v >> 21 & LIMB) as i32);
                s2 += x * i64::from((v >> 42 & LIMB) as i32);
            }
            total = add_p61(total, reduce(i128::from(s0) + (i128::from(s1) << 21) + (i128::from(s2) << 42)));
        }
        total
    }

    /// `sum v * x mod p`. Products are below 2^120, so 2^6 of them fit an i128.
    fn dot_p61_i64<'a>(v: &'a [u64], x: &'a [i64]) -> u64 {
        let mut total = 0;
        for (v, x) in v.chunks(1 << 6).zip(x.chunks(1 << 6)) {
            let products = v.iter().zip(x).map(|(v, x)| i128::from(v & P) * i128::from(*x));
            total = add_p61(total, reduce(products.fold(0, i128::wrapping_add)));
        }
        total
    }
}

/// The residue modulo p of any i128, without a division: 2^61 = 1, so high parts are added to the low part.
#[inline(always)]
fn reduce(v: i128) -> u64 {
    let p = i128::from(P);
    let v = (v & p) + (v >> 61); // in (-2^66, 2^66 + 2^61)
    let v = (v & p) + (v >> 61); // in [-33, p + 33]
    let v = if v < 0 { v + p } else { v };
    (if v >= p { v - p } else { v }) as u64
}

/// Sum of two residues modulo p.
#[inline(always)]
fn add_p61(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= P { sum - P } else { sum }
}
