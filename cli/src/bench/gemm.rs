//! f32 in this process: the crate `gemm`, if this program was built with the feature of that name.
//!
//! A convolution is timed as the matrix product of the same size. It pays neither for gathering the windows nor for
//! groups, so it is a little better than any convolution made of it.

use pponnx_kernels::KernelError;

use crate::bench::layer::Prepared;
use crate::bench::shapes::Layer;

/// Whether `gemm` was built in.
pub const PRESENT: bool = cfg!(feature = "gemm");

/// The layer as a matrix product in f32; `None` without `gemm`, and for depthwise layers, which are none.
pub fn prepare(layer: Layer) -> Option<Box<dyn Prepared>> {
    let (m, k) = match layer {
        Layer::Conv { groups: 1, c, m, kernel, .. } => (m, c * kernel * kernel),
        Layer::Conv { .. } => return None,
        Layer::Full { k, n, .. } => (n, k),
    };
    PRESENT.then(|| Box::new(Product::new(m, layer.pixels(), k)) as Box<dyn Prepared>)
}

/// `c = a b` with `a` of `[m, k]`, `b` of `[k, n]`, all row-major.
struct Product {
    sizes: [usize; 3],
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Product {
    fn new(m: usize, n: usize, k: usize) -> Product {
        // Neither zeros nor denormal numbers.
        let values = |n: usize| (0..n).map(|i| (i % 251) as f32 / 125.0 - 1.001).collect();
        Product { sizes: [m, n, k], a: values(m * k), b: values(k * n), c: vec![0.0; m * n] }
    }
}

impl Prepared for Product {
    #[cfg(feature = "gemm")]
    fn run(&mut self) -> Result<(), KernelError> {
        pponnx_kernels::baseline::matmul_f32(self.sizes, &self.a, &self.b, &mut self.c)
    }

    #[cfg(not(feature = "gemm"))]
    fn run(&mut self) -> Result<(), KernelError> {
        let _ = (&self.sizes, &self.a, &self.b, &self.c);
        Ok(())
    }
}
