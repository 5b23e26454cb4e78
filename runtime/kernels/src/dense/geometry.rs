//! Where the inputs of a convolution are staged, and where each output position finds them.

use crate::error::KernelError;
use crate::spec::{ConvSpec, total};

/// One spatial axis. Staged element `j` is source element `step * j - before`, or zero outside the source.
#[derive(Clone, Copy, Debug)]
struct Axis {
    input: usize,
    output: usize,
    kernel: usize,
    dilation: usize,
    /// Staged elements from one output to the next.
    stride: usize,
    before: usize,
    step: usize,
    /// Staged elements.
    len: usize,
    /// The staged elements inside the source: `inside.0..inside.1`.
    inside: (usize, usize),
}

/// Consecutive pixels of the source that are staged one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// First element in a channel of the source.
    pub source: usize,
    /// First staged word.
    pub target: usize,
    /// Pixels.
    pub count: usize,
}

/// Layout of the staged input of one group: `[z, y, x, channel]`, rows padded to an even number of words.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Channels of the source.
    pub channels: usize,
    /// Staged channels: one more where a pixel would begin in the middle of a unit otherwise.
    pub depth: usize,
    /// Whether pixels are interleaved one by one: channels are few and not even.
    pub interleave: bool,
    axes: [Axis; 3],
    /// Words from one element of an axis to the next; the last is the depth.
    pitch: [usize; 3],
    /// Staged words, and room for a unit that begins at the last of them.
    pub staged: usize,
    pub lines: Vec<Line>,
    /// Staged words that are always zero: first and number.
    pub zeros: Vec<(usize, usize)>,
    /// Distance between the source elements of neighbouring pixels of a line.
    pub step: usize,
    /// First word of each segment, relative to a position.
    pub segments: Vec<usize>,
    /// Words of a segment.
    pub run: usize,
    /// Index of the weight that each word of each segment meets; [`super::pack::NONE`] for filled channels.
    pub values: Vec<usize>,
}

/// Most elements of a channel in one line, so that lines are pieces of work for threads.
const LONGEST: usize = 1024;

impl Geometry {
    /// `None` where staging would take far more memory than the input: huge padding or dilation.
    pub fn new(spec: &ConvSpec) -> Result<Option<Geometry>, KernelError> {
        let output = spec.output()?;
        let n = output.len();
        let axes: [Axis; 3] = std::array::from_fn(|a| match (a + n).checked_sub(3) {
            None => Axis::new(1, 1, 1, 1, 0, 1),
            Some(a) => Axis::new(
                spec.input[a],
                spec.kernel[a],
                spec.strides[a],
                spec.dilations[a],
                spec.pads_before[a],
                output[a],
            ),
        });
        let [z, y, x] = axes;
        let channels = spec.in_channels / spec.groups;
        // Pixels and segments begin on a pair.
        let odd = (x.output > 1 && x.stride * channels % 2 == 1)
            || (x.kernel > 1 && x.dilation > 1 && x.dilation * channels % 2 == 1);
        let depth = channels + usize::from(odd);
        let row = x.len.checked_mul(depth).and_then(|r| r.checked_next_multiple_of(2));
        let Some(row) = row else { return Ok(None) };
        let inputs = total("input", &[channels], &spec.input)?;
        let outputs = total("output", &[channels], &output)?;
        let Ok(staged) = total("padded input", &[z.len, y.len], &[row]) else { return Ok(None) };
        if staged / 8 > inputs + outputs + 64 {
            return Ok(None);
        }
        let mut geometry = Geometry {
            channels,
            depth,
            interleave: depth % 2 == 1 || channels < 4,
            axes,
            pitch: [y.len * row, row, depth],
            staged: staged + 2,
            lines: Vec::new(),
            zeros: Vec::new(),
            step: x.step,
            segments: Vec::new(),
            run: if x.dilation > 1 { depth } else { x.kernel * depth },
            values: Vec::new(),
        };
        geometry.lay_lines();
        geometry.lay_segments();
        Ok(Some(geometry))
    }

