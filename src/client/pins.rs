//! What ties a client to its server in transaction pooling, and when it lets go.
//!
//! What a statement leaves in its session is told by its words only as a suspicion: a rollback, a savepoint or a
//! failure may undo it. So at the end of a transaction with suspicious statements the server itself is asked, in one
//! query, what is there (`super::probe`); its answer decides. Sessions without such statements cost nothing.
//!
//! Cursors WITH HOLD, which Django opens for every `.iterator()` outside a transaction, are followed by name while all
//! goes well, without asking.

use crate::pool::Pin;
use crate::sql::effect;

/// Cursors followed by name; with more the server is asked.
const MAX_HELD: usize = 256;
/// Parameters asked for by name at once, and names that prepared statements may set; with more all are asked for.
const MAX_NAMES: usize = 64;

/// Kinds of state that the server can be asked about.
pub(super) const ASKABLE: u8 =
    Pin::Cursor.bit() | Pin::Listen.bit() | Pin::AdvisoryLock.bit() | Pin::Temp.bit() | Pin::Prepared.bit();

/// How a statement changes a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// It sets it.
    Set,
    /// RESET.
    Reset,
    /// SET ... TO DEFAULT: a reset that is answered as a SET.
    Default,
}

/// Parameters that a transaction may have changed.
#[derive(Default)]
pub(super) struct Touched {
    /// Lower-case names, and whether the last to touch it was a RESET: it leaves a custom parameter empty, not unset.
    pub(super) names: Vec<(Box<str>, bool)>,
    /// And perhaps any other.
    pub(super) all: bool,
    /// These too perhaps by a RESET.
    all_reset: bool,
    /// Whether any of them was really reset is not known.
    pub(super) guessed: bool,
}

impl Touched {
    /// Notes a lower-case name that was set, or reset.
    pub(super) fn add(&mut self, name: &str, reset: bool) {
        // It sets the role to none, or resets it (guc.c, set_config_option: "Ugly hack").
        if name == "session_authorization" {
            self.add("role", reset);
        }
        if let Some((_, r)) = self.names.iter_mut().find(|(n, _)| **n == *name) {
            *r = reset;
        } else if self.names.len() < MAX_NAMES {
            self.names.push((name.into(), reset));
        } else {
            self.all = true;
            self.all_reset |= reset;
        }
    }

    /// Whether the parameter was asked for by name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|(n, _)| **n == *name)
    }

    /// Whether a RESET of it by name was the last to touch it.
    pub(super) fn was_reset_by_name(&self, name: &str) -> bool {
        self.names.iter().any(|(n, reset)| **n == *name && *reset)
    }

    /// Whether a RESET may have been the last to touch it.
    pub(super) fn was_reset(&self, name: &str) -> bool {
        self.names.iter().find(|(n, _)| **n == *name).map_or(self.all_reset, |(_, reset)| *reset)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.all
    }
}

/// Ties of one session. Boxed on first use.
#[derive(Default)]
pub struct Pins(Option<Box<Ties>>);

#[derive(Default)]
pub(super) struct Ties {
    /// Kinds of state that are there, as far as is known.
    kinds: u8,
    /// Kinds that statements since the last question may have made or undone.
    pub(super) suspect: u8,
    /// Times that the question has been cancelled.
    pub(super) tries: u8,
    /// Servers given up for a request before anything of it was sent.
    pub(super) moved: u8,
    /// Parameters they may have changed.
    pub(super) touched: Touched,
    /// The question under way, if any: the kinds and parameters asked for, and the answers so far.
    pub(super) question: Option<super::probe::Question>,
    /// Parameters that prepared statements of this client set or reset, and how, when they are executed.
    watched: Vec<(Box<str>, How)>,
    /// Open cursors WITH HOLD, by name.
    held: Vec<Box<[u8]>>,
    /// DECLAREs noted by their Parse, and not executed since.
    parsed: u8,
    /// CLOSE statements sent and not answered, in order; the answer says whether they worked.
    closing: Vec<Box<[u8]>>,
    /// The unnamed statement is on this server only.
    unnamed: bool,
}

