//! Real numbers to integers and back: scan, exponents, encode, lift, decode.
//!
//! Every step is either exact or one rounding to nearest-even, so that the results are the same bits on every
//! machine. The bounds are sound for the integer weights they were made from: no result of a linear map reaches
//! `2^(k-1)`, whatever the input.

use super::moves::{Walk, broadcast};
use crate::plan::{Bound, Patch, Range};
use crate::value::Shape;

/// Smallest and largest exponent.
pub const EXPONENTS: std::ops::RangeInclusive<i32> = -126..=126;

/// Why real numbers have no integer form, or a constant does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The tensor holds NaN or an infinity. Nothing was sent.
    #[error("the tensor holds NaN or an infinity; check the request's input")]
    NotFinite,
    /// Not even the smallest exponent keeps the bounds.
    #[error("no exponent keeps the bounds of group {group}: the values are too large to outsource")]
    NoExponent {
        /// The group of axis 1.
        group: usize,
    },
    /// Sizes that do not fit each other.
    #[error("{0}")]
    Shape(String),
}

fn shape_error(reason: impl Into<String>) -> NumberError {
    NumberError::Shape(reason.into())
}

/// `2^a` from its exponent bits, for `a` in `[-1022, 1023]` (clamped): `powi` promises no precision.
#[inline]
pub fn pow2(a: i32) -> f64 {
    f64::from_bits(((1023 + a.clamp(-1022, 1023)) as u64) << 52)
}

/// Largest positive value and largest magnitude of the negative ones, 0 where there is none.
///
/// # Errors
/// [`NumberError::NotFinite`].
pub fn scan(x: &[f32]) -> Result<(f32, f32), NumberError> {
    let (mut hi, mut lo) = (0i32, 0u32);
    for v in x {
        hi = hi.max(v.to_bits() as i32);
        lo = lo.max(v.to_bits());
    }
    range_of_bits(hi, lo)
}

/// The result of [`scan`] from the maxima of the bit patterns as `i32` (at least 0) and as `u32`.
fn range_of_bits(hi: i32, lo: u32) -> Result<(f32, f32), NumberError> {
    const INFINITY: u32 = 0x7f80_0000;
    // Without a negative value the unsigned maximum is a positive pattern, which says nothing about `lo`.
    let lo = if lo >= 0x8000_0000 { lo ^ 0x8000_0000 } else { 0 };
    let hi = hi as u32;
    if hi >= INFINITY || lo >= INFINITY {
        return Err(NumberError::NotFinite);
    }
    Ok((f32::from_bits(hi), f32::from_bits(lo)))
}

/// The loops over elements that the choice of exponents needs. A runtime has its own, equal to [`Plain`] bit for bit.
pub trait Measure {
    /// See [`scan`]; `None` where that refuses.
    fn scan(&self, x: &[f32]) -> Option<(f32, f32)>;

    /// `sums += q^2`, `q = ceil(|x| * 2^e) <= 2^15`, e in [-126, 126]; slices of equal lengths.
    fn add_squares(&self, x: &[f32], e: i32, sums: &mut [u64]);

    /// The sum of all `q^2`.
    fn sum_squares(&self, x: &[f32], e: i32) -> u64;
}

/// The meaning of [`Measure`].
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Measure for Plain {
    fn scan(&self, x: &[f32]) -> Option<(f32, f32)> {
        scan(x).ok()
    }

    fn add_squares(&self, x: &[f32], e: i32, sums: &mut [u64]) {
        let scale = pow2(e);
        sums.iter_mut().zip(x).for_each(|(s, v)| *s += square(*v, scale));
    }

    fn sum_squares(&self, x: &[f32], e: i32) -> u64 {
        let scale = pow2(e);
        x.iter().map(|v| square(*v, scale)).sum()
    }
}

/// The parts of a tensor that share one exponent: `groups` equal parts of axis 1.
#[derive(Clone, Copy, Debug)]
struct Groups {
    batch: usize,
    groups: usize,
    /// Channels of a group; 1 where the tensor has no axis 1.
    channels: usize,
    /// Elements of a channel.
    pixels: usize,
}

