//! The tables of a [`Shape`]: CTE names, the statement behind prefixes, FROM and its kin at every level.

use super::shape::{Item, Shape, TABLE_CAP, Table};
use super::shape_parse::{Items, is};
use super::words::Word;

pub(super) fn cte_names(tokens: Items<'_>) -> Vec<&str> {
    let mut names = Vec::new();
    if !tokens.iter().any(|t| is(Some(t), Word::With)) {
        return names;
    }
    for window in tokens.windows(4) {
        let (Item::Name(name), rest) = (&window[0], &window[1..]) else {
            continue;
        };
        let body = matches!(
            rest,
            [Item::Key(Word::As), Item::Open, ..]
                | [Item::Key(Word::As), Item::Key(Word::Materialized), Item::Open]
                | [Item::Key(Word::As), Item::Key(Word::Not), Item::Key(Word::Materialized)]
        );
        if body {
            names.push(name.as_str());
        }
    }
    // `WITH x (a, b) AS (`: the name stands before the column list.
    for (i, token) in tokens.iter().enumerate() {
        let starts = is(Some(token), Word::With) || is(Some(token), Word::Recursive);
        if let (true, Some(Item::Name(name))) = (starts, tokens.get(i + 1)) {
            names.push(name);
        }
    }
    names
}

/// The statement behind WITH, EXPLAIN, DECLARE ... FOR, PREPARE ... AS; parentheses around it taken off.
pub(super) fn main_part(tokens: Items<'_>) -> Items<'_> {
    let mut depth = 0usize;
    let all_open = tokens.iter().take_while(|t| matches!(t, Item::Open)).count();
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Item::Open => depth += 1,
            Item::Close => depth = depth.saturating_sub(1),
            Item::Key(Word::Select | Word::Insert | Word::Update | Word::Delete | Word::Merge | Word::Values)
                if depth == 0 || (i == all_open && all_open > 0) =>
            {
                return &tokens[i..];
            }
            _ => {}
        }
    }
    tokens
}

/// Tables behind FROM, JOIN, INTO, UPDATE and the commas of FROM, at every level.
pub(super) fn tables(shape: &mut Shape, tokens: Items<'_>, ctes: &[&str]) {
    // For each level: has a query, is inside FROM.
    let mut levels = vec![(false, false)];
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        let inner = levels.len() > 1;
        let Some(level) = levels.last_mut() else {
            return;
        };
        let mut target = false;
        match token {
            Item::Open => levels.push((false, false)),
            Item::Close if inner => drop(levels.pop()),
            Item::Comma => target = level.1,
            Item::Key(Word::Select | Word::Delete) => *level = (true, false),
            // Not the one of FOR UPDATE, ON CONFLICT DO UPDATE, FOR NO KEY UPDATE.
            Item::Key(Word::Update) => {
                let previous = i.checked_sub(1).and_then(|p| tokens.get(p));
                target = matches!(previous, None | Some(Item::Open | Item::Close | Item::Key(Word::As)));
                level.0 |= target;
            }
            Item::Key(Word::From) if level.0 => {
                level.1 = true;
                target = i == 0 || !is(tokens.get(i - 1), Word::Distinct);
            }
            Item::Key(Word::Join | Word::Into | Word::Using) => target = true,
            Item::Key(
                Word::Where | Word::Group | Word::Order | Word::Limit | Word::Set | Word::Values | Word::Returning,
            ) => {
                level.1 = false;
            }
            _ => {}
        }
        i += 1;
        if target {
            while matches!(tokens.get(i), Some(Item::Key(Word::Only | Word::Lateral))) {
                i += 1;
            }
            if let Some((table, used)) = table(&tokens[i..]) {
                i += used;
                let repeat = shape.tables.contains(&table);
                if shape.tables.len() < TABLE_CAP && !repeat && !ctes.contains(&table.name.as_str()) {
                    shape.tables.push(table);
                }
            }
        }
    }
}

/// `schema.name [AS] alias`; None for a function or a subquery.
pub(super) fn table(tokens: Items<'_>) -> Option<(Table, usize)> {
    let Some(Item::Name(first)) = tokens.first() else {
        return None;
    };
    let (mut schema, mut name, mut used) = (None, first.clone(), 1);
    if let (Some(Item::Dot), Some(Item::Name(second))) = (tokens.get(1), tokens.get(2)) {
        schema = Some(std::mem::replace(&mut name, second.clone()));
        used = 3;
    }
    if matches!(tokens.get(used), Some(Item::Open)) && !matches!(tokens.get(used + 1), Some(Item::Name(_))) {
        return None;
    }
    let at = if is(tokens.get(used), Word::As) { used + 1 } else { used };
    let mut alias = None;
    if let Some(Item::Name(text)) = tokens.get(at) {
        alias = Some(text.clone());
        used = at + 1;
    }
    Some((Table { name, schema, alias }, used))
}
