//! Eight elements of 40 or 52 bits in a vector.

use std::arch::x86_64::*;

/// Eight numbers, one a lane.
#[repr(C, align(64))]
struct Lanes([u64; 8]);

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn load(&self) -> __m512i {
        // SAFETY: 64 bytes.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// How elements of `K` bits that begin `SKIP` bits after the first byte's begin are found: each lies in three
/// consecutive 32-bit words.
struct Reading<const K: usize, const SKIP: usize>;

impl<const K: usize, const SKIP: usize> Reading<K, SKIP> {
    /// The words with the low bits, and the next ones.
    const LOW: Lanes = Self::words(0);
    const HIGH: Lanes = Self::words(2);
    const SHIFT: Lanes = Self::shifts();

    const fn words(ahead: usize) -> Lanes {
        let (mut lanes, mut i) = ([0; 8], 0);
        while i < 8 {
            let word = (i * K + SKIP) / 32 + ahead;
            // Behind the vector there is nothing that an element needs; indices wrap.
            lanes[i] = (word | (word + 1) << 32) as u64;
            i += 1;
        }
        Lanes(lanes)
    }

    const fn shifts() -> Lanes {
        let (mut lanes, mut i) = ([0; 8], 0);
        while i < 8 {
            lanes[i] = ((i * K + SKIP) % 32) as u64;
            i += 1;
        }
        Lanes(lanes)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn read(from: *const u8) -> __m512i {
        let bytes = (8 * K + SKIP).div_ceil(8);
        // SAFETY: the caller's bytes, no others.
        let packed = unsafe { _mm512_maskz_loadu_epi8(u64::MAX >> (64 - bytes), from.cast()) };
        let shift = Self::SHIFT.load();
        let low = _mm512_srlv_epi64(_mm512_permutexvar_epi32(Self::LOW.load(), packed), shift);
        let up = _mm512_sub_epi64(_mm512_set1_epi64(64), shift);
        let high = _mm512_sllv_epi64(_mm512_permutexvar_epi32(Self::HIGH.load(), packed), up);
        _mm512_and_si512(_mm512_or_si512(low, high), _mm512_set1_epi64((u64::MAX >> (64 - K)) as i64))
    }
}

/// How words of 64 packed bits are put together: each from up to three consecutive elements.
struct Writing<const K: usize>;

impl<const K: usize> Writing<K> {
    const FIRST: Lanes = Self::elements(0);
    const SECOND: Lanes = Self::elements(1);
    const THIRD: Lanes = Self::elements(2);
    const DOWN: Lanes = Self::shifts();

    const fn elements(ahead: usize) -> Lanes {
        let (mut lanes, mut i) = ([0; 8], 0);
        while i < 8 {
            lanes[i] = ((64 * i / K + ahead) % 8) as u64;
            i += 1;
        }
        Lanes(lanes)
    }

    const fn shifts() -> Lanes {
        let (mut lanes, mut i) = ([0; 8], 0);
        while i < 8 {
            lanes[i] = (64 * i % K) as u64;
            i += 1;
        }
        Lanes(lanes)
    }
}

/// See [`Level::unpack8`](crate::vector::Level::unpack8).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub unsafe fn unpack8<const K: usize>(from: *const u8, half: bool, to: *mut u64) {
    // SAFETY: as the caller says.
    unsafe {
        let words = if half { Reading::<K, 4>::read(from) } else { Reading::<K, 0>::read(from) };
        _mm512_storeu_si512(to.cast(), words);
    }
}

/// See [`Level::pack8`](crate::vector::Level::pack8).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub unsafe fn pack8<const K: usize>(from: *const u64, minus: Option<*const u8>, to: *mut u8) {
    const { assert!(K == 40 || K == 52) }
    // SAFETY: as the caller says.
    let mut words = unsafe { _mm512_loadu_si512(from.cast()) };
    if let Some(minus) = minus {
        // SAFETY: as the caller says.
        words = _mm512_sub_epi64(words, unsafe { Reading::<K, 0>::read(minus) });
    }
    let words = _mm512_and_si512(words, _mm512_set1_epi64((u64::MAX >> (64 - K)) as i64));
    let element = |lanes: &Lanes| _mm512_permutexvar_epi64(lanes.load(), words);
    let down = Writing::<K>::DOWN.load();
    let up = _mm512_sub_epi64(_mm512_set1_epi64(K as i64), down);
    let further = _mm512_sub_epi64(_mm512_set1_epi64(2 * K as i64), down);
    // Shifts by 64 and more leave nothing.
    let packed = _mm512_or_si512(
        _mm512_or_si512(
            _mm512_srlv_epi64(element(&Writing::<K>::FIRST), down),
            _mm512_sllv_epi64(element(&Writing::<K>::SECOND), up),
        ),
        _mm512_sllv_epi64(element(&Writing::<K>::THIRD), further),
    );
    // SAFETY: 40 or 52 bytes, as the caller says.
    unsafe {
        _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(packed));
        let upper = _mm512_extracti64x4_epi64::<1>(packed);
        if K == 40 {
            _mm_storeu_si64(to.add(32), _mm256_castsi256_si128(upper));
        } else {
            _mm_storeu_si128(to.add(32).cast(), _mm256_castsi256_si128(upper));
            _mm_storeu_si32(to.add(48), _mm256_extracti128_si256::<1>(upper));
        }
    }
}
