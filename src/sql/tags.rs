//! Tags in SQL comments: sqlcommenter's, ddtrace's and Rails' `key='value'` pairs.
//!
//! Only the comments before the first word and behind the last one are read, at most [`COMMENT_CAP`] bytes and
//! [`PAIR_CAP`] pairs of each; keys not on the list are dropped unread. Values are borrowed from the text and decoded
//! into a caller's buffer, so nothing is allocated. What a value may become on the way out is fixed here: printable
//! ASCII, 128 bytes, runs of two and more digits masked (a misbehaving application may send the real path).

use super::RawSql;
use super::hash;

/// Bytes read of one comment.
const COMMENT_CAP: usize = 1024;
/// Pairs read of one comment.
const PAIR_CAP: usize = 16;
/// Bytes of a decoded value.
pub const VALUE_CAP: usize = 128;

/// A tag's value as it stands in the comment. Has no text form of its own: [`TagValue::write`] masks it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TagValue<'a>(&'a [u8]);

impl TagValue<'_> {
    /// Decodes the value into `buffer`, masked and cut, and gives the text.
    pub fn write<'b>(&self, buffer: &'b mut [u8; VALUE_CAP]) -> &'b str {
        let (mut n, mut digits) = (0, 0usize);
        for b in Decoded(self.0) {
            digits = if b.is_ascii_digit() { digits + 1 } else { 0 };
            let shown = match b {
                _ if digits > 2 => continue,
                _ if digits == 2 => {
                    // The run's first digit is in the buffer already: the run becomes one `#`.
                    n -= 1;
                    b'#'
                }
                0x20..=0x7e => b,
                _ => b'?',
            };
            if n == VALUE_CAP {
                break;
            }
            buffer[n] = shown;
            n += 1;
        }
        std::str::from_utf8(&buffer[..n]).unwrap_or_default()
    }

    /// Hash of the decoded value: equal values have equal hashes, whatever their escapes.
    pub fn hash(&self) -> u64 {
        let (mut acc, mut w, mut n) = (hash::WORD_SEED, 0u64, 0u32);
        for b in Decoded(self.0) {
            w = (w << 8) | u64::from(b);
            n += 1;
            if n.is_multiple_of(8) {
                acc = hash::chunk(acc, w);
                w = 0;
            }
        }
        hash::finish(hash::chunk(acc, w ^ (u64::from(n) << 56)))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The bytes of a value: `\'` and `\\`, then `%%` (client-side binding doubles them), then `%2F`.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        let (used, byte) = match *self.0 {
            [] => return None,
            [b'\\', b, ..] => (2, b),
            [b'%', b'%', a, b, ..] if hex(a).is_some() && hex(b).is_some() => (4, pair(a, b)),
            [b'%', b'%', ..] => (2, b'%'),
            [b'%', a, b, ..] if hex(a).is_some() && hex(b).is_some() => (3, pair(a, b)),
            [b, ..] => (1, b),
        };
        self.0 = &self.0[used..];
        Some(byte)
    }
}

fn hex(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).map(|d| d as u8)
}

fn pair(a: u8, b: u8) -> u8 {
    hex(a).unwrap_or(0) << 4 | hex(b).unwrap_or(0)
}

/// The tags of one statement.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags<'a> {
    /// `route`: the URL template.
    pub route: Option<TagValue<'a>>,
    /// `controller`: Django's view name.
    pub controller: Option<TagValue<'a>>,
    /// `action`.
    pub action: Option<TagValue<'a>>,
    /// `application`, `app_name` or `dddbs`/`ddps` (Datadog's service).
    pub application: Option<TagValue<'a>>,
    /// `job`, `task_name`, `celery_task`.
    pub job: Option<TagValue<'a>>,
    /// The trace id of `traceparent`; never all zero.
    pub trace_id: Option<[u8; 16]>,
    /// Hash over `request_id`, `task_id`, `job_id`, `celery_task_id` and the caller's id keys; 0 when there is none.
    pub id: u64,
}

/// Keys whose value tells one unit of work from the next.
const ID_KEYS: [&[u8]; 4] = [b"request_id", b"task_id", b"job_id", b"celery_task_id"];

/// The tags of a statement's comments, None when there are none.
pub fn tags(sql: RawSql<'_>) -> Option<Tags<'_>> {
    tags_with(sql, &[])
}

/// [`tags`] with the caller's own id keys, whose values are only hashed.
pub fn tags_with<'a>(sql: RawSql<'a>, id_keys: &[String]) -> Option<Tags<'a>> {
    comment_bodies(sql).tags(id_keys)
}

/// What stands in the comments that tags are read from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommentBodies<'a> {
    /// In the one that opens the text.
    pub leading: Option<&'a [u8]>,
    /// In the one that ends it.
    pub trailing: Option<&'a [u8]>,
}

impl<'a> CommentBodies<'a> {
    /// The tags in them, None when there are none. `id_keys`: the caller's own keys of ids.
    pub fn tags(&self, id_keys: &[String]) -> Option<Tags<'a>> {
        let mut tags = Tags::default();
        let mut found = false;
        for body in [self.leading, self.trailing].into_iter().flatten() {
            found |= read(body, id_keys, &mut tags);
        }
        found.then_some(tags)
    }
}

