//! Packing: exactly k bits an element, little-endian, the first element in the lowest bits.
//!
//! Eight elements of any width end on a whole byte. Widths that are in use have code of their own for eight elements;
//! the others collect bits one element at a time.

use crate::word::Ring;

/// Bytes of `n` elements of `k` bits; `None` where that does not fit a `usize`.
pub fn packed_len(n: usize, k: u32) -> Option<usize> {
    let bits = (n as u128) * u128::from(k);
    usize::try_from(bits.div_ceil(8)).ok()
}

/// Appends the low `k` bits of each word; `1 <= k <= 64`.
pub fn pack<W: Ring>(x: &[W], k: u32, out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + packed_len(x.len(), k).unwrap_or(0), 0);
    write(x, k, &mut out[from..]);
}

/// Writes the low `k` bits of each word; `1 <= k <= 64`. `out` has exactly the packed length.
#[inline(always)]
pub fn write<W: Ring>(x: &[W], k: u32, out: &mut [u8]) {
    match k {
        32 => write_bytes::<W, 4>(x, out),
        40 => write_blocks::<W, 40>(x, out),
        48 => write_blocks::<W, 48>(x, out),
        52 => write_blocks::<W, 52>(x, out),
        _ => write_any(x, k, out),
    }
}

/// Reads elements of `k` bits; `1 <= k <= 64`. `bytes` has exactly their packed length.
#[inline(always)]
pub fn unpack<W: Ring>(bytes: &[u8], k: u32, out: &mut [W]) {
    match k {
        32 => read_bytes::<W, 4>(bytes, out),
        40 => read_blocks::<W, 40>(bytes, out),
        48 => read_blocks::<W, 48>(bytes, out),
        52 => read_blocks::<W, 52>(bytes, out),
        _ => read_any(bytes, k, out),
    }
}

/// The low `k` bits.
#[inline(always)]
fn low<W: Ring>(v: W, k: u32) -> u64 {
    v.to_u64() & (u64::MAX >> (64 - k))
}

/// Elements of `B` whole bytes.
#[inline(always)]
fn write_bytes<W: Ring, const B: usize>(x: &[W], out: &mut [u8]) {
    for (to, v) in out.as_chunks_mut::<B>().0.iter_mut().zip(x) {
        to.copy_from_slice(&v.to_u64().to_le_bytes()[..B]);
    }
}

/// Elements of `B` whole bytes.
#[inline(always)]
fn read_bytes<W: Ring, const B: usize>(bytes: &[u8], out: &mut [W]) {
    for (v, from) in out.iter_mut().zip(bytes.as_chunks::<B>().0) {
        let mut word = [0; 8];
        word[..B].copy_from_slice(from);
        *v = W::from_u64(u64::from_le_bytes(word));
    }
}

/// Eight elements of `K` bits are `K` bytes.
#[inline(always)]
fn write_blocks<W: Ring, const K: usize>(x: &[W], out: &mut [u8]) {
    let (blocks, rest) = x.as_chunks::<8>();
    let (bytes, last) = out.split_at_mut(blocks.len() * K);
    for (block, to) in blocks.iter().zip(bytes.as_chunks_mut::<K>().0) {
        let (mut waiting, mut bits, mut at) = (0u64, 0, 0);
        for v in block {
            let v = low(*v, K as u32);
            waiting |= v << bits;
            bits += K;
            if bits >= 64 {
                to[at..at + 8].copy_from_slice(&waiting.to_le_bytes());
                at += 8;
                bits -= 64;
                waiting = if bits == 0 { 0 } else { v >> (K - bits) };
            }
        }
        to[at..].copy_from_slice(&waiting.to_le_bytes()[..K - at]);
    }
    write_any(rest, K as u32, last);
}

/// Eight elements of `K` bits are `K` bytes. For each element the eight bytes from its first one, or the last eight of
/// the block, hold all of it, which limits `K` to 57 bits and, because of the last eight, to at least eight.
#[inline(always)]
fn read_blocks<W: Ring, const K: usize>(bytes: &[u8], out: &mut [W]) {
    const { assert!(K >= 8 && K <= 57) }
    let (blocks, rest) = out.as_chunks_mut::<8>();
    let (bytes, last) = bytes.split_at(blocks.len() * K);
    for (block, from) in blocks.iter_mut().zip(bytes.as_chunks::<K>().0) {
        for (i, v) in block.iter_mut().enumerate() {
            let first = (i * K / 8).min(K - 8);
            let mut word = [0; 8];
            word.copy_from_slice(&from[first..first + 8]);
            *v = W::from_u64(u64::from_le_bytes(word) >> (i * K - 8 * first) & (u64::MAX >> (64 - K)));
        }
    }
    read_any(last, K as u32, rest);
}

/// Elements of any width. Bits collect in `waiting`, fewer than 64 of them between elements.
#[inline(always)]
fn write_any<W: Ring>(x: &[W], k: u32, out: &mut [u8]) {
    let (mut waiting, mut bits, mut at) = (0u128, 0u32, 0);
    for v in x {
        waiting |= u128::from(low(*v, k)) << bits;
        bits += k;
        if bits >= 64 {
            out[at..at + 8].copy_from_slice(&(waiting as u64).to_le_bytes());
            at += 8;
            waiting >>= 64;
            bits -= 64;
        }
    }
    for (byte, from) in out[at..].iter_mut().zip(waiting.to_le_bytes()) {
        *byte = from;
    }
}

/// Elements of any width.
#[inline(always)]
fn read_any<W: Ring>(bytes: &[u8], k: u32, out: &mut [W]) {
    let (mut waiting, mut bits) = (0u128, 0u32);
    let mut chunks = bytes.chunks(8);
    for v in out {
        if bits < k {
            let mut word = [0; 8];
            if let Some(chunk) = chunks.next() {
                word[..chunk.len()].copy_from_slice(chunk);
            }
            waiting |= u128::from(u64::from_le_bytes(word)) << bits;
            bits += 64;
        }
        *v = W::from_u64(waiting as u64 & (u64::MAX >> (64 - k)));
        waiting >>= k;
        bits -= k;
    }
}
