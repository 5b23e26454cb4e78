//! AArch64 NEON, which every AArch64 processor has.
//!
//! No intrinsics yet: the portable loops, compiled for the baseline of the target with vectors as wide as its
//! registers and tiles for its 32 of them. Kernels that need more than the compiler finds (`mla` by element, `sdot`,
//! `smmla`) belong here.

use crate::portable::Lanes;
use crate::vector::Level;

/// NEON.
#[derive(Clone, Copy)]
pub struct Neon;

impl Level for Neon {
    type V32 = Lanes<u32, 4>;
    type V64 = Lanes<u64, 2>;
    const ROWS: usize = 4;
}
