//! The integrity check of linear maps (`protocol.md`, section 4), and the only maker of [`Verified`].
//!
//! For a secret `v` and `c = L^T v` over F_p, p = `2^61 - 1`, the device tests `<v, z> = sum_i <c_i, x_i>` on signed
//! integers. Residues differ from the true result by less than `2^k < p` in magnitude, so a wrong one is wrong modulo
//! p as well, and passes with probability at most `2/p` (`v` is a product of channel and position factors).
//!
//! **Invariant**: the check is exact and covers every element; no tolerance, no sampling, no early exit on part of it.

use std::collections::BTreeMap;

use pponnx_kernels::{Kernels, RankOne};
use pponnx_keys::{CheckData, MapCheck, Part};
use pponnx_plans::map::{CheckForm, LinearMap, MapOp};
use pponnx_plans::plan::Bundle;
use pponnx_plans::reference::check as reference;
use pponnx_plans::reference::linear;
use pponnx_plans::reference::scalar::{Fp, Scalar};
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::{MapId, Shape, ValueId};
use zeroize::Zeroizing;

use crate::error::EngineError;
use crate::memory::Encoded;
use crate::reveal::Lifted;
use crate::ring::unfit;
use crate::site::CheckSite;

/// A value that passed the integrity check, or was made from elements that did. Only `Tally::settle` makes one, and
/// nothing else of a result reaches a later step.
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The checked value.
    pub fn value(&self) -> &T {
        &self.0
    }

    /// The checked value, out of its wrapping.
    pub fn into_value(self) -> T {
        self.0
    }
}

/// The form of check data that a map gets; the compact forms speak of a map that is one operation on one input.
pub(crate) fn form_of(bundle: &Bundle, map: &LinearMap) -> CheckForm {
    if map.inputs.len() != 1 || map.output != ValueId(1) {
        return CheckForm::Full;
    }
    map.check_form(|c| bundle.constants.get(c.index()).map(|d| &d.shape))
}

/// The number of a form in check files.
pub(crate) fn form_code(form: CheckForm) -> u8 {
    match form {
        CheckForm::Full => 0,
        CheckForm::ConvRankOne => 1,
        CheckForm::MatMulRankOne => 2,
    }
}

/// How `v = a (x) beta` lies over a map's result: index `(o, c, i)` has `v = a[c] * beta[o * inner + i]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) outer: usize,
    pub(crate) channels: usize,
    pub(crate) inner: usize,
}

impl Layout {
    /// The layout of a result of shape `out`; see [`reference::channel_axis`].
    pub(crate) fn new(form: CheckForm, out: &Shape) -> Layout {
        match reference::channel_axis(form, out.rank()) {
            Some(axis) => Layout {
                outer: out.0[..axis].iter().product(),
                channels: out.0[axis],
                inner: out.0[axis + 1..].iter().product(),
            },
            None => Layout { outer: 1, channels: 1, inner: 1 },
        }
    }

    pub(crate) fn positions(&self) -> usize {
        self.outer * self.inner
    }

    fn len(&self) -> usize {
        self.positions() * self.channels
    }

    /// The vector `a (x) beta`, as kernels take it.
    fn vector<'a>(&self, a: &'a [u64], beta: &'a [u64]) -> RankOne<'a> {
        RankOne { a, beta, inner: self.inner.max(1) }
    }
}

/// The right side `c` of one map.
enum Right {
    /// One element of F_p for each input element, per input.
    Flat(Vec<Zeroizing<Vec<u64>>>),
    /// `c = g (x) beta` for the single input: a matrix product, or a convolution with windows of one pixel.
    Product { layout: Layout, g: Zeroizing<Vec<u64>> },
}

struct MapMaterial {
    layout: Layout,
    a: Zeroizing<Vec<u64>>,
    beta: Zeroizing<Vec<u64>>,
    right: Right,
}

/// Check vectors of a bundle, ready for use. Secret: neither `Clone` nor `Debug`.
pub struct CheckMaterial {
    digest: [u8; 32],
    maps: BTreeMap<MapId, MapMaterial>,
}

