//! Fuzz entries: what must hold for any bytes. A fuzz target and the corpus replay of the ordinary tests call them.

use super::tags::VALUE_CAP;
use super::{Analyzer, LexSettings, Operation, RawSql, display, flag, shape, summary, tags};

/// Display length used here.
const MAX_DISPLAY: usize = 2048;

/// Lexes `data` under every setting. Panics when an invariant breaks: statements lie in order inside the text, the
/// display is bounded and, where exact, has the statement's own fingerprint and no literal left to find.
pub fn fuzz_lexer(data: &[u8]) {
    for standard_conforming_strings in [Some(true), Some(false), None] {
        for safe_encoding in [true, false] {
            check(data, LexSettings { standard_conforming_strings, safe_encoding });
        }
    }
}

fn check(data: &[u8], settings: LexSettings) {
    let mut analyzer = Analyzer::new([1, 2]);
    let mut statements = Vec::new();
    analyzer.analyze(RawSql(data), settings, |s, text| statements.push((*s, text.0)));
    assert!(!statements.is_empty(), "every text is at least one statement");
    let mut from = data.as_ptr() as usize;
    for (statement, text) in &statements {
        let start = text.as_ptr() as usize;
        assert!(start >= from && start + text.len() <= data.as_ptr() as usize + data.len(), "statements lie in order");
        from = start + text.len();
        let shown = display(RawSql(text), settings, MAX_DISPLAY);
        assert!(shown.as_str().len() <= MAX_DISPLAY, "the display is bounded");
        let _ = summary(&shape(RawSql(text), settings));
        if !shown.is_exact() || statement.operation == Operation::Empty || statements.len() > 1 {
            continue;
        }
        let mut again = Vec::new();
        analyzer.analyze(RawSql(shown.as_str().as_bytes()), settings, |s, _| again.push(*s));
        assert_eq!(again.len(), 1, "a display is one statement");
        assert_eq!(again[0].fingerprint, statement.fingerprint, "a display has the statement's fingerprint");
        assert_eq!(again[0].flags & (flag::TRUNCATED | flag::UNLEXED), 0, "a display is whole");
        let twice = display(RawSql(shown.as_str().as_bytes()), settings, MAX_DISPLAY);
        assert_eq!(twice.as_str(), shown.as_str(), "a display shows as itself");
    }
}

/// Reads tags from `data`. Panics when a value is longer than its cap or not printable ASCII.
pub fn fuzz_tags(data: &[u8]) {
    let Some(found) = tags(RawSql(data)) else {
        return;
    };
    let mut buffer = [0; VALUE_CAP];
    for value in [found.route, found.controller, found.action, found.application, found.job].into_iter().flatten() {
        let text = value.write(&mut buffer);
        assert!(text.len() <= VALUE_CAP && text.bytes().all(|b| (0x20..0x7f).contains(&b)));
        assert!(!text.as_bytes().windows(2).any(|w| w.iter().all(u8::is_ascii_digit)), "digit runs are masked");
        let _ = value.hash();
    }
    assert_ne!(found.trace_id, Some([0; 16]));
}
