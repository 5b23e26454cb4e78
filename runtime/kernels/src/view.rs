//! What operations read and write: words, or payloads as they are on the wire.

use std::marker::PhantomData;

use crate::bits::packed_len;
use crate::dispatch::Kernels;
use crate::error::{KernelError, length};
use crate::scratch::Scratch;
use crate::vector::{Level, Task};
use crate::word::{Ring, Word};

/// Activations of an operation over a ring of width `k`.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a, W> {
    /// Words; their bits from `k` on are ignored.
    Words(&'a [W]),
    /// A payload: `k` bits an element, little-endian, the first element in the lowest bits. It needs no alignment.
    Packed(&'a [u8]),
}

/// Where the result of an operation over a ring of width `k` goes. All of it is overwritten.
#[derive(Debug)]
pub enum Output<'a, W> {
    /// Words; their bits from `k` on mean nothing.
    Words(&'a mut [W]),
    /// A payload of `k` bits an element: the result minus the correction, itself a payload, if there is one.
    Answer {
        /// What is subtracted.
        correction: Option<&'a [u8]>,
        /// The packed difference.
        bytes: &'a mut [u8],
    },
}

/// `Err` unless `1 <= k <= W::BITS`.
pub(crate) fn width<W: Word>(k: u32) -> Result<(), KernelError> {
    if (1..=W::BITS).contains(&k) { Ok(()) } else { Err(KernelError::Width { k, bits: W::BITS }) }
}

/// A payload of `n` elements with nothing behind the last of them.
fn payload(what: &'static str, bytes: &[u8], n: usize, k: u32) -> Result<(), KernelError> {
    length(what, packed_len(n, k).ok_or(KernelError::TooLarge { what })?, bytes.len())?;
    let used = (n as u128 * u128::from(k) % 8) as u32;
    match bytes.last() {
        Some(last) if used > 0 && last >> used != 0 => Err(KernelError::PaddingBits),
        _ => Ok(()),
    }
}

/// A validated input.
#[derive(Clone, Copy)]
pub struct Source<'a, W> {
    input: Input<'a, W>,
    k: u32,
}

impl<'a, W: Ring> Source<'a, W> {
    /// Checks that there are `n` elements.
    pub fn new(input: Input<'a, W>, k: u32, n: usize) -> Result<Source<'a, W>, KernelError> {
        match input {
            Input::Words(words) => length("input", n, words.len())?,
            Input::Packed(bytes) => payload("input", bytes, n, k)?,
        }
        Ok(Source { input, k })
    }

    /// Elements from `at` on.
    #[inline(always)]
    pub fn read<L: Level>(&self, at: usize, to: &mut [W]) {
        match self.input {
            Input::Words(words) => to.copy_from_slice(&words[at..][..to.len()]),
            Input::Packed(bytes) if size_of::<W>() == 4 && self.k == 32 => {
                let from = &bytes[at * 4..][..to.len() * 4];
                // SAFETY: as many bytes as the words have; the byte order is set right below.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), from.len()) };
                if cfg!(target_endian = "big") {
                    to.iter_mut().for_each(|w| *w = W::from_u64((w.to_u64() as u32).swap_bytes().into()));
                }
            }
            Input::Packed(bytes) if size_of::<W>() == 8 && self.k == 40 => eights::<L, W, 40>(bytes, at, to),
            Input::Packed(bytes) if size_of::<W>() == 8 && self.k == 52 => eights::<L, W, 52>(bytes, at, to),
            Input::Packed(bytes) => read(bytes, self.k, at, to),
        }
    }
}

impl<W: Ring> Source<'_, W> {
    /// Asks for an element that will be read soon; it may lie outside.
    #[inline(always)]
    pub fn prefetch<L: Level>(&self, at: usize) {
        match self.input {
            Input::Words(words) => L::prefetch(words.as_ptr().wrapping_add(at).cast()),
            Input::Packed(bytes) => L::prefetch(bytes.as_ptr().wrapping_add(byte(at, self.k))),
        }
    }
}

