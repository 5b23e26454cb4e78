//! Packing: exactly k bits an element, little-endian, the first element in the lowest bits.

use crate::word::Ring;

/// Bytes of `n` elements of `k` bits; `None` where that does not fit a `usize`.
pub fn packed_len(n: usize, k: u32) -> Option<usize> {
    let bits = (n as u128) * u128::from(k);
    usize::try_from(bits.div_ceil(8)).ok()
}

/// Appends the low `k` bits of each word; `1 <= k <= 64`.
pub fn pack<W: Ring>(x: &[W], k: u32, out: &mut Vec<u8>) {
    match k {
        32 => pack_bytes::<W, 4>(x, out),
        40 => pack_bytes::<W, 5>(x, out),
        52 => {
            // Two elements are thirteen bytes.
            let pairs = x.as_chunks::<2>();
            let from = out.len();
            out.resize(from + 13 * pairs.0.len(), 0);
            let bytes = out[from..].as_chunks_mut::<13>().0;
            for (to, [a, b]) in bytes.iter_mut().zip(pairs.0) {
                let pair = u128::from(low(*a, 52)) | u128::from(low(*b, 52)) << 52;
                to.copy_from_slice(&pair.to_le_bytes()[..13]);
            }
            pack_any(pairs.1, k, out);
        }
        _ => pack_any(x, k, out),
    }
}

/// Reads elements of `k` bits. `bytes` has exactly their packed length.
pub fn unpack<W: Ring>(bytes: &[u8], k: u32, out: &mut [W]) {
    match k {
        32 => unpack_bytes::<W, 4>(bytes, out),
        40 => unpack_bytes::<W, 5>(bytes, out),
        52 => {
            let (bytes, rest) = bytes.as_chunks::<13>();
            let (pairs, odd) = out.as_chunks_mut::<2>();
            for ([a, b], from) in pairs.iter_mut().zip(bytes) {
                let mut pair = [0; 16];
                pair[..13].copy_from_slice(from);
                let pair = u128::from_le_bytes(pair);
                *a = W::from_u64(pair as u64 & (u64::MAX >> 12));
                *b = W::from_u64((pair >> 52) as u64 & (u64::MAX >> 12));
            }
            unpack_any(rest, k, odd);
        }
        _ => unpack_any(bytes, k, out),
    }
}

/// The low `k` bits.
#[inline(always)]
fn low<W: Ring>(v: W, k: u32) -> u64 {
    v.to_u64() & (u64::MAX >> (64 - k))
}

/// Elements of `B` whole bytes.
#[inline(always)]
fn pack_bytes<W: Ring, const B: usize>(x: &[W], out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + B * x.len(), 0);
    for (to, v) in out[from..].as_chunks_mut::<B>().0.iter_mut().zip(x) {
        to.copy_from_slice(&v.to_u64().to_le_bytes()[..B]);
    }
}

/// Elements of `B` whole bytes.
#[inline(always)]
fn unpack_bytes<W: Ring, const B: usize>(bytes: &[u8], out: &mut [W]) {
    for (v, from) in out.iter_mut().zip(bytes.as_chunks::<B>().0) {
        let mut word = [0; 8];
        word[..B].copy_from_slice(from);
        *v = W::from_u64(u64::from_le_bytes(word));
    }
}

/// Elements of any width. Bits collect in `waiting`, fewer than 64 of them between elements.
fn pack_any<W: Ring>(x: &[W], k: u32, out: &mut Vec<u8>) {
    let (mut waiting, mut bits) = (0u128, 0u32);
    for v in x {
        waiting |= u128::from(low(*v, k)) << bits;
        bits += k;
        if bits >= 64 {
            out.extend_from_slice(&(waiting as u64).to_le_bytes());
            waiting >>= 64;
            bits -= 64;
        }
    }
    out.extend(waiting.to_le_bytes().into_iter().take(bits.div_ceil(8) as usize));
}

/// Elements of any width.
fn unpack_any<W: Ring>(bytes: &[u8], k: u32, out: &mut [W]) {
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
