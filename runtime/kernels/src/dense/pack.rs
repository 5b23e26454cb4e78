//! Weights in the order in which tiles read them.

use crate::error::{KernelError, filled};
use crate::scratch::{Line, bytes_mut};
use crate::spec::Weights;

/// Output channels that share a run of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    pub first: usize,
    /// A multiple of the vectors of the instruction set it was packed for; channels beyond the last are zero.
    pub width: usize,
}

/// Packed weights of all groups, `[group, panel, segment, unit, channel, value]`, where a unit is two i16 or one i32
/// of consecutive inputs: four bytes a channel in either case.
#[derive(Clone)]
pub struct Panels {
    data: Vec<Line>,
    /// Whether weights are i32.
    pub wide: bool,
    /// Output channels of a group.
    pub channels: usize,
    pub panels: Vec<Panel>,
    /// Units of a segment.
    pub units: usize,
    /// Units of an output channel.
    pub total: usize,
    /// Channels of a group, with those that fill up the last panel.
    filled: usize,
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Panels").field("channels", &self.channels).field("units", &self.total).finish_non_exhaustive()
    }
}

/// Width of the narrowest panel, which every instruction set divides into its vectors.
const NARROWEST: usize = 16;

/// No weight: an input that exists only to fill up a unit or a pixel.
pub const NONE: usize = usize::MAX;

/// What to pack: rows of weights, and the order of the weights of a row.
pub struct Order<'a> {
    pub groups: usize,
    /// Output channels of a group.
    pub channels: usize,
    /// Weights of an output channel.
    pub row: usize,
    /// Index in the row of each value of each segment, or [`NONE`].
    pub values: &'a [usize],
    /// Values of a segment.
    pub run: usize,
}

impl Panels {
    /// Packs weights in panels of at most `widest` channels.
    pub fn new(order: &Order<'_>, weights: &Weights<'_>, widest: usize) -> Result<Panels, KernelError> {
        let wide = matches!(weights, Weights::I32(_));
        let ku = if wide { 1 } else { 2 };
        let units = order.run.div_ceil(ku);
        let segments = order.values.len() / order.run.max(1);
        let total = units * segments;
        let panels = panels(order.channels, widest.max(NARROWEST));
        let filled_channels = panels.last().map_or(0, |p| p.first + p.width);
        let too_large = KernelError::TooLarge { what: "weights" };
        let bytes = [order.groups, filled_channels, total, 4].iter().try_fold(1usize, |n, m| n.checked_mul(*m));
        let bytes = bytes.filter(|n| *n <= isize::MAX as usize / 2).ok_or(too_large)?;
        let mut packed = Panels {
            data: filled(Line::ZERO, bytes.div_ceil(size_of::<Line>()))?,
            wide,
            channels: order.channels,
            panels,
            units,
            total,
            filled: filled_channels,
        };
        match weights {
            Weights::I16(bytes) => packed.fill::<2, 2>(order, bytes.as_chunks::<2>().0),
            Weights::I32(bytes) => packed.fill::<1, 4>(order, bytes.as_chunks::<4>().0),
        }
        Ok(packed)
    }

    /// `KU` weights of `B` bytes a unit.
    fn fill<const KU: usize, const B: usize>(&mut self, order: &Order<'_>, weights: &[[u8; B]]) {
        let to = bytes_mut(&mut self.data);
        let mut to = to.as_chunks_mut::<B>().0.chunks_exact_mut(KU);
        for group in weights.chunks_exact(order.channels * order.row) {
            for panel in &self.panels {
                let rows = &group[panel.first * order.row..];
                let there = panel.width.min(order.channels - panel.first);
                for segment in order.values.chunks_exact(order.run) {
                    for unit in segment.chunks(KU) {
                        for (channel, to) in to.by_ref().take(panel.width).enumerate() {
                            if channel < there {
                                let row = &rows[channel * order.row..][..order.row];
                                for (to, index) in to.iter_mut().zip(unit) {
                                    *to = row.get(*index).copied().unwrap_or([0; B]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// First byte of the weights of a panel of a group, 4 bytes a channel and unit.
    pub fn start(&self, group: usize, panel: &Panel) -> *const u8 {
        let at = (group * self.filled + panel.first) * self.total * 4;
        debug_assert!(at + panel.width * self.total * 4 <= size_of_val(&self.data[..]));
        self.data.as_ptr().cast::<u8>().wrapping_add(at)
    }
}

/// Panels as wide as can be; the rest of the channels in narrower ones, so that few channels are filled up.
fn panels(channels: usize, widest: usize) -> Vec<Panel> {
    let mut panels = Vec::new();
    let mut first = 0;
    while first < channels {
        let left = (channels - first).next_multiple_of(NARROWEST);
        let mut width = widest;
        while width > left {
            width /= 2;
        }
        panels.push(Panel { first, width });
        first += width;
    }
    panels
}
