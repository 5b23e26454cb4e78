//! Strided copies: what reshape, transpose, pad-zero, slice, gather, expand and concat come down to.

use super::scalar::Scalar;

/// A row-major traversal of `lens` beside a strided one. Consecutive elements of the dense side belong to offset
/// `base + sum index * stride` of the strided side.
pub(crate) struct Walk {
    lens: Vec<usize>,
    strides: Vec<usize>,
    base: usize,
}

impl Walk {
    /// A traversal; neighbouring axes that form one contiguous axis are merged.
    pub(crate) fn new(lens: &[usize], strides: &[usize], base: usize) -> Walk {
        let mut walk = Walk { lens: Vec::new(), strides: Vec::new(), base };
        for (len, stride) in lens.iter().zip(strides) {
            if *len == 1 {
                continue;
            }
            match (walk.lens.last_mut(), walk.strides.last_mut()) {
                (Some(l), Some(s)) if *s == stride.saturating_mul(*len) => {
                    *l = l.saturating_mul(*len);
                    *s = *stride;
                }
                _ => {
                    walk.lens.push(*len);
                    walk.strides.push(*stride);
                }
            }
        }
        if walk.lens.is_empty() {
            walk.lens.push(1);
            walk.strides.push(1);
        }
        walk
    }

    /// Calls `f(dense offset, strided offset, length, stride)` for each run of the last axis.
    fn runs(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let Some((&len, lead)) = self.lens.split_last() else { return };
        let stride = self.strides.last().copied().unwrap_or(1);
        if self.lens.contains(&0) {
            return;
        }
        let mut index = vec![0usize; lead.len()];
        let (mut dense, mut at) = (0, self.base);
        loop {
            f(dense, at, len, stride);
            dense += len;
            let mut axis = lead.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < lead[axis] {
                    break;
                }
                at -= self.strides[axis] * lead[axis];
                index[axis] = 0;
            }
        }
    }

    /// Copies the strided side to the dense one.
    pub(crate) fn gather<S: Copy>(&self, strided: &[S], dense: &mut [S]) {
        self.runs(|d, s, len, stride| {
            let to = &mut dense[d..d + len];
            match stride {
                0 => to.fill(strided[s]),
                1 => to.copy_from_slice(&strided[s..s + len]),
                _ => to.iter_mut().zip(strided[s..].iter().step_by(stride)).for_each(|(t, v)| *t = *v),
            }
        });
    }

    /// Adds the dense side to the strided one: the adjoint of [`Walk::gather`].
    pub(crate) fn scatter_add<S: Scalar>(&self, dense: &[S], strided: &mut [S]) {
        self.runs(|d, s, len, stride| {
            let from = &dense[d..d + len];
            match stride {
                0 => strided[s] = from.iter().fold(strided[s], |sum, v| sum.add(*v)),
                _ => strided[s..].iter_mut().step_by(stride).zip(from).for_each(|(t, v)| *t = t.add(*v)),
            }
        });
    }
}

/// Strides with which a tensor of shape `from` is read as one of shape `to`: axes aligned at the end, axes of size
/// 1 repeated. `None` if it does not broadcast.
pub(crate) fn broadcast(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let lead = to.len().checked_sub(from.len())?;
    let mut strides = vec![0usize; to.len()];
    let mut step = 1usize;
    for axis in (0..from.len()).rev() {
        let (f, t) = (from[axis], to[axis + lead]);
        if f == t && f != 1 {
            strides[axis + lead] = step;
        } else if f != 1 {
            return None;
        }
        step = step.saturating_mul(f);
    }
    Some(strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_walk_visits_every_element_once() {
        // 2 x 3 x 4 read with axes (2, 0, 1)
        let data: Vec<u64> = (0..24).collect();
        let walk = Walk::new(&[4, 2, 3], &[1, 12, 4], 0);
        let mut out = vec![99; 24];
        walk.gather(&data, &mut out);
        let want: Vec<u64> =
            (0..4).flat_map(|c| (0..2).flat_map(move |a| (0..3).map(move |b| a * 12 + b * 4 + c))).collect();
        assert_eq!(out, want);
        let mut back = vec![0u64; 24];
        walk.scatter_add(&out, &mut back);
        assert_eq!(back, data);
    }

    #[test]
    fn repeated_axes_sum_up_in_the_adjoint() {
        let walk = Walk::new(&[2, 3], &[0, 1], 0);
        let mut out = vec![0u64; 6];
        walk.gather(&[1, 2, 3], &mut out);
        assert_eq!(out, [1, 2, 3, 1, 2, 3]);
        let mut sums = vec![0u64; 3];
        walk.scatter_add(&[1, 2, 3, 10, 20, 30], &mut sums);
        assert_eq!(sums, [11, 22, 33]);
    }

    #[test]
    fn broadcast_aligns_at_the_end() {
        assert_eq!(broadcast(&[3, 1], &[2, 3, 4]), Some(vec![0, 1, 0]));
        assert_eq!(broadcast(&[], &[2, 3]), Some(vec![0, 0]));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(broadcast(&[1, 1, 1], &[3]), None);
    }
}