impl Pins {
    pub(super) fn ties(&mut self) -> &mut Ties {
        self.0.get_or_insert_default()
    }

    /// Why the client is tied now.
    pub fn reason(&self) -> Option<Pin> {
        let t = self.0.as_ref()?;
        let cursor = if t.held.is_empty() { 0 } else { Pin::Cursor.bit() };
        let unnamed = if t.unnamed { Pin::Statement.bit() } else { 0 };
        Pin::first(t.kinds | cursor | unnamed)
    }

    /// Whether the server must be asked what is there before it may be given back.
    #[inline]
    pub fn must_ask(&self) -> bool {
        self.0.as_ref().is_some_and(|t| t.question.is_none() && (t.suspect != 0 || !t.touched.is_empty()))
    }

    /// A server has taken the client's parameters.
    pub(super) fn stayed(&mut self) {
        if let Some(t) = &mut self.0 {
            t.moved = 0;
        }
    }

    /// Whether it is only guessed that parameters were reset.
    pub(super) fn guessed(&self) -> bool {
        self.0.as_ref().is_some_and(|t| t.touched.guessed)
    }

    /// Whether the server is being asked.
    #[inline]
    pub fn asking(&self) -> bool {
        self.0.as_ref().is_some_and(|t| t.question.is_some())
    }

    /// Whether the server must be reset when the client leaves: state is there, or may be.
    pub fn leaves_state(&self) -> bool {
        self.reason().is_some()
            || self.0.as_ref().is_some_and(|t| t.suspect != 0 || !t.touched.is_empty() || t.question.is_some())
    }

    /// A kind of state is there, or taken to be there until the client leaves.
    pub fn pin(&mut self, pin: Pin) {
        self.ties().kinds |= pin.bit();
    }

    /// Whether temporary objects are there, or may be.
    pub(super) fn may_have_temp(&self) -> bool {
        self.0.as_ref().is_some_and(|t| (t.kinds | t.suspect) & Pin::Temp.bit() != 0)
    }

    /// Whether the unnamed statement is on this server only.
    #[inline]
    pub(super) fn unnamed(&mut self, tied: bool) {
        if let Some(t) = &mut self.0 {
            t.unnamed = tied;
        } else if tied {
            self.ties().unnamed = true;
        }
    }

    /// What the server said is there of the kinds in `asked`.
    pub(super) fn learn(&mut self, asked: u8, there: u8, cursors: usize) {
        let t = self.ties();
        t.kinds = t.kinds & !asked | there;
        if asked & Pin::Cursor.bit() != 0 {
            if cursors == t.held.len() {
                // Followed by name again.
                t.kinds &= !Pin::Cursor.bit();
            } else {
                t.held.clear();
            }
        }
    }

    /// A statement with these effects was forwarded (its parameters are noted apart).
    pub(super) fn saw(&mut self, effects: u16, drops: bool) {
        const MAKES: [(u16, Pin); 4] = [
            (effect::LISTEN, Pin::Listen),
            (effect::ADVISORY_LOCK, Pin::AdvisoryLock),
            (effect::TEMP, Pin::Temp),
            (effect::PREPARE, Pin::Prepared),
        ];
        let undoes = effect::UNDO | effect::DEALLOCATE | effect::DEALLOCATE_ALL | effect::DISCARD_ALL;
        let makes = MAKES.iter().filter(|(e, _)| effects & e != 0).fold(0, |bits, (_, pin)| bits | pin.bit());
        let Some(t) = (if makes | u8::from(effects & effect::LOAD != 0) != 0 {
            Some(self.ties())
        } else {
            self.0.as_deref_mut()
        }) else {
            return;
        };
        t.suspect |= makes;
        if effects & effect::LOAD != 0 {
            t.kinds |= Pin::Load.bit();
        }
        if effects & undoes != 0 {
            t.suspect |= t.kinds & ASKABLE & !Pin::Cursor.bit();
        }
        if drops {
            t.suspect |= t.kinds & Pin::Temp.bit();
        }
    }