impl Groups {
    fn new(len: usize, shape: &Shape, groups: usize) -> Result<Groups, NumberError> {
        if shape.checked_len() != Some(len) {
            return Err(shape_error(format!("{len} elements where the shape {shape} was declared")));
        }
        let (batch, channels, pixels) = match shape.0.as_slice() {
            [] => (1, 1, 1),
            [n] => (1, 1, *n),
            [n, c, rest @ ..] => (*n, *c, rest.iter().product()),
        };
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(shape_error(format!("axis 1 of {shape} does not fall into {groups} groups")));
        }
        Ok(Groups { batch, groups, channels: channels / groups, pixels })
    }

    /// Elements of one group in one batch entry, which lie together.
    fn block(&self) -> usize {
        self.channels * self.pixels
    }

    /// The blocks of one group, one a batch entry.
    fn blocks<'a>(&self, x: &'a [f32], group: usize) -> impl Iterator<Item = &'a [f32]> {
        let (len, groups) = (self.block(), self.groups);
        (0..self.batch).filter_map(move |n| x.get((n * groups + group) * len..(n * groups + group + 1) * len))
    }
}

/// Chooses the exponent of each group: the largest `a` in [`EXPONENTS`] with every `|X| < 2^31` that keeps every
/// bound of the range, each by the weight sums or by Cauchy-Schwarz, whichever allows more. A group of zeros takes 0.
///
/// A bound may fall into finer parts than the groups: it then holds for each part with that part's own largest values,
/// and the strictest part of a group decides.
///
/// # Errors
/// [`NumberError`]; nothing of the tensor may be sent then.
pub fn exponents(x: &[f32], shape: &Shape, groups: usize, range: &Range) -> Result<Vec<i32>, NumberError> {
    exponents_by(&Plain, x, shape, groups, range)
}

/// [`exponents`] with other loops over the elements.
///
/// # Errors
/// [`NumberError`]; nothing of the tensor may be sent then.
pub fn exponents_by(
    measure: &impl Measure,
    x: &[f32],
    shape: &Shape,
    groups: usize,
    range: &Range,
) -> Result<Vec<i32>, NumberError> {
    // also refuses a tensor that no bound looks at
    measure.scan(x).ok_or(NumberError::NotFinite)?;
    Groups::new(x.len(), shape, groups)?;
    let mut limits: Vec<Option<i32>> = vec![None; groups];
    // without bounds only `|X| < 2^31` remains
    let bounds = range.bounds.iter().map(Some).chain(range.bounds.is_empty().then_some(None));
    for bound in bounds {
        let count = bound.map(|b| b.major.len()).filter(|n| *n != 1).unwrap_or(groups);
        let parts = Groups::new(x.len(), shape, count)?;
        if !count.is_multiple_of(groups) {
            return Err(shape_error(format!("a bound of {count} parts for {groups} groups")));
        }
        for part in 0..count {
            let (mut hi, mut lo) = (0f32, 0f32);
            for block in parts.blocks(x, part) {
                let (h, l) = measure.scan(block).ok_or(NumberError::NotFinite)?;
                (hi, lo) = (hi.max(h), lo.max(l));
            }
            if hi.max(lo) == 0.0 {
                continue;
            }
            let group = part / (count / groups);
            let limit = bound.map(|b| Limit::new(measure, b, x, shape, &parts, part, hi.max(lo))).transpose()?;
            let a = part_exponent((hi, lo), limit.as_ref()).ok_or(NumberError::NoExponent { group })?;
            limits[group] = Some(limits[group].map_or(a, |b| b.min(a)));
        }
    }
    Ok(limits.into_iter().map(|a| a.unwrap_or(0)).collect())
}

