//! The loops that touch every weight: sums over its rows in double precision, and rounding to integers.
//!
//! A row is summed from its first weight to its last whatever the number of threads, so results do not depend on the
//! machine. Several rows go side by side, since one row alone would wait for each sum before the next.

use pponnx_plans::value::DType;

/// Sums over one row of real weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RealRow {
    /// Sum of the positive ones.
    pub positive: f64,
    /// Sum of the absolute negative ones.
    pub negative: f64,
    /// Largest magnitude.
    pub largest: f32,
}

/// Sums over one row of integer weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IntRow {
    /// Sum of the positive ones.
    pub positive: u64,
    /// Sum of the absolute negative ones.
    pub negative: u64,
    /// Sum of squares; saturates.
    pub square: u64,
}

/// Weights below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 18;

/// Adding it to a number below 2^51 rounds that to the nearest integer, ties to even, and leaves the integer in the low
/// bits.
const ROUNDER: f64 = 1.5 * (1u64 << 52) as f64;

/// Sums of each row of `row` weights; a ragged end is left out.
pub fn real_rows(data: &[f32], row: usize) -> Vec<RealRow> {
    let row = row.max(1);
    let mut sums = vec![RealRow::default(); data.len() / row];
    let part = rows_a_thread(sums.len(), row);
    std::thread::scope(|scope| {
        let mut parts = data.chunks(part * row).zip(sums.chunks_mut(part));
        let own = parts.next();
        for (data, sums) in parts {
            scope.spawn(move || sum_rows(data, row, sums));
        }
        if let Some((data, sums)) = own {
            sum_rows(data, row, sums);
        }
    });
    sums
}

fn sum_rows(data: &[f32], row: usize, sums: &mut [RealRow]) {
    for (block, sums) in data.chunks(4 * row).zip(sums.chunks_mut(4)) {
        let mut rows = block.chunks_exact(row);
        match (sums, [rows.next(), rows.next(), rows.next(), rows.next()]) {
            ([a, b, c, d], [Some(ra), Some(rb), Some(rc), Some(rd)]) => {
                for (((wa, wb), wc), wd) in ra.iter().zip(rb).zip(rc).zip(rd) {
                    a.add(*wa);
                    b.add(*wb);
                    c.add(*wc);
                    d.add(*wd);
                }
            }
            (sums, rows) => {
                for (sum, row) in sums.iter_mut().zip(rows.into_iter().flatten()) {
                    row.iter().for_each(|w| sum.add(*w));
                }
            }
        }
    }
}

impl RealRow {
    #[inline(always)]
    fn add(&mut self, w: f32) {
        let v = f64::from(w);
        let positive = if v > 0.0 { v } else { 0.0 };
        // One of the two terms is zero, and adding zero changes nothing: no branch on the sign is needed.
        self.positive += positive;
        self.negative += positive - v;
        let magnitude = w.abs();
        self.largest = if magnitude > self.largest { magnitude } else { self.largest };
    }
}

/// Rounds the weights of each row times its scale to the nearest integer, ties to even: little-endian bytes of `i16` or
/// `i32`, and the sums of each row.
pub fn round_rows(data: &[f32], scales: &[f64], dtype: DType) -> (Vec<u8>, Vec<IntRow>) {
    match dtype {
        DType::I16 => rounded(data, scales, f64::from(i16::MIN), f64::from(i16::MAX), |w| (w as i16).to_le_bytes()),
        _ => rounded(data, scales, f64::from(i32::MIN), f64::from(i32::MAX), |w| w.to_le_bytes()),
    }
}

