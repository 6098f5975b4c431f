//! The tracker against a model of PostgreSQL: whatever the client pipelines, whatever is injected or faked, and
//! wherever errors fall, the client sees what a direct connection would have shown it.

use super::*;
use proptest::prelude::*;

/// One client message; `bool` says whether the server fails it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Msg {
    Query(bool),
    CopyIn(bool),
    Parse { fails: bool, known: bool },
    Bind { fails: bool, inject: bool },
    Describe,
    Execute(bool),
    Close,
    Function,
    Flush,
    Sync,
}

/// PostgreSQL's side, at the granularity of type bytes (postgres.c, PostgresMain).
#[derive(Default)]
struct Model {
    skipping: bool,
    copying: bool,
}

impl Model {
    fn say(&mut self, m: Msg, out: &mut Vec<u8>) {
        if self.skipping && m != Msg::Sync {
            return;
        }
        let fail = |out: &mut Vec<u8>, s: &mut bool| {
            out.push(b'E');
            *s = true;
        };
        match m {
            Msg::Query(true) => out.extend(b"TDEZ"),
            Msg::Query(false) => out.extend(b"TDCZ"),
            Msg::CopyIn(true) => out.extend(b"GEZ"),
            Msg::CopyIn(false) => out.extend(b"GCZ"),
            Msg::Parse { fails: true, .. } | Msg::Bind { fails: true, .. } => fail(out, &mut self.skipping),
            Msg::Parse { .. } => out.push(b'1'),
            Msg::Bind { .. } => out.push(b'2'),
            Msg::Describe => out.push(b'T'),
            Msg::Execute(true) => {
                out.push(b'D');
                fail(out, &mut self.skipping);
            }
            Msg::Execute(false) => out.extend(b"DC"),
            Msg::Close => out.push(b'3'),
            Msg::Function => out.extend(b"VZ"),
            Msg::Flush => {}
            Msg::Sync => {
                self.skipping = false;
                out.push(b'Z');
            }
        }
        let _ = self.copying;
    }
}

fn msg() -> impl Strategy<Value = Msg> {
    prop_oneof![
        any::<bool>().prop_map(Msg::Query),
        any::<bool>().prop_map(Msg::CopyIn),
        (prop::bool::weighted(0.15), any::<bool>())
            .prop_map(|(fails, known)| Msg::Parse { fails: fails && !known, known }),
        (prop::bool::weighted(0.15), any::<bool>()).prop_map(|(fails, inject)| Msg::Bind { fails, inject }),
        Just(Msg::Describe),
        prop::bool::weighted(0.15).prop_map(Msg::Execute),
        Just(Msg::Close),
        Just(Msg::Function),
        Just(Msg::Flush),
        Just(Msg::Sync),
        Just(Msg::Sync),
    ]
}

/// Plays `msgs`, the server answering `lag` messages behind, and returns what the client sees.
fn through_tracker(msgs: &[Msg], lag: usize) -> (Vec<u8>, Tracker) {
    let mut t = Tracker::new();
    let mut server = Model::default();
    let mut wire: VecDeque<Vec<u8>> = VecDeque::new();
    let mut seen = Vec::new();
    for &m in msgs {
        let fwd = |r| Entry::new(r, Action::Forward);
        let mut said = Vec::new();
        match m {
            Msg::Parse { known: true, .. } => t.push(Entry::new(Request::Parse, Action::Fake)),
            Msg::Close => t.push(Entry::new(Request::Close, Action::Fake)),
            Msg::Bind { inject: true, .. } => {
                t.push(Entry { statement: 7, ..Entry::new(Request::Parse, Action::Skip) });
                server.say(Msg::Parse { fails: false, known: false }, &mut said);
                t.push(fwd(Request::Bind));
                server.say(m, &mut said);
            }
            _ => {
                for r in match m {
                    Msg::Query(_) => vec![Request::Query],
                    Msg::CopyIn(_) => vec![Request::Query, Request::CopyEnd],
                    Msg::Parse { .. } => vec![Request::Parse],
                    Msg::Bind { .. } => vec![Request::Bind],
                    Msg::Describe => vec![Request::Describe],
                    Msg::Execute(_) => vec![Request::Execute],
                    Msg::Function => vec![Request::Function],
                    Msg::Sync => vec![Request::Sync],
                    Msg::Flush | Msg::Close => vec![],
                } {
                    t.push(fwd(r));
                }
                server.say(m, &mut said);
            }
        }
        wire.push_back(said);
        if wire.len() > lag {
            let said = wire.pop_front().unwrap_or_default();
            deliver(&mut t, &said, &mut seen);
        }
    }
    for said in wire {
        deliver(&mut t, &said, &mut seen);
    }
    (seen, t)
}

