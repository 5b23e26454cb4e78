//! The register tile of matrix products: dot products of up to four rows of activations with four rows of weights.
//! Both operands are read along their rows, so neither needs another layout.

use crate::vector::{Level, Vector, Weight};
use crate::word::Ring;

/// `y[r * step + c] = sum_k x[r, k] * w[c, k]` for all rows of `x` (`[rows, k]`) and `w` (`[columns, k]`).
#[inline(always)]
pub fn product<L: Level, W: Ring, S: Weight>(k: usize, x: &[W], w: &[S], y: &mut [W], step: usize) {
    let mut weights = w.chunks_exact(4 * k);
    let mut column = 0;
    for w in weights.by_ref() {
        rows::<L, W, S, 4>(k, x, w, y, column, step);
        column += 4;
    }
    for w in weights.remainder().chunks_exact(k) {
        rows::<L, W, S, 1>(k, x, w, y, column, step);
        column += 1;
    }
}

/// `C` columns, all rows.
#[inline(always)]
fn rows<L: Level, W: Ring, S: Weight, const C: usize>(
    k: usize,
    x: &[W],
    w: &[S],
    y: &mut [W],
    column: usize,
    step: usize,
) {
    let total = x.len() / k;
    let mut row = 0;
    while row < total {
        let x = &x[row * k..];
        let y = &mut y[row * step + column..];
        row += match total - row {
            4.. if L::ROWS >= 4 => tile::<L, W, S, 4, C>(k, x, w, y, step),
            2.. if L::ROWS >= 2 => tile::<L, W, S, 2, C>(k, x, w, y, step),
            _ => tile::<L, W, S, 1, C>(k, x, w, y, step),
        };
    }
}

/// `R` rows by `C` columns; returns `R`.
#[inline(always)]
fn tile<L: Level, W: Ring, S: Weight, const R: usize, const C: usize>(
    k: usize,
    x: &[W],
    w: &[S],
    y: &mut [W],
    step: usize,
) -> usize {
    let lanes = <W::Vector<L> as Vector<W>>::LANES;
    let mut x_rows = [x; R];
    for r in 0..R {
        x_rows[r] = &x[r * k..][..k];
    }
    let mut w_rows = [w; C];
    for c in 0..C {
        w_rows[c] = &w[c * k..][..k];
    }
    let whole = k - k % lanes;
    let mut sums = [[W::Vector::<L>::zero(); C]; R];
    let mut at = 0;
    while at < whole {
        let mut xs = [W::Vector::<L>::zero(); R];
        for r in 0..R {
            xs[r] = W::Vector::<L>::load(&x_rows[r][at..]);
        }
        for c in 0..C {
            let weights = S::load::<W, W::Vector<L>>(&w_rows[c][at..]);
            for r in 0..R {
                sums[r][c] = sums[r][c].mul_add(weights, xs[r]);
            }
        }
        at += lanes;
    }
    for r in 0..R {
        for c in 0..C {
            let rest = x_rows[r][whole..].iter().zip(&w_rows[c][whole..]);
            y[r * step + c] = rest.fold(sums[r][c].sum(), |a, (x, w)| a.plus(x.times(w.word())));
        }
    }
    R
}