fn rounded<const N: usize>(
    data: &[f32],
    scales: &[f64],
    least: f64,
    most: f64,
    bytes: impl Fn(i32) -> [u8; N] + Copy + Send,
) -> (Vec<u8>, Vec<IntRow>) {
    let row = (data.len() / scales.len().max(1)).max(1);
    let rows = scales.len().min(data.len() / row);
    let mut out = vec![0; rows * row * N];
    let mut sums = vec![IntRow::default(); rows];
    let part = rows_a_thread(rows, row);
    std::thread::scope(|scope| {
        let (to, _) = out.as_chunks_mut::<N>();
        let parts = to.chunks_mut(part * row).zip(sums.chunks_mut(part));
        let mut parts = parts.zip(data.chunks(part * row).zip(scales.chunks(part)));
        let run = move |to: &mut [[u8; N]], sums: &mut [IntRow], data: &[f32], scales: &[f64]| {
            let rows = data.chunks_exact(row).zip(scales).zip(to.chunks_exact_mut(row)).zip(sums);
            for (((weights, scale), to), sum) in rows {
                for (weights, to) in weights.chunks(PIECE).zip(to.chunks_mut(PIECE)) {
                    let mut integers = [0i32; PIECE];
                    for ((integer, w), to) in integers.iter_mut().zip(weights).zip(to) {
                        let v = (f64::from(*w) * scale).clamp(least, most) + ROUNDER;
                        *integer = v.to_bits() as u32 as i32;
                        *to = bytes(*integer);
                    }
                    sum.add(&integers[..weights.len()]);
                }
            }
        };
        let own = parts.next();
        for ((to, sums), (data, scales)) in parts {
            scope.spawn(move || run(to, sums, data, scales));
        }
        if let Some(((to, sums), (data, scales))) = own {
            run(to, sums, data, scales);
        }
    });
    (out, sums)
}

/// Integers that are summed in one go.
const PIECE: usize = 512;

impl IntRow {
    fn add(&mut self, integers: &[i32]) {
        let (mut sum, mut magnitude) = (0i64, 0i64);
        let mut square = 0u64;
        for w in integers {
            sum += i64::from(*w);
            magnitude += i64::from(w.unsigned_abs());
            square = square.saturating_add(u64::from(w.unsigned_abs()).pow(2));
        }
        self.positive += ((magnitude + sum) / 2) as u64;
        self.negative += ((magnitude - sum) / 2) as u64;
        self.square = self.square.saturating_add(square);
    }
}

/// How many rows one thread takes.
fn rows_a_thread(rows: usize, row: usize) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worth = (rows.saturating_mul(row) / WORTH_A_THREAD).clamp(1, threads);
    // In fours, which go side by side.
    rows.div_ceil(worth).next_multiple_of(4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * if state >> 61 == 0 { 0.0 } else { 1.5 }
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn rows_are_summed_from_first_to_last() {
        for (rows, row) in [(1, 7), (3, 1), (4, 9), (11, 300), (260, 4100)] {
            let data = numbers(rows * row);
            let plain = |row: &[f32]| {
                let mut sum = RealRow::default();
                for w in row.iter().map(|w| f64::from(*w)) {
                    if w > 0.0 {
                        sum.positive += w
                    } else {
                        sum.negative -= w
                    }
                    sum.largest = sum.largest.max(w.abs() as f32);
                }
                sum
            };
            assert_eq!(real_rows(&data, row), data.chunks(row).map(plain).collect::<Vec<_>>(), "{rows} x {row}");
        }
        assert!(real_rows(&[], 4).is_empty());
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        for (rows, row) in [(1, 1), (3, 700), (70, 4100)] {
            let mut data = numbers(rows * row);
            // Ties, and what leaves the type.
            for (i, v) in [0.5, 1.5, -0.5, -2.5, 3.5e4, -3.5e4, -0.0].into_iter().enumerate().take(data.len()) {
                data[i] = v;
            }
            let scales: Vec<f64> = (0..rows).map(|i| if i == 0 { 1.0 } else { 20_000.0 / i as f64 }).collect();
            let (bytes, sums) = round_rows(&data, &scales, DType::I16);
            let want: Vec<i16> = data
                .chunks(row)
                .zip(&scales)
                .flat_map(|(row, s)| row.iter().map(move |w| (f64::from(*w) * s).round_ties_even() as i16))
                .collect();
            assert_eq!(pponnx_plans::constant::read_i16(&bytes), want);
            for (row, sum) in want.chunks(row).zip(&sums) {
                let of = |keep: fn(i64) -> bool| row.iter().map(|w| i64::from(*w)).filter(move |w| keep(*w));
                assert_eq!(sum.positive as i64, of(|w| w > 0).sum::<i64>());
                assert_eq!(sum.negative as i64, -of(|w| w < 0).sum::<i64>());
                assert_eq!(sum.square as i64, of(|_| true).map(|w| w * w).sum::<i64>());
            }
            let (wide, _) = round_rows(&data, &scales, DType::I32);
            let want = want.iter().zip(pponnx_plans::constant::read_i32(&wide));
            assert!(want.skip(7).all(|(narrow, wide)| i32::from(*narrow) == wide));
        }
    }
}