fn deliver(t: &mut Tracker, said: &[u8], seen: &mut Vec<u8>) {
    fakes(t, seen);
    for &tag in said {
        fakes(t, seen);
        if t.answer(tag, b"I").expect("the model's server is in step") {
            seen.push(tag);
        }
        t.take_dropped();
    }
    fakes(t, seen);
}

fn fakes(t: &mut Tracker, seen: &mut Vec<u8>) {
    while let Some(e) = t.pop_fake() {
        seen.push(if e.request == Request::Parse { b'1' } else { b'3' });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn the_client_sees_what_a_direct_connection_shows(msgs in prop::collection::vec(msg(), 0..24), lag in 0usize..30) {
        let mut msgs = msgs;
        msgs.push(Msg::Sync);
        let mut direct = Vec::new();
        let mut server = Model::default();
        for &m in &msgs {
            server.say(m, &mut direct);
        }
        let (seen, t) = through_tracker(&msgs, lag);
        prop_assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&direct));
        prop_assert!(t.releasable());
    }

    #[test]
    fn never_releasable_while_anything_is_owed(msgs in prop::collection::vec(msg(), 1..12)) {
        let mut t = Tracker::new();
        for m in &msgs {
            let r = match m {
                Msg::Query(_) => Request::Query,
                Msg::Execute(_) => Request::Execute,
                Msg::Parse { .. } => Request::Parse,
                _ => Request::Sync,
            };
            t.push(Entry::new(r, Action::Forward));
            prop_assert!(!t.releasable());
        }
    }

    #[test]
    fn any_server_bytes_are_digested_or_refused(tags in prop::collection::vec(any::<u8>(), 0..40), asked in prop::collection::vec(0u8..9, 0..10)) {
        let mut t = Tracker::new();
        for a in asked {
            let r = [Request::Query, Request::Function, Request::Sync, Request::Parse, Request::Bind, Request::Describe,
                     Request::Execute, Request::Close, Request::CopyEnd][usize::from(a)];
            t.push(Entry::new(r, Action::Forward));
        }
        for tag in tags {
            if t.answer(tag, b"I").is_err() { break; }
        }
    }
}

fn fwd(t: &mut Tracker, requests: &[Request]) {
    for r in requests {
        t.push(Entry::new(*r, Action::Forward));
    }
}

fn hear(t: &mut Tracker, tags: &[u8]) {
    for tag in tags {
        t.answer(*tag, b"I").unwrap();
    }
}

#[test]
fn flush_without_sync_keeps_the_server() {
    let mut t = Tracker::new();
    fwd(&mut t, &[Request::Parse, Request::Describe]);
    hear(&mut t, b"1tT");
    assert!(!t.releasable(), "no ReadyForQuery has come");
    fwd(&mut t, &[Request::Sync]);
    hear(&mut t, b"Z");
    assert!(t.releasable());
}

#[test]
fn an_open_transaction_keeps_the_server() {
    let mut t = Tracker::new();
    fwd(&mut t, &[Request::Query]);
    t.answer(b'C', b"").unwrap();
    t.answer(b'Z', b"T").unwrap();
    assert!(!t.releasable() && t.answered());
}

#[test]
fn sync_sent_with_an_extended_copy_is_swallowed_by_the_copy() {
    // libpq's PQexecParams: P B D E S, then the data, CopyDone and another Sync.
    let mut t = Tracker::new();
    fwd(&mut t, &[Request::Parse, Request::Bind, Request::Describe, Request::Execute, Request::Sync]);
    hear(&mut t, b"12nG");
    fwd(&mut t, &[Request::CopyEnd, Request::Sync]);
    hear(&mut t, b"CZ");
    assert!(t.releasable());
}

#[test]
fn a_copy_that_fails_before_copydone_waits_for_the_next_sync() {
    let mut t = Tracker::new();
    fwd(&mut t, &[Request::Execute, Request::Sync]);
    hear(&mut t, b"GE");
    assert!(!t.releasable());
    fwd(&mut t, &[Request::CopyEnd, Request::Sync]);
    hear(&mut t, b"Z");
    assert!(t.releasable());
}

