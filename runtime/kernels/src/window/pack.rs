//! Weights in the order in which tiles read them.

use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::spec::{ConvSpec, ConvTransposeSpec, Weights};
use crate::window::plan::{Plan, Route};
use crate::word::Word;

/// A convolution of either kind with its weights.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(super) plan: Plan,
    pub(super) weights: Weights,
}

impl Packed {
    fn new(plan: Plan, weights: Weights) -> Result<Packed, KernelError> {
        let weights = match plan.route {
            Route::Taps => weights,
            Route::Positions(channels) => match weights {
                Weights::I16(w) => Weights::I16(tiles(&plan, channels, &w)?),
                Weights::I32(w) => Weights::I32(tiles(&plan, channels, &w)?),
            },
        };
        Ok(Packed { plan, weights })
    }
}

/// Weights as `[group, tile, section, tap, channel]`; a last tile with fewer channels is filled up with zeros.
fn tiles<S: Copy + Default>(plan: &Plan, channels: usize, w: &[S]) -> Result<Vec<S>, KernelError> {
    let taps: usize = plan.sections.iter().map(|s| s.weights.len()).sum();
    let len = (plan.groups * plan.tiles()).checked_mul(channels * taps);
    let len = len.ok_or(KernelError::TooLarge { what: "weights" })?;
    let mut packed = Vec::new();
    packed.try_reserve_exact(len).map_err(|_| KernelError::Memory { bytes: len.saturating_mul(size_of::<S>()) })?;
    for group in w.chunks_exact(plan.out_channels * plan.taps) {
        for tile in group.chunks(channels * plan.taps) {
            for index in plan.sections.iter().flat_map(|s| &s.weights) {
                let rows = tile.chunks_exact(plan.taps).map(|row| row[*index]);
                packed.extend(rows.chain(std::iter::repeat(S::default())).take(channels));
            }
        }
    }
    Ok(packed)
}

/// A convolution with its weights, ready to run on any [`Kernels`]. Holds the only copy of the weights it needs.
#[derive(Clone, Debug)]
pub struct PackedConv(Packed);

/// A transposed convolution with its weights, ready to run on any [`Kernels`]. Holds the only copy of the weights it
/// needs.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose(Packed);

impl Kernels {
    /// Prepares a convolution. `weights` are `[out_channels, in_channels / groups, kernel..]`.
    ///
    /// # Errors
    /// An invalid specification; weights of the wrong length.
    pub fn pack_conv(self, spec: ConvSpec, weights: Weights) -> Result<PackedConv, KernelError> {
        // First the length: with it, the number of taps is no larger than what the caller has in memory.
        length("weights", spec.weights_len()?, weights.len())?;
        Ok(PackedConv(Packed::new(Plan::conv(&spec)?, weights)?))
    }

    /// Prepares a transposed convolution. `weights` are `[out_channels, in_channels / groups, kernel..]`.
    ///
    /// # Errors
    /// An invalid specification; weights of the wrong length.
    pub fn pack_conv_transpose(
        self,
        spec: ConvTransposeSpec,
        weights: Weights,
    ) -> Result<PackedConvTranspose, KernelError> {
        length("weights", spec.weights_len()?, weights.len())?;
        Ok(PackedConvTranspose(Packed::new(Plan::transpose(&spec)?, weights)?))
    }

    /// Overwrites `y` with the convolution of `x`, modulo 2^BITS of the word. Layouts as in [`ConvSpec`].
    ///
    /// # Errors
    /// Slices of the wrong length; no memory for the padded input of a group.
    pub fn conv<W: Word>(self, packed: &PackedConv, x: &[W], y: &mut [W]) -> Result<(), KernelError> {
        W::window(self, &packed.0, x, y)
    }

    /// Overwrites `y` with the transposed convolution of `x`, modulo 2^BITS of the word. Layouts as in
    /// [`ConvTransposeSpec`].
    ///
    /// # Errors
    /// Slices of the wrong length; no memory for the padded input of a group.
    pub fn conv_transpose<W: Word>(
        self,
        packed: &PackedConvTranspose,
        x: &[W],
        y: &mut [W],
    ) -> Result<(), KernelError> {
        W::window(self, &packed.0, x, y)
    }
}
