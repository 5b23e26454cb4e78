//! Small real tensors in double precision: factors and constant terms while they are folded.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::Shape;

/// A tensor of `f64`, row-major. Where it stands for a tensor of another shape it broadcasts: same rank, each axis
/// equal or 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Shape.
    pub shape: Shape,
    /// Elements.
    pub data: Vec<f64>,
}

impl Dense {
    /// One value that broadcasts to a tensor of rank `rank`.
    pub fn uniform(rank: usize, value: f64) -> Dense {
        Dense { shape: Shape(vec![1; rank]), data: vec![value] }
    }

    /// The value, if there is but one.
    pub fn as_uniform(&self) -> Option<f64> {
        match self.data.as_slice() {
            [v] => Some(*v),
            _ => None,
        }
    }

    /// Whether every element is `value`.
    pub fn is_all(&self, value: f64) -> bool {
        self.data.iter().all(|v| *v == value)
    }

    /// Whether it broadcasts to `shape`.
    pub fn fits(&self, shape: &Shape) -> bool {
        let mut axes = self.shape.0.iter().zip(&shape.0);
        self.shape.rank() == shape.rank() && axes.all(|(from, to)| from == to || *from == 1)
    }

    /// The elements of the tensor of shape `shape` for which `self` stands.
    ///
    /// # Errors
    /// If `self` does not broadcast to `shape`.
    pub fn full(&self, shape: &Shape) -> Result<Dense, String> {
        if self.shape == *shape {
            return Ok(self.clone());
        }
        if !self.fits(shape) {
            return Err(format!("{} does not broadcast to {shape}", self.shape));
        }
        let strides = self.shape.strides();
        let steps: Vec<usize> =
            self.shape.0.iter().zip(strides).map(|(d, stride)| if *d == 1 { 0 } else { stride }).collect();
        let data = offsets(&shape.0, &steps).into_iter().map(|o| self.data[o]).collect();
        Ok(Dense { shape: shape.clone(), data })
    }

    /// The same values with every axis shrunk to 1 along which they do not vary.
    #[must_use]
    pub fn compress(&self) -> Dense {
        let mut out = self.clone();
        for axis in 0..out.shape.rank() {
            let d = out.shape.0[axis];
            let inner: usize = out.shape.0[axis + 1..].iter().product();
            if d <= 1 || inner == 0 {
                continue;
            }
            let varies = out.data.chunks(d * inner).any(|c| c.chunks(inner).any(|row| !same(row, &c[..inner])));
            if !varies {
                out.data = out.data.chunks(d * inner).flat_map(|c| c[..inner].to_vec()).collect();
                out.shape.0[axis] = 1;
            }
        }
        out
    }

    /// Element by element, both broadcasting.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn zip(&self, other: &Dense, f: impl Fn(f64, f64) -> f64) -> Result<Dense, String> {
        if self.shape.rank() != other.shape.rank() {
            return Err(format!("{} and {} differ in rank", self.shape, other.shape));
        }
        let shape =
            Shape(self.shape.0.iter().zip(&other.shape.0).map(|(a, b)| if *a == 1 { *b } else { *a }).collect());
        let (a, b) = (self.full(&shape)?, other.full(&shape)?);
        Ok(Dense { shape, data: a.data.iter().zip(&b.data).map(|(a, b)| f(*a, *b)).collect() })
    }

    /// Applies a function to every element.
    #[must_use]
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Dense {
        Dense { shape: self.shape.clone(), data: self.data.iter().map(|v| f(*v)).collect() }
    }
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Offsets of the elements of a tensor of shape `dims`, in row-major order, in memory with these strides.
pub fn offsets(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut out = vec![0usize];
    for (d, stride) in dims.iter().zip(strides) {
        out = out.iter().flat_map(|o| (0..*d).map(move |i| o + i * stride)).collect();
    }
    out
}

