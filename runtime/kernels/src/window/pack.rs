//! Weights in the order in which tiles read them.

use crate::dense::DenseConv;
use crate::dispatch::Kernels;
use crate::error::KernelError;
use crate::spec::{ConvSpec, ConvTransposeSpec, Weights};
use crate::view::{Input, Output, Sink, Source, through_words, width};
use crate::window::plan::{Plan, Route};
use crate::word::Word;

/// Weights in memory.
#[derive(Clone, Debug)]
pub enum Stored {
    /// 16-bit weights.
    I16(Vec<i16>),
    /// 32-bit weights.
    I32(Vec<i32>),
}

/// A convolution of either kind with its weights.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(super) plan: Plan,
    pub(super) weights: Stored,
}

impl Packed {
    fn new(plan: Plan, weights: &Weights<'_>) -> Result<Packed, KernelError> {
        let weights = match weights {
            Weights::I16(bytes) => Stored::I16(tiles(&plan, bytes.as_chunks().0, i16::from_le_bytes)?),
            Weights::I32(bytes) => Stored::I32(tiles(&plan, bytes.as_chunks().0, i32::from_le_bytes)?),
        };
        Ok(Packed { plan, weights })
    }
}

/// Weights as the route reads them: in the order given, or `[group, tile, section, tap, channel]`, where a last tile
/// with fewer channels is filled up with zeros.
fn tiles<S: Copy + Default, const B: usize>(
    plan: &Plan,
    w: &[[u8; B]],
    number: impl Fn([u8; B]) -> S,
) -> Result<Vec<S>, KernelError> {
    let taps: usize = plan.sections.iter().map(|s| s.weights.len()).sum();
    let Route::Positions(channels) = plan.route else {
        let mut all = Vec::new();
        all.try_reserve_exact(w.len()).map_err(|_| KernelError::Memory { bytes: size_of_val(w) })?;
        all.extend(w.iter().map(|w| number(*w)));
        return Ok(all);
    };
    let len = (plan.groups * plan.tiles()).checked_mul(channels * taps);
    let len = len.ok_or(KernelError::TooLarge { what: "weights" })?;
    let mut packed = Vec::new();
    packed.try_reserve_exact(len).map_err(|_| KernelError::Memory { bytes: len.saturating_mul(size_of::<S>()) })?;
    for group in w.chunks_exact(plan.out_channels * plan.taps) {
        for tile in group.chunks(channels * plan.taps) {
            for index in plan.sections.iter().flat_map(|s| &s.weights) {
                let rows = tile.chunks_exact(plan.taps).map(|row| number(row[*index]));
                packed.extend(rows.chain(std::iter::repeat(S::default())).take(channels));
            }
        }
    }
    Ok(packed)
}

/// A convolution with its weights, ready to run on any [`Kernels`]. Holds the only copy of the weights it needs.
#[derive(Clone, Debug)]
pub struct PackedConv(Form);

/// How a convolution is evaluated.
#[derive(Clone, Debug)]
enum Form {
    /// With vectors over output channels.
    Dense(DenseConv),
    /// With vectors over output positions, or over taps.
    Window(Packed),
}

/// A transposed convolution with its weights, ready to run on any [`Kernels`]. Holds the only copy of the weights it
/// needs.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose(Packed);

impl Kernels {
    /// Prepares a convolution. `weights` are `[out_channels, in_channels / groups, kernel..]`.
    ///
    /// # Errors
    /// An invalid specification; weights of the wrong length; no memory for them.
    pub fn pack_conv(self, spec: ConvSpec, weights: Weights<'_>) -> Result<PackedConv, KernelError> {
        // First the length: with it, the number of taps is no larger than what the caller has in memory.
        weights.check(spec.weights_len()?)?;
        if let Some(dense) = DenseConv::new(self, &spec, &weights)? {
            return Ok(PackedConv(Form::Dense(dense)));
        }
        Ok(PackedConv(Form::Window(Packed::new(Plan::conv(&spec)?, &weights)?)))
    }

    /// Prepares a transposed convolution. `weights` are `[out_channels, in_channels / groups, kernel..]`.
    ///
    /// # Errors
    /// An invalid specification; weights of the wrong length; no memory for them.
    pub fn pack_conv_transpose(
        self,
        spec: ConvTransposeSpec,
        weights: Weights<'_>,
    ) -> Result<PackedConvTranspose, KernelError> {
        weights.check(spec.weights_len()?)?;
        Ok(PackedConvTranspose(Packed::new(Plan::transpose(&spec)?, &weights)?))
    }

    /// The convolution of `x` over the ring of width `ring`, in layouts as in [`ConvSpec`].
    ///
    /// # Errors
    /// A width beyond the word; input or output of the wrong length; no memory for scratch space.
    pub fn conv<W: Word>(
        self,
        packed: &PackedConv,
        ring: u32,
        x: Input<'_, W>,
        y: Output<'_, W>,
    ) -> Result<(), KernelError> {
        width::<W>(ring)?;
        match &packed.0 {
            Form::Dense(dense) => W::dense(self, dense, ring, x, y),
            Form::Window(window) => self.window(window, ring, x, y),
        }
    }

    /// The transposed convolution of `x` over the ring of width `ring`, in layouts as in [`ConvTransposeSpec`].
    ///
    /// # Errors
    /// A width beyond the word; input or output of the wrong length; no memory for scratch space.
    pub fn conv_transpose<W: Word>(
        self,
        packed: &PackedConvTranspose,
        ring: u32,
        x: Input<'_, W>,
        y: Output<'_, W>,
    ) -> Result<(), KernelError> {
        width::<W>(ring)?;
        self.window(&packed.0, ring, x, y)
    }

    fn window<W: Word>(
        self,
        packed: &Packed,
        ring: u32,
        x: Input<'_, W>,
        mut y: Output<'_, W>,
    ) -> Result<(), KernelError> {
        let x = Source::new(x, ring, packed.plan.input_len())?;
        let n = packed.plan.output_len();
        let sink = Sink::new(&mut y, ring, n)?;
        if sink.splits_at(packed.plan.outputs()) {
            return W::window(self, packed, x, sink);
        }
        through_words(self, &mut y, ring, n, |words| {
            let mut words = Output::Words(words);
            W::window(self, packed, x, Sink::new(&mut words, ring, n)?)
        })
    }
}