/// The largest exponent that one part of the tensor allows under one bound.
fn part_exponent((hi, lo): (f32, f32), limit: Option<&Limit>) -> Option<i32> {
    let fits = |a: i32| {
        let h = (f64::from(hi) * pow2(a)).round_ties_even();
        let l = (f64::from(lo) * pow2(a)).round_ties_even();
        h.max(l) <= f64::from(i32::MAX) && limit.is_none_or(|limit| limit.fits(a, h as u64, l as u64))
    };
    // Larger exponents only enlarge all sides, so the admitted ones are a prefix of the range.
    let (mut good, mut bad) = (*EXPONENTS.start() - 1, *EXPONENTS.end() + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    EXPONENTS.contains(&good).then_some(good)
}

/// One bound with what the Cauchy-Schwarz test needs to know of the tensor.
struct Limit {
    /// `2^(k-1)`.
    end: u128,
    major: u64,
    minor: u64,
    patch: Option<PatchSum>,
    square: u64,
}

impl Limit {
    fn new(
        measure: &impl Measure,
        bound: &Bound,
        x: &[f32],
        shape: &Shape,
        parts: &Groups,
        group: usize,
        top: f32,
    ) -> Result<Limit, NumberError> {
        let entry = |v: &[u64]| match v {
            [one] => Ok(*one),
            _ => v.get(group).copied().ok_or_else(|| shape_error(format!("a range without entry for group {group}"))),
        };
        if !(1..=64).contains(&bound.k) {
            return Err(shape_error(format!("a range for rings of {} bits", bound.k)));
        }
        let (patch, square) = match bound.square.as_slice() {
            [] => (None, 0),
            square => (Some(PatchSum::new(measure, x, shape, parts, group, top, &bound.patch)?), entry(square)?),
        };
        let end = 1u128 << (bound.k - 1);
        Ok(Limit { end, major: entry(&bound.major)?, minor: entry(&bound.minor)?, patch, square })
    }

    fn fits(&self, a: i32, h: u64, l: u64) -> bool {
        // h and l are below 2^31, the weight sums below 2^64: no overflow.
        let sums = u128::from(h.max(l)) * u128::from(self.major) + u128::from(h.min(l)) * u128::from(self.minor);
        sums < self.end || self.patch.as_ref().is_some_and(|patch| patch.fits(a, self.square, self.end))
    }
}

/// The largest sum of squares that one output row can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PatchSum {
    /// max over patches of the sum of `q^2`, `q = ceil(|x| * 2^e) <= 2^15`: integers, so that any order of summation
    /// gives the same number.
    sum: u64,
    e: i32,
    /// Inputs in a patch.
    len: u64,
}

impl PatchSum {
    fn new(
        measure: &impl Measure,
        x: &[f32],
        shape: &Shape,
        parts: &Groups,
        group: usize,
        top: f32,
        patch: &Patch,
    ) -> Result<PatchSum, NumberError> {
        // top < 2^(E+1), so that top * 2^(14-E) < 2^15.
        let e = (14 - (((f64::from(top).to_bits() >> 52) & 0x7ff) as i32 - 1023)).min(126);
        let blocks = parts.blocks(x, group);
        let (sum, len) = match patch {
            Patch::Whole => {
                let sum = blocks.map(|b| measure.sum_squares(b, e)).fold(0, u64::saturating_add);
                (sum, parts.batch * parts.block())
            }
            Patch::LastAxis => {
                // With two axes the last one is the one that falls into groups.
                let len = if shape.rank() <= 2 { parts.block() } else { shape.0.last().copied().unwrap_or(1) };
                let rows = blocks.flat_map(|b| b.chunks(len.max(1)));
                (rows.map(|r| measure.sum_squares(r, e)).max().unwrap_or(0), len)
            }
            Patch::Window { kernel, strides, dilations, pads_before, pads_after } => {
                let dims = shape.0.get(2..).unwrap_or(&[]);
                let lists = [kernel, strides, dilations, pads_before, pads_after];
                if shape.rank() < 2 || lists.iter().any(|l| l.len() != dims.len()) {
                    return Err(shape_error(format!("a range's window does not fit the axes of {shape}")));
                }
                let mut largest = 0;
                for block in blocks {
                    let mut sums = vec![0u64; parts.pixels];
                    for channel in block.chunks(parts.pixels.max(1)) {
                        measure.add_squares(channel, e, &mut sums);
                    }
                    let mut dims = dims.to_vec();
                    for a in 0..dims.len() {
                        let axis = Taps {
                            kernel: kernel[a],
                            stride: strides[a],
                            dilation: dilations[a],
                            before: pads_before[a],
                            after: pads_after[a],
                        };
                        sums = axis.sums(&sums, &mut dims, a)?;
                    }
                    largest = largest.max(sums.into_iter().max().unwrap_or(0));
                }
                (largest, kernel.iter().fold(parts.channels, |n, k| n.saturating_mul(*k)))
            }
        };
        Ok(PatchSum { sum, e, len: len as u64 })
    }