/// The comments of a statement that tags are read from.
pub fn comment_bodies(sql: RawSql<'_>) -> CommentBodies<'_> {
    CommentBodies { leading: leading(sql.0), trailing: trailing(sql.0) }
}

/// The body of the comment that opens the text.
fn leading(text: &[u8]) -> Option<&[u8]> {
    let body = text.trim_ascii_start().strip_prefix(b"/*")?;
    let window = &body[..body.len().min(COMMENT_CAP + 2)];
    let end = memchr::memchr_iter(b'*', window).find(|star| window.get(star + 1) == Some(&b'/'))?;
    Some(&body[..end])
}

/// The body of the comment that ends the text, `;` and white space behind it allowed.
///
/// Looked for backwards: `*/` at the end, the nearest `/*` before it. A string that ends in `*/` ends in a quote as
/// well, so the end of the text cannot be inside one; a `--` comment or a nested one can fool it, and then gives tags
/// that the client has written itself.
fn trailing(text: &[u8]) -> Option<&[u8]> {
    let mut text = text.trim_ascii_end();
    while let Some(rest) = text.strip_suffix(b";") {
        text = rest.trim_ascii_end();
    }
    let body = text.strip_suffix(b"*/")?;
    let window = &body[body.len().saturating_sub(COMMENT_CAP + 2)..];
    let star = memchr::memrchr_iter(b'*', window).find(|star| *star > 0 && window[star - 1] == b'/')?;
    Some(&window[star + 1..])
}

/// Reads `key='value'` and `key=value` pairs; true when at least one is a known tag.
///
/// The body must be pairs to its end, or nothing of it counts. That makes [`trailing`] safe: between a `/*` inside a
/// string and the end of the text stands the string's own quote, which no list of pairs can hold.
fn read<'a>(body: &'a [u8], id_keys: &[String], tags: &mut Tags<'a>) -> bool {
    let mut read = *tags;
    let (mut rest, mut found, mut pairs) = (body, false, 0);
    loop {
        rest = rest.trim_ascii_start();
        let Some(n) = rest.iter().position(|b| matches!(b, b'=' | b':')) else {
            return false;
        };
        let key = rest[..n].trim_ascii();
        if !key.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'%')) {
            return false;
        }
        let Some((value, after)) = value(rest[n + 1..].trim_ascii_start()) else {
            return false;
        };
        if pairs < PAIR_CAP {
            found |= keep(key, value, id_keys, &mut read);
        }
        pairs += 1;
        match after.trim_ascii_start() {
            [] => break,
            [b',', next @ ..] => rest = next,
            _ => return false,
        }
    }
    if found {
        *tags = read;
    }
    found
}

/// A quoted value with `\'` inside, or a bare one up to the comma; and what follows it. None: neither.
fn value(text: &[u8]) -> Option<(TagValue<'_>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"'") else {
        let n = text.iter().position(|&b| b == b',').unwrap_or(text.len());
        let bare = text[..n].trim_ascii();
        let odd = |b: &u8| matches!(b, b'\'' | b'"' | b'$');
        let clean = !bare.iter().any(odd) && !bare.windows(2).any(|w| w == b"--");
        return clean.then_some((TagValue(bare), &text[n..]));
    };
    let mut i = 0;
    while let Some(&b) = quoted.get(i) {
        match b {
            b'\\' => i += 2,
            b'\'' => return Some((TagValue(&quoted[..i]), &quoted[i + 1..])),
            _ => i += 1,
        }
    }
    None
}

/// Files one pair; false when the key is not on the list.
fn keep<'a>(key: &[u8], value: TagValue<'a>, id_keys: &[String], tags: &mut Tags<'a>) -> bool {
    if value.is_empty() {
        return false;
    }
    let field = match key {
        b"route" => &mut tags.route,
        b"controller" => &mut tags.controller,
        b"action" => &mut tags.action,
        b"application" | b"app_name" | b"dddbs" | b"ddps" => &mut tags.application,
        b"job" | b"task_name" | b"celery_task" => &mut tags.job,
        b"traceparent" => {
            let id = trace_id(value.0);
            tags.trace_id = tags.trace_id.or(id);
            return id.is_some();
        }
        _ if ID_KEYS.contains(&key) || id_keys.iter().any(|k| k.as_bytes() == key) => {
            tags.id = hash::fold(tags.id ^ value.hash(), hash::OP_SEED) | 1;
            return true;
        }
        _ => return false,
    };
    field.get_or_insert(value);
    true
}

/// The trace id of `00-<32 hex>-<16 hex>-<2 hex>` (W3C trace context); none when it is all zero.
fn trace_id(value: &[u8]) -> Option<[u8; 16]> {
    let dashes = [2, 35, 52];
    if value.len() < 55 || dashes.iter().any(|&i| value[i] != b'-') {
        return None;
    }
    let lower_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let fields = [&value[..2], &value[3..35], &value[36..52], &value[53..55]];
    if !fields.iter().all(|f| f.iter().all(lower_hex)) {
        return None;
    }
    let mut id = [0; 16];
    for (byte, digits) in id.iter_mut().zip(fields[1].chunks_exact(2)) {
        *byte = pair(digits[0], digits[1]);
    }
    (id != [0; 16]).then_some(id)
}
