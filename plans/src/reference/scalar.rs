//! What a linear map can be evaluated over: ring words, integers, the check field, real numbers.

use std::fmt::Debug;

/// The prime of the check field, `2^61 - 1`.
pub const P61: u64 = (1 << 61) - 1;

/// An element of a commutative ring that integers act on.
pub trait Scalar: Copy + PartialEq + Debug + Default + Send + Sync + 'static {
    /// The neutral element of addition.
    const ZERO: Self;
    /// The sum.
    fn add(self, other: Self) -> Self;
    /// The difference.
    fn sub(self, other: Self) -> Self;
    /// The product with an integer.
    fn mul_int(self, w: i64) -> Self;
}

/// A scalar that weights of type `W` multiply.
pub trait Weighted<W>: Scalar {
    /// `self + x * w`; for `f64`, one rounded product and one rounded sum.
    fn mul_add(self, x: Self, w: W) -> Self;
}

/// The weight 1, for sums over windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct One;

impl<S: Scalar> Weighted<One> for S {
    #[inline]
    fn mul_add(self, x: S, _: One) -> S {
        self.add(x)
    }
}

macro_rules! wrapping {
    ($($type:ty),*) => {$(
        impl Scalar for $type {
            const ZERO: $type = 0;
            #[inline]
            fn add(self, other: $type) -> $type {
                self.wrapping_add(other)
            }
            #[inline]
            fn sub(self, other: $type) -> $type {
                self.wrapping_sub(other)
            }
            #[inline]
            fn mul_int(self, w: i64) -> $type {
                // Truncation of the two's complement is the reduction modulo 2^32 or 2^64.
                self.wrapping_mul(w as $type)
            }
        }
        wrapping!(@weights $type, i16, i32);
    )*};
    (@weights $type:ty, $($w:ty),*) => {$(
        impl Weighted<$w> for $type {
            #[inline]
            fn mul_add(self, x: $type, w: $w) -> $type {
                self.wrapping_add(x.wrapping_mul(w as $type))
            }
        }
    )*};
}

wrapping!(u32, u64, i64);

impl Scalar for f64 {
    const ZERO: f64 = 0.0;
    #[inline]
    fn add(self, other: f64) -> f64 {
        self + other
    }
    #[inline]
    fn sub(self, other: f64) -> f64 {
        self - other
    }
    #[inline]
    fn mul_int(self, w: i64) -> f64 {
        self * w as f64
    }
}

macro_rules! real_weights {
    ($($w:ty),*) => {$(
        impl Weighted<$w> for f64 {
            #[inline]
            fn mul_add(self, x: f64, w: $w) -> f64 {
                self + x * f64::from(w)
            }
        }
    )*};
}

real_weights!(i16, i32, f32, f64);

/// An element of F_p, p = `2^61 - 1`, always reduced (`docs/formats.md`, check data; protocol section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fp(u64);

impl Fp {
    /// The residue of an unsigned integer.
    #[inline]
    pub fn new(v: u64) -> Fp {
        let v = (v & P61) + (v >> 61);
        Fp(if v >= P61 { v - P61 } else { v })
    }

    /// The residue of a signed integer.
    #[inline]
    pub fn from_int(v: i64) -> Fp {
        let m = Fp::new(v.unsigned_abs());
        if v < 0 { Fp::ZERO.sub(m) } else { m }
    }

    /// The representative in `[0, p)`.
    #[inline]
    pub fn value(self) -> u64 {
        self.0
    }

    /// The product in the field.
    #[inline]
    pub fn times(self, other: Fp) -> Fp {
        // Both factors are below 2^61, so each half of the product is too.
        let product = u128::from(self.0) * u128::from(other.0);
        let sum = (product as u64 & P61) + (product >> 61) as u64;
        Fp(if sum >= P61 { sum - P61 } else { sum })
    }
}

impl Scalar for Fp {
    const ZERO: Fp = Fp(0);
    #[inline]
    fn add(self, other: Fp) -> Fp {
        let sum = self.0 + other.0;
        Fp(if sum >= P61 { sum - P61 } else { sum })
    }
    #[inline]
    fn sub(self, other: Fp) -> Fp {
        Fp(if self.0 >= other.0 { self.0 - other.0 } else { self.0 + P61 - other.0 })
    }
    #[inline]
    fn mul_int(self, w: i64) -> Fp {
        self.times(Fp::from_int(w))
    }
}

macro_rules! field_weights {
    ($($w:ty),*) => {$(
        impl Weighted<$w> for Fp {
            #[inline]
            fn mul_add(self, x: Fp, w: $w) -> Fp {
                self.add(x.mul_int(i64::from(w)))
            }
        }
    )*};
}

field_weights!(i16, i32);

impl Weighted<Fp> for Fp {
    #[inline]
    fn mul_add(self, x: Fp, w: Fp) -> Fp {
        self.add(x.times(w))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares field arithmetic with u128 remainders, at the borders where a reduction may be forgotten.
    #[test]
    fn field_arithmetic_is_that_of_remainders() {
        let p = u128::from(P61);
        let cases = [0, 1, 2, 3, P61 / 2, P61 - 2, P61 - 1, 0x0123_4567_89ab_cdef];
        for a in cases {
            for b in cases {
                let (x, y) = (Fp::new(a), Fp::new(b));
                let (a, b) = (u128::from(a), u128::from(b));
                assert_eq!(u128::from(x.add(y).value()), (a + b) % p);
                assert_eq!(u128::from(x.sub(y).value()), (a + p - b) % p);
                assert_eq!(u128::from(x.times(y).value()), a * b % p);
            }
        }
        for v in [P61, P61 + 1, 2 * P61, u64::MAX, u64::MAX - 7] {
            assert_eq!(Fp::new(v).value(), v % P61);
        }
    }

    #[test]
    fn signed_integers_reduce_like_euclid() {
        for v in [0, -1, 1, i64::MIN, i64::MAX, -(P61 as i64), P61 as i64 - 1] {
            assert_eq!(i128::from(Fp::from_int(v).value()), i128::from(v).rem_euclid(i128::from(P61)));
            assert_eq!(Fp::new(5).mul_int(v), Fp::new(5).times(Fp::from_int(v)));
        }
    }

    #[test]
    fn ring_words_wrap_and_take_negative_weights() {
        assert_eq!(7u32.mul_int(-1), 7u32.wrapping_neg());
        assert_eq!(Weighted::<i16>::mul_add(1u32, 3, -2), 1u32.wrapping_sub(6));
        assert_eq!(Weighted::<i32>::mul_add(1u64, u64::MAX, 5), 1u64.wrapping_sub(5));
        assert_eq!(Weighted::<f32>::mul_add(1.0f64, 2.0, 0.5), 2.0);
    }
}
