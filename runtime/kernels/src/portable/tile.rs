//! The register tile of convolutions: `M` output channels by up to six vectors of output positions.

use crate::vector::{Level, Vector};
use crate::word::Ring;

/// `out[i, l] = sum_k w[k, i] * x[offsets[k] + l]` for `M` rows `i` and `vectors` vectors of positions `l`.
///
/// `w` is `[k, M]`; `out` is `[M, vectors * lanes]`, overwritten. `x` must reach `vectors * lanes` words beyond each
/// offset. `vectors` is at most what the vector type allows.
#[inline(always)]
pub fn tile<L: Level, W: Ring, const M: usize>(vectors: usize, w: &[W], offsets: &[usize], x: &[W], out: &mut [W]) {
    // The guards are constant: an instruction set with few registers gets no code for large tiles.
    let most = <W::Vector<L> as Vector<W>>::VECTORS;
    match vectors {
        2 if most >= 2 => fixed::<L, W, M, 2>(w, offsets, x, out),
        3 if most >= 3 => fixed::<L, W, M, 3>(w, offsets, x, out),
        4 if most >= 4 => fixed::<L, W, M, 4>(w, offsets, x, out),
        5 if most >= 5 => fixed::<L, W, M, 5>(w, offsets, x, out),
        6 if most >= 6 => fixed::<L, W, M, 6>(w, offsets, x, out),
        _ => fixed::<L, W, M, 1>(w, offsets, x, out),
    }
}

/// The tile with all sizes known, so that the sums stay in registers.
#[inline(always)]
fn fixed<L: Level, W: Ring, const M: usize, const V: usize>(w: &[W], offsets: &[usize], x: &[W], out: &mut [W]) {
    let lanes = <W::Vector<L> as Vector<W>>::LANES;
    let mut sums = [[W::Vector::<L>::zero(); V]; M];
    for (w, offset) in w.as_chunks::<M>().0.iter().zip(offsets) {
        let x = &x[*offset..*offset + V * lanes];
        let mut positions = [W::Vector::<L>::zero(); V];
        for v in 0..V {
            positions[v] = W::Vector::<L>::load(&x[v * lanes..]);
        }
        for i in 0..M {
            let weight = W::Vector::<L>::splat(w[i]);
            for v in 0..V {
                sums[i][v] = sums[i][v].mul_add(weight, positions[v]);
            }
        }
    }
    for i in 0..M {
        for v in 0..V {
            sums[i][v].store(&mut out[(i * V + v) * lanes..]);
        }
    }
}
