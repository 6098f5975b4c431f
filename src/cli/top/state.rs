//! What the user looks at, and what keys do to it. No terminal here.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

use super::data::{Data, TABS, Tab, detail};

/// Rows that PageUp and PageDown move by.
const PAGE: usize = 15;
/// Longest filter.
const MAX_FILTER: usize = 60;

/// The order of a table.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub(super) column: usize,
    pub(super) descending: bool,
}

/// All that is not data.
pub(super) struct State {
    pub(super) tab: Tab,
    orders: [Order; TABS.len()],
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    /// Row of the shown rows.
    pub(super) selected: usize,
    /// The row that is looked at in detail, and how far it is scrolled.
    pub(super) open: Option<(Vec<String>, usize)>,
    pub(super) help: bool,
    pub(super) paused: bool,
}

/// What a key asks of the loop.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Draw,
    Quit,
    Nothing,
}

impl State {
    pub(super) fn new() -> Self {
        let order = |tab: Tab| Order { column: tab.first_order(), descending: true };
        Self {
            tab: Tab::Pools,
            orders: TABS.map(order),
            filter: String::new(),
            typing: false,
            selected: 0,
            open: None,
            help: false,
            paused: false,
        }
    }

    pub(super) fn order(&self) -> Order {
        self.orders[self.tab as usize]
    }

    /// The rows that are shown, in order.
    pub(super) fn rows<'d>(&self, data: &'d Data) -> Vec<&'d Value> {
        let wanted = self.filter.to_lowercase();
        let columns = self.tab.columns();
        let shown = |row: &&Value| {
            wanted.is_empty() || columns.iter().any(|column| (column.cell)(row).to_lowercase().contains(&wanted))
        };
        let mut rows: Vec<_> = data.rows(self.tab).iter().filter(shown).collect();
        let order = self.order();
        rows.sort_by(|a, b| {
            let by = compare(&a[columns[order.column].field], &b[columns[order.column].field]);
            if order.descending { by.reverse() } else { by }
        });
        rows
    }

    /// Does what a key means.
    pub(super) fn key(&mut self, key: KeyEvent, data: &Data) -> Wish {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Quit;
        }
        if self.typing {
            return self.type_filter(key.code);
        }
        if self.help {
            self.help = false;
            return Wish::Draw;
        }
        if let Some((lines, at)) = &mut self.open {
            let last = lines.len().saturating_sub(1);
            match key.code {
                KeyCode::Down | KeyCode::Char('j') => *at = (*at + 1).min(last),
                KeyCode::Up | KeyCode::Char('k') => *at = at.saturating_sub(1),
                KeyCode::PageDown => *at = (*at + PAGE).min(last),
                KeyCode::PageUp => *at = at.saturating_sub(PAGE),
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') | KeyCode::Backspace => self.open = None,
                _ => return Wish::Nothing,
            }
            return Wish::Draw;
        }
        self.list_key(key.code, data)
    }

    fn list_key(&mut self, code: KeyCode, data: &Data) -> Wish {
        let last = self.rows(data).len().saturating_sub(1);
        let tab = self.tab as usize;
        match code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Wish::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown => self.selected = (self.selected + PAGE).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(PAGE),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.show((tab + 1) % TABS.len()),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.show((tab + TABS.len() - 1) % TABS.len()),
            KeyCode::Char(digit @ '1'..='4') => self.show(digit as usize - '1' as usize),
            KeyCode::Char('s') => self.orders[tab].column = (self.order().column + 1) % self.tab.columns().len(),
            KeyCode::Char('r') => self.orders[tab].descending ^= true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p') => self.paused ^= true,
            KeyCode::Char('?') => self.help = true,
            KeyCode::Enter => {
                let row = self.rows(data).get(self.selected).map(|row| detail(self.tab, row));
                self.open = row.map(|lines| (lines, 0));
            }
            _ => return Wish::Nothing,
        }
        Wish::Draw
    }

    fn show(&mut self, tab: usize) {
        self.tab = TABS[tab];
        self.selected = 0;
    }

    fn type_filter(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => return Wish::Nothing,
        }
        self.selected = 0;
        Wish::Draw
    }
}

/// Nothing before numbers before text.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (None, None) => a.as_str().unwrap_or("").cmp(b.as_str().unwrap_or("")),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}