/// A validated output, to be written by several threads.
#[derive(Clone, Copy)]
pub struct Sink<'a, W> {
    to: Target<'a, W>,
    len: usize,
    k: u32,
}

#[derive(Clone, Copy)]
enum Target<'a, W> {
    Words(*mut W),
    Answer { correction: Option<&'a [u8]>, bytes: *mut u8, len: usize, life: PhantomData<&'a mut [u8]> },
}

// SAFETY: `write`, the only access, demands that no two threads write the same bytes.
unsafe impl<W: Send> Send for Sink<'_, W> {}
// SAFETY: as above.
unsafe impl<W: Send> Sync for Sink<'_, W> {}

impl<'a, W: Ring> Sink<'a, W> {
    /// Checks that there is room for `n` elements.
    pub fn new(output: &'a mut Output<'_, W>, k: u32, n: usize) -> Result<Sink<'a, W>, KernelError> {
        let to = match output {
            Output::Words(words) => {
                length("output", n, words.len())?;
                Target::Words(words.as_mut_ptr())
            }
            Output::Answer { correction, bytes } => {
                length("output", packed_len(n, k).ok_or(KernelError::TooLarge { what: "output" })?, bytes.len())?;
                if let Some(correction) = correction {
                    payload("correction", correction, n, k)?;
                }
                Target::Answer {
                    correction: *correction,
                    bytes: bytes.as_mut_ptr(),
                    len: bytes.len(),
                    life: PhantomData,
                }
            }
        };
        Ok(Sink { to, len: n, k })
    }

    /// Whether runs of elements that begin and end at multiples of `step` share no byte with their neighbours.
    pub fn splits_at(&self, step: usize) -> bool {
        match self.to {
            Target::Words(_) => true,
            Target::Answer { .. } => (step as u128 * u128::from(self.k)).is_multiple_of(8),
        }
    }

    /// Asks for what a write of an element will touch; it may lie outside.
    #[inline(always)]
    pub fn prefetch<L: Level>(&self, at: usize) {
        match self.to {
            Target::Words(words) => L::prefetch(words.wrapping_add(at).cast()),
            Target::Answer { correction, bytes, .. } => {
                let first = byte(at, self.k);
                if let Some(correction) = correction {
                    L::prefetch(correction.as_ptr().wrapping_add(first));
                }
                L::prefetch(bytes.wrapping_add(first));
            }
        }
    }

    /// Writes elements from `at` on.
    ///
    /// # Safety
    /// `at` and the end of `row` (unless it is the end of the output) are multiples of a step that the output
    /// [`splits_at`](Sink::splits_at), and no other thread writes any of these elements at the same time.
    #[inline(always)]
    pub unsafe fn write<L: Level>(&self, at: usize, row: &[W]) {
        assert!(at <= self.len && row.len() <= self.len - at, "a row outside the output");
        match self.to {
            // SAFETY: inside the output by the assertion, and no one else's by the contract.
            Target::Words(words) => unsafe {
                std::slice::from_raw_parts_mut(words.add(at), row.len()).copy_from_slice(row);
            },
            Target::Answer { correction, bytes, len, .. } => {
                let end = at + row.len();
                let first = byte(at, self.k);
                let last = if end == self.len { len } else { byte(end, self.k) };
                debug_assert!(first <= last && last <= len);
                // SAFETY: whole elements inside the payload, and whole bytes, both by the contract.
                let to = unsafe { std::slice::from_raw_parts_mut(bytes.add(first), last - first) };
                answer::<L, W>(row, correction.map(|c| &c[first..last]), self.k, to);
            }
        }
    }
}

/// The byte in which an element begins. Eight elements of any width are whole bytes.
#[inline(always)]
fn byte(at: usize, k: u32) -> usize {
    at / 8 * k as usize + at % 8 * k as usize / 8
}