#[test]
fn a_late_copydone_is_answered_by_nothing() {
    let mut t = Tracker::new();
    fwd(&mut t, &[Request::Query]);
    hear(&mut t, b"GEZ");
    fwd(&mut t, &[Request::CopyEnd, Request::Query]);
    hear(&mut t, b"CZ");
    assert!(t.releasable());
}

#[test]
fn an_injected_query_is_swallowed_whole_and_its_failure_taints() {
    let mut t = Tracker::new();
    t.push(Entry::new(Request::Query, Action::Skip));
    fwd(&mut t, &[Request::Query]);
    let heard: Vec<bool> = b"TDCSZ".iter().map(|c| t.answer(*c, b"I").unwrap()).collect();
    assert_eq!(heard, [false; 5]);
    assert!(t.answer(b'C', b"").unwrap() && t.answer(b'Z', b"I").unwrap() && t.releasable());

    t.push(Entry::new(Request::Query, Action::Skip));
    assert!(!t.answer(b'E', b"").unwrap());
    t.answer(b'Z', b"I").unwrap();
    assert!(t.tainted() && !t.releasable());

    let mut t = Tracker::new();
    t.push(Entry { statement: 1, ..Entry::new(Request::Query, Action::Skip) });
    assert!(!t.answer(b'E', b"").unwrap());
    t.answer(b'Z', b"I").unwrap();
    assert!(t.releasable(), "a question changes nothing");
}

#[test]
fn an_error_at_an_idle_server_taints_it() {
    let mut t = Tracker::new();
    assert!(t.answer(b'E', b"").unwrap());
    assert!(t.tainted());
}

#[test]
fn statements_the_server_skipped_are_reported() {
    let mut t = Tracker::new();
    fwd(&mut t, &[Request::Bind]);
    t.push(Entry { statement: 9, registration: 3, ..Entry::new(Request::Parse, Action::Forward) });
    fwd(&mut t, &[Request::Sync]);
    hear(&mut t, b"EZ");
    let dropped: Vec<_> = t.take_dropped().collect();
    assert_eq!(dropped.iter().map(|e| e.statement).collect::<Vec<_>>(), [0, 9]);
}

#[test]
fn a_copy_done_that_comes_too_late_keeps_no_server() {
    let mut t = Tracker::new();
    t.push(Entry::new(Request::Query, Action::Forward));
    for (tag, body) in [(b'G', &b""[..]), (b'E', b""), (b'Z', b"I")] {
        t.answer(tag, body).unwrap();
    }
    assert!(t.releasable());
    t.push(Entry::new(Request::CopyEnd, Action::Forward));
    assert!(t.releasable(), "PostgreSQL says nothing to it");
}

#[test]
fn what_a_sync_behind_has_not_decided_is_open() {
    let mut t = Tracker::new();
    t.push(Entry::new(Request::Parse, Action::Forward));
    let parse = t.last_place();
    assert!(!t.undecided(parse), "what follows is skipped together with it");
    t.push(Entry::new(Request::Sync, Action::Forward));
    assert!(t.undecided(parse));
    t.answer(b'1', b"").unwrap();
    assert!(!t.undecided(parse), "it has been answered");
    assert!(!t.surely_not_failed(), "the Sync may tell of a failed transaction");
    t.answer(b'Z', b"E").unwrap();
    assert!(!t.surely_not_failed());
}

#[test]
fn a_fake_behind_a_sync_does_not_keep_the_server() {
    let mut t = Tracker::new();
    fwd(&mut t, &[Request::Query]);
    t.push(Entry::new(Request::Close, Action::Fake));
    hear(&mut t, b"CZ");
    assert!(t.pop_fake().is_some());
    assert!(t.releasable());
}

#[test]
fn a_block_that_ends_with_a_bare_sync_taints_its_server() {
    for (between, tainted) in [(&b""[..], true), (b"3", true), (b"1", false)] {
        let mut t = Tracker::new();
        fwd(&mut t, &[Request::Parse, Request::Bind, Request::Execute, Request::Query]);
        b"12CTDC".iter().for_each(|c| assert!(t.answer(*c, b"").unwrap()));
        t.answer(b'Z', b"T").unwrap();
        let sent = if between == b"1" { Request::Parse } else { Request::Close };
        fwd(&mut t, &vec![sent; between.len()]);
        fwd(&mut t, &[Request::Sync]);
        between.iter().for_each(|c| assert!(t.answer(*c, b"").unwrap()));
        t.answer(b'Z', b"I").unwrap();
        assert_eq!((t.tainted(), t.releasable()), (tainted, !tainted));
    }
}
