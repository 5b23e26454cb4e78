//! Percentiles, medians and geometric means of measurements.

use serde_json::{Value, json};

use crate::compare::number;

/// The value below which this share of the samples lies (nearest rank); NaN without samples.
pub fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The middle sample, or the mean of the two in the middle; NaN without samples.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => f64::NAN,
        (0, Some(upper)) => (sorted[middle - 1] + upper) / 2.0,
        (_, Some(value)) => *value,
    }
}

/// The smallest sample; NaN without samples.
pub fn best(samples: &[f64]) -> f64 {
    samples.iter().copied().reduce(f64::min).unwrap_or(f64::NAN)
}

/// The mean; NaN without samples.
pub fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// The geometric mean; `None` without samples.
pub fn geomean(samples: &[f64]) -> Option<f64> {
    let logs: f64 = samples.iter().map(|s| s.ln()).sum();
    (!samples.is_empty()).then(|| (logs / samples.len() as f64).exp())
}

/// A ratio measured once in each round.
pub struct Ratio(Vec<f64>);

impl Ratio {
    /// Ratios of two lists of measurements, one entry a round; `None` if either is missing or empty.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        (!ratios.is_empty()).then_some(Ratio(ratios))
    }

    /// The median.
    pub fn median(&self) -> f64 {
        median(&self.0)
    }

    /// Median and spread.
    pub fn json(&self) -> Value {
        let (low, high) = (percentile(&self.0, 0.0), percentile(&self.0, 1.0));
        json!({ "median": number(self.median()), "min": number(low), "max": number(high) })
    }
}

/// Median, 99th percentile and mean of a part of the latency.
pub fn spread(samples: &[f64]) -> Value {
    json!({
        "p50": number(percentile(samples, 0.5)),
        "p90": number(percentile(samples, 0.9)),
        "p99": number(percentile(samples, 0.99)),
        "mean": number(mean(samples)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(&samples, 0.5), percentile(&samples, 0.99)), (50.0, 99.0));
        assert_eq!((percentile(&samples, 0.0), percentile(&samples, 1.0)), (1.0, 100.0));
        assert_eq!((percentile(&[7.0], 0.99), median(&[3.0, 1.0])), (7.0, 2.0));
        assert!(percentile(&[], 0.5).is_nan() && median(&[]).is_nan() && best(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_by_round() {
        let ratio = Ratio::of(&[1.0, 4.0, 9.0], &[2.0, 2.0, 3.0]).unwrap();
        assert_eq!(ratio.median(), 2.0);
        assert_eq!(ratio.json(), json!({ "median": 2.0, "min": 0.5, "max": 3.0 }));
        assert!(Ratio::of(&[1.0], &[]).is_none());
        assert!((geomean(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
        assert!(geomean(&[]).is_none());
    }
}
