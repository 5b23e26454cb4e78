//! Real numbers to integers, with the exponents of this request.

use pponnx_kernels::Kernels;
use pponnx_plans::plan::Range;
use pponnx_plans::reference::number::{self, Measure, NumberError, Plain};
use pponnx_plans::value::Shape;

use crate::error::EngineError;
use crate::memory::Encoded;
use crate::plan::Prepared;
use crate::value::TensorValue;

/// A tensor's elements and the exponents they are encoded with.
pub(crate) struct Exponents<'a> {
    /// The elements.
    pub(crate) data: &'a [f32],
    /// One exponent a group.
    pub(crate) all: Vec<i32>,
    /// Elements of one group in one batch entry, which lie together; the groups repeat for each entry.
    pub(crate) block: usize,
}

/// Chooses one exponent a group (`numbers-and-kernels.md`, section 1). Equal to [`number::exponents`] bit for bit.
///
/// # Errors
/// [`EngineError::NotFinite`], with the names in `step`, if the tensor holds NaN or infinity.
pub(crate) fn exponents<'a>(
    x: &'a TensorValue,
    groups: usize,
    range: &Range,
    kernels: &Kernels,
    step: &Prepared,
) -> Result<Exponents<'a>, EngineError> {
    let site = step.encode_site()?;
    let data = x.as_f32().ok_or_else(|| EngineError::mismatch("encode of a tensor that is not f32"))?;
    let shape = x.shape();
    let all = number::exponents_by(&Fast(*kernels), data, shape, groups, range).map_err(|e| match e {
        NumberError::NotFinite => EngineError::NotFinite { segment: site.segment.clone(), input: site.input.clone() },
        NumberError::NoExponent { .. } | NumberError::Shape(_) => {
            EngineError::InvalidInput { name: site.input.clone(), what: format!("segment {}: {e}", site.segment) }
        }
    })?;
    Ok(Exponents { data, all, block: block(shape, groups) })
}

/// Chooses exponents and encodes. Equal to [`number::encode`] bit for bit.
///
/// # Errors
/// As [`exponents`].
pub(crate) fn encode(
    x: &TensorValue,
    groups: usize,
    range: &Range,
    kernels: &Kernels,
    step: &Prepared,
) -> Result<Encoded, EngineError> {
    let Exponents { data, all: exponents, block } = exponents(x, groups, range, kernels, step)?;
    let mut out = vec![0i32; data.len()];
    for (i, (from, to)) in data.chunks(block).zip(out.chunks_mut(block)).enumerate() {
        let a = exponents.get(i % groups.max(1)).copied().unwrap_or(0);
        kernels.encode(from, a, to).map_err(crate::ring::unfit)?;
    }
    Ok(Encoded { x: out, exponents, shape: x.shape().clone() })
}

/// The kernels' loops for the choice of exponents. They refuse nothing that the choice asks of them; if they did, the
/// reference's loops would do.
struct Fast(Kernels);

impl Measure for Fast {
    fn scan(&self, x: &[f32]) -> Option<(f32, f32)> {
        self.0.scan(x)
    }

    fn add_squares(&self, x: &[f32], e: i32, sums: &mut [u64]) {
        if self.0.add_squares(x, e, sums).is_err() {
            Plain.add_squares(x, e, sums);
        }
    }

    fn sum_squares(&self, x: &[f32], e: i32) -> u64 {
        self.0.sum_squares(x, e).unwrap_or_else(|_| Plain.sum_squares(x, e))
    }
}

/// Elements of one group in one batch entry, which lie together: groups part axis 1, and a tensor without one has a
/// single group.
fn block(shape: &Shape, groups: usize) -> usize {
    let entry = match shape.0.as_slice() {
        [] => 1,
        [n] => *n,
        [_, rest @ ..] => rest.iter().product(),
    };
    (entry / groups.max(1)).max(1)
}