    /// A statement was forwarded that may have done anything (DO, CALL, EXECUTE, or a text that is not read).
    pub(super) fn saw_opaque(&mut self) {
        let t = self.ties();
        t.suspect |= ASKABLE;
        t.touched.all = true;
    }

    /// A prepared statement sets (or resets) a parameter whenever it is executed.
    pub(super) fn watch(&mut self, name: &str, how: How) {
        let t = self.ties();
        if t.watched.iter().any(|(n, h)| **n == *name && *h == how) {
            return;
        }
        if t.watched.len() < MAX_NAMES {
            t.watched.push((name.into(), how));
        } else {
            t.kinds |= Pin::Unreadable.bit();
        }
    }

    /// Parameters that executing prepared statements sets (or resets), and how.
    pub(super) fn watched(&self, reset: bool) -> Vec<(Box<str>, How)> {
        let watched = self.0.as_ref().map_or(&[][..], |t| &t.watched);
        watched.iter().filter(|(_, how)| (*how != How::Set) == reset).cloned().collect()
    }

    /// Something was rolled back or failed: what was noted may not be so.
    pub(super) fn undone(&mut self) {
        if let Some(t) = &mut self.0 {
            t.suspect |= t.kinds & ASKABLE;
            if !t.held.is_empty() {
                t.suspect |= Pin::Cursor.bit();
            }
        }
    }

    /// Kinds to ask about; the suspicion ends with the question.
    pub(super) fn take_suspect(&mut self) -> u8 {
        self.0.as_mut().map_or(0, |t| std::mem::take(&mut t.suspect))
    }

    /// A `DECLARE ... WITH HOLD` was forwarded.
    pub fn declare(&mut self, sql: &[u8]) {
        let t = self.ties();
        match cursor_name(sql, b"declare") {
            Some(name) if t.held.len() < MAX_HELD && t.kinds & Pin::Cursor.bit() == 0 => t.held.push(name),
            _ => t.suspect |= Pin::Cursor.bit(),
        }
    }

    /// The same in a Parse: taken as if it was executed, which nearly always follows at once.
    pub(super) fn declare_parsed(&mut self, sql: &[u8]) {
        self.declare(sql);
        let t = self.ties();
        t.parsed = t.parsed.saturating_add(1);
    }

    /// A prepared `DECLARE ... WITH HOLD` was executed.
    pub(super) fn declared(&mut self) {
        let t = self.ties();
        if t.parsed > 0 {
            t.parsed -= 1;
        } else {
            // Prepared long ago: its name is not known any more.
            t.suspect |= Pin::Cursor.bit();
        }
    }

    /// A statement that may be a CLOSE was forwarded.
    pub fn close(&mut self, sql: &[u8]) {
        let Some(t) = &mut self.0 else { return };
        if t.kinds & Pin::Cursor.bit() != 0 {
            t.suspect |= Pin::Cursor.bit();
        }
        if !t.held.is_empty()
            && t.closing.len() < MAX_HELD
            && let Some(name) = cursor_name(sql, b"close")
        {
            t.closing.push(name);
        }
    }

    /// `CLOSE CURSOR` was answered: the first CLOSE that waits has worked.
    pub fn closed(&mut self) {
        let Some(t) = &mut self.0 else { return };
        if t.closing.is_empty() {
            return;
        }
        // CLOSE ALL has another tag: one here is of a cursor with that name.
        let name = t.closing.remove(0);
        t.held.retain(|h| *h != name);
    }

    /// `CLOSE CURSOR ALL` was answered.
    pub fn closed_all(&mut self) {
        if let Some(t) = &mut self.0 {
            t.closing.clear();
            t.held.clear();
            t.kinds &= !Pin::Cursor.bit();
        }
    }

    /// DISCARD ALL has worked: nothing is left but a loaded library. What was pipelined behind it is asked about.
    pub(super) fn discarded(&mut self) {
        if let Some(t) = &mut self.0 {
            t.kinds &= Pin::Load.bit();
            t.held.clear();
            t.closing.clear();
        }
    }

