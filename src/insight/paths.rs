//! Which statements follow one another without a pause: what tells a machine that stuttered from the end of a request.
//!
//! A fixed table of counters, one a worker. A pause between two statements that have often followed one another at once
//! is noise; between two that have not, a request has probably ended.

use super::run::SPREAD;

/// Pairs remembered; a newer one takes the place of an older one.
const CELLS: usize = 1024;
/// A counter that reaches this is halved, and the other one with it: what is recent counts.
const FULL: u8 = 16;
/// A pause is noise where at least this many times as often there was none.
const USUAL: u8 = 3;

#[derive(Clone, Copy, Default)]
struct Cell {
    tag: u32,
    at_once: u8,
    after_pause: u8,
}

/// The pairs of one worker.
pub(crate) struct Paths(Box<[Cell]>);

impl Paths {
    pub(crate) fn new() -> Self {
        Self(vec![Cell::default(); CELLS].into())
    }

    /// Counts that `to` came after `from`, and tells whether a pause between them is unusual.
    #[inline]
    pub(crate) fn follow(&mut self, from: u64, to: u64, paused: bool) -> bool {
        let mixed = (from.rotate_left(21) ^ to).wrapping_mul(SPREAD);
        let cell = &mut self.0[(mixed >> 54) as usize];
        let tag = mixed as u32;
        if cell.tag != tag {
            *cell = Cell { tag, ..Cell::default() };
        }
        let counter = if paused { &mut cell.after_pause } else { &mut cell.at_once };
        *counter += 1;
        if *counter == FULL {
            cell.at_once /= 2;
            cell.after_pause /= 2;
        }
        cell.at_once >= USUAL * cell.after_pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_noise_where_there_is_usually_none() {
        let mut paths = Paths::new();
        assert!(!paths.follow(1, 2, true), "nothing is known of it");
        for _ in 0..20 {
            paths.follow(3, 4, false);
        }
        assert!(paths.follow(3, 4, true));
        assert!(!paths.follow(4, 3, true), "another pair");
        for _ in 0..8 {
            paths.follow(3, 4, true);
        }
        assert!(!paths.follow(3, 4, true), "it has become usual");
    }
}