impl CheckMaterial {
    /// Expands the check data of a device: regenerates `a` and `beta` of each map from the secret and brings compact
    /// convolution data to one element an input element (8 bytes each).
    ///
    /// # Errors
    /// [`EngineError::PlanMismatch`] if the data are not those of this bundle.
    pub fn load(bundle: &ValidBundle, data: &CheckData) -> Result<CheckMaterial, EngineError> {
        let digest = *bundle.digest();
        if data.bundle != digest {
            return Err(EngineError::mismatch("the check data belong to another bundle; copy the device folder whole"));
        }
        let mut maps = BTreeMap::new();
        for check in &data.maps {
            let map = bundle.maps.get(check.map as usize);
            let map = map.ok_or_else(|| wrong(check.map, "the bundle has no such map"))?;
            let form = form_of(bundle, map);
            if check.form != form_code(form) {
                return Err(wrong(check.map, "another form of check data"));
            }
            let shapes = linear::shapes(map, |c| bundle.constants.get(c.index()).map(|d| &d.shape));
            let shapes = shapes.map_err(|e| wrong(check.map, &e.to_string()))?;
            let out = shapes.get(map.output.index()).ok_or_else(|| wrong(check.map, "no result"))?;
            let layout = Layout::new(form, out);
            let part = |part, n| data.secret.elements(&digest, check.map, part, n);
            let a = part(Part::Channels, layout.channels);
            let beta = part(Part::Positions, layout.positions());
            let right = match form {
                CheckForm::Full => flat(map, check)?,
                CheckForm::MatMulRankOne => {
                    let k = map.inputs[0].0.last().copied().unwrap_or(1);
                    let layout = Layout { outer: layout.outer, channels: k, inner: 1 };
                    Right::Product { layout, g: stored(check, 0, k)? }
                }
                CheckForm::ConvRankOne => conv(bundle, map, layout, check, &beta)?,
            };
            maps.insert(MapId(check.map), MapMaterial { layout, a, beta, right });
        }
        Ok(CheckMaterial { digest, maps })
    }

    /// Digest of the bundle.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Tests `z`, signed integers in the shape of the map's result, against the map's encoded inputs.
    ///
    /// # Errors
    /// [`EngineError::IntegrityCheckFailed`] if they disagree.
    pub(crate) fn check(
        &self,
        map: MapId,
        inputs: &[&Encoded],
        z: Vec<i64>,
        site: &CheckSite,
        kernels: &Kernels,
    ) -> Result<Verified<Vec<i64>>, EngineError> {
        let mut tally = self.tally(map, self.right(map, inputs, kernels)?)?;
        if z.len() != tally.len() {
            return Err(wrong(map.0, "the result has another size"));
        }
        tally.add(&z, kernels)?;
        tally.settle(z, site)
    }

    /// The right side `sum_i <c_i, x_i>` of a map's check. It needs no reply.
    ///
    /// # Errors
    /// [`EngineError::PlanMismatch`] if the inputs are not those of the map.
    pub(crate) fn right(&self, map: MapId, inputs: &[&Encoded], kernels: &Kernels) -> Result<Fp, EngineError> {
        let MapMaterial { beta, right, .. } = self.material(map)?;
        match (right, inputs) {
            (Right::Flat(cs), inputs) if cs.len() == inputs.len() => {
                let mut sum = Fp::ZERO;
                for (c, x) in cs.iter().zip(inputs) {
                    if c.len() != x.x.len() {
                        return Err(wrong(map.0, "an input has another size"));
                    }
                    sum = sum.add(Fp::new(kernels.dot_p61_i32(c, &x.x).map_err(unfit)?));
                }
                Ok(sum)
            }
            (Right::Product { layout, g }, [x]) if layout.len() == x.x.len() => {
                let sum = kernels.rank_one_p61_i32(&layout.vector(g, beta), 0, &x.x).map_err(unfit)?;
                Ok(Fp::new(sum))
            }
            _ => Err(wrong(map.0, "the inputs are others")),
        }
    }

    /// Begins the left side `<v, z>` of a map's check, whose right side is known.
    ///
    /// # Errors
    /// [`EngineError::PlanMismatch`] if there are no check vectors of the map.
    pub(crate) fn tally(&self, map: MapId, right: Fp) -> Result<Tally<'_>, EngineError> {
        Ok(Tally { map, material: self.material(map)?, right, left: Fp::ZERO, at: 0 })
    }

    fn material(&self, map: MapId) -> Result<&MapMaterial, EngineError> {
        self.maps.get(&map).ok_or_else(|| wrong(map.0, "they are missing"))
    }
}

/// One check under way: the elements of a result in order, piece by piece.
pub(crate) struct Tally<'a> {
    map: MapId,
    material: &'a MapMaterial,
    right: Fp,
    left: Fp,
    at: usize,
}

impl Tally<'_> {
    /// Number of elements of the result.
    pub(crate) fn len(&self) -> usize {
        self.material.layout.len()
    }

    /// Takes in the next elements.
    ///
    /// # Errors
    /// [`EngineError::PlanMismatch`] if they are more than the result has.
    pub(crate) fn add<T: Lifted>(&mut self, z: &[T], kernels: &Kernels) -> Result<(), EngineError> {
        if self.len() - self.at < z.len() {
            return Err(wrong(self.map.0, "the result has another size"));
        }
        let MapMaterial { layout, a, beta, .. } = self.material;
        let sum = T::rank_one(kernels, &layout.vector(a, beta), self.at, z).map_err(unfit)?;
        self.left = self.left.add(Fp::new(sum));
        self.at += z.len();
        Ok(())
    }

    /// Ends the check and releases what was made from the elements.
    ///
    /// # Errors
    /// [`EngineError::IntegrityCheckFailed`] if the sides disagree or elements are missing.
    pub(crate) fn settle<T>(self, made: T, site: &CheckSite) -> Result<Verified<T>, EngineError> {
        if self.at == self.len() && self.left == self.right {
            return Ok(Verified(made));
        }
        Err(EngineError::IntegrityCheckFailed {
            segment: site.segment.clone(),
            map: self.map,
            slot: site.slot,
            blame: site.blame,
        })
    }
}

