//! Inner products modulo p = 2^61 - 1 of secret residues and signed integers.
//!
//! Secrets are cut into limbs of 21 bits, so that sums of a thousand products fit a 64-bit word; residues are made
//! once a row, not once an element.

use crate::dispatch::{Isa, Kernels};
use crate::error::{KernelError, length};

/// The prime of the integrity check.
pub const P: u64 = (1 << 61) - 1;

/// A vector over a tensor that is a product of two: `v[o, c, i] = a[c] * beta[o * inner + i]`, row-major.
///
/// All entries are residues below p = 2^61 - 1.
#[derive(Clone, Copy)]
pub struct RankOne<'a> {
    /// One residue a channel.
    pub a: &'a [u64],
    /// One residue a position, `outer * inner` of them.
    pub beta: &'a [u64],
    /// Positions that lie behind one another in a channel, at least 1.
    pub inner: usize,
}

impl Kernels {
    /// `sum v * x mod p` in `[0, p)`, p = 2^61 - 1, for residues `v < p`.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn dot_p61_i32(self, v: &[u64], x: &[i32]) -> Result<u64, KernelError> {
        length("dot operand", v.len(), x.len())?;
        Ok(self.sums(Dot { v, x }))
    }

    /// `sum v * x mod p` in `[0, p)`, p = 2^61 - 1, for residues `v < p` and `|x| < 2^59`.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn dot_p61_i64(self, v: &[u64], x: &[i64]) -> Result<u64, KernelError> {
        length("dot operand", v.len(), x.len())?;
        Ok(self.sums(Dot { v, x }))
    }

    /// The part of `sum v * x mod p` that the elements from number `start` of the tensor make: parts of a tensor, in
    /// any cut, add up to the whole modulo p.
    ///
    /// # Errors
    /// `v` that is not made of whole rows; elements beyond the end of `v`.
    pub fn rank_one_p61_i32(self, v: &RankOne<'_>, start: usize, x: &[i32]) -> Result<u64, KernelError> {
        self.rank_one_p61(v, start, x)
    }

    /// As [`Kernels::rank_one_p61_i32`], for `|x| < 2^59`.
    ///
    /// # Errors
    /// `v` that is not made of whole rows; elements beyond the end of `v`.
    pub fn rank_one_p61_i64(self, v: &RankOne<'_>, start: usize, x: &[i64]) -> Result<u64, KernelError> {
        self.rank_one_p61(v, start, x)
    }

    fn rank_one_p61<T: Limbs>(self, v: &RankOne<'_>, start: usize, x: &[T]) -> Result<u64, KernelError> {
        if v.inner == 0 {
            return Err(KernelError::Zero { what: "a row of check factors" });
        }
        let too_large = KernelError::TooLarge { what: "a tensor of check factors" };
        length("check factors", v.beta.len().next_multiple_of(v.inner), v.beta.len())?;
        let total = v.a.len().checked_mul(v.beta.len()).ok_or(too_large.clone())?;
        let end = start.checked_add(x.len()).ok_or(too_large)?;
        length("check factors", end.max(total), total)?;
        Ok(self.sums(Product { v: *v, start, x }))
    }
}

/// A signed integer of a check.
trait Limbs: Copy + Default {
    /// A number below 2^127 in magnitude that equals `sum v * x` modulo p, for at most [`FLUSH`] elements.
    fn sum<S: LimbSums>(v: &[u64], x: &[Self]) -> i128;
}

/// Elements after which sums of limbs are brought together: `2^10 * 2^52` fits an i64.
const FLUSH: usize = 1 << 10;
/// Low 21 bits.
pub(super) const LIMB: u64 = (1 << 21) - 1;
/// Bits of the lower limb of a 64-bit integer; the upper one is signed.
pub(super) const LOW_BITS: u32 = 30;

/// Sums of products of limbs, over at most [`FLUSH`] elements of slices of equal lengths. A residue has three limbs of
/// 21 bits.
pub(super) trait LimbSums {
    /// For each limb of `v`, its products with `x`, at most 2^52 each.
    fn narrow(v: &[u64], x: &[i32]) -> [i64; 3];
    /// For each limb of `v`, its products with the lower limb of `x`, then with the upper one, at most 2^51 each.
    fn wide(v: &[u64], x: &[i64]) -> [[i64; 3]; 2];
}

/// Without vectors.
enum Scalar {}