    /// `|W| * |X| < 2^(k-1)`: rounding moves each X by at most 1/2. Product, sum and square root are exactly rounded
    /// everywhere; the factor `1 + 2^-40` covers their error.
    fn fits(&self, a: i32, square: u64, end: u128) -> bool {
        let norm = (self.sum as f64).sqrt() * pow2(a - self.e) + 0.5 * (self.len as f64).sqrt();
        norm * (square as f64).sqrt() * (1.0 + pow2(-40)) < end as f64
    }
}

/// `ceil(|v| * scale)^2`. The conversion truncates; comparing tells whether something was cut off, and needs no
/// call where the processor lacks a rounding instruction.
#[inline]
fn square(v: f32, scale: f64) -> u64 {
    let exact = f64::from(v.abs()) * scale;
    let whole = exact as i32;
    let q = i64::from(whole) + i64::from(f64::from(whole) < exact);
    (q * q) as u64
}

/// The window of a patch along one axis.
struct Taps {
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
}

impl Taps {
    /// Sums over the windows along axis `a` of a tensor of sizes `dims`, which is updated.
    fn sums(&self, x: &[u64], dims: &mut [usize], a: usize) -> Result<Vec<u64>, NumberError> {
        let d = dims[a];
        let size = || {
            let gaps = self.kernel.checked_sub(1).filter(|_| self.dilation > 0)?;
            let span = gaps.checked_mul(self.dilation)?.checked_add(1)?;
            let padded = d.checked_add(self.before)?.checked_add(self.after)?;
            Some(padded.checked_sub(span)?.checked_div(self.stride)? + 1)
        };
        let Some(out) = size() else { return Err(shape_error("a range's window is larger than its axis")) };
        let outer: usize = dims[..a].iter().product();
        let inner: usize = dims[a + 1..].iter().product();
        dims[a] = out;
        if self.kernel == 1 && self.stride == 1 && out == d {
            return Ok(x.to_vec());
        }
        let mut y = vec![0u64; outer * out * inner];
        for o in 0..outer {
            let (x, y) = (&x[o * d * inner..][..d * inner], &mut y[o * out * inner..][..out * inner]);
            for tap in 0..self.kernel {
                // The windows whose element under this tap is not padding.
                let shift = tap * self.dilation;
                let first = self.before.saturating_sub(shift).div_ceil(self.stride);
                let end = (d + self.before).saturating_sub(shift).div_ceil(self.stride).min(out);
                if first >= end {
                    continue;
                }
                let from = first * self.stride + shift - self.before;
                if inner == 1 {
                    // One pass a tap; a stride of one has an arm of its own, where the elements lie side by side.
                    let to = &mut y[first..end];
                    match self.stride {
                        1 => to.iter_mut().zip(&x[from..]).for_each(|(t, v)| *t += v),
                        stride => to.iter_mut().zip(x[from..].iter().step_by(stride)).for_each(|(t, v)| *t += v),
                    }
                    continue;
                }
                for j in first..end {
                    let i = j * self.stride + shift - self.before;
                    let to = &mut y[j * inner..][..inner];
                    to.iter_mut().zip(&x[i * inner..][..inner]).for_each(|(t, v)| *t += v);
                }
            }
        }
        Ok(y)
    }
}

/// One element as an integer, `X = round-half-even(x * 2^a)`; saturates at the ends of `i32`, which exponents made by
/// [`exponents`] never reach.
#[inline]
pub fn encode_one(x: f32, a: i32) -> i32 {
    encode_scaled(x, pow2(a))
}

#[inline]
fn encode_scaled(x: f32, scale: f64) -> i32 {
    // The product with a power of two is exact. Adding 1.5 * 2^52 rounds to an integer, nearest-even, and leaves it in
    // the low bits of the mantissa.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let v = (f64::from(x) * scale).clamp(f64::from(i32::MIN), f64::from(i32::MAX));
    (v + MAGIC).to_bits() as i32
}

