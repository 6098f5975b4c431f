//! The screen on the API's answers of a real run (`answers.json`, written by tests/terminal.rs).

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use serde_json::{Value, json};

use super::data::Tab;
use super::*;

fn answers() -> Value {
    serde_json::from_str(include_str!("answers.json")).unwrap()
}

fn data(answers: &Value, before: Option<&Data>) -> Data {
    let list = |name: &str| answers[name].as_array().unwrap().clone();
    Data::of(answers["status"].clone(), ["pools", "pins", "findings", "queries"].map(list), before)
}

fn press(state: &mut State, data: &Data, keys: &[KeyCode]) -> Wish {
    keys.iter().fold(Wish::Nothing, |_, code| state.key(KeyEvent::new(*code, KeyModifiers::NONE), data))
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

fn screen(width: u16, height: u16, data: &Data, state: &State, trouble: Option<&str>) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, "db1:9127", data, state, trouble)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn each_table_fits_80_columns() {
    let data = data(&answers(), None);
    let mut state = State::new();
    for (digit, words) in [
        ('1', &["POOL", "QUERY/S", "app/app", "tx", "/20", "q quit"][..]),
        ('2', &["APPLICATION", "PINNED BY", "listener", "LISTEN", "holder", "idle-tx"]),
        ('3', &["COST>=", "n_plus_one", "^books/$", "high"]),
        ('4', &["STATEMENT", "P99", "SELECT"]),
    ] {
        press(&mut state, &data, &[KeyCode::Char(digit)]);
        let shown = screen(80, 24, &data, &state, None);
        for word in words {
            assert!(shown.contains(word), "{word} is missing in\n{shown}");
        }
    }
    // Smaller than any terminal: no panic.
    for (width, height) in [(1, 1), (10, 3), (300, 100)] {
        screen(width, height, &data, &state, Some("trouble"));
    }
}

#[test]
fn a_finding_opens_to_advice_and_snippet() {
    let data = data(&answers(), None);
    let mut state = State::new();
    press(&mut state, &data, &[KeyCode::Char('3'), KeyCode::Enter]);
    let shown = screen(80, 24, &data, &state, None);
    for word in ["Change:", "select_related(\"author\")", "Evidence:", "Esc back"] {
        assert!(shown.contains(word), "{word} is missing in\n{shown}");
    }
    press(&mut state, &data, &[KeyCode::PageDown; 9]);
    assert!(!screen(80, 24, &data, &state, None).contains("Change:"));
    assert_eq!(press(&mut state, &data, &[KeyCode::Esc]), Wish::Draw);
    assert!(state.open.is_none());
    // A client's pin says what ends it.
    press(&mut state, &data, &typed("2/listener"));
    press(&mut state, &data, &[KeyCode::Enter, KeyCode::Enter]);
    assert!(screen(80, 24, &data, &state, None).contains("UNLISTEN"));
}

#[test]
fn sort_filter_and_leave() {
    let data = data(&answers(), None);
    let mut state = State::new();
    press(&mut state, &data, &[KeyCode::Char('4')]);
    let totals =
        |state: &State| state.rows(&data).iter().map(|row| row["total_seconds"].as_f64().unwrap()).collect::<Vec<_>>();
    assert!(totals(&state).len() > 3 && totals(&state).is_sorted_by(|a, b| a >= b));
    press(&mut state, &data, &[KeyCode::Char('r')]);
    assert!(totals(&state).is_sorted());
    press(&mut state, &data, &[KeyCode::Char('s'), KeyCode::Char('s')]);
    let p95: Vec<_> = state.rows(&data).iter().map(|row| row["p95_seconds"].as_f64().unwrap()).collect();
    assert!(p95.is_sorted());
    press(&mut state, &data, &typed("/AUTHOR\" WHERE"));
    assert!(screen(80, 24, &data, &state, None).contains("filter: AUTHOR"));
    // A key that means something elsewhere is text here.
    assert_eq!(press(&mut state, &data, &typed("q")), Wish::Draw);
    assert_eq!(state.rows(&data).len(), 0);
    assert!(screen(80, 24, &data, &state, None).contains("No row contains"));
    press(&mut state, &data, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(state.rows(&data).len(), 1);
    press(&mut state, &data, &[KeyCode::Esc]);
    assert!(state.filter.is_empty());
    assert_eq!(press(&mut state, &data, &[KeyCode::Tab]), Wish::Draw);
    assert_eq!(state.tab, Tab::Pools);
    press(&mut state, &data, &[KeyCode::Char('?')]);
    assert!(screen(80, 24, &data, &state, None).contains("Any key closes this"));
    press(&mut state, &data, &[KeyCode::Char('q')]);
    assert_eq!(press(&mut state, &data, &[KeyCode::Char('q')]), Wish::Quit);
}

#[test]
fn rates_are_what_grew_between_two_looks() {
    let before = answers();
    let mut after = before.clone();
    let at = after["status"]["at_unix_seconds"].as_f64().unwrap();
    after["status"]["at_unix_seconds"] = json!(at + 2.0);
    let calls = after["queries"][0]["calls"].as_u64().unwrap();
    after["queries"][0]["calls"] = json!(calls + 30);
    let first = data(&before, None);
    assert!(first.rows(Tab::Queries)[0]["per_second"].is_null());
    assert_eq!(data(&after, Some(&first)).rows(Tab::Queries)[0]["per_second"], 15.0);
    // Of another process nothing can be said.
    after["status"]["started_unix_seconds"] = json!(1);
    assert!(data(&after, Some(&first)).rows(Tab::Queries)[0]["per_second"].is_null());
}

#[test]
fn nothing_and_trouble_are_told() {
    let data = Data::of(json!({}), [vec![], vec![], vec![], vec![]], None);
    let shown = screen(80, 24, &data, &State::new(), Some("no answer from http://x: no answer in time"));
    assert!(shown.contains("no answer in time; what follows is older") && shown.contains("No pool yet"), "{shown}");
}

#[test]
fn names_move_no_cursor() {
    let mut answers = answers();
    answers["findings"][0]["route"] = json!("a\u{1b}[2Jb\r\nc");
    let data = data(&answers, None);
    let text = draw::plain("x", &data);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && text.contains("a [2Jb  c"), "{text}");
}
