//! Layers worth timing: those of well-known networks.

/// A layer on square feature maps, or a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A convolution with a square kernel.
    Conv {
        /// Input channels.
        c: usize,
        /// Height and width of the input.
        size: usize,
        /// Output channels.
        m: usize,
        /// Height and width of the kernel.
        kernel: usize,
        /// Step.
        stride: usize,
        /// Zeros on each side.
        pad: usize,
        /// Groups of channels.
        groups: usize,
    },
    /// Rows of `k` inputs to rows of `n` outputs.
    Full {
        /// Inputs.
        k: usize,
        /// Outputs.
        n: usize,
        /// Rows.
        rows: usize,
    },
}

/// Where a layer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Convolutions of AlexNet.
    AlexNet,
    /// Convolutions of ResNet-50.
    ResNet50,
    /// Pointwise convolutions of MobileNetV2, and its first layer.
    Pointwise,
    /// Depthwise convolutions of MobileNetV2.
    Depthwise,
    /// Fully connected.
    Full,
}

impl Family {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Family::AlexNet => "alexnet",
            Family::ResNet50 => "resnet50",
            Family::Pointwise => "mobilenetv2-pointwise",
            Family::Depthwise => "mobilenetv2-depthwise",
            Family::Full => "fully-connected",
        }
    }
}

impl Layer {
    /// Multiply-adds.
    pub fn mult_adds(self) -> usize {
        match self {
            Layer::Conv { c, m, kernel, groups, .. } => self.pixels() * m * c / groups * kernel * kernel,
            Layer::Full { k, n, rows } => k * n * rows,
        }
    }

    /// Output positions of a channel, or rows.
    pub fn pixels(self) -> usize {
        match self {
            Layer::Conv { size, kernel, stride, pad, .. } => ((size + 2 * pad - kernel) / stride + 1).pow(2),
            Layer::Full { rows, .. } => rows,
        }
    }

    /// Input elements.
    pub fn inputs(self) -> usize {
        match self {
            Layer::Conv { c, size, .. } => c * size * size,
            Layer::Full { k, rows, .. } => k * rows,
        }
    }

    /// Output elements.
    pub fn outputs(self) -> usize {
        match self {
            Layer::Conv { m, .. } => m * self.pixels(),
            Layer::Full { n, rows, .. } => n * rows,
        }
    }

    /// Weights.
    pub fn weights(self) -> usize {
        match self {
            Layer::Conv { c, m, kernel, groups, .. } => m * c / groups * kernel * kernel,
            Layer::Full { k, n, .. } => k * n,
        }
    }

    /// `3x3s2 128->128 @56`.
    pub fn name(self) -> String {
        match self {
            Layer::Conv { c, size, m, kernel, stride, groups, .. } => {
                let step = if stride == 1 { String::new() } else { format!("s{stride}") };
                if groups == 1 {
                    format!("{kernel}x{kernel}{step} {c}->{m} @{size}")
                } else {
                    format!("{kernel}x{kernel}{step} depthwise {c} @{size}")
                }
            }
            Layer::Full { k, n, rows: 1 } => format!("{k}->{n}"),
            Layer::Full { k, n, rows } => format!("{k}->{n} x{rows}"),
        }
    }
}

/// All layers with their families.
pub fn all() -> Vec<(Family, Layer)> {
    let dense = |(c, size, m, kernel, stride): (usize, usize, usize, usize, usize), pad| Layer::Conv {
        c,
        size,
        m,
        kernel,
        stride,
        pad,
        groups: 1,
    };
    let mut layers = Vec::new();
    let alexnet =
        [(3, 224, 64, 11, 4), (64, 27, 192, 5, 1), (192, 13, 384, 3, 1), (384, 13, 256, 3, 1), (256, 13, 256, 3, 1)];
    let pads = [2, 2, 1, 1, 1];
    layers.extend(alexnet.into_iter().zip(pads).map(|(l, pad)| (Family::AlexNet, dense(l, pad))));
    let mut resnet =
        vec![(3, 224, 64, 7, 2), (64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (64, 56, 256, 1, 1), (256, 56, 64, 1, 1)];
    // Each later stage halves the maps and doubles the channels: `w` inside, `4 w` outside.
    for (w, size) in [(128, 56), (256, 28), (512, 14)] {
        resnet.extend([(2 * w, size, w, 1, 1), (w, size, w, 3, 2), (2 * w, size, 4 * w, 1, 2)]);
        resnet.extend([(w, size / 2, 4 * w, 1, 1), (4 * w, size / 2, w, 1, 1), (w, size / 2, w, 3, 1)]);
    }
    layers.extend(resnet.into_iter().map(|l| (Family::ResNet50, dense(l, l.3 / 2))));
    let pointwise = [
        (32, 112, 16),
        (16, 112, 96),
        (96, 56, 24),
        (24, 56, 144),
        (144, 28, 32),
        (32, 28, 192),
        (192, 14, 64),
        (64, 14, 384),
        (384, 14, 96),
        (96, 14, 576),
        (576, 7, 160),
        (160, 7, 960),
        (960, 7, 320),
        (320, 7, 1280),
    ];
    layers.push((Family::Pointwise, dense((3, 224, 32, 3, 2), 1)));
    layers.extend(pointwise.map(|(c, size, m)| (Family::Pointwise, dense((c, size, m, 1, 1), 0))));
    let depthwise = [(32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (960, 7, 1)];
    layers.extend(depthwise.map(|(c, size, stride)| {
        (Family::Depthwise, Layer::Conv { c, size, m: c, kernel: 3, stride, pad: 1, groups: c })
    }));
    for (k, n) in [(9216, 4096), (4096, 4096), (4096, 1000), (2048, 1000)] {
        layers.push((Family::Full, Layer::Full { k, n, rows: 1 }));
    }
    layers.extend([8, 64].map(|rows| (Family::Full, Layer::Full { k: 4096, n: 4096, rows })));
    layers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_layers_are_those_of_the_networks() {
        let layers = all();
        let of = |family| layers.iter().filter(move |(f, _)| *f == family).map(|(_, l)| *l);
        assert_eq!([of(Family::AlexNet).count(), of(Family::ResNet50).count()], [5, 23]);
        assert_eq!(
            [of(Family::Pointwise).count(), of(Family::Depthwise).count(), of(Family::Full).count()],
            [15, 6, 6]
        );
        let first = of(Family::AlexNet).next().unwrap();
        assert_eq!((first.name().as_str(), first.pixels()), ("11x11s4 3->64 @224", 55 * 55));
        let last = of(Family::ResNet50).next_back().unwrap();
        assert_eq!((last.name().as_str(), last.mult_adds()), ("3x3 512->512 @7", 49 * 512 * 512 * 9));
        assert!(of(Family::ResNet50).any(|l| l.name() == "1x1s2 1024->2048 @14"));
    }
}
