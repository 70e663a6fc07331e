//! Histograms with logarithmic buckets: what openraft needs of the crate `base2histogram`, without that crate's tables.
//!
//! At its first histogram the original computes lookup tables for all sixteen widths of buckets, 26 MB for the life of the
//! process, of which openraft uses one of 2 KB. A bucket and its bounds are a few shifts, so there are no tables here.
//!
//! Buckets are four to a power of two: a percentile is less than a quarter above the true one. Recording takes constant time and
//! never allocates; a histogram takes 2 KB.

use std::fmt;
use std::marker::PhantomData;

/// Buckets to a power of two, as a power of two.
const FINENESS: u32 = 2;
const PER_POWER: u64 = 1 << FINENESS;
/// Enough for every `u64`.
const BUCKETS: usize = ((u64::BITS - FINENESS + 1) as usize) << FINENESS;
/// Characters of the longest bar in a chart.
const BAR: u64 = 40;

fn bucket(value: u64) -> usize {
    if value < PER_POWER {
        return value as usize;
    }
    let shift = value.ilog2() - FINENESS;
    let group = u64::from(shift + 1) << FINENESS;
    (group + ((value >> shift) & (PER_POWER - 1))) as usize
}

/// The smallest value in a bucket.
fn smallest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PER_POWER {
        return bucket;
    }
    (PER_POWER + bucket % PER_POWER) << (bucket / PER_POWER - 1)
}

/// The largest value in a bucket.
fn largest(bucket: usize) -> u64 {
    if bucket + 1 == BUCKETS {
        u64::MAX
    } else {
        smallest(bucket + 1) - 1
    }
}

/// How often values of each size were recorded. openraft names the type of a label that it does not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    label: PhantomData<T>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new()
    }
}

impl Histogram {
    /// Without a sample.
    pub fn new() -> Self {
        Histogram {
            counts: Box::new([0; BUCKETS]),
            label: PhantomData,
        }
    }

    /// Counts one sample.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts as many samples of the same value.
    pub fn record_n(&mut self, value: u64, samples: u64) {
        let count = &mut self.counts[bucket(value)];
        *count = count.saturating_add(samples);
    }

    /// Samples so far.
    pub fn total(&self) -> u64 {
        self.counts.iter().copied().fold(0, u64::saturating_add)
    }

    /// The largest value of the bucket below or in which a part `p` of the samples lies, from 0 to 1; 0 without samples.
    pub fn percentile(&self, p: f64) -> u64 {
        let rank = ((self.total() as f64 * p).ceil() as u64).max(1);
        let mut below = 0u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            below = below.saturating_add(*count);
            if below >= rank {
                return largest(bucket);
            }
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// Percentiles of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Samples recorded.
    pub samples: u64,
    /// 0.1 %.
    pub p0_1: u64,
    /// 1 %.
    pub p1: u64,
    /// 5 %.
    pub p5: u64,
    /// 10 %.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[samples: {}, P0.1: {}, P1: {}, P5: {}, P10: {}, P50: {}, P90: {}, P99: {}, P99.9: {}]",
            self.samples,
            self.p0_1,
            self.p1,
            self.p5,
            self.p10,
            self.p50,
            self.p90,
            self.p99,
            self.p99_9
        )
    }
}

/// Histograms as bars of text.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    series: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// Without a histogram.
    pub fn new() -> Self {
        AsciiChart::default()
    }

    /// Adds one under a name.
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }

    /// A bar a bucket that has samples, and each histogram's percentiles.
    pub fn detailed(&self) -> impl fmt::Display + '_ {
        Detailed(self)
    }
}

struct Detailed<'a>(&'a AsciiChart);

impl fmt::Display for Detailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0.series {
            writeln!(f, "{name} {}", histogram.percentile_stats())?;
            let most = histogram.counts.iter().copied().max().unwrap_or(0);
            for (bucket, count) in histogram.counts.iter().enumerate() {
                if *count == 0 {
                    continue;
                }
                let length = (u128::from(*count) * u128::from(BAR)).div_ceil(u128::from(most));
                let bar = "█".repeat(length as usize);
                let (from, to) = (smallest(bucket), largest(bucket));
                writeln!(f, "  {from:>12}-{to:<12} {bar} {count}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_value_once_and_are_narrow() {
        assert_eq!(smallest(0), 0);
        for at in 1..BUCKETS {
            assert_eq!(smallest(at), largest(at - 1) + 1);
        }
        assert_eq!(largest(BUCKETS - 1), u64::MAX);
        for shift in 0..u64::BITS {
            for value in [
                1 << shift,
                (1 << shift) + ((1u64 << shift) / 3),
                !0 >> shift,
            ] {
                let at = bucket(value);
                let (from, to) = (smallest(at), largest(at));
                assert!((from..=to).contains(&value), "{value}: {from} to {to}");
                assert!(to - from <= value / 4, "{value}: {from} to {to}");
            }
        }
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        for value in 1..=1_000 {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1), (1_000, 1));
        for (found, wanted) in [(stats.p50, 500), (stats.p90, 900), (stats.p99, 990)] {
            assert!(
                (wanted..=wanted * 5 / 4).contains(&found),
                "{wanted}: {found}"
            );
        }
        let chart = AsciiChart::new().add("sizes", histogram);
        let text = chart.detailed().to_string();
        assert!(text.starts_with("sizes [samples: 1000, P0.1: 1,"), "{text}");
        assert!(text.lines().any(|line| line.ends_with(" 128")), "{text}");
    }
}
