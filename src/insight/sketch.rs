//! How many different sets of literals a statement is asked with: a HyperLogLog of 256 registers (6.5 % error).
//!
//! The literals enter as a hash under a key of the process and are not to be had from here; only the ratio leaves.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use super::Insight;
use super::queries::Key;
use super::run::SPREAD;
use super::table::bump;

const REGISTERS: usize = 256;
/// Statements watched on each worker: those asked most often.
pub(crate) const MAX_SKETCHES: usize = 500;

/// Which literals one statement is asked with. Single writer.
pub(crate) struct Sketch {
    registers: [AtomicU8; REGISTERS],
    calls: AtomicU64,
    /// The reader wants it to begin anew.
    renew: AtomicBool,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            registers: std::array::from_fn(|_| AtomicU8::new(0)),
            calls: AtomicU64::new(0),
            renew: AtomicBool::new(false),
        }
    }
}

impl Sketch {
    /// One execution with these literals.
    #[inline]
    pub(crate) fn observe(&self, literals: u64) {
        if self.renew.load(Relaxed) {
            self.clear();
            self.renew.store(false, Relaxed);
        }
        bump(&self.calls, 1);
        // The hash of a statement with few literals has few varying bits: spread them twice.
        let mut hash = (literals ^ literals >> 32).wrapping_mul(SPREAD);
        hash = (hash ^ hash >> 29).wrapping_mul(SPREAD);
        let register = &self.registers[(hash >> 56) as usize];
        let rank = ((hash << 8).leading_zeros().min(55) + 1) as u8;
        if register.load(Relaxed) < rank {
            register.store(rank, Relaxed);
        }
    }

    /// Forgets everything. By the writer only.
    pub(crate) fn clear(&self) {
        self.registers.iter().for_each(|register| register.store(0, Relaxed));
        self.calls.store(0, Relaxed);
    }

    /// Asks the writer to begin anew.
    pub(crate) fn renew(&self) {
        self.renew.store(true, Relaxed);
    }

    /// Executions seen, and estimated different sets of literals among them.
    pub(crate) fn read(&self) -> (u64, f64) {
        let m = REGISTERS as f64;
        let (mut sum, mut zeros) = (0.0, 0.0);
        for register in &self.registers {
            let rank = register.load(Relaxed);
            sum += 0.5f64.powi(i32::from(rank));
            zeros += f64::from(u8::from(rank == 0));
        }
        // Flajolet et al., "HyperLogLog", 2007: alpha for m >= 128, linear counting for few.
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let distinct = if raw <= 2.5 * m && zeros > 0.0 { m * (m / zeros).ln() } else { raw };
        let calls = self.calls.load(Relaxed);
        (calls, distinct.min(calls as f64))
    }
}

impl Insight {
    /// Watches the values of these statements from now on, as far as there is room; `renew`: begin anew with all.
    pub(crate) fn watch_values(&self, often: &HashSet<Key>, renew: bool) {
        for table in self.tables() {
            let slots = || (1..table.len() as u32).map(|slot| table.entry(slot));
            let mut room = MAX_SKETCHES.saturating_sub(slots().filter(|entry| entry.sketch.get().is_some()).count());
            for entry in slots() {
                match entry.sketch.get() {
                    Some(sketch) if renew => sketch.renew(),
                    Some(_) => {}
                    None if room > 0 && often.contains(&entry.key()) => {
                        entry.sketch.get_or_init(Box::default);
                        room -= 1;
                    }
                    None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_literals_are_estimated_and_begin_anew() {
        for distinct in [1u64, 10, 100, 1_000, 20_000] {
            let sketch = Sketch::default();
            for i in 0..40_000 {
                sketch.observe((i % distinct).wrapping_mul(0x1234_5678_9ABC_DEF1));
            }
            let (calls, found) = sketch.read();
            assert_eq!(calls, 40_000);
            assert!((found / distinct as f64 - 1.0).abs() < 0.2, "{distinct}: {found}");
            sketch.renew();
            sketch.observe(7);
            assert_eq!(sketch.read().0, 1);
        }
    }
}