/// Encodes a tensor with one exponent a group (see [`exponents`]).
///
/// # Errors
/// [`NumberError::Shape`] if the elements, the shape and the exponents do not fit each other.
pub fn encode(x: &[f32], shape: &Shape, exponents: &[i32]) -> Result<Vec<i32>, NumberError> {
    let parts = Groups::new(x.len(), shape, exponents.len())?;
    let mut out = Vec::with_capacity(x.len());
    for n in 0..parts.batch {
        for (group, a) in exponents.iter().enumerate() {
            let start = (n * parts.groups + group) * parts.block();
            let scale = pow2(*a);
            out.extend(x.iter().skip(start).take(parts.block()).map(|v| encode_scaled(*v, scale)));
        }
    }
    Ok(out)
}

/// The residue modulo `2^k` of a signed integer, 1 <= k <= 64.
#[inline]
pub fn ring(v: i64, k: u32) -> u64 {
    v as u64 & low_bits(k)
}

/// A word with the low `k` bits set, 1 <= k <= 64.
#[inline]
pub fn low_bits(k: u32) -> u64 {
    u64::MAX >> (64 - k.clamp(1, 64))
}

/// The representative of a residue in `[-2^(k-1), 2^(k-1))`, 1 <= k <= 64; higher bits are ignored.
#[inline]
pub fn lift(v: u64, k: u32) -> i64 {
    let spare = 64 - k.clamp(1, 64);
    ((v << spare) as i64) >> spare
}

/// One result as a real number, `f32(f64(y) * factor + f64(bias))`: one product, one sum, one rounding, never fused.
/// `factor` is `scale * 2^-a`, which is exact.
#[inline]
pub fn decode_one(y: i64, factor: f64, bias: f32) -> f32 {
    (y as f64 * factor + f64::from(bias)) as f32
}

/// A constant that is broadcast to the shape of a tensor: axes aligned at the end, axes of size 1 repeated.
#[derive(Clone, Copy, Debug)]
pub struct Broadcast<'a, T> {
    /// Shape of the constant.
    pub shape: &'a Shape,
    /// Elements.
    pub data: &'a [T],
}

impl<T: Copy + Default> Broadcast<'_, T> {
    /// The elements beside each element of a tensor of shape `to`.
    ///
    /// # Errors
    /// [`NumberError::Shape`] if it does not broadcast.
    pub fn to(&self, to: &Shape) -> Result<Vec<T>, NumberError> {
        let fits = self.shape.checked_len() == Some(self.data.len());
        let strides = broadcast(&self.shape.0, &to.0).filter(|_| fits);
        let Some(strides) = strides else {
            return Err(shape_error(format!("a constant of shape {} does not broadcast to {to}", self.shape)));
        };
        let mut out = vec![T::default(); to.len()];
        Walk::new(&to.0, &strides, 0).gather(self.data, &mut out);
        Ok(out)
    }
}

/// Decodes checked integers `z` of shape `shape`. `exponents` are those of the encoded source; `group` names each
/// element's group, none stands for the only one.
///
/// # Errors
/// [`NumberError::Shape`] if a constant does not broadcast or names a group that does not exist.
pub fn decode(
    z: &[i64],
    shape: &Shape,
    scale: Broadcast<'_, f64>,
    bias: Broadcast<'_, f32>,
    group: Option<Broadcast<'_, u32>>,
    exponents: &[i32],
) -> Result<Vec<f32>, NumberError> {
    if shape.checked_len() != Some(z.len()) {
        return Err(shape_error(format!("{} elements where the shape {shape} was declared", z.len())));
    }
    let (scale, bias) = (scale.to(shape)?, bias.to(shape)?);
    let factors: Vec<f64> = exponents.iter().map(|a| pow2(-a)).collect();
    let factors: Vec<f64> = match (group, factors.as_slice()) {
        (None, [one]) => vec![*one; z.len()],
        (None, _) => return Err(shape_error(format!("{} groups, but no group constant", exponents.len()))),
        (Some(group), factors) => group
            .to(shape)?
            .into_iter()
            .map(|g| factors.get(g as usize).copied())
            .collect::<Option<_>>()
            .ok_or_else(|| shape_error(format!("a group number beyond {}", exponents.len())))?,
    };
    let one = |(((z, s), f), b): (((&i64, f64), f64), f32)| decode_one(*z, s * f, b);
    Ok(z.iter().zip(scale).zip(factors).zip(bias).map(one).collect())
}
