//! Eight elements of 40 or 52 bits in two vectors: a pair of elements in each half.

use std::arch::x86_64::*;

/// Bytes to shuffle into two lanes.
#[repr(C, align(16))]
struct Order([u8; 16]);

/// How a pair of elements of `K` bits is found that begins `SKIP` bits after the first byte's begin.
struct Reading<const K: usize, const SKIP: usize>;

impl<const K: usize, const SKIP: usize> Reading<K, SKIP> {
    const PAIR: usize = K / 4;
    /// Bytes of eight elements.
    const BYTES: usize = (8 * K + SKIP).div_ceil(8);
    /// How many bytes before the last pair its load begins, so that it ends where the elements do.
    const EARLY: usize = 3 * Self::PAIR + 16 - Self::BYTES;
    const ORDER: Order = Self::order(0);
    const LAST: Order = Self::order(Self::EARLY);
    const SECOND_SHIFT: i64 = ((K + SKIP) % 8) as i64;

    const fn order(early: usize) -> Order {
        let (mut order, mut i) = ([0x80; 16], 0);
        while i < 16 {
            let byte = if i < 8 { i } else { i - 8 + (K + SKIP) / 8 } + early;
            if byte < 16 {
                order[i] = byte as u8;
            }
            i += 1;
        }
        Order(order)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn read(from: *const u8) -> [__m256i; 2] {
        let keep = _mm256_set1_epi64x((u64::MAX >> (64 - K)) as i64);
        let down = _mm256_setr_epi64x(SKIP as i64, Self::SECOND_SHIFT, SKIP as i64, Self::SECOND_SHIFT);
        // SAFETY: the caller's bytes, no others; the orders have 16 bytes.
        let (a, b, c, d, order, last) = unsafe {
            (
                _mm_loadu_si128(from.cast()),
                _mm_loadu_si128(from.add(Self::PAIR).cast()),
                _mm_loadu_si128(from.add(2 * Self::PAIR).cast()),
                _mm_loadu_si128(from.add(3 * Self::PAIR - Self::EARLY).cast()),
                _mm_load_si128(Self::ORDER.0.as_ptr().cast()),
                _mm_load_si128(Self::LAST.0.as_ptr().cast()),
            )
        };
        let low = _mm256_shuffle_epi8(_mm256_set_m128i(b, a), _mm256_set_m128i(order, order));
        let high = _mm256_shuffle_epi8(_mm256_set_m128i(d, c), _mm256_set_m128i(last, order));
        [low, high].map(|v| _mm256_and_si256(_mm256_srlv_epi64(v, down), keep))
    }
}

/// See [`Level::unpack8`](crate::vector::Level::unpack8).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn unpack8<const K: usize>(from: *const u8, half: bool, to: *mut u64) {
    // SAFETY: as the caller says.
    unsafe {
        let [low, high] = if half { Reading::<K, 4>::read(from) } else { Reading::<K, 0>::read(from) };
        _mm256_storeu_si256(to.cast(), low);
        _mm256_storeu_si256(to.add(4).cast(), high);
    }
}

/// See [`Level::pack8`](crate::vector::Level::pack8).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn pack8<const K: usize>(from: *const u64, minus: Option<*const u8>, to: *mut u8) {
    const { assert!(K == 40 || K == 52) }
    // SAFETY: as the caller says.
    let mut words = unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(4).cast())] };
    if let Some(minus) = minus {
        // SAFETY: as the caller says.
        let [low, high] = unsafe { Reading::<K, 0>::read(minus) };
        words = [_mm256_sub_epi64(words[0], low), _mm256_sub_epi64(words[1], high)];
    }
    let keep = _mm256_set1_epi64x((u64::MAX >> (64 - K)) as i64);
    let down = _mm256_setr_epi64x(0, 64 - K as i64, 0, 64 - K as i64);
    // A shift by 64 leaves nothing.
    let up = _mm256_setr_epi64x(K as i64, 64, K as i64, 64);
    let [low, high] = words.map(|v| {
        let v = _mm256_and_si256(v, keep);
        let swapped = _mm256_shuffle_epi32::<0b01_00_11_10>(v);
        _mm256_or_si256(_mm256_srlv_epi64(v, down), _mm256_sllv_epi64(swapped, up))
    });
    let pair = K / 4;
    // SAFETY: 40 or 52 bytes, as the caller says: each store but those of the last pair writes zeros behind its pair,
    // which the next overwrites.
    unsafe {
        _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(low));
        _mm_storeu_si128(to.add(pair).cast(), _mm256_extracti128_si256::<1>(low));
        _mm_storeu_si128(to.add(2 * pair).cast(), _mm256_castsi256_si128(high));
        let last = _mm256_extracti128_si256::<1>(high);
        let end = if K == 40 { _mm_srli_si128::<2>(last) } else { _mm_srli_si128::<5>(last) };
        _mm_storeu_si64(to.add(3 * pair), last);
        _mm_storeu_si64(to.add(4 * pair - 8), end);
    }
}