    fn lay_lines(&mut self) {
        let [z, y, x] = self.axes;
        let row = self.pitch[1];
        for jz in 0..z.len {
            for jy in 0..y.len {
                let target = jz * self.pitch[0] + jy * row;
                let (Some(sz), Some(sy)) = (z.source(jz), y.source(jy)) else {
                    self.zero(target, row);
                    continue;
                };
                let (from, to) = x.inside;
                let source = (sz * y.input + sy) * x.input + (from * x.step).saturating_sub(x.before);
                self.zero(target, from * self.depth);
                self.line(Line { source, target: target + from * self.depth, count: to - from });
                self.zero(target + to * self.depth, row - to * self.depth);
            }
        }
        self.zero(self.staged - 2, 2);
    }

    fn zero(&mut self, first: usize, count: usize) {
        match self.zeros.last_mut() {
            Some(last) if last.0 + last.1 == first => last.1 += count,
            _ if count > 0 => self.zeros.push((first, count)),
            _ => (),
        }
    }

    fn line(&mut self, line: Line) {
        let (step, depth) = (self.step, self.depth);
        match self.lines.last_mut() {
            // Without padding the rows of a plane are one long line.
            Some(last)
                if !self.interleave
                    && last.source + last.count * step == line.source
                    && last.target + last.count * depth == line.target
                    && last.count + line.count <= LONGEST =>
            {
                last.count += line.count;
            }
            _ if line.count > 0 => self.lines.push(line),
            _ => (),
        }
    }

    fn lay_segments(&mut self) {
        let [z, y, x] = self.axes;
        let taps = z.kernel * y.kernel * x.kernel;
        for kz in 0..z.kernel {
            for ky in 0..y.kernel {
                let at = kz * z.dilation * self.pitch[0] + ky * y.dilation * self.pitch[1];
                if self.run == self.depth {
                    self.segments.extend((0..x.kernel).map(|kx| at + kx * x.dilation * self.depth));
                } else {
                    self.segments.push(at);
                }
                for kx in 0..x.kernel {
                    let tap = (kz * y.kernel + ky) * x.kernel + kx;
                    let weight = |c: usize| if c < self.channels { c * taps + tap } else { super::pack::NONE };
                    self.values.extend((0..self.depth).map(weight));
                }
            }
        }
    }

    /// Output positions.
    pub fn positions(&self) -> usize {
        self.axes.iter().map(|a| a.output).product()
    }

    /// Elements of a channel of the source.
    pub fn inputs(&self) -> usize {
        self.axes.iter().map(|a| a.input).product()
    }

    /// First staged word of each output position from `first` on.
    pub fn addresses(&self, first: usize, to: &mut [usize]) {
        let [z, y, x] = &self.axes;
        let mut at = [first / (x.output * y.output), first / x.output % y.output, first % x.output];
        for to in to {
            *to =
                at[0] * z.stride * self.pitch[0] + at[1] * y.stride * self.pitch[1] + at[2] * x.stride * self.pitch[2];
            at[2] += 1;
            if at[2] == x.output {
                (at[1], at[2]) = (at[1] + 1, 0);
                if at[1] == y.output {
                    (at[0], at[1]) = (at[0] + 1, 0);
                }
            }
        }
    }

    /// Staged words that one more output position adds to those that its neighbours read, about.
    pub fn footprint(&self) -> usize {
        self.axes.iter().map(|a| a.stride).product::<usize>() * self.depth
    }

    /// The row of the staged input that a word lies in: first word and length.
    pub fn row(&self, word: usize) -> (usize, usize) {
        (word / self.pitch[1] * self.pitch[1], self.pitch[1])
    }
}

impl Axis {
    fn new(input: usize, kernel: usize, stride: usize, dilation: usize, before: usize, output: usize) -> Axis {
        // A window of one element skips what lies between outputs: that is not staged at all.
        let (step, stride) = if kernel == 1 && before == 0 { (stride, 1) } else { (1, stride) };
        let len = (output - 1) * stride + (kernel - 1) * dilation + 1;
        let reaches = |bound: usize| (bound + before).div_ceil(step).min(len);
        let inside = (reaches(0), reaches(input));
        Axis { input, output, kernel, dilation, stride, before, step, len, inside }
    }

    /// The source element of a staged one.
    fn source(&self, j: usize) -> Option<usize> {
        (self.inside.0..self.inside.1).contains(&j).then(|| j * self.step - self.before)
    }
}
