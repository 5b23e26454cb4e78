//! Matrix products: rows of activations times rows of weights.

use crate::dispatch::Kernels;
use crate::error::{KernelError, filled, length};
use crate::portable::dot;
use crate::spec::{MatMulSpec, Weights};
use crate::vector::{Level, Task, Weight};
use crate::word::{Ring, Word};

/// Bytes of activations that stay in cache while all weights pass over them.
const BLOCK_BYTES: usize = 1 << 18;

/// A matrix product with its weights, ready to run on any [`Kernels`]. Holds the only copy of the weights it needs.
#[derive(Clone, Debug)]
pub struct PackedMatMul {
    spec: MatMulSpec,
    weights: Weights,
}

impl Kernels {
    /// Prepares a matrix product. `weights` are `[batch, n, k]`, or `[n, k]` if broadcast.
    ///
    /// # Errors
    /// An invalid specification; weights of the wrong length.
    pub fn pack_matmul(self, spec: MatMulSpec, weights: Weights) -> Result<PackedMatMul, KernelError> {
        let [_, len, _] = spec.lens()?;
        length("weights", len, weights.len())?;
        Ok(PackedMatMul { spec, weights })
    }

    /// Overwrites `y` with the product, modulo 2^BITS of the word. Layouts as in [`MatMulSpec`].
    ///
    /// # Errors
    /// Slices of the wrong length; no memory for the results of threads.
    pub fn matmul<W: Word>(self, packed: &PackedMatMul, x: &[W], y: &mut [W]) -> Result<(), KernelError> {
        W::matmul(self, packed, x, y)
    }
}

/// Overwrites `y`.
pub(crate) fn run<W: Ring>(kernels: Kernels, packed: &PackedMatMul, x: &[W], y: &mut [W]) -> Result<(), KernelError> {
    let [x_len, _, y_len] = packed.spec.lens()?;
    length("input", x_len, x.len())?;
    length("output", y_len, y.len())?;
    match &packed.weights {
        Weights::I16(w) => batches(kernels, &packed.spec, x, w, y),
        Weights::I32(w) => batches(kernels, &packed.spec, x, w, y),
    }
}

/// One product for each weight matrix; a single matrix takes the rows of the whole batch.
fn batches<W: Ring, S: Weight>(
    kernels: Kernels,
    spec: &MatMulSpec,
    x: &[W],
    w: &[S],
    y: &mut [W],
) -> Result<(), KernelError> {
    let rows = if spec.broadcast { spec.rows * spec.batch } else { spec.rows };
    let (n, k) = (spec.n, spec.k);
    for ((x, w), y) in x.chunks_exact(rows * k).zip(w.chunks_exact(n * k)).zip(y.chunks_exact_mut(rows * n)) {
        let work = rows as u128 * n as u128 * k as u128;
        // Whole rows where there are enough of them: their results lie together. Otherwise columns.
        let parts = kernels.parts(work, rows.div_ceil(4).max(n.div_ceil(4)));
        if parts == 1 {
            kernels.run(Product { k, x, w, y, step: n });
        } else if rows.div_ceil(4) >= parts {
            by_rows(kernels, parts, (rows, n, k), x, w, y);
        } else {
            by_columns(kernels, parts, (rows, n, k), x, w, y)?;
        }
    }
    Ok(())
}

/// Each thread takes consecutive rows.
fn by_rows<W: Ring, S: Weight>(
    kernels: Kernels,
    parts: usize,
    (rows, n, k): (usize, usize, usize),
    x: &[W],
    w: &[S],
    y: &mut [W],
) {
    let share = rows.div_ceil(parts).next_multiple_of(4);
    std::thread::scope(|scope| {
        for (x, y) in x.chunks(share * k).zip(y.chunks_mut(share * n)) {
            scope.spawn(move || kernels.run(Product { k, x, w, y, step: n }));
        }
    });
}

/// Each thread takes consecutive columns, that is weights; results are put in place afterwards.
fn by_columns<W: Ring, S: Weight>(
    kernels: Kernels,
    parts: usize,
    (rows, n, k): (usize, usize, usize),
    x: &[W],
    w: &[S],
    y: &mut [W],
) -> Result<(), KernelError> {
    let share = n.div_ceil(parts).next_multiple_of(4);
    let mut results = filled(W::ZERO, rows * n)?;
    std::thread::scope(|scope| {
        for (w, y) in w.chunks(share * k).zip(results.chunks_mut(rows * share)) {
            scope.spawn(move || kernels.run(Product { k, x, w, y, step: w.len() / k }));
        }
    });
    for (index, part) in results.chunks(rows * share).enumerate() {
        let columns = part.len() / rows;
        for (part, y) in part.chunks_exact(columns).zip(y.chunks_exact_mut(n)) {
            y[index * share..][..columns].copy_from_slice(part);
        }
    }
    Ok(())
}

/// `y[r * step + c] = sum_k x[r, k] * w[c, k]` on one thread.
struct Product<'a, W, S> {
    k: usize,
    x: &'a [W],
    w: &'a [S],
    y: &'a mut [W],
    step: usize,
}

impl<W: Ring, S: Weight> Task for Product<'_, W, S> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let Product { k, x, w, y, step } = self;
        let rows = (BLOCK_BYTES / size_of::<W>() / k).max(4) / 4 * 4;
        for (x, y) in x.chunks(rows * k).zip(y.chunks_mut(rows * step)) {
            dot::product::<L, W, S>(k, x, w, y, step);
        }
    }
}
