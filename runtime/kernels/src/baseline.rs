//! A matrix product in f32 by the crate `gemm`: what benchmarks compare the kernels with. Behind the feature `gemm`.

use gemm::Parallelism;

use crate::error::{KernelError, length};

/// Overwrites `c` with `a b`, on one thread: `a` is `[m, k]`, `b` is `[k, n]`, `c` is `[m, n]`, all row-major.
///
/// # Errors
/// Slices of the wrong length.
pub fn matmul_f32([m, n, k]: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32]) -> Result<(), KernelError> {
    let product = |x: usize, y: usize| x.checked_mul(y).ok_or(KernelError::TooLarge { what: "matrix" });
    length("input", product(m, k)?, a.len())?;
    length("weights", product(k, n)?, b.len())?;
    length("output", product(m, n)?, c.len())?;
    // SAFETY: the strides are those of row-major matrices of these sizes, and each slice has exactly the elements of
    // its matrix; `c` is borrowed mutably, so it overlaps with neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            1,
            n as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn it_is_a_matrix_product() {
        let mut c = [9.0; 2];
        matmul_f32([1, 2, 3], &[1.0, 2.0, 3.0], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &mut c).unwrap();
        assert_eq!(c, [4.0, 5.0]);
        assert!(matmul_f32([1, 2, 3], &[1.0; 3], &[1.0; 5], &mut c).is_err());
    }
}