fn wrong(map: u32, what: &str) -> EngineError {
    EngineError::mismatch(format!(
        "check data of map ${map}: {what}; make the bundle's keys again with `pponnx keygen`"
    ))
}

/// The stored vector of one input, which must have `n` elements.
fn stored(check: &MapCheck, input: usize, n: usize) -> Result<Zeroizing<Vec<u64>>, EngineError> {
    match check.inputs.get(input) {
        Some(c) if c.len() == n => Ok(Zeroizing::new(c.clone())),
        _ => Err(wrong(check.map, "another number of elements")),
    }
}

fn flat(map: &LinearMap, check: &MapCheck) -> Result<Right, EngineError> {
    if check.inputs.len() != map.inputs.len() {
        return Err(wrong(check.map, "another number of inputs"));
    }
    let all = map.inputs.iter().enumerate().map(|(i, shape)| stored(check, i, shape.len()));
    Ok(Right::Flat(all.collect::<Result<_, _>>()?))
}

/// `c` of a convolution: expanded, unless its windows are single pixels and `c` is a product.
fn conv(
    bundle: &Bundle,
    map: &LinearMap,
    layout: Layout,
    check: &MapCheck,
    beta: &[u64],
) -> Result<Right, EngineError> {
    let [MapOp::Conv { w, strides, pads_before, pads_after, .. }] = map.ops.as_slice() else {
        return Err(wrong(check.map, "not a convolution"));
    };
    let weights = bundle.constants.get(w.index()).map(|d| &d.shape);
    let weights = weights.ok_or_else(|| wrong(check.map, "no weights are declared"))?;
    let channels = map.inputs[0].0.get(1).copied().unwrap_or(1);
    let kernel = weights.0.get(2..).unwrap_or_default();
    let taps: usize = kernel.iter().product();
    let g = stored(check, 0, channels * taps)?;
    let still = strides.iter().all(|s| *s == 1) && pads_before.iter().chain(pads_after).all(|p| *p == 0);
    if taps == 1 && still {
        let layout = Layout { outer: layout.outer, channels, inner: layout.inner };
        return Ok(Right::Product { layout, g });
    }
    let mut shape = vec![channels];
    shape.extend(kernel);
    let g = Tensor { shape: Shape(shape), data: elements(&g) };
    let c = reference::expand(map, weights, &g, &elements(beta)).map_err(|e| wrong(check.map, &e.to_string()))?;
    Ok(Right::Flat(vec![Zeroizing::new(c.data.iter().map(|e| e.value()).collect())]))
}

/// Field elements from their representatives.
pub(crate) fn elements(values: &[u64]) -> Vec<Fp> {
    values.iter().map(|v| Fp::new(*v)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// The factored product equals that with `v` written out, for every form and rank.
    #[test]
    fn the_factored_product_is_that_of_the_written_vector() {
        let kernels = Kernels::detect();
        for form in [CheckForm::Full, CheckForm::ConvRankOne, CheckForm::MatMulRankOne] {
            for shape in [&[][..], &[5], &[3, 4], &[2, 3, 4], &[2, 3, 1, 1], &[1, 4, 3, 2], &[2, 1, 2, 2, 3]] {
                if form == CheckForm::ConvRankOne && shape.len() < 3 {
                    continue;
                }
                let shape = Shape(shape.to_vec());
                let layout = Layout::new(form, &shape);
                assert_eq!(reference::lengths(form, &shape), (layout.channels, layout.positions()));
                let secret = pponnx_keys::CheckSecret::new(&[4; 32]);
                let part = |part, n| secret.elements(&[0; 32], 1, part, n);
                let (a, beta) = (part(Part::Channels, layout.channels), part(Part::Positions, layout.positions()));
                let v = reference::outer(form, &shape, &elements(&a), &elements(&beta)).unwrap();
                let z: Vec<i64> =
                    (0..shape.len() as i64).map(|i| (i * 0x1234_5678_9abc + 7) * (1 - i % 2 * 2)).collect();
                let product = |at, z: &[i64]| kernels.rank_one_p61_i64(&layout.vector(&a, &beta), at, z).map(Fp::new);
                let got = product(0, &z).unwrap();
                assert_eq!(got, reference::dot(&v.data, &z), "{form:?} {shape}");
                for cut in 0..z.len() {
                    let (head, tail) = (product(0, &z[..cut]).unwrap(), product(cut, &z[cut..]).unwrap());
                    assert_eq!(head.add(tail), got, "{form:?} {shape} {cut}");
                }
            }
        }
    }
}
