//! Cutting a byte stream into messages by their 5-byte header; bodies are never looked at here.
//!
//! A message is one type byte and a big-endian length that counts itself but not the type byte.

/// Bytes of a message header: type and length.
pub const HEADER: usize = 5;

/// Largest message length PostgreSQL itself takes (`PQ_LARGE_MESSAGE_LIMIT` = `MaxAllocSize`, libpq/libpq.h).
pub const MAX_MESSAGE: u32 = 0x3fff_ffff;

/// A header, read from the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Type byte.
    pub tag: u8,
    /// Bytes of the whole message, header included (5 or more).
    pub len: usize,
}

/// Why a header cannot be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is below 4 or above [`MAX_MESSAGE`].
    #[error("invalid message length {0}")]
    Length(u32),
}

impl Frame {
    /// Reads the header at the front of `buf`; `None` while fewer than five bytes are there.
    ///
    /// # Errors
    /// [`FrameError::Length`] when no message can have that length: the stream is lost.
    #[inline]
    pub fn peek(buf: &[u8]) -> Result<Option<Frame>, FrameError> {
        let Some(&[tag, a, b, c, d]) = buf.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([a, b, c, d]);
        if !(4..=MAX_MESSAGE).contains(&len) {
            return Err(FrameError::Length(len));
        }
        Ok(Some(Frame { tag, len: len as usize + 1 }))
    }

    /// Bytes of the body.
    pub fn body_len(&self) -> usize {
        self.len - HEADER
    }
}

/// Appends a message: `tag`, the length, and what `body` writes.
pub fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Walks `data`, cut as `cuts` says, the way the relay does; used by the fuzz target and the properties.
///
/// Returns (tag, body length) of each complete message.
///
/// # Errors
/// As [`Frame::peek`].
pub fn walk(data: &[u8], cuts: &[usize]) -> Result<Vec<(u8, usize)>, FrameError> {
    let mut out = Vec::new();
    let mut held: Vec<u8> = Vec::new();
    let mut skip = 0usize;
    let mut current = None;
    let mut start = 0;
    for end in cuts.iter().map(|c| (*c).min(data.len())).chain([data.len()]) {
        if end < start {
            continue;
        }
        held.extend_from_slice(&data[start..end]);
        start = end;
        let mut at = 0;
        loop {
            let take = skip.min(held.len() - at);
            skip -= take;
            at += take;
            if skip > 0 {
                break;
            }
            if let Some(done) = current.take() {
                out.push(done);
            }
            match Frame::peek(&held[at..])? {
                None => break,
                Some(f) => {
                    at += HEADER;
                    skip = f.body_len();
                    current = Some((f.tag, f.body_len()));
                }
            }
        }
        held.drain(..at);
    }
    Ok(out)
}

/// Fuzz entry: any bytes, two different cuttings, the same messages.
pub fn fuzz_frame(data: &[u8]) {
    let cuts: Vec<usize> = data
        .iter()
        .scan(0usize, |at, b| {
            *at += usize::from(*b) + 1;
            Some(*at)
        })
        .collect();
    assert_eq!(walk(data, &[]), walk(data, &cuts));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_impossible_lengths() {
        assert_eq!(Frame::peek(&[b'Q', 0, 0, 0, 3]), Err(FrameError::Length(3)));
        assert_eq!(Frame::peek(&[b'Q', 0xff, 0xff, 0xff, 0xff]), Err(FrameError::Length(u32::MAX)));
        assert_eq!(Frame::peek(&[b'S', 0, 0, 0, 4]), Ok(Some(Frame { tag: b'S', len: 5 })));
        assert_eq!(Frame::peek(&[b'S', 0, 0, 0]), Ok(None));
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_messages(
            msgs in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            cuts in proptest::collection::vec(0usize..4000, 0..40),
        ) {
            let mut bytes = Vec::new();
            for (tag, body) in &msgs {
                put(&mut bytes, *tag, |b| b.extend_from_slice(body));
            }
            let mut cuts = cuts;
            cuts.sort_unstable();
            let expected: Vec<_> = msgs.iter().map(|(t, b)| (*t, b.len())).collect();
            prop_assert_eq!(walk(&bytes, &cuts).unwrap(), expected);
        }
    }
}
