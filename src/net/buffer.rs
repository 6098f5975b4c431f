//! Relay buffers, lent while data is in flight so that an idle client holds none.
//!
//! A worker keeps a stack of 16 KiB boxes; in the common case the same warm one serves every session in turn.

use std::cell::RefCell;

/// Bytes of a lent buffer.
pub const SIZE: usize = 16 * 1024;
/// Buffers a worker keeps when nobody needs them.
const KEPT: usize = 64;

/// A worker's stack of buffers.
#[derive(Default)]
pub struct BufPool {
    free: RefCell<Vec<Box<[u8]>>>,
}

impl BufPool {
    /// Lends a buffer.
    pub fn lend(&self) -> Lent {
        let data = self
            .free
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
        Lent {
            data,
            start: 0,
            end: 0,
        }
    }

    /// Takes a buffer back. Boxes of another size are dropped.
    pub fn give_back(&self, lent: Lent) {
        let mut free = self.free.borrow_mut();
        if lent.data.len() == SIZE && free.len() < KEPT {
            free.push(lent.data);
        }
    }
}

/// A buffer with the bytes received and not yet used. 0 <= start <= end <= data.len().
pub struct Lent {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Lent {
    /// Received and not yet used.
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` bytes have been used.
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.end - self.start);
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to receive into, after moving what is left to the front. Empty when the buffer is full.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.data[self.end..]
    }

    /// `n` bytes were received into [`Self::spare`].
    pub fn received(&mut self, n: usize) {
        self.end = (self.end + n).min(self.data.len());
    }

    /// Makes room for a message of `total` bytes at the front.
    pub fn grow(&mut self, total: usize) {
        if total > self.data.len() {
            let mut bigger = vec![0; total].into_boxed_slice();
            let n = self.end - self.start;
            bigger[..n].copy_from_slice(self.filled());
            *self = Lent {
                data: bigger,
                start: 0,
                end: n,
            };
        }
    }

    /// For a session that must wait: keeps the bytes in a box of their exact size and gives the buffer back.
    pub fn shrink(self, pool: &BufPool) -> Lent {
        if self.data.len() != SIZE {
            return self;
        }
        let data: Box<[u8]> = self.filled().into();
        let end = data.len();
        pool.give_back(self);
        Lent {
            data,
            start: 0,
            end,
        }
    }

    /// The reverse of [`Self::shrink`]: a full buffer again, to receive into.
    pub fn expand(self, pool: &BufPool) -> Lent {
        if self.data.len() >= SIZE {
            return self;
        }
        let mut lent = pool.lend();
        let n = self.filled().len();
        lent.data[..n].copy_from_slice(self.filled());
        lent.end = n;
        lent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_survives_shrinking_and_growing() {
        let pool = BufPool::default();
        let mut b = pool.lend();
        b.spare()[..5].copy_from_slice(b"hello");
        b.received(5);
        b.consume(1);
        let b = b.shrink(&pool);
        assert_eq!(b.filled(), b"ello");
        let mut b = b.expand(&pool);
        assert_eq!(b.filled(), b"ello");
        assert_eq!(b.spare().len(), SIZE - 4);
        b.grow(100_000);
        assert_eq!(b.filled(), b"ello");
        assert_eq!(b.spare().len(), 100_000 - 4);
        pool.give_back(b);
    }

    #[test]
    fn the_same_buffer_is_lent_again() {
        let pool = BufPool::default();
        let b = pool.lend();
        let at = b.data.as_ptr();
        pool.give_back(b);
        assert_eq!(pool.lend().data.as_ptr(), at);
    }
}
