//! Which reads a unit of work has already made: the memory behind "the same query again".
//!
//! Two generations of [`BOUND`] reads each, of which the older one is forgotten when the younger one is full. So a read
//! is remembered until at least [`BOUND`] others, all different, have come after it; within that bound no repeat is
//! missed, whatever cells the hashes fall on.

/// Different reads after which one may be forgotten.
pub(crate) const BOUND: usize = 128;
/// Cells of a generation: half of them stay empty, so a search ends soon.
const CELLS: usize = 2 * BOUND;

/// Reads by 32 bits of their hash, beside the 8 that choose the cell: takes two for one about once in 10^9 searches.
pub(crate) struct Seen {
    young: [u32; CELLS],
    old: [u32; CELLS],
    /// Reads in the younger generation.
    len: usize,
}

impl Seen {
    pub(crate) const fn new() -> Self {
        Self { young: [0; CELLS], old: [0; CELLS], len: 0 }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes in a read by its hash; whether it is known.
    #[inline]
    pub(crate) fn meet(&mut self, hash: u64) -> bool {
        let hash = mix(hash);
        // 0 is an empty cell.
        let (home, tag) = ((hash >> 56) as usize, (hash as u32) | 1);
        let young = match find(&self.young, home, tag) {
            Ok(_) => return true,
            Err(empty) => empty,
        };
        let known = find(&self.old, home, tag).is_ok();
        self.young[young] = tag;
        self.len += 1;
        if self.len == BOUND {
            self.old = self.young;
            self.young = [0; CELLS];
            self.len = 0;
        }
        known
    }
}

/// Every bit of the input in every bit of the result (the finaliser of SplitMix64): cell and tag are cut out of it.
#[inline]
const fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// The cell of a tag, or the empty one where the search for it ends. There is always one: half are empty.
#[inline]
fn find(cells: &[u32; CELLS], home: usize, tag: u32) -> Result<usize, usize> {
    let mut at = home % CELLS;
    loop {
        match cells[at] {
            0 => return Err(at),
            known if known == tag => return Ok(at),
            _ => at = (at + 1) % CELLS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_repeat_within_the_bound_is_missed_and_none_is_invented() {
        for salt in 0..200u64 {
            let hash = |n: u64| n ^ (salt << 32);
            let mut seen = Seen::new();
            let first: Vec<bool> = (0..5_000).map(|n| seen.meet(hash(n))).collect();
            assert!(!first.contains(&true), "salt {salt}: what came once only was taken for a repeat");
            // Whatever came before: the last ones are known, all of them.
            for n in 5_000 - BOUND as u64..5_000 {
                assert!(seen.meet(hash(n)), "salt {salt}: {n} was lost");
            }
        }
    }

    #[test]
    fn reads_of_one_cell_are_told_apart() {
        let mut seen = Seen::new();
        let crowd: Vec<u64> = (1..200_000u64).filter(|n| mix(*n) >> 56 == 255).take(100).collect();
        assert_eq!(crowd.len(), 100);
        assert!(crowd.iter().all(|hash| !seen.meet(*hash)));
        assert!(crowd.iter().all(|hash| seen.meet(*hash)));
        seen.clear();
        assert!(!seen.meet(crowd[0]));
    }
}