impl LimbSums for Scalar {
    #[inline(always)]
    fn narrow(v: &[u64], x: &[i32]) -> [i64; 3] {
        v.iter().zip(x).fold([0; 3], |sums, (v, x)| plus(sums, i64::from(*x), *v))
    }

    #[inline(always)]
    fn wide(v: &[u64], x: &[i64]) -> [[i64; 3]; 2] {
        v.iter().zip(x).fold([[0; 3]; 2], |[low, high], (v, x)| {
            [plus(low, x & ((1 << LOW_BITS) - 1), *v), plus(high, x >> LOW_BITS, *v)]
        })
    }
}

/// `sums + x * v`, limb by limb.
#[inline(always)]
fn plus([s0, s1, s2]: [i64; 3], x: i64, v: u64) -> [i64; 3] {
    [s0 + x * (v & LIMB) as i64, s1 + x * (v >> 21 & LIMB) as i64, s2 + x * (v >> 42) as i64]
}

impl Limbs for i32 {
    #[inline(always)]
    fn sum<S: LimbSums>(v: &[u64], x: &[i32]) -> i128 {
        join(S::narrow(v, x))
    }
}

impl Limbs for i64 {
    #[inline(always)]
    fn sum<S: LimbSums>(v: &[u64], x: &[i64]) -> i128 {
        let [low, high] = S::wide(v, x);
        join(low) + (i128::from(reduce(join(high))) << LOW_BITS)
    }
}

/// What sums of limbs, each below 2^62, stand for.
#[inline(always)]
fn join(sums: [i64; 3]) -> i128 {
    let [s0, s1, s2] = sums.map(i128::from);
    s0 + (s1 << 21) + (s2 << 42)
}

/// Work that needs sums of limbs.
trait Sums {
    fn run<S: LimbSums>(self) -> u64;
}

impl Kernels {
    /// Runs with the sums of the instruction set.
    fn sums<T: Sums>(self, work: T) -> u64 {
        match self.isa() {
            Isa::Portable | Isa::Neon => work.run::<Scalar>(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => work.run::<super::avx2::Avx2Sums>(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni => work.run::<super::avx512::Avx512Sums>(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => work.run::<Scalar>(),
        }
    }
}

struct Dot<'a, T> {
    v: &'a [u64],
    x: &'a [T],
}

impl<T: Limbs> Sums for Dot<'_, T> {
    fn run<S: LimbSums>(self) -> u64 {
        dot::<S, T>(self.v, self.x)
    }
}

#[inline(always)]
fn dot<S: LimbSums, T: Limbs>(v: &[u64], x: &[T]) -> u64 {
    v.chunks(FLUSH).zip(x.chunks(FLUSH)).fold(0, |total, (v, x)| add(total, reduce(T::sum::<S>(v, x))))
}

struct Product<'a, T> {
    v: RankOne<'a>,
    start: usize,
    x: &'a [T],
}

impl<T: Limbs> Sums for Product<'_, T> {
    fn run<S: LimbSums>(self) -> u64 {
        let Product { v: RankOne { a, beta, inner }, start, mut x } = self;
        let mut total = Total::default();
        // With one position a row the channels are the rows, and a position's residue their common factor.
        let (len, columns) = if inner == 1 { (a.len(), 1) } else { (inner, a.len()) };
        let (mut row, mut within) = (start.checked_div(len).unwrap_or(0), start.checked_rem(len).unwrap_or(0));
        while !x.is_empty() {
            let (now, later) = x.split_at((len - within).min(x.len()));
            let (outer, column) = (row / columns, row % columns);
            let (vector, factor) =
                if inner == 1 { (a, beta[row]) } else { (&beta[outer * inner..][..inner], a[column]) };
            total.add(dot::<S, T>(&vector[within..within + now.len()], now), factor);
            (x, row, within) = (later, row + 1, 0);
        }
        total.residue()
    }
}

/// A sum of products of residues that is reduced now and then only.
#[derive(Default)]
struct Total {
    sum: u128,
    terms: u32,
}

impl Total {
    #[inline(always)]
    fn add(&mut self, a: u64, b: u64) {
        // Products are below 2^122: 32 of them and a residue fit.
        self.sum += u128::from(a) * u128::from(b);
        self.terms += 1;
        if self.terms == 32 {
            *self = Total { sum: self.residue().into(), terms: 0 };
        }
    }

    #[inline(always)]
    fn residue(&self) -> u64 {
        let folded = (self.sum & u128::from(P)) + (self.sum >> 61); // below 2^68
        reduce(folded as i128)
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
fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= P { sum - P } else { sum }
}
