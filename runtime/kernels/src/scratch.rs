//! Scratch memory that is kept from call to call.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::KernelError;
use crate::word::Ring;

/// A cache line, which gives buffers their alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

impl Line {
    /// All zero.
    pub const ZERO: Line = Line([0; 64]);
}

/// Buffers that no one uses at the moment.
static IDLE: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// So many buffers are kept; others are freed.
const KEPT: usize = 64;

fn idle() -> MutexGuard<'static, Vec<Vec<Line>>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Overwrites the scratch memory that no operation uses at the moment. For those who have worked on secrets: products of
/// masks leave the masks behind, and they would stay until another operation needs the memory.
pub fn wipe_scratch() {
    idle().iter_mut().for_each(|buffer| buffer.fill(Line::ZERO));
}

/// Memory with arbitrary contents, aligned to a cache line.
pub struct Scratch(Vec<Line>);

impl Scratch {
    /// At least this many words.
    pub fn words<W: Ring>(n: usize) -> Result<Scratch, KernelError> {
        let bytes = n.saturating_mul(size_of::<W>());
        let lines = bytes.div_ceil(size_of::<Line>());
        let mut lender = idle();
        // The smallest that suffices, or the largest to grow.
        let fits = (0..lender.len()).filter(|i| lender[*i].len() >= lines).min_by_key(|i| lender[*i].len());
        let chosen = fits.or_else(|| (0..lender.len()).max_by_key(|i| lender[*i].len()));
        let mut buffer = chosen.map(|i| lender.swap_remove(i)).unwrap_or_default();
        drop(lender);
        if buffer.len() < lines {
            let more = lines - buffer.len();
            buffer.try_reserve_exact(more).map_err(|_| KernelError::Memory { bytes })?;
            buffer.resize(lines, Line::ZERO);
        }
        Ok(Scratch(buffer))
    }

    /// The words.
    pub fn get<W: Ring>(&mut self) -> &mut [W] {
        words_mut(&mut self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut lender = idle();
        if lender.len() < KEPT {
            lender.push(std::mem::take(&mut self.0));
        }
    }
}

/// Lines as words.
pub fn words_mut<W: Ring>(lines: &mut [Line]) -> &mut [W] {
    let n = size_of_val(lines) / size_of::<W>();
    // SAFETY: words are plain integers of 4 or 8 bytes, to which any 64 aligned bytes may be cast.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), n) }
}

/// Lines as bytes.
pub fn bytes_mut(lines: &mut [Line]) -> &mut [u8] {
    let n = size_of_val(lines);
    // SAFETY: bytes of plain data.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), n) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn wiped_memory_holds_nothing() {
        let mut scratch = Scratch::words::<u64>(8 * 1_000_003).unwrap();
        scratch.get::<u64>().fill(7);
        drop(scratch);
        wipe_scratch();
        // other tests use scratch memory as well, but none as much
        let kept = idle().iter().find(|b| b.len() >= 1_000_003).cloned().unwrap();
        assert!(kept.iter().all(|line| line.0 == [0; 64]));
    }
}