/// Evaluates an operation without weights on full tensors; padding puts `fill`.
///
/// # Errors
/// If the operation has weights or the shapes do not fit.
pub fn apply<C>(op: &MapOp<C>, xs: &[&Dense], fill: f64) -> Result<Dense, String> {
    let shapes: Vec<&Shape> = xs.iter().map(|x| &x.shape).collect();
    let shape = op.shape(&shapes, None)?;
    let first = *xs.first().ok_or("an operation without operands")?;
    let strides = first.shape.strides();
    let picked = |offsets: Vec<usize>| offsets.into_iter().map(|o| first.data[o]).collect::<Vec<f64>>();
    let data = match op {
        MapOp::Conv { .. } | MapOp::ConvTranspose { .. } | MapOp::MatMul { .. } => {
            return Err(format!("{} of a constant", op.name()));
        }
        MapOp::SumPool { kernel, strides: steps, dilations, pads_before, .. } => {
            let outer = shape.0.get(..2).unwrap_or_default().iter().product::<usize>();
            let (from, to) = (&first.shape.0[2..], &shape.0[2..]);
            let taps = offsets_of_windows(from, to, kernel, steps, dilations, pads_before);
            let size: usize = from.iter().product();
            let planes = (0..outer).map(|p| &first.data[p * size..(p + 1) * size]);
            planes.flat_map(|plane| taps.iter().map(|w| w.iter().map(|o| plane[*o]).sum::<f64>())).collect()
        }
        MapOp::Add { .. } => zip(xs, |a, b| a + b)?,
        MapOp::Sub { .. } => zip(xs, |a, b| a - b)?,
        MapOp::Concat { axis, .. } => {
            let outer: usize = shape.0[..*axis].iter().product();
            let mut out = Vec::with_capacity(shape.len());
            for o in 0..outer {
                for x in xs {
                    let row = x.data.len() / outer.max(1);
                    out.extend_from_slice(&x.data[o * row..(o + 1) * row]);
                }
            }
            out
        }
        MapOp::Reshape { .. } => first.data.clone(),
        MapOp::Transpose { perm, .. } => {
            picked(offsets(&shape.0, &perm.iter().map(|a| strides[*a]).collect::<Vec<_>>()))
        }
        MapOp::PadZero { before, .. } => {
            let mut out = vec![fill; shape.len()];
            let steps = shape.strides();
            let start: usize = before.iter().zip(&steps).map(|(b, s)| b * s).sum();
            for (o, v) in offsets(&first.shape.0, &steps).into_iter().zip(&first.data) {
                out[start + o] = *v;
            }
            out
        }
        MapOp::Slice { starts, steps, .. } => {
            let start: usize = starts.iter().zip(&strides).map(|(b, s)| b * s).sum();
            let steps: Vec<usize> = steps.iter().zip(&strides).map(|(a, s)| a * s).collect();
            offsets(&shape.0, &steps).into_iter().map(|o| first.data[start + o]).collect()
        }
        MapOp::Gather { axis, indices, .. } => {
            let inner: usize = first.shape.0[axis + 1..].iter().product();
            let row = inner * first.shape.0[*axis];
            let rows = first.data.chunks(row.max(1));
            rows.flat_map(|c| indices.iter().flat_map(move |i| c[i * inner..(i + 1) * inner].to_vec())).collect()
        }
        MapOp::Expand { .. } => first.full(&shape)?.data,
    };
    Ok(Dense { shape, data })
}

fn zip(xs: &[&Dense], f: impl Fn(f64, f64) -> f64) -> Result<Vec<f64>, String> {
    match xs {
        [a, b] => Ok(a.data.iter().zip(&b.data).map(|(a, b)| f(*a, *b)).collect()),
        _ => Err("two operands expected".into()),
    }
}

/// For each output position of a window operation, the input positions that it reads inside the image.
pub fn offsets_of_windows(
    from: &[usize],
    to: &[usize],
    kernel: &[usize],
    strides: &[usize],
    dilations: &[usize],
    pads_before: &[usize],
) -> Vec<Vec<usize>> {
    let steps = Shape(from.to_vec()).strides();
    let mut out = vec![vec![0usize]];
    for a in 0..from.len() {
        let along: Vec<Vec<usize>> = (0..to[a])
            .map(|o| {
                (0..kernel[a])
                    .filter_map(|k| (o * strides[a] + k * dilations[a]).checked_sub(pads_before[a]))
                    .filter(|i| *i < from[a])
                    .map(|i| i * steps[a])
                    .collect()
            })
            .collect();
        out = out
            .iter()
            .flat_map(|outer| {
                along.iter().map(move |taps| outer.iter().flat_map(|o| taps.iter().map(move |t| o + t)).collect())
            })
            .collect();
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dense(shape: &[usize], data: &[f64]) -> Dense {
        Dense { shape: Shape(shape.to_vec()), data: data.to_vec() }
    }

    #[test]
    fn compress_undoes_full() {
        let channels = dense(&[1, 3, 1], &[1.0, 2.0, 3.0]);
        let full = channels.full(&Shape(vec![2, 3, 2])).unwrap();
        assert_eq!(full.data, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(full.compress(), channels);
        assert_eq!(dense(&[2, 2], &[0.0, -0.0, 0.0, -0.0]).compress().shape.0, [1, 2]);
        assert!(channels.full(&Shape(vec![2, 4, 2])).is_err());
    }

    #[test]
    fn movements_place_elements_where_the_shape_rules_say() {
        let x = dense(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let x0 = pponnx_plans::value::ValueId(0);
        let run = |op: MapOp<()>| apply(&op, &[&x], 9.0).unwrap().data;
        assert_eq!(run(MapOp::Transpose { x: x0, perm: vec![1, 0] }), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(run(MapOp::Gather { x: x0, axis: 1, indices: vec![2, 0] }), [3.0, 1.0, 6.0, 4.0]);
        assert_eq!(run(MapOp::Slice { x: x0, starts: vec![1, 0], steps: vec![1, 2], lens: vec![1, 2] }), [4.0, 6.0]);
        assert_eq!(
            run(MapOp::PadZero { x: x0, before: vec![0, 1], after: vec![0, 0] }),
            [9.0, 1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0]
        );
    }

    #[test]
    fn windows_leave_padding_out() {
        assert_eq!(offsets_of_windows(&[3], &[2], &[2], &[2], &[1], &[1]), [vec![0], vec![1, 2]]);
    }
}
