//! What ties a client to its server in transaction pooling, and when it lets go.
//!
//! A cursor WITH HOLD ties until it is closed: Django's `.iterator()` opens one per loop. Everything else that cannot
//! be followed from server to server ties until the client leaves, and the server is reset then.

/// Cursors remembered by name; a client with more stays tied.
const MAX_HELD: usize = 256;
/// Why a client with open cursors is tied.
const CURSOR: &str = "a cursor WITH HOLD";

/// Ties of one session.
#[derive(Default)]
pub struct Pins {
    /// Until the client leaves.
    lasting: Option<&'static str>,
    /// Open cursors WITH HOLD.
    held: Vec<Box<[u8]>>,
    /// CLOSE statements sent and not answered, in order; the answer says whether they worked.
    closing: Vec<Box<[u8]>>,
}

impl Pins {
    /// Why the client is tied now.
    pub fn reason(&self) -> Option<&'static str> {
        self.lasting.or_else(|| (!self.held.is_empty()).then_some(CURSOR))
    }

    /// Whether the server must be reset when the client leaves.
    pub fn leaves_state(&self) -> bool {
        self.reason().is_some()
    }

    /// Ties until the client leaves. Whether that is new.
    pub fn pin(&mut self, reason: &'static str) -> bool {
        let new = self.reason().is_none();
        self.lasting.get_or_insert(reason);
        new
    }

    /// A `DECLARE ... WITH HOLD` was forwarded. Whether the client was free before.
    pub fn declare(&mut self, sql: &[u8]) -> bool {
        let new = self.reason().is_none();
        match cursor_name(sql, b"declare") {
            Some(name) if self.held.len() < MAX_HELD => self.held.push(name),
            _ => self.lasting = Some(CURSOR),
        }
        new
    }

    /// A statement that may be a CLOSE was forwarded.
    pub fn close(&mut self, sql: &[u8]) {
        if !self.held.is_empty()
            && self.closing.len() < MAX_HELD
            && let Some(name) = cursor_name(sql, b"close")
        {
            self.closing.push(name);
        }
    }

    /// `CLOSE CURSOR` was answered: the first CLOSE that waits has worked. Whether the client became free.
    pub fn closed(&mut self) -> bool {
        if self.closing.is_empty() {
            return false;
        }
        let name = self.closing.remove(0);
        if name.eq_ignore_ascii_case(b"all") {
            self.held.clear();
        } else {
            self.held.retain(|h| *h != name);
        }
        self.reason().is_none()
    }

    /// `CLOSE CURSOR ALL` was answered.
    pub fn closed_all(&mut self) -> bool {
        self.closing.clear();
        self.held.clear();
        self.reason().is_none()
    }

    /// Everything has been answered: a CLOSE that still waits has failed.
    pub fn settled(&mut self) {
        self.closing.clear();
    }
}

/// The name after `verb`, folded as PostgreSQL folds it; `None` when the text does not read like that.
fn cursor_name(sql: &[u8], verb: &[u8]) -> Option<Box<[u8]>> {
    let mut rest = sql.trim_ascii_start();
    while let Some(comment) = rest.strip_prefix(b"/*") {
        let end = memchr::memmem::find(comment, b"*/")?;
        rest = comment[end + 2..].trim_ascii_start();
    }
    let (head, rest) = rest.split_at_checked(verb.len())?;
    if !head.eq_ignore_ascii_case(verb) {
        return None;
    }
    let rest = rest
        .strip_prefix(b" ")
        .or_else(|| rest.strip_prefix(b"\n"))
        .or_else(|| rest.strip_prefix(b"\t"))?
        .trim_ascii_start();
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let end = memchr::memchr(b'"', quoted)?;
        // A doubled quote in the name: not worth unfolding, the client stays tied.
        return (quoted.get(end + 1) != Some(&b'"')).then(|| quoted[..end].into());
    }
    let end = rest
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || *b >= 0x80))
        .unwrap_or(rest.len());
    (end > 0).then(|| rest[..end].to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_ties_until_its_close_has_worked() {
        let mut p = Pins::default();
        assert!(p.declare(b"DECLARE \"_django_curs_1_sync_1\" NO SCROLL CURSOR WITH HOLD FOR SELECT 1"));
        assert_eq!(p.reason(), Some(CURSOR));
        p.close(b"CLOSE \"_django_curs_1_sync_1\"");
        p.settled();
        assert!(!p.closed(), "a CLOSE that failed unties nothing");
        p.close(b"CLOSE \"_django_curs_1_sync_1\"");
        assert!(p.closed());
        assert_eq!(p.reason(), None);
    }

    #[test]
    fn another_cursor_or_another_tie_keeps_the_server() {
        let mut p = Pins::default();
        p.declare(b"declare A cursor with hold for select 1");
        p.declare(b"/* x */ DECLARE b CURSOR WITH HOLD FOR SELECT 1");
        p.close(b"close a");
        assert!(!p.closed());
        p.close(b"close B");
        p.pin("LISTEN");
        assert!(!p.closed());
        assert_eq!(p.reason(), Some("LISTEN"));
    }

    #[test]
    fn a_cursor_that_is_not_held_does_not_matter() {
        let mut p = Pins::default();
        p.declare(b"DECLARE a CURSOR WITH HOLD FOR SELECT 1");
        p.close(b"CLOSE c");
        assert!(!p.closed());
        assert_eq!(p.reason(), Some(CURSOR));
    }
}
