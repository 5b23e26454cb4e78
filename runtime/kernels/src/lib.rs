//! Ring kernels behind one dispatch: the only crate with unsafe code.
//!
//! Edges evaluate linear maps on ring elements: convolution, transposed convolution and matrix product in Z_2^32
//! (`u32` words) and Z_2^64 (`u64` words), where a ring Z_2^k with k up to the width of the word is the low k bits of
//! each word. The device scans, encodes, packs, lifts, checks and decodes, and computes the f32 operators between linear
//! layers. All of it hangs on one value, [`Kernels`], which knows the instruction set and the number of threads.
//!
//! **Invariant**: sums of integers are associative, so neither instruction set, blocking nor threads change a bit of
//! any result. The device's floating-point loops use one rounding an operation and no fused product, so they are
//! exact as well.
//!
//! **Invariant**: no call with sizes from outside can panic or leave a slice. Specifications are validated when
//! weights are packed, and lengths of slices at each call.
//!
//! Tensors are row-major: `[N, C, d1, ..]` for activations, `[O, I/groups, k1, ..]` for the weights of convolutions and
//! `[n, k]` for those of matrix products.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(feature = "gemm")]
pub mod baseline;
mod bits;
mod dense;
mod device;
mod dispatch;
mod error;
mod local_ops;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pool;
mod portable;
mod scratch;
mod spec;
mod vector;
mod view;
mod window;
mod word;

pub use bits::packed_len;
pub use dense::PackedMatMul;
pub use device::{Activation, DecodeRows, RankOne};
pub use dispatch::{Isa, Kernels};
pub use error::KernelError;
pub use local_ops::{Binary, LrnSpec, PoolSpec, Unary};
pub use scratch::wipe_scratch;
pub use spec::{ConvSpec, ConvTransposeSpec, MatMulSpec, Weights};
pub use view::{Input, Output};
pub use window::{PackedConv, PackedConvTranspose};
pub use word::Word;
