//! The plan of a convolution: staged layout, taps and tiles, all derived once when weights are packed.

use crate::error::KernelError;
use crate::spec::{ConvSpec, ConvTransposeSpec, total};
use crate::vector::{MAX_LANES, MAX_VECTORS};
use crate::window::axis::{Axis, Phase};

/// Up to so many output positions a batch element, a convolution is computed as dot products: too few for the lanes
/// of a vector.
const FEW: usize = 4;

/// How tiles lie on the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Vectors over output positions, this many output channels (1, 2 or 4) a tile; weights `[.., tap, channel]`.
    Positions(usize),
    /// Vectors over taps, four output channels a tile; weights as given.
    Taps,
}

impl Route {
    /// Output channels of a tile.
    pub fn channels(self) -> usize {
        match self {
            Route::Positions(channels) => channels,
            Route::Taps => 4,
        }
    }
}

/// The sum over taps for the outputs of one phase of each axis.
#[derive(Clone, Debug)]
pub struct Section {
    /// Index of the phase of each axis.
    pub phases: [usize; 3],
    /// Staged element of each tap, input channels first.
    pub offsets: Vec<usize>,
    /// Index of each tap's weight among the `in_channels * taps` of an output channel.
    pub weights: Vec<usize>,
}

/// A validated convolution of either kind with three axes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group.
    pub in_channels: usize,
    /// Channels of a group.
    pub out_channels: usize,
    pub axes: [Axis; 3],
    /// Weights of an output channel.
    pub taps: usize,
    pub sections: Vec<Section>,
    pub route: Route,
    /// Staged elements of a channel.
    pub staged_channel: usize,
    /// Staged elements of a group, and room for a tile that begins at the last of them.
    pub staged: usize,
}

impl Plan {
    pub fn conv(spec: &ConvSpec) -> Result<Plan, KernelError> {
        let output = spec.output()?;
        let axis = |a: usize| {
            let (d, k) = (spec.input[a], spec.kernel[a]);
            Axis::conv(d, k, spec.strides[a], spec.dilations[a], spec.pads_before[a], output[a])
        };
        let sizes = (spec.batch, spec.groups, spec.in_channels, spec.out_channels);
        Plan::new(sizes, three(output.len(), axis), &spec.kernel)
    }

    pub fn transpose(spec: &ConvTransposeSpec) -> Result<Plan, KernelError> {
        let output = spec.output()?;
        let axis = |a: usize| {
            let (d, k) = (spec.input[a], spec.kernel[a]);
            Axis::transpose(d, k, spec.strides[a], spec.dilations[a], spec.pads_before[a], output[a])
        };
        let sizes = (spec.batch, spec.groups, spec.in_channels, spec.out_channels);
        Plan::new(sizes, three(output.len(), axis), &spec.kernel)
    }

    fn new(
        (batch, groups, in_channels, out_channels): (usize, usize, usize, usize),
        axes: [Axis; 3],
        kernel: &[usize],
    ) -> Result<Plan, KernelError> {
        let (in_channels, out_channels) = (in_channels / groups, out_channels / groups);
        let staged_axis = |a: &Axis| a.planes.len().checked_mul(a.len).ok_or(KernelError::TooLarge { what: "padding" });
        let sizes = [staged_axis(&axes[0])?, staged_axis(&axes[1])?, staged_axis(&axes[2])?];
        let staged = total("padded input", &[in_channels], &sizes)?;
        let staged_channel = staged / in_channels;
        let mut plan = Plan {
            batch,
            groups,
            in_channels,
            out_channels,
            taps: in_channels * kernel.iter().product::<usize>(),
            sections: Vec::new(),
            route: Route::Positions(1),
            staged_channel,
            staged: staged + MAX_LANES * MAX_VECTORS,
            axes,
        };
        plan.sections = plan.sections(kernel);
        plan.route = match out_channels {
            _ if plan.outputs() <= FEW && plan.is_single() => Route::Taps,
            1 => Route::Positions(1),
            2 => Route::Positions(2),
            _ => Route::Positions(4),
        };
        Ok(plan)
    }

    /// One section with all taps in the order of the weights, as convolutions have.
    fn is_single(&self) -> bool {
        let all = |s: &Section| s.weights.len() == self.taps && s.weights.iter().copied().eq(0..self.taps);
        self.axes.iter().all(|a| a.step == 1) && self.sections.len() == 1 && self.sections.iter().all(all)
    }

    /// Output positions of a channel.
    pub fn outputs(&self) -> usize {
        self.axes.iter().map(|a| a.output).product()
    }

    /// Input elements of a channel.
    pub fn inputs(&self) -> usize {
        self.axes.iter().map(|a| a.input).product()
    }

    /// Length of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.groups * self.in_channels * self.inputs()
    }

    /// Length of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.groups * self.out_channels * self.outputs()
    }

    /// Tiles of output channels in a group.
    pub fn tiles(&self) -> usize {
        self.out_channels.div_ceil(self.route.channels())
    }

    /// Products that count (padding included).
    pub fn mult_adds(&self) -> u128 {
        let section = |s: &Section| {
            let outputs: u128 = self.phases(s).iter().map(|p| p.count as u128).product();
            outputs * s.offsets.len() as u128
        };
        let channel: u128 = self.sections.iter().map(section).sum();
        channel * (self.batch * self.groups * self.out_channels) as u128
    }

    /// The phases of a section.
    pub fn phases(&self, section: &Section) -> [&Phase; 3] {
        std::array::from_fn(|a| &self.axes[a].phases[section.phases[a]])
    }

    fn sections(&self, kernel: &[usize]) -> Vec<Section> {
        let [z, y, x] = &self.axes;
        let width = kernel[kernel.len() - 1];
        let height = if kernel.len() > 1 { kernel[kernel.len() - 2] } else { 1 };
        let kernel: usize = kernel.iter().product();
        let mut sections = Vec::new();
        for (pz, z_phase) in z.phases.iter().enumerate() {
            for (py, y_phase) in y.phases.iter().enumerate() {
                for (px, x_phase) in x.phases.iter().enumerate() {
                    let (mut offsets, mut weights) = (Vec::new(), Vec::new());
                    for channel in 0..self.in_channels {
                        for tz in &z_phase.taps {
                            for ty in &y_phase.taps {
                                for tx in &x_phase.taps {
                                    let plane = (tz.plane * y.planes.len() + ty.plane) * x.planes.len() + tx.plane;
                                    let at = ((plane * z.len + tz.shift) * y.len + ty.shift) * x.len + tx.shift;
                                    offsets.push(channel * self.staged_channel + at);
                                    weights.push(channel * kernel + (tz.index * height + ty.index) * width + tx.index);
                                }
                            }
                        }
                    }
                    sections.push(Section { phases: [pz, py, px], offsets, weights });
                }
            }
        }
        sections
    }
}

/// The axes there are, behind axes of size 1.
fn three(n: usize, axis: impl Fn(usize) -> Axis) -> [Axis; 3] {
    std::array::from_fn(|a| (a + n).checked_sub(3).map_or_else(Axis::unit, &axis))
}
