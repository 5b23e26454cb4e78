//! Matrix products: rows of activations times rows of weights.

use crate::dense::kind::Kind;
use crate::dense::pack::{Order, Panels};
use crate::dense::run::{Layout, Run, Visit, visit};
use crate::dispatch::Kernels;
use crate::error::KernelError;
use crate::pool;
use crate::scratch::Scratch;
use crate::spec::{MatMulSpec, Weights};
use crate::vector::Level;
use crate::view::{Input, Output, Sink, Source, through_words, width};
use crate::word::{Ring, Word};

/// A matrix product with its weights, ready to run on any [`Kernels`]. Holds the only copy of the weights it needs.
#[derive(Clone, Debug)]
pub struct PackedMatMul {
    spec: MatMulSpec,
    panels: Panels,
}

impl Kernels {
    /// Prepares a matrix product. `weights` are `[batch, n, k]`, or `[n, k]` if broadcast.
    ///
    /// # Errors
    /// An invalid specification; weights of the wrong length; no memory for them.
    pub fn pack_matmul(self, spec: MatMulSpec, weights: Weights<'_>) -> Result<PackedMatMul, KernelError> {
        let [_, len, _] = spec.lens()?;
        weights.check(len)?;
        let values: Vec<usize> = (0..spec.k).collect();
        let groups = if spec.broadcast { 1 } else { spec.batch };
        let order = Order { groups, channels: spec.n, row: spec.k, values: &values, run: spec.k };
        // Few rows: panels so narrow that all of them fit one tile, which reads the weights once.
        let rows = if spec.broadcast { spec.rows * spec.batch } else { spec.rows };
        let widest = match rows {
            4..=6 => self.panel() / 2,
            7..=12 => self.panel() / 4,
            _ => self.panel(),
        };
        let panels = Panels::new(&order, &weights, widest)?;
        Ok(PackedMatMul { spec, panels })
    }

    /// The product over the ring of width `ring`, in layouts as in [`MatMulSpec`].
    ///
    /// # Errors
    /// A width beyond the word; input or output of the wrong length; no memory for scratch space.
    pub fn matmul<W: Word>(
        self,
        packed: &PackedMatMul,
        ring: u32,
        x: Input<'_, W>,
        y: Output<'_, W>,
    ) -> Result<(), KernelError> {
        width::<W>(ring)?;
        W::matmul(self, packed, ring, x, y)
    }
}

/// Overwrites `y`.
pub(crate) fn run<W: Ring>(
    kernels: Kernels,
    packed: &PackedMatMul,
    k: u32,
    x: Input<'_, W>,
    mut y: Output<'_, W>,
) -> Result<(), KernelError> {
    let [x_len, _, y_len] = packed.spec.lens()?;
    let source = Source::new(x, k, x_len)?;
    let sink = Sink::new(&mut y, k, y_len)?;
    if sink.splits_at(packed.spec.n) && sink.splits_at(16) {
        return products(kernels, packed, k, source, sink);
    }
    through_words(kernels, &mut y, k, y_len, |words| {
        let mut words = Output::Words(words);
        products(kernels, packed, k, source, Sink::new(&mut words, k, y_len)?)
    })
}

/// One product for each weight matrix; a single matrix takes the rows of the whole batch.
fn products<W: Ring>(
    kernels: Kernels,
    packed: &PackedMatMul,
    k: u32,
    x: Source<'_, W>,
    y: Sink<'_, W>,
) -> Result<(), KernelError> {
    let spec = &packed.spec;
    let (rows, products) = if spec.broadcast { (spec.rows * spec.batch, 1) } else { (spec.rows, spec.batch) };
    let one = rows as u128 * spec.n as u128 * spec.k as u128;
    let product = |index: usize, threads: usize| {
        // Room for a unit that begins at the last word of a row.
        let pitch = spec.k.next_multiple_of(2);
        let mut scratch = Scratch::words::<W>(rows * pitch)?;
        let staged = &mut scratch.get::<W>()[..rows * pitch];
        for (row, to) in staged.chunks_exact_mut(pitch).enumerate() {
            visit(kernels, packed.panels.wide, k, Stage { x, at: (index * rows + row) * spec.k, k: spec.k, to });
        }
        let run = Run {
            kernels,
            k,
            panels: &packed.panels,
            group: index,
            layout: Layout::Rows { pitch },
            segments: &[0],
            positions: rows,
            x: staged,
            sink: y,
            base: index * rows * spec.n,
        };
        run.all(threads)
    };
    let within = kernels.parts(one, usize::MAX);
    if products > 1 && within < kernels.threads() {
        return pool::run(kernels.parts(one * products as u128, products), products, &|index| product(index, 1));
    }
    (0..products).try_for_each(|index| product(index, within))
}

/// Stages a row.
struct Stage<'a, W> {
    x: Source<'a, W>,
    at: usize,
    k: usize,
    to: &'a mut [W],
}

impl<W: Ring> Visit<W> for Stage<'_, W> {
    type Out = ();

    #[inline(always)]
    fn visit<L: Level, K: Kind<Word = W>>(self) {
        let (row, rest) = self.to.split_at_mut(self.k);
        self.x.read::<L>(self.at, row);
        rest.fill(W::ZERO);
        K::split_run(self.to);
    }
}
