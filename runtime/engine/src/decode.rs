//! Checked integers to real numbers.

use pponnx_kernels::{Activation, DecodeRows, Kernels};
use pponnx_plans::reference::number::pow2;
use pponnx_plans::value::Shape;

use crate::check::Verified;
use crate::error::EngineError;
use crate::memory::Encoded;
use crate::reveal::Lifted;
use crate::ring::unfit;
use crate::value::TensorValue;

/// The constants of one `decode`, broadcast once at load.
///
/// The result's elements fall into runs of `run` neighbours that share scale, bias and group (a channel's pixels, for
/// a convolution); the constants repeat after all runs of the table (for each batch entry).
pub(crate) struct DecodeTable {
    shape: Shape,
    run: usize,
    scale: Vec<f64>,
    bias: Vec<f32>,
    /// Empty where there is one group only.
    group: Vec<u32>,
}

/// A constant and its shape.
pub(crate) struct Table<T> {
    pub(crate) shape: Shape,
    pub(crate) data: Vec<T>,
}

impl DecodeTable {
    /// Broadcasts the constants to `shape`: axes aligned at the end, axes of size 1 repeated.
    ///
    /// # Errors
    /// A sentence, if one does not broadcast.
    pub(crate) fn new(
        shape: &Shape,
        scale: &Table<f64>,
        bias: &Table<f32>,
        group: Option<&Table<u32>>,
    ) -> Result<DecodeTable, String> {
        let rank = shape.rank();
        let mut shapes = vec![&scale.shape, &bias.shape];
        shapes.extend(group.map(|g| &g.shape));
        // Whether no constant changes along an axis.
        let mut still = vec![true; rank];
        for constant in &shapes {
            let lead = rank.checked_sub(constant.rank()).ok_or_else(|| format!("{constant} for {shape}"))?;
            for (axis, d) in constant.0.iter().enumerate() {
                if *d != 1 && *d != shape.0[axis + lead] {
                    return Err(format!("a constant of shape {constant} does not broadcast to {shape}"));
                }
                still[axis + lead] &= *d == 1;
            }
        }
        let first = still.iter().position(|s| !s).unwrap_or(0);
        let last = still.iter().rposition(|s| !s).map_or(0, |a| a + 1);
        let changing = &shape.0[first..last];
        let run = shape.0[last..].iter().product();
        let pick = |constant: &Shape| indices(constant, changing, rank, first);
        Ok(DecodeTable {
            shape: shape.clone(),
            run,
            scale: picked(&scale.data, &pick(&scale.shape))?,
            bias: picked(&bias.data, &pick(&bias.shape))?,
            group: match group {
                Some(g) => picked(&g.data, &pick(&g.shape))?,
                None => Vec::new(),
            },
        })
    }
}

/// For each element of the axes `first..first + dims.len()`, row-major: which element of the constant lies there.
fn indices(constant: &Shape, dims: &[usize], rank: usize, first: usize) -> Vec<usize> {
    let lead = rank - constant.rank();
    let strides = constant.strides();
    let mut list = vec![0usize];
    for (i, d) in dims.iter().enumerate() {
        let axis = (first + i).checked_sub(lead);
        let step = axis.map_or(0, |a| if constant.0[a] == 1 { 0 } else { strides[a] });
        list = list.iter().flat_map(|base| (0..*d).map(move |j| base + j * step)).collect();
    }
    list
}

fn picked<T: Copy>(data: &[T], indices: &[usize]) -> Result<Vec<T>, String> {
    let all = indices.iter().map(|i| data.get(*i).copied()).collect::<Option<Vec<T>>>();
    all.ok_or_else(|| "a constant is shorter than its shape".into())
}

/// Decodes a whole tensor, see [`Decoder`].
///
/// # Errors
/// As [`Decoder::new`].
pub(crate) fn decode(
    z: &Verified<Vec<i64>>,
    source: &Encoded,
    table: &DecodeTable,
    kernels: &Kernels,
) -> Result<TensorValue, EngineError> {
    let mut out = vec![0f32; z.value().len()];
    Decoder::new(table, &source.exponents)?.decode(0, z.value(), &mut out, kernels)?;
    TensorValue::from_f32(table.shape.clone(), out)
}

/// A table with the exponents of one request: `f32(f64(z) * scale * 2^-a + f64(bias))`, equal to
/// [`pponnx_plans::reference::number::decode`] bit for bit: one product, one sum, one rounding, never fused.
pub(crate) struct Decoder<'a> {
    table: &'a DecodeTable,
    factors: Vec<f64>,
}

