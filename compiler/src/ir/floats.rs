//! Real weights that are not copied: owned, or shared with the tensors of the model they were read from.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Numbers of a tensor, row-major. A clone shares them.
#[derive(Clone)]
pub struct Floats(Arc<dyn AsRef<[f32]> + Send + Sync>);

impl Floats {
    /// Numbers that somebody else holds.
    pub fn shared(holder: Arc<dyn AsRef<[f32]> + Send + Sync>) -> Floats {
        Floats(holder)
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        (*self.0).as_ref()
    }
}

impl From<Vec<f32>> for Floats {
    fn from(data: Vec<f32>) -> Floats {
        Floats(Arc::new(data))
    }
}

impl FromIterator<f32> for Floats {
    fn from_iter<I: IntoIterator<Item = f32>>(items: I) -> Floats {
        items.into_iter().collect::<Vec<f32>>().into()
    }
}

impl PartialEq for Floats {
    fn eq(&self, other: &Floats) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Floats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Whether all numbers are finite. Looks at all of them: without an early end the loop has no branches.
pub fn all_finite(data: &[f32]) -> bool {
    let infinity = f32::INFINITY.to_bits() as i32;
    data.iter().fold(0, |most, v| most.max(v.abs().to_bits() as i32)) < infinity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_means_finite() {
        assert!(all_finite(&[0.0, -0.0, f32::MAX, f32::MIN, 1e-40]) && all_finite(&[]));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!all_finite(&[1.0, bad, 2.0]));
        }
    }

    #[test]
    fn a_clone_shares() {
        let a = Floats::from(vec![1.0, 2.0]);
        let b = a.clone();
        assert_eq!((a.as_ptr(), a.len()), (b.as_ptr(), 2));
        assert_eq!(a, b);
    }
}
