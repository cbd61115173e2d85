//! Latencies, counted in log-linear buckets.
//!
//! Recording is one increment in an array of fixed size, so that measuring costs the generator
//! next to nothing. A value read back is never under the true one and at most 1 % over it.

use std::time::Duration;

/// log2 of the buckets for each power of two of nanoseconds: 128, hence the 1 %.
const PRECISION_BITS: u32 = 7;
const BUCKETS_PER_POWER: u64 = 1 << PRECISION_BITS;

/// How often each latency was seen.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Histogram {
    /// Nothing seen yet.
    pub fn new() -> Self {
        let buckets = bucket_of(u64::MAX) + 1;
        Self { buckets: vec![0; buckets], count: 0, max: Duration::ZERO }
    }

    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanoseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The latency that `per_mille` of a thousand did not exceed. Where nothing was
    /// recorded it is [`Duration::MAX`], so that nothing can be reached by not answering.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let wanted = (self.count * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos(highest_in(bucket)).min(self.max);
            }
        }
        Duration::MAX
    }
}

/// Which bucket counts this many nanoseconds. Below `BUCKETS_PER_POWER` each has its own.
fn bucket_of(nanoseconds: u64) -> usize {
    let shift = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    let bucket = u64::from(shift) * BUCKETS_PER_POWER + (nanoseconds >> shift);
    usize::try_from(bucket).expect("at most 7,424")
}

/// The largest number of nanoseconds that a bucket counts.
fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * BUCKETS_PER_POWER {
        return bucket;
    }
    let shift = bucket / BUCKETS_PER_POWER - 1;
    let lowest = (bucket - shift * BUCKETS_PER_POWER) << shift;
    lowest + ((1 << shift) - 1)
}