impl Decoder<'_> {
    /// # Errors
    /// [`EngineError::PlanMismatch`] if a group number lies beyond the groups of the source; loading has checked it.
    pub(crate) fn new<'a>(table: &'a DecodeTable, exponents: &[i32]) -> Result<Decoder<'a>, EngineError> {
        let inverse: Vec<f64> = exponents.iter().map(|a| pow2(-a)).collect();
        let of = |group: u32| inverse.get(group as usize).copied();
        let factors = match table.group.as_slice() {
            [] => table.scale.iter().map(|s| of(0).map(|f| s * f)).collect::<Option<Vec<f64>>>(),
            groups => table.scale.iter().zip(groups).map(|(s, g)| of(*g).map(|f| s * f)).collect(),
        };
        let factors = factors.ok_or_else(|| EngineError::mismatch("decode names a group that its source lacks"))?;
        Ok(Decoder { table, factors })
    }

    /// Shape of the result.
    pub(crate) fn shape(&self) -> &Shape {
        &self.table.shape
    }

    /// Decodes the elements `z`, of which the first is element `start` of the tensor.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub(crate) fn decode<T: Lifted>(
        &self,
        start: usize,
        z: &[T],
        out: &mut [f32],
        kernels: &Kernels,
    ) -> Result<(), EngineError> {
        let rows = DecodeRows {
            run: self.table.run.max(1),
            factors: &self.factors,
            biases: &self.table.bias,
            activation: Activation::None,
        };
        T::decode(kernels, z, start, &rows, out).map_err(unfit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use pponnx_plans::reference::number::{Broadcast, decode as reference};
    use proptest::prelude::*;

    /// A shape that broadcasts to `to`: trailing axes, some of size 1.
    fn part(to: &[usize]) -> impl Strategy<Value = Vec<usize>> + use<> {
        let to = to.to_vec();
        (0..=to.len(), prop::collection::vec(any::<bool>(), to.len())).prop_map(move |(skip, ones)| {
            to[skip..].iter().zip(&ones[skip..]).map(|(d, one)| if *one { 1 } else { *d }).collect()
        })
    }

    fn case() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, Vec<usize>, Option<Vec<usize>>)> {
        prop::collection::vec(1usize..4, 0..4).prop_flat_map(|to| {
            let parts = (part(&to), part(&to), prop::option::of(part(&to)));
            (Just(to), parts).prop_map(|(to, (a, b, c))| (to, a, b, c))
        })
    }

    proptest! {
        #[test]
        fn equals_the_reference((to, scale, bias, group) in case(), seed in any::<u32>()) {
            let mut next = u64::from(seed) | 1;
            let mut random = || {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                next >> 11
            };
            let len = |s: &[usize]| s.iter().product::<usize>();
            let scale = Table {
                data: (0..len(&scale)).map(|_| random() as f64 * 1e-21).collect(),
                shape: Shape(scale),
            };
            let bias = Table { data: (0..len(&bias)).map(|_| random() as f32 * 1e-16 - 0.3).collect(), shape: Shape(bias) };
            let exponents = [3, -7, 20];
            let group = group.map(|g| Table {
                data: (0..len(&g)).map(|_| (random() % 3) as u32).collect(),
                shape: Shape(g),
            });
            let exponents = if group.is_some() { &exponents[..] } else { &exponents[..1] };
            let to = Shape(to);
            let z: Vec<i64> = (0..to.len()).map(|_| random() as i64 - (1 << 52)).collect();
            let want = reference(
                &z,
                &to,
                Broadcast { shape: &scale.shape, data: &scale.data },
                Broadcast { shape: &bias.shape, data: &bias.data },
                group.as_ref().map(|g| Broadcast { shape: &g.shape, data: &g.data }),
                exponents,
            ).unwrap();
            let table = DecodeTable::new(&to, &scale, &bias, group.as_ref()).unwrap();
            let kernels = Kernels::detect();
            let decoder = Decoder::new(&table, exponents).unwrap();
            let mut got = vec![0f32; z.len()];
            decoder.decode(0, &z, &mut got, &kernels).unwrap();
            prop_assert_eq!(&got, &want);
            let cut = seed as usize % (z.len() + 1);
            let (head, tail) = got.split_at_mut(cut);
            decoder.decode(0, &z[..cut], head, &kernels).unwrap();
            decoder.decode(cut, &z[cut..], tail, &kernels).unwrap();
            prop_assert_eq!(&got, &want);
        }
    }

    #[test]
    fn constants_that_do_not_broadcast_are_refused() {
        let table = |shape: &[usize]| Table { shape: Shape(shape.to_vec()), data: vec![1.0; shape.iter().product()] };
        let bias = Table { shape: Shape(vec![]), data: vec![0.0] };
        let to = Shape(vec![2, 3]);
        for bad in [&[2][..], &[3, 1], &[1, 2, 3]] {
            assert!(DecodeTable::new(&to, &table(bad), &bias, None).is_err(), "{bad:?}");
        }
        assert!(DecodeTable::new(&to, &table(&[2, 1]), &bias, None).is_ok());
    }
}
