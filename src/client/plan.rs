//! What a batch becomes on its way: the input as it came, or a copy with something put in.

use std::ops::Range;

/// What goes out: the input as it is while nothing is changed, a copy from the first change on.
pub struct Plan<'a> {
    out: &'a mut Vec<u8>,
    plain: Range<usize>,
    copied: bool,
}

impl<'a> Plan<'a> {
    /// An empty plan over scratch.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Plan { out, plain: 0..0, copied: false }
    }

    /// `input[range]` goes out as it is.
    #[inline]
    pub fn keep(&mut self, input: &[u8], range: Range<usize>) {
        if !self.copied && self.plain.is_empty() {
            self.plain = range;
        } else if !self.copied && self.plain.end == range.start {
            self.plain.end = range.end;
        } else {
            self.copy(input, range);
        }
    }

    #[cold]
    fn copy(&mut self, input: &[u8], range: Range<usize>) {
        self.inject(input).extend_from_slice(&input[range]);
    }

    /// Something of ours goes out here: append it to what is returned.
    pub fn inject(&mut self, input: &[u8]) -> &mut Vec<u8> {
        if !self.copied {
            self.copied = true;
            self.out.extend_from_slice(&input[std::mem::take(&mut self.plain)]);
        }
        self.out
    }

    /// All that goes out.
    pub fn bytes<'b>(&'b self, input: &'b [u8]) -> &'b [u8] {
        if self.copied { self.out } else { &input[self.plain.clone()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_input_is_sent_without_a_copy() {
        let input = b"abcdef";
        let mut out = Vec::new();
        let mut p = Plan::new(&mut out);
        p.keep(input, 0..2);
        p.keep(input, 2..6);
        assert_eq!(p.bytes(input).as_ptr(), input.as_ptr());
        assert_eq!(p.bytes(input), b"abcdef");
    }

    #[test]
    fn a_gap_or_an_injection_keeps_the_order() {
        let input = b"abcdef";
        let mut out = Vec::new();
        let mut p = Plan::new(&mut out);
        p.keep(input, 0..2);
        p.inject(input).extend_from_slice(b"--");
        p.keep(input, 3..4);
        p.keep(input, 5..6);
        assert_eq!(p.bytes(input), b"ab--df");
    }
}
