//! The fixed hash behind every fingerprint, and the keyed hash of literals.
//!
//! A fingerprint is a published number: equal on every pod, platform and restart. So the function is our own, written
//! down here, and a change of it (or of any rule that feeds it) bumps [`super::FINGERPRINT_VERSION`]:
//!
//! * `fold(a, b)`: the 128-bit product of a and b, its halves xored;
//! * a word (identifier, keyword, operator): `acc = fold(acc ^ chunk, P1)` over its little-endian 8-byte chunks, the
//!   last one padded with zeros, from a seed that names the kind of token;
//! * a sequence of tokens: `h = rotl((h ^ token) * P2, 29)`;
//! * a bracketed group is a sequence of its own, closed into one token of the sequence around it.

const P0: u64 = 0xa076_1d64_78bd_642f;
const P1: u64 = 0xe703_7ed1_a0b4_28db;
const P2: u64 = 0x8ebc_6af0_9c88_c6e3;
const P3: u64 = 0x5899_65cc_7537_4cc3;

/// Seed of words: identifiers and keywords.
pub(super) const WORD_SEED: u64 = P0;
/// Seed of operators.
pub(super) const OP_SEED: u64 = 0x1d8e_4e27_c47d_124f;
/// Start of every token sequence.
pub(super) const SEQ_SEED: u64 = 0xeb44_acca_b455_d165;
/// Mixed into a quoted identifier whose text is a reserved word.
pub(super) const QUOTED_TAG: u64 = 0x2545_f491_4f6c_dd1d;
/// Mixed into a `U&"..."` identifier.
pub(super) const UNICODE_TAG: u64 = 0x9e37_79b9_7f4a_7c15;

/// `MASK[n]` keeps the low n bytes.
const MASK: [u64; 9] =
    [0, 0xff, 0xffff, 0xff_ffff, 0xffff_ffff, 0xff_ffff_ffff, 0xffff_ffff_ffff, 0xff_ffff_ffff_ffff, u64::MAX];

/// The 128-bit product folded to 64 bits.
#[inline(always)]
pub(super) const fn fold(a: u64, b: u64) -> u64 {
    let p = (a as u128).wrapping_mul(b as u128);
    (p as u64) ^ ((p >> 64) as u64)
}

/// One more 8-byte chunk of a word.
#[inline(always)]
pub(super) const fn chunk(acc: u64, bytes: u64) -> u64 {
    fold(acc ^ bytes, P1)
}

/// One more token of a sequence. A bijection in both arguments, so no token can wash out what came before it.
#[inline(always)]
pub(super) const fn step(h: u64, token: u64) -> u64 {
    (h ^ token).wrapping_mul(P2).rotate_left(29)
}

/// A whole sequence as one token; `tag` tells the kind of bracket.
#[inline(always)]
pub(super) const fn group(h: u64, tag: u64) -> u64 {
    fold(h ^ tag, P3)
}

/// Last mix of a fingerprint: every input bit reaches every output bit (murmur3's finaliser).
pub(super) const fn finish(h: u64) -> u64 {
    let mut x = h ^ (super::FINGERPRINT_VERSION as u64).wrapping_mul(P0);
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Eight bytes at `at`, zeros past the end.
#[inline(always)]
pub(super) fn load8(src: &[u8], at: usize) -> u64 {
    match src.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => load_tail(src, at),
    }
}

#[cold]
#[inline(never)]
fn load_tail(src: &[u8], at: usize) -> u64 {
    let rest = src.get(at..).unwrap_or_default();
    rest.iter().take(8).rev().fold(0, |w, &b| (w << 8) | u64::from(b))
}

/// The low `n` bytes of `w` (n <= 8).
#[inline(always)]
pub(super) const fn keep(w: u64, n: usize) -> u64 {
    w & MASK[if n > 8 { 8 } else { n }]
}

