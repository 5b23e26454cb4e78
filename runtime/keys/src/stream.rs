//! The stream suites: how 32 seed bytes become an endless uniform byte stream.
//!
//! The device and edge B must make the same stream, so the suite's name stands in the plan and is covered by the
//! bundle digest. This is the only file that names a cipher.

use aes::Aes128;
use bytemuck::{cast_slice, cast_slice_mut};
use chacha20::cipher::array::Array;
use chacha20::cipher::{BlockCipherEncrypt, KeyInit, StreamCipherCore};
use chacha20::rand_core::SeedableRng;
use chacha20::variants::Legacy;
use chacha20::{ChaChaCore, R12, R20};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes that a stream grows by: one block of ChaCha, four of AES.
const BLOCK: usize = 64;
/// Blocks of one chunk: 4 KiB, enough for the widest parallel back end and small beside a first-level cache.
const BLOCKS: usize = 64;
/// Words of a block. Buffers are made of words, because wiping goes one element at a time.
const WORDS: usize = BLOCK / 8;

/// A stream suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// ChaCha20 (RFC 8439) with nonce zero and a 64-bit block counter from zero; the seed is the key.
    ChaCha20,
    /// ChaCha12: the same with 12 rounds.
    ChaCha12,
    /// AES-128 in counter mode (NIST SP 800-38A) for processors with AES instructions: the key is the first half of the
    /// seed, the first counter block its second half, and counter blocks count as 128-bit big-endian numbers.
    Aes128Ctr,
}

impl Suite {
    /// Every suite.
    pub const ALL: &'static [Suite] = &[Suite::ChaCha20, Suite::ChaCha12, Suite::Aes128Ctr];

    /// The name that plans use.
    pub fn name(self) -> &'static str {
        match self {
            Suite::ChaCha20 => "chacha20",
            Suite::ChaCha12 => "chacha12",
            Suite::Aes128Ctr => "aes128-ctr",
        }
    }

    /// The suite of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|suite| suite.name() == name)
    }

    /// Whether this processor may make the stream. AES is kept to processors with instructions for it: without them it
    /// is many times slower than ChaCha, so that a bundle for them would be a mistake.
    pub fn is_available(self) -> bool {
        match self {
            Suite::ChaCha20 | Suite::ChaCha12 => true,
            Suite::Aes128Ctr => aes::hardware_accelerated(),
        }
    }

    /// The stream of a seed.
    pub(crate) fn keystream(self, seed: &[u8; 32]) -> Keystream {
        let cipher = match self {
            Suite::ChaCha20 => Cipher::ChaCha20(Box::new(ChaChaCore::from_seed(*seed))),
            Suite::ChaCha12 => Cipher::ChaCha12(Box::new(ChaChaCore::from_seed(*seed))),
            Suite::Aes128Ctr => Cipher::Aes128Ctr(Box::new(Counter::new(seed))),
        };
        Keystream { cipher, chunk: Chunk::new() }
    }
}

/// The state of a cipher; all three wipe themselves when dropped.
enum Cipher {
    ChaCha20(Box<ChaChaCore<R20, Legacy>>),
    ChaCha12(Box<ChaChaCore<R12, Legacy>>),
    Aes128Ctr(Box<Counter>),
}

impl Cipher {
    /// The next blocks of the stream.
    fn write(&mut self, blocks: &mut [[u8; BLOCK]]) {
        match self {
            Cipher::ChaCha20(core) => core.write_keystream_blocks(Array::cast_slice_from_core_mut(blocks)),
            Cipher::ChaCha12(core) => core.write_keystream_blocks(Array::cast_slice_from_core_mut(blocks)),
            Cipher::Aes128Ctr(counter) => counter.write(blocks),
        }
    }
}

/// AES-128 and its next counter block.
struct Counter {
    cipher: Aes128,
    next: Zeroizing<u128>,
}

impl Counter {
    fn new(seed: &[u8; 32]) -> Counter {
        let mut halves = Zeroizing::new([[0; 16]; 2]);
        for (half, from) in halves.iter_mut().zip(seed.as_chunks::<16>().0) {
            *half = *from;
        }
        let [key, counter] = &*halves;
        Counter { cipher: Aes128::new(Array::cast_from_core(key)), next: Zeroizing::new(u128::from_be_bytes(*counter)) }
    }

    fn write(&mut self, blocks: &mut [[u8; BLOCK]]) {
        let counters = blocks.as_flattened_mut().as_chunks_mut::<16>().0;
        for (i, counter) in counters.iter_mut().enumerate() {
            *counter = self.next.wrapping_add(i as u128).to_be_bytes();
        }
        *self.next = self.next.wrapping_add(counters.len() as u128);
        self.cipher.encrypt_blocks(Array::cast_slice_from_core_mut(counters));
    }
}

/// One chunk of the stream, and how much of it is used up. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Chunk {
    words: Box<[u64; BLOCKS * WORDS]>,
    used: usize,
    filled: usize,
}

impl Chunk {
    fn new() -> Self {
        Self { words: Box::new([0; BLOCKS * WORDS]), used: 0, filled: 0 }
    }
}

/// An unread rest of a stream. No position is ever handed out twice. Wiped when dropped.
pub(crate) struct Keystream {
    cipher: Cipher,
    chunk: Chunk,
}

impl Keystream {
    /// The next bytes of the stream: at least one and at most `want` (`want > 0`), a multiple of 8 if `want` and all
    /// earlier wants were, or of 4 likewise.
    pub(crate) fn next(&mut self, want: usize) -> &[u8] {
        if self.chunk.used == self.chunk.filled {
            let bytes = want.div_ceil(BLOCK).min(BLOCKS) * BLOCK;
            let words = self.chunk.words.get_mut(..bytes / 8).unwrap_or_default();
            self.cipher.write(cast_slice_mut(words));
            self.chunk.used = 0;
            self.chunk.filled = bytes;
        }
        let start = self.chunk.used;
        let end = self.chunk.filled.min(start.saturating_add(want));
        self.chunk.used = end;
        cast_slice(self.chunk.words.as_slice()).get(start..end).unwrap_or_default()
    }

    /// The next `bytes` bytes of the stream in memory; none may have been read before.
    pub(crate) fn expand(mut self, bytes: usize) -> Expanded {
        let mut words = Zeroizing::new(vec![0u64; bytes.div_ceil(BLOCK) * WORDS]);
        self.cipher.write(cast_slice_mut(&mut words));
        Expanded { words, used: 0, filled: bytes }
    }
}

/// A stream in memory up to its last byte that is needed. Wiped when dropped.
pub(crate) struct Expanded {
    words: Zeroizing<Vec<u64>>,
    used: usize,
    filled: usize,
}

impl Expanded {
    /// The next bytes: at most `want`.
    pub(crate) fn next(&mut self, want: usize) -> &[u8] {
        let start = self.used;
        let end = self.filled.min(start.saturating_add(want));
        self.used = end;
        cast_slice(self.words.as_slice()).get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