/// Runs `fill` on words and writes them to an output of any kind.
pub(crate) fn through_words<W: Ring>(
    kernels: Kernels,
    output: &mut Output<'_, W>,
    k: u32,
    n: usize,
    fill: impl FnOnce(&mut [W]) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let sink = Sink::new(output, k, n)?;
    if let Target::Words(words) = sink.to {
        // SAFETY: the output borrows `n` words for as long as the sink lives, and this is its only use.
        return fill(unsafe { std::slice::from_raw_parts_mut(words, n) });
    }
    let mut scratch = Scratch::words::<W>(n)?;
    let words = &mut scratch.get::<W>()[..n];
    fill(words)?;
    kernels.run(All { sink, words });
    Ok(())
}

/// Writes a whole output.
struct All<'a, W> {
    sink: Sink<'a, W>,
    words: &'a [W],
}

impl<W: Ring> Task for All<'_, W> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        // SAFETY: the whole output, by the only thread.
        unsafe { self.sink.write::<L>(0, self.words) };
    }
}

/// Elements `at ..` of a payload of `K` = 40 or 52 bits an element.
#[inline(always)]
fn eights<L: Level, W: Ring, const K: usize>(bytes: &[u8], at: usize, to: &mut [W]) {
    let half = !(at * K).is_multiple_of(8);
    let whole = K + usize::from(half);
    let from = &bytes[byte(at, K as u32)..];
    let (blocks, rest) = to.as_chunks_mut::<8>();
    let done = blocks.len();
    for (i, to) in blocks.iter_mut().enumerate() {
        let from = &from[i * K..][..whole];
        // SAFETY: these are the bytes of eight elements; the words are of 64 bits.
        unsafe { L::unpack8::<K>(from.as_ptr(), half, to.as_mut_ptr().cast()) };
    }
    if rest.is_empty() {
        return;
    }
    match from.get(done * K..done * K + whole) {
        Some(from) => {
            let mut words = [W::ZERO; 8];
            // SAFETY: as above.
            unsafe { L::unpack8::<K>(from.as_ptr(), half, words.as_mut_ptr().cast()) };
            rest.iter_mut().zip(words).for_each(|(t, w)| *t = w);
        }
        // Too near the end of the payload.
        None => read(bytes, K as u32, at + done * 8, rest),
    }
}

/// Elements `at ..` of a payload.
#[inline(always)]
fn read<W: Ring>(bytes: &[u8], k: u32, at: usize, to: &mut [W]) {
    match k {
        32 => {
            let from = &bytes[at * 4..][..to.len() * 4];
            to.iter_mut()
                .zip(from.as_chunks::<4>().0)
                .for_each(|(t, b)| *t = W::from_u64(u32::from_le_bytes(*b).into()));
        }
        _ => {
            let mask = u64::MAX >> (64 - k);
            for (i, t) in to.iter_mut().enumerate() {
                let shift = ((at + i) % 8 * k as usize % 8) as u32;
                let from = &bytes[byte(at + i, k)..];
                let low = if from.len() >= 8 { eight(from) } else { up_to_eight(from) };
                let high = match from.get(8) {
                    Some(b) if shift > 0 => u64::from(*b) << (64 - shift),
                    _ => 0,
                };
                *t = W::from_u64((low >> shift | high) & mask);
            }
        }
    }
}

#[inline(always)]
fn eight(from: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&from[..8]);
    u64::from_le_bytes(word)
}

#[inline(always)]
fn up_to_eight(from: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..from.len()].copy_from_slice(from);
    u64::from_le_bytes(word)
}

