//! One layer as an edge runs it: from the payload received to the payload sent, and beside it in f32.

use pponnx_kernels::{ConvSpec, KernelError, Kernels, MatMulSpec, PackedConv, PackedMatMul, Weights, Word};
use serde_json::{Value, json};

use crate::bench::shapes::Layer;

/// Working sets of this size and more do not stay in the last cache: matrices are copied until they reach it, and the
/// copies used in turn, as a network uses its layers in turn.
const WORKING_SET: usize = 300 << 20;
const MOST_COPIES: usize = 20;

/// A ring of the precisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// `fast`: 32 bits, 16-bit weights.
    Fast,
    /// `precise`: 52 bits, 32-bit weights.
    Precise,
}

impl Ring {
    fn bits(self) -> u32 {
        match self {
            Ring::Fast => 32,
            Ring::Precise => 52,
        }
    }

    fn weight_bytes(self) -> usize {
        match self {
            Ring::Fast => 2,
            Ring::Precise => 4,
        }
    }

    fn weights(self, n: usize) -> Weights {
        let value = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match self {
            Ring::Fast => Weights::I16((0..n).map(|i| (value(i) >> 48) as i16).collect()),
            Ring::Precise => Weights::I32((0..n).map(|i| (value(i) >> 38) as i32 - (1 << 25)).collect()),
        }
    }
}

/// How many copies of a layer's weights are used in turn.
pub fn copies(layer: Layer, weight_bytes: usize) -> usize {
    match layer {
        Layer::Conv { .. } => 1,
        Layer::Full { rows, .. } if rows > 1 => 1,
        Layer::Full { .. } => (WORKING_SET / (layer.weights() * weight_bytes)).clamp(1, MOST_COPIES),
    }
}

/// The order that makes onnxruntime load this layer under a name.
pub fn order(layer: Layer, name: &str, threads: usize) -> Value {
    match layer {
        Layer::Conv { c, size, m, kernel, stride, pad, groups } => json!({
            "op": "conv", "name": name, "c": c, "size": size, "m": m, "kernel": kernel, "stride": stride, "pad": pad,
            "groups": groups, "threads": threads,
        }),
        Layer::Full { k, n, rows } => json!({
            "op": "matmul", "name": name, "k": k, "n": n, "rows": rows, "threads": threads,
            "copies": copies(layer, 4),
        }),
    }
}

/// A layer ready to run again and again.
pub trait Prepared {
    /// Answers one upload.
    ///
    /// # Errors
    /// The kernels refuse the layer.
    fn run(&mut self) -> Result<(), KernelError>;
}

/// Packs a layer with arbitrary weights and inputs.
///
/// # Errors
/// The kernels refuse the layer.
pub fn prepare(kernels: Kernels, layer: Layer, ring: Ring) -> Result<Box<dyn Prepared>, KernelError> {
    match ring {
        Ring::Fast => Ok(Box::new(Ready::<u32>::new(kernels, layer, ring)?)),
        Ring::Precise => Ok(Box::new(Ready::<u64>::new(kernels, layer, ring)?)),
    }
}

enum Packed {
    Conv(Box<PackedConv>),
    Full(PackedMatMul),
}

struct Ready<W> {
    kernels: Kernels,
    bits: u32,
    packed: Vec<Packed>,
    next: usize,
    upload: Vec<u8>,
    correction: Vec<W>,
    x: Vec<W>,
    y: Vec<W>,
    answer: Vec<u8>,
}

impl<W: Word> Ready<W> {
    fn new(kernels: Kernels, layer: Layer, ring: Ring) -> Result<Ready<W>, KernelError> {
        let one = || -> Result<Packed, KernelError> {
            let weights = ring.weights(layer.weights());
            Ok(match layer {
                Layer::Conv { c, size, m, kernel, stride, pad, groups } => {
                    let spec = ConvSpec {
                        batch: 1,
                        in_channels: c,
                        input: vec![size; 2],
                        out_channels: m,
                        kernel: vec![kernel; 2],
                        strides: vec![stride; 2],
                        dilations: vec![1; 2],
                        pads_before: vec![pad; 2],
                        pads_after: vec![pad; 2],
                        groups,
                    };
                    Packed::Conv(Box::new(kernels.pack_conv(spec, weights)?))
                }
                Layer::Full { k, n, rows } => {
                    Packed::Full(kernels.pack_matmul(MatMulSpec { batch: 1, broadcast: true, rows, n, k }, weights)?)
                }
            })
        };
        let packed = (0..copies(layer, ring.weight_bytes())).map(|_| one()).collect::<Result<Vec<_>, _>>()?;
        let words = |n: usize, seed: u64| -> Vec<W> {
            (0..n as u64).map(|i| W::from_u64((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7)).collect()
        };
        let mut upload = Vec::new();
        kernels.pack(&words(layer.inputs(), 1), ring.bits(), &mut upload)?;
        Ok(Ready {
            kernels,
            bits: ring.bits(),
            packed,
            next: 0,
            upload,
            correction: words(layer.outputs(), 2),
            x: words(layer.inputs(), 3),
            y: words(layer.outputs(), 4),
            answer: Vec::new(),
        })
    }
}

impl<W: Word> Prepared for Ready<W> {
    fn run(&mut self) -> Result<(), KernelError> {
        let kernels = self.kernels;
        self.next = (self.next + 1) % self.packed.len();
        kernels.unpack(&self.upload, self.bits, &mut self.x)?;
        match self.packed.get(self.next) {
            Some(Packed::Conv(packed)) => kernels.conv(packed, &self.x, &mut self.y)?,
            Some(Packed::Full(packed)) => kernels.matmul(packed, &self.x, &mut self.y)?,
            None => {}
        }
        kernels.sub_assign(&mut self.y, &self.correction)?;
        self.answer.clear();
        kernels.pack(&self.y, self.bits, &mut self.answer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn layers_run_in_both_rings() {
        let conv = Layer::Conv { c: 3, size: 9, m: 5, kernel: 3, stride: 2, pad: 1, groups: 1 };
        for layer in [conv, Layer::Full { k: 7, n: 3, rows: 2 }] {
            for ring in [Ring::Fast, Ring::Precise] {
                prepare(Kernels::detect(), layer, ring).unwrap().run().unwrap();
            }
        }
    }

    #[test]
    fn only_vectors_take_copies() {
        assert_eq!(copies(Layer::Full { k: 9216, n: 4096, rows: 1 }, 2), 4);
        assert_eq!(copies(Layer::Full { k: 9216, n: 4096, rows: 8 }, 2), 1);
        assert_eq!(copies(Layer::Full { k: 2048, n: 1000, rows: 1 }, 4), MOST_COPIES);
    }
}