    /// Everything has been answered: a CLOSE that still waits has failed.
    pub fn settled(&mut self) {
        if let Some(t) = &mut self.0 {
            t.closing.clear();
            t.parsed = 0;
        }
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
        // A doubled quote in the name: not worth unfolding, the server is asked.
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
        p.declare(b"DECLARE \"_django_curs_1_sync_1\" NO SCROLL CURSOR WITH HOLD FOR SELECT 1");
        assert_eq!((p.reason(), p.must_ask()), (Some(Pin::Cursor), false));
        p.close(b"CLOSE \"_django_curs_1_sync_1\"");
        p.settled();
        p.closed();
        assert_eq!(p.reason(), Some(Pin::Cursor), "a CLOSE that failed unties nothing");
        p.close(b"CLOSE \"_django_curs_1_sync_1\"");
        p.closed();
        assert_eq!((p.reason(), p.must_ask()), (None, false), "without a question");
    }

    #[test]
    fn another_cursor_or_another_tie_keeps_the_server() {
        let mut p = Pins::default();
        p.declare(b"declare A cursor with hold for select 1");
        p.declare(b"/* x */ DECLARE b CURSOR WITH HOLD FOR SELECT 1");
        p.close(b"close a");
        p.closed();
        assert_eq!(p.reason(), Some(Pin::Cursor));
        p.close(b"close B");
        p.pin(Pin::Load);
        p.closed();
        assert_eq!(p.reason(), Some(Pin::Load));
    }

    #[test]
    fn a_cursor_named_all_is_not_all_cursors() {
        let mut p = Pins::default();
        p.declare(b"DECLARE \"all\" CURSOR WITH HOLD FOR SELECT 1");
        p.declare(b"DECLARE b CURSOR WITH HOLD FOR SELECT 1");
        p.close(b"CLOSE \"all\"");
        p.closed();
        assert_eq!(p.reason(), Some(Pin::Cursor));
        p.close(b"CLOSE ALL");
        p.closed_all();
        assert_eq!(p.reason(), None);
    }

    #[test]
    fn after_a_rollback_the_server_is_asked_for_cursors() {
        let mut p = Pins::default();
        p.undone();
        assert!(!p.must_ask(), "nothing is there");
        p.declare(b"DECLARE a CURSOR WITH HOLD FOR SELECT 1");
        p.undone();
        assert!(p.must_ask());
        assert_eq!(p.take_suspect(), Pin::Cursor.bit());
        p.learn(Pin::Cursor.bit(), 0, 0);
        assert_eq!((p.reason(), p.must_ask()), (None, false));
    }

    #[test]
    fn an_answer_that_does_not_fit_the_names_ends_following_by_name() {
        let mut p = Pins::default();
        p.declare(b"DECLARE a CURSOR WITH HOLD FOR SELECT 1");
        p.declare(b"DECLARE b CURSOR WITH HOLD FOR SELECT 1");
        p.undone();
        let asked = p.take_suspect();
        p.learn(asked, Pin::Cursor.bit(), 1);
        assert_eq!((p.reason(), p.must_ask()), (Some(Pin::Cursor), false));
        p.close(b"close a");
        p.closed();
        assert!(p.must_ask(), "which one is open is not known: every CLOSE asks");
    }

    #[test]
    fn what_undoes_a_kind_of_state_asks_for_it() {
        let mut p = Pins::default();
        p.saw(effect::UNDO, true);
        assert!(!p.must_ask());
        p.saw(effect::LISTEN, false);
        assert!(p.must_ask() && p.reason().is_none(), "a suspicion is no tie");
        let asked = p.take_suspect();
        p.learn(asked, Pin::Listen.bit(), 0);
        assert_eq!((p.reason(), p.must_ask()), (Some(Pin::Listen), false));
        p.saw(0, true);
        assert!(!p.must_ask(), "a DROP undoes no LISTEN");
        p.saw(effect::UNDO, false);
        assert_eq!(p.take_suspect(), Pin::Listen.bit());
    }
}
