//! Latency of one fingerprint in few bytes: two buckets an octave from 64 us to 1 s, one an octave above.
//!
//! Single writer, relaxed; a bucket is found with two shifts. A percentile is interpolated inside its bucket, which is
//! at most half as wide again as its lower bound up to 1 s, and twice above.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Buckets: below 64 us, 28 up to 1 s, 5 above.
pub(crate) const BUCKETS: usize = 34;
/// The first octave with buckets of its own: 64 us.
const FIRST: usize = 6;
/// The first octave that is one bucket: 2^20 us.
const COARSE: usize = 20;
/// Buckets below [`COARSE`].
const FINE: usize = 1 + 2 * (COARSE - FIRST);

/// Counts by bucket.
pub(crate) struct Latency([AtomicU32; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

/// Counts of one or several [`Latency`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread([u64; BUCKETS]);

impl Default for Spread {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

#[inline]
fn bucket(us: u64) -> usize {
    if us < 1 << FIRST {
        return 0;
    }
    let octave = 63 - us.leading_zeros() as usize;
    if octave < COARSE {
        1 + 2 * (octave - FIRST) + (us >> (octave - 1) & 1) as usize
    } else {
        (FINE + octave - COARSE).min(BUCKETS - 1)
    }
}

/// Least value of a bucket, microseconds.
fn lower(bucket: usize) -> u64 {
    match bucket {
        0 => 0,
        b if b < FINE => {
            let base = 1 << (FIRST + (b - 1) / 2);
            base + base / 2 * ((b as u64 - 1) & 1)
        }
        b => 1 << (COARSE + b - FINE),
    }
}

impl Latency {
    /// Counts one execution.
    #[inline]
    pub(crate) fn observe(&self, us: u64) {
        let count = &self.0[bucket(us)];
        // Stays at its end rather than beginning anew: a share is asked of it, not a sum.
        count.store(count.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Forgets everything: the slot has a new owner. By the writer only.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }

    /// Adds its counts to a reading.
    pub(crate) fn add_to(&self, into: &mut Spread) {
        for (sum, count) in into.0.iter_mut().zip(&self.0) {
            *sum += u64::from(count.load(Relaxed));
        }
    }
}

impl Spread {
    /// Executions in the buckets that begin at this or above, and how long they took together at least, microseconds.
    pub(crate) fn above(&self, us: u64, max_us: u64) -> (u64, u64) {
        let tail = self.0.iter().enumerate().filter(|(at, _)| lower(*at) >= us);
        tail.fold((0, 0), |(calls, sum), (at, count)| (calls + count, sum + count * lower(at).min(max_us)))
    }

    /// The value below which this share of executions lies, in seconds; `max_us` is the longest seen. 0 without any.
    pub(crate) fn quantile(&self, share: f64, max_us: u64) -> f64 {
        let total: u64 = self.0.iter().sum();
        let wanted = share * total as f64;
        let mut before = 0.0;
        for (at, count) in self.0.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && before + count >= wanted {
                let low = lower(at) as f64;
                let high = if at + 1 < BUCKETS { lower(at + 1).min(max_us.max(1)) } else { max_us } as f64;
                let inside = ((wanted - before) / count).clamp(0.0, 1.0);
                return (low + (high - low).max(0.0) * inside) / 1e6;
            }
            before += count;
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_that_begins_below_it() {
        for us in (0..200_000).chain([999_999, 1 << 20, 3 << 20, 5 << 20, 1 << 24, u64::MAX]) {
            let at = bucket(us);
            assert!(lower(at) <= us, "{us}");
            assert!(at + 1 == BUCKETS || us < lower(at + 1), "{us}");
        }
        let bounds: Vec<_> = (0..BUCKETS).map(lower).collect();
        assert!(bounds.is_sorted() && bounds[1] == 64 && bounds[28] == 3 << 18 && bounds[29] == 1 << 20, "{bounds:?}");
    }

    #[test]
    fn percentiles_are_near_the_true_ones() {
        let latency = Latency::default();
        // 1 to 100 ms evenly, and one of 40 s.
        (1..=1_000).for_each(|i| latency.observe(i * 100));
        let mut spread = Spread::default();
        latency.add_to(&mut spread);
        for (share, seconds) in [(0.5, 0.050), (0.95, 0.095), (0.99, 0.099)] {
            let found = spread.quantile(share, 100_000);
            assert!((found / seconds - 1.0).abs() < 0.15, "{share}: {found} instead of {seconds}");
        }
        assert!(spread.quantile(1.0, 100_000) <= 0.1, "never above the longest");
        let (calls, sum) = spread.above(3 << 14, 100_000);
        assert!(calls == 509 && (49_152..75_000).contains(&(sum / calls)), "{calls} {sum}");
        latency.clear();
        latency.observe(40_000_000);
        let mut spread = Spread::default();
        latency.add_to(&mut spread);
        assert_eq!(spread.quantile(0.99, 40_000_000).round(), 40.0);
        assert_eq!(Spread::default().quantile(0.5, 0), 0.0);
    }
}