/// ASCII lower case of eight bytes at once; bytes above 0x7f stay.
#[inline(always)]
pub(super) const fn lower8(w: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low7 = w & (0x7f * ONES);
    let ge_a = low7 + (0x80 - b'A' as u64) * ONES;
    let gt_z = low7 + (0x7f - b'Z' as u64) * ONES;
    let upper = (ge_a ^ gt_z) & !w & (0x80 * ONES);
    w | (upper >> 2)
}

/// High bit set in the first byte of `w` that equals `b` (bytes above it may be marked wrongly).
#[inline(always)]
pub(super) const fn find8(w: u64, b: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let x = w ^ (ONES * b as u64);
    x.wrapping_sub(ONES) & !x & (0x80 * ONES)
}

/// Hash of a word in lower case.
#[inline(always)]
pub(super) fn word_lower(src: &[u8], start: usize, end: usize) -> u64 {
    let (mut acc, mut i) = (WORD_SEED, start);
    while end - i > 8 {
        acc = chunk(acc, lower8(load8(src, i)));
        i += 8;
    }
    chunk(acc, lower8(keep(load8(src, i), end - i)))
}

/// Hash of bytes as they are, from `seed`.
pub(super) fn word_raw(seed: u64, bytes: &[u8]) -> u64 {
    let (mut acc, mut i) = (seed, 0);
    while bytes.len() - i > 8 {
        acc = chunk(acc, load8(bytes, i));
        i += 8;
    }
    chunk(acc, keep(load8(bytes, i), bytes.len() - i))
}

/// [`word_lower`] for the compiler: the keyword table is built of these. The word must be lower case.
pub(super) const fn word_const(bytes: &[u8]) -> u64 {
    let (mut acc, mut i) = (WORD_SEED, 0);
    loop {
        let (mut w, mut n) = (0u64, 0);
        while n < 8 && i + n < bytes.len() {
            w |= (bytes[i + n] as u64) << (8 * n);
            n += 1;
        }
        acc = chunk(acc, w);
        i += 8;
        if i >= bytes.len() {
            return acc;
        }
    }
}

/// A constant token named by text: brackets, placeholders.
pub(super) const fn named(text: &[u8]) -> u64 {
    chunk(word_const(text), OP_SEED)
}

/// Keyed hash of literals. The key is random in each process: ids and e-mails cannot be found by enumeration.
#[derive(Clone, Copy)]
pub(super) struct Keyed {
    key: [u64; 2],
}

impl Keyed {
    pub(super) fn new(key: [u64; 2]) -> Self {
        // The low bits are forced so that no key makes the product collapse to zero.
        Self { key: [key[0] | 1, key[1] | 1] }
    }

    /// State before the first literal.
    pub(super) fn start(self) -> u64 {
        self.key[0] ^ P3
    }

    /// One literal more; its length takes part, so `('a','bc')` is not `('ab','c')`.
    #[inline]
    pub(super) fn absorb(self, acc: u64, bytes: &[u8]) -> u64 {
        self.absorb_at(acc, bytes, 0, bytes.len())
    }

    /// [`Self::absorb`] of `src[start..end]`. With the text around it a short literal is loaded at once.
    #[inline(always)]
    pub(super) fn absorb_at(self, acc: u64, src: &[u8], start: usize, end: usize) -> u64 {
        let mut a = fold(acc ^ ((end - start) as u64), self.key[1]);
        let mut i = start;
        while end - i > 16 {
            a = fold(a ^ load8(src, i), self.key[1] ^ load8(src, i + 8));
            i += 16;
        }
        let rest = end - i;
        let (lo, hi) = (keep(load8(src, i), rest), if rest > 8 { keep(load8(src, i + 8), rest - 8) } else { 0 });
        fold(a ^ lo ^ self.key[0], self.key[1] ^ hi.rotate_left(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_counts_the_same_wherever_it_stands() {
        let keyed = Keyed::new([3, 4]);
        let text: Vec<u8> = (0..60).collect();
        for (start, end) in (0..=60).flat_map(|end| (0..=end).map(move |start| (start, end))) {
            assert_eq!(keyed.absorb_at(5, &text, start, end), keyed.absorb(5, &text[start..end]), "{start}..{end}");
        }
    }
}
