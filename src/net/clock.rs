//! Monotonic microseconds since the process began.

use std::sync::OnceLock;
use std::time::Instant;

/// Microseconds since the first call in this process. About 25 ns.
pub fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // 584,000 years fit.
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}
