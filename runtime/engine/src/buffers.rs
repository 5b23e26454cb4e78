//! Buffers of requests, kept for the next one.
//!
//! The tensors of a plan have fixed sizes, so a buffer that one request is done with is exactly what another needs: no
//! memory is asked of the system, and none cleared, once as many requests have run as run at the same time. What a
//! buffer held is left in it. It was masked, or belongs to the device, which alone takes it up again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers by their length.
#[derive(Default)]
pub(crate) struct Buffers {
    bytes: Shelf<u8>,
    integers: Shelf<i32>,
    reals: Shelf<f32>,
}

impl Buffers {
    /// A buffer of bytes with any content.
    pub(crate) fn bytes(&self, len: usize) -> Vec<u8> {
        self.bytes.take(len)
    }

    /// A buffer of integers with any content.
    pub(crate) fn integers(&self, len: usize) -> Vec<i32> {
        self.integers.take(len)
    }

    /// A buffer of real numbers with any content.
    pub(crate) fn reals(&self, len: usize) -> Vec<f32> {
        self.reals.take(len)
    }

    /// Keeps a buffer for the next one who asks for its length.
    pub(crate) fn keep_bytes(&self, buffer: Vec<u8>) {
        self.bytes.keep(buffer);
    }

    /// Keeps a buffer for the next one who asks for its length.
    pub(crate) fn keep_integers(&self, buffer: Vec<i32>) {
        self.integers.keep(buffer);
    }

    /// Keeps a buffer for the next one who asks for its length.
    pub(crate) fn keep_reals(&self, buffer: Vec<f32>) {
        self.reals.keep(buffer);
    }
}

/// Most bytes that a shelf keeps: enough for the tensors of most networks, and no burden to a small device.
const MOST_BYTES: usize = 2 << 20;

struct Shelf<T>(Mutex<Kept<T>>);

struct Kept<T> {
    by_length: BTreeMap<usize, Vec<Vec<T>>>,
    bytes: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Shelf<T> {
        Shelf(Mutex::new(Kept { by_length: BTreeMap::new(), bytes: 0 }))
    }
}

impl<T: Copy + Default> Shelf<T> {
    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        // a panic elsewhere leaves the shelf usable: a wrong sum keeps more or less, and nothing else
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, len: usize) -> Vec<T> {
        let mut kept = self.lock();
        match kept.by_length.get_mut(&len).and_then(Vec::pop) {
            Some(buffer) => {
                kept.bytes = kept.bytes.saturating_sub(size_of_val(buffer.as_slice()));
                buffer
            }
            None => {
                drop(kept);
                vec![T::default(); len]
            }
        }
    }

    fn keep(&self, buffer: Vec<T>) {
        let bytes = size_of_val(buffer.as_slice());
        let mut kept = self.lock();
        if bytes > 0 && kept.bytes + bytes <= MOST_BYTES {
            kept.bytes += bytes;
            kept.by_length.entry(buffer.len()).or_default().push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_buffer_is_handed_out_again_for_its_length_only() {
        let buffers = Buffers::default();
        let mut first = buffers.reals(5);
        first.fill(7.0);
        let at = first.as_ptr();
        buffers.keep_reals(first);
        let other = buffers.reals(4);
        assert_ne!(other.as_ptr(), at);
        let again = buffers.reals(5);
        assert_eq!((again.as_ptr(), again.len()), (at, 5));
        assert_eq!(buffers.reals(5), [0.0; 5]);
    }
}