/// Packs `row - correction`; `to` and the correction hold exactly these elements.
#[inline(always)]
fn answer<L: Level, W: Ring>(row: &[W], correction: Option<&[u8]>, k: u32, to: &mut [u8]) {
    match k {
        32 if size_of::<W>() == 4 && cfg!(target_endian = "little") => {
            let whole = row.len() / 16;
            for i in 0..whole {
                let mut words = [W::ZERO; 16];
                words.copy_from_slice(&row[i * 16..][..16]);
                if let Some(c) = correction {
                    let mut subtrahend = [W::ZERO; 16];
                    let from = &c[i * 64..][..64];
                    // SAFETY: 64 bytes on both sides.
                    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), subtrahend.as_mut_ptr().cast(), 64) };
                    words.iter_mut().zip(subtrahend).for_each(|(w, s)| *w = w.minus(s));
                }
                let to = &mut to[i * 64..][..64];
                // SAFETY: 64 bytes on both sides.
                unsafe { std::ptr::copy_nonoverlapping(words.as_ptr().cast(), to.as_mut_ptr(), 64) };
            }
            bytes::<W, 4>(&row[whole * 16..], correction.map(|c| &c[whole * 64..]), &mut to[whole * 64..]);
        }
        32 => bytes::<W, 4>(row, correction, to),
        40 if size_of::<W>() == 8 => blocks::<L, W, 40>(row, correction, to),
        52 if size_of::<W>() == 8 => blocks::<L, W, 52>(row, correction, to),
        _ => any(row, correction, k, to),
    }
}

/// Elements of `K` = 40 or 52 bits, eight at a time.
#[inline(always)]
fn blocks<L: Level, W: Ring, const K: usize>(row: &[W], correction: Option<&[u8]>, to: &mut [u8]) {
    let (eights, rest) = row.as_chunks::<8>();
    for (i, eight) in eights.iter().enumerate() {
        let minus = correction.map(|c| c[i * K..][..K].as_ptr());
        let to = &mut to[i * K..][..K];
        // SAFETY: eight words of 64 bits, and their packed length twice.
        unsafe { L::pack8::<K>(eight.as_ptr().cast(), minus, to.as_mut_ptr()) };
    }
    if !rest.is_empty() {
        let at = eights.len() * K;
        any(rest, correction.map(|c| &c[at..]), K as u32, &mut to[at..]);
    }
}

/// Elements of `B` whole bytes.
#[inline(always)]
fn bytes<W: Ring, const B: usize>(row: &[W], correction: Option<&[u8]>, to: &mut [u8]) {
    let to = to.as_chunks_mut::<B>().0.iter_mut();
    match correction {
        Some(c) => {
            for ((to, v), c) in to.zip(row).zip(c.as_chunks::<B>().0) {
                let mut word = [0; 8];
                word[..B].copy_from_slice(c);
                let v = v.minus(W::from_u64(u64::from_le_bytes(word)));
                to.copy_from_slice(&v.to_u64().to_le_bytes()[..B]);
            }
        }
        None => to.zip(row).for_each(|(to, v)| to.copy_from_slice(&v.to_u64().to_le_bytes()[..B])),
    }
}

/// Elements of any width. Bits collect in `waiting`, fewer than 8 of them between elements.
fn any<W: Ring>(row: &[W], correction: Option<&[u8]>, k: u32, to: &mut [u8]) {
    let mask = u64::MAX >> (64 - k);
    let (mut waiting, mut bits) = (0u128, 0u32);
    let mut to = to.iter_mut();
    for (i, v) in row.iter().enumerate() {
        let mut v = *v;
        if let Some(c) = correction {
            let mut subtrahend = [W::ZERO];
            read(c, k, i, &mut subtrahend);
            v = v.minus(subtrahend[0]);
        }
        waiting |= u128::from(v.to_u64() & mask) << bits;
        bits += k;
        while bits >= 8 {
            to.by_ref().take(1).for_each(|b| *b = waiting as u8);
            waiting >>= 8;
            bits -= 8;
        }
    }
    to.take(bits.div_ceil(8) as usize).for_each(|b| *b = waiting as u8);
}
