//! The screen: a line about the process, tabs, a table or a detail, and the keys. Fits 80 columns by 24 lines.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState, Wrap};

use super::data::{Column, Data, TABS, Tab};
use super::state::State;

const KEYS: &str = "1-4 table  Enter detail  / filter  s sort  r reverse  p pause  ? help  q quit";
const DETAIL_KEYS: &str = "Up Down scroll  Esc back";
const HELP: &str = "\
Pools     server connections in use, clients that wait, and for how long
Clients   who holds a server connection now, in which state, and what pins it
          (clients without one are only counted)
Findings  N+1 queries and their like; COST>= is the least that mending saves
Queries   statements without their literals, with percentiles

1 2 3 4, Tab, Left, Right   another table
Up, Down, j, k, PgUp, PgDn  another row
Enter                       all that is known of it: advice and snippet of a finding
Esc                         back; drops the filter; leaves
/                           show only rows that contain a text
s, r                        sort by the next column; the other way round
p                           stop and go on looking
q, Ctrl-C                   leave

Counts begin with the process. Names shown come from clients.
Any key closes this.";

/// Draws all; the terminal is only sent what changed.
pub(super) fn draw(frame: &mut Frame<'_>, name: &str, data: &Data, state: &State, trouble: Option<&str>) {
    let lines =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]);
    let [head, tabs, body, foot] = lines.areas(frame.area());
    let title = match trouble {
        Some(trouble) => Line::styled(format!("{trouble}; what follows is older"), Style::new().fg(Color::Red)),
        None => {
            Line::raw(format!("pgsluice at {name} {}{}", data.headline(), if state.paused { ", PAUSED" } else { "" }))
        }
    };
    frame.render_widget(title, head);
    frame.render_widget(tab_line(state), tabs);
    let keys = match (&state.open, state.help) {
        (_, true) => {
            frame.render_widget(Paragraph::new(HELP), body);
            "Any key goes back"
        }
        (Some((detail, at)), _) => {
            let shown: Vec<_> = detail[*at..].iter().map(|line| Line::raw(line.as_str())).collect();
            frame.render_widget(Paragraph::new(Text::from(shown)).wrap(Wrap { trim: false }), body);
            DETAIL_KEYS
        }
        (None, false) => {
            table(frame, body, data, state);
            KEYS
        }
    };
    let foot_line = if state.typing {
        Line::raw(format!("filter: {}_   Enter keeps it, Esc drops it", state.filter))
    } else {
        Line::styled(keys, Style::new().add_modifier(Modifier::DIM))
    };
    frame.render_widget(foot_line, foot);
}

fn tab_line(state: &State) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, tab) in TABS.iter().enumerate() {
        let style = match *tab == state.tab {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        spans.push(Span::styled(format!(" {} {} ", at + 1, tab.name()), style));
    }
    if !state.filter.is_empty() && !state.typing {
        spans.push(Span::styled(format!("  only: {}", state.filter), Style::new().fg(Color::Yellow)));
    }
    Line::from(spans)
}

fn table(frame: &mut Frame<'_>, area: Rect, data: &Data, state: &State) {
    let rows = state.rows(data);
    if rows.is_empty() {
        let why = if state.filter.is_empty() { state.tab.nothing() } else { "No row contains the filter's text." };
        frame.render_widget(Paragraph::new(why), area);
        return;
    }
    let columns = state.tab.columns();
    let order = state.order();
    let head = columns.iter().enumerate().map(|(at, column)| {
        let style = Style::new().add_modifier(Modifier::BOLD);
        let style = if at == order.column { style.add_modifier(Modifier::UNDERLINED) } else { style };
        Cell::from(Line::styled(aligned(column, column.title), style))
    });
    let cells = |row| columns.iter().map(move |column: &Column| Cell::from(aligned(column, &(column.cell)(row))));
    let widths = columns.iter().map(|column| match column.width {
        0 => Constraint::Min(10),
        width => Constraint::Length(width),
    });
    let body: Vec<_> = rows.iter().map(|row| Row::new(cells(row))).collect();
    let widget = Table::new(body, widths)
        .header(Row::new(head))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let selected = state.selected.min(rows.len() - 1);
    frame.render_stateful_widget(widget, area, &mut TableState::new().with_selected(selected));
}

/// Numbers stand to the right.
fn aligned(column: &Column, text: &str) -> String {
    let width = usize::from(column.width);
    if is_number(column) { format!("{text:>width$}") } else { text.to_owned() }
}

fn is_number(column: &Column) -> bool {
    column.width > 0
        && !["mode", "name", "application", "state", "pinned", "kind", "confidence", "tables"].contains(&column.field)
}

/// All tables as text, for pipes.
pub(super) fn plain(name: &str, data: &Data) -> String {
    let mut out = format!("pgsluice at {name} {}\n", data.headline());
    for tab in TABS {
        let _ = write!(out, "\n{}\n", tab.name());
        out += &plain_table(tab, data);
    }
    out
}

/// Longest cell; statements are cut.
const MAX_CELL: usize = 80;

fn plain_table(tab: Tab, data: &Data) -> String {
    let mut state = State::new();
    state.tab = tab;
    let rows = state.rows(data);
    if rows.is_empty() {
        return format!("{}\n", tab.nothing());
    }
    // What tells of a moment needs two looks.
    let columns: Vec<_> = tab.columns().iter().filter(|column| column.field != "per_second").collect();
    let cells = |row| columns.iter().map(|column| (column.cell)(row).chars().take(MAX_CELL).collect()).collect();
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|column| column.title.to_owned()).collect()];
    lines.extend(rows.into_iter().map(cells));
    let longest = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(longest).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for ((cell, width), column) in line.iter().zip(&widths).zip(&columns) {
            let _ = if is_number(column) { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}
