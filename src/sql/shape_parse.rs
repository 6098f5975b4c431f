//! Reads a [`Shape`] off the canonical tokens: clauses at the outermost level, conditions joined by AND, tables at
//! every level. Not a parser: what it does not know it passes over.

use super::Operation;
use super::shape::{COLUMN_CAP, Column, Item, Join, OnConflict, Shape};
use super::shape_tables::{cte_names, main_part, table, tables};
use super::shape_where::condition;
use super::words::Word;

/// A stretch of tokens.
pub(super) type Items<'a> = &'a [Item];

pub(super) fn is(item: Option<&Item>, word: Word) -> bool {
    item == Some(&Item::Key(word))
}

pub(super) fn key(item: &Item) -> Option<Word> {
    match item {
        Item::Key(word) => Some(*word),
        _ => None,
    }
}

/// Fills the shape from the statement's tokens.
pub(super) fn fill(shape: &mut Shape, tokens: Items<'_>) {
    shape.values = tokens.iter().filter(|t| matches!(t, Item::Literal { .. })).count();
    let ctes = cte_names(tokens);
    let body = main_part(tokens);
    tables(shape, body, &ctes);
    if body.len() < tokens.len() {
        tables(shape, &tokens[..tokens.len() - body.len()], &ctes);
    }
    for (clause, items) in clauses(body) {
        match clause {
            Word::Select if shape.width == 0 => projection(shape, items),
            Word::From | Word::Using => joins(shape, items),
            Word::Where => {
                shape.has_where = true;
                condition(shape, items, 0);
            }
            Word::Order => order(shape, items),
            Word::Group => shape.group_by = true,
            Word::Offset => {
                shape.deep_offset |= items.iter().any(|i| matches!(i, Item::Literal { deep: true, .. }));
            }
            Word::Union | Word::Except | Word::Intersect => shape.set_operation = true,
            Word::Returning => shape.returning = true,
            Word::Set if shape.set_columns.is_empty() => set(shape, items),
            Word::Into if shape.operation == Operation::Insert => insert(shape, items),
            Word::On => conflict(shape, items),
            _ => {}
        }
    }
    resolve(shape);
}

/// Depth-0 pieces between clause keywords.
fn clauses(tokens: Items<'_>) -> Vec<(Word, Items<'_>)> {
    let mut found: Vec<(Word, usize)> = Vec::new();
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Item::Open => depth += 1,
            Item::Close => depth = depth.saturating_sub(1),
            Item::Key(word) if depth == 0 => {
                let previous = i.checked_sub(1).and_then(|p| tokens.get(p));
                let clause = match word {
                    Word::From => !is(previous, Word::Distinct),
                    Word::On => is(tokens.get(i + 1), Word::Conflict),
                    Word::Update => false,
                    Word::Using => matches!(found.last(), Some((Word::From, _))) && !in_join(&tokens[..i]),
                    Word::Select
                    | Word::Where
                    | Word::Group
                    | Word::Order
                    | Word::Having
                    | Word::Limit
                    | Word::Offset
                    | Word::Fetch
                    | Word::For
                    | Word::Union
                    | Word::Except
                    | Word::Intersect
                    | Word::Window
                    | Word::Returning
                    | Word::Values
                    | Word::Set
                    | Word::Into => true,
                    _ => false,
                };
                if clause {
                    found.push((*word, i + 1));
                }
            }
            _ => {}
        }
    }
    let ends: Vec<usize> = found.iter().skip(1).map(|f| f.1 - 1).chain([tokens.len()]).collect();
    found.iter().zip(ends).map(|(&(word, start), end)| (word, &tokens[start..end.max(start)])).collect()
}

/// `JOIN t USING (a)`: no clause of its own.
fn in_join(tokens: Items<'_>) -> bool {
    tokens.iter().rev().take_while(|t| !is(Some(t), Word::From)).any(|t| is(Some(t), Word::Join))
}

/// Splits at a separator on the outermost level.
pub(super) fn split<'a>(tokens: Items<'a>, separator: impl Fn(&Item) -> bool) -> Vec<Items<'a>> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Item::Open => depth += 1,
            Item::Close => depth = depth.saturating_sub(1),
            other if depth == 0 && separator(other) => {
                parts.push(&tokens[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

/// Takes parentheses off that enclose all of `tokens`.
pub(super) fn bare(mut tokens: Items<'_>) -> Items<'_> {
    while let [Item::Open, inner @ .., Item::Close] = tokens {
        let mut depth = 0isize;
        for token in inner {
            depth += match token {
                Item::Open => 1,
                Item::Close => -1,
                _ => 0,
            };
            if depth < 0 {
                return tokens;
            }
        }
        tokens = inner;
    }
    tokens
}

/// A plain column: `a`, `t.a`, `s.t.a`, `t.*`; parentheses allowed.
pub(super) fn column(tokens: Items<'_>) -> Option<Column> {
    match bare(tokens) {
        [Item::Name(name)] => Some(Column { table: String::new(), name: name.clone() }),
        [.., Item::Name(table), Item::Dot, Item::Name(name)] if tokens.len() <= 9 && dotted(bare(tokens)) => {
            Some(Column { table: table.clone(), name: name.clone() })
        }
        _ => None,
    }
}

fn dotted(tokens: Items<'_>) -> bool {
    tokens.iter().enumerate().all(|(i, t)| if i % 2 == 0 { matches!(t, Item::Name(_)) } else { *t == Item::Dot })
}

pub(super) fn push(list: &mut Vec<Column>, column: Column) {
    if list.len() < COLUMN_CAP {
        list.push(column);
    }
}

fn projection(shape: &mut Shape, mut items: Items<'_>) {
    if is(items.first(), Word::Distinct) {
        shape.distinct = true;
        items = &items[1..];
        if is(items.first(), Word::On) {
            let end = items.iter().position(|t| *t == Item::Close).map_or(items.len(), |i| i + 1);
            items = &items[end..];
        }
    }
    let parts = split(items, |t| *t == Item::Comma);
    shape.width = if items.is_empty() { 0 } else { parts.len() };
    for part in &parts {
        let (expression, alias) = alias(part);
        if let [.., Item::Op(star)] = expression
            && star == b"*"
            && (expression.len() == 1 || expression[expression.len() - 2] == Item::Dot)
        {
            shape.star = true;
        }
        let Some(column) = column(expression) else {
            continue;
        };
        if alias.is_some_and(|a| a.starts_with("_prefetch_related_val_")) {
            shape.prefetch = Some(column);
        } else {
            push(&mut shape.columns, column);
        }
    }
    if let [only] = parts[..] {
        let (expression, alias) = alias(only);
        if matches!(expression, [Item::Literal { .. }]) && alias == Some("a") {
            shape.exists = true;
        }
        if let [Item::Name(function), Item::Open, inner @ .., Item::Close] = expression
            && matches!(
                function.as_str(),
                "count" | "sum" | "avg" | "min" | "max" | "array_agg" | "string_agg" | "stddev_pop" | "variance"
            )
        {
            shape.count = function == "count" && matches!(inner, [Item::Op(star)] if star == b"*");
            shape.aggregate = Some(function.clone());
        }
    }
}

/// An expression and its alias.
fn alias(tokens: Items<'_>) -> (Items<'_>, Option<&str>) {
    match tokens {
        [expression @ .., Item::Key(Word::As), Item::Name(alias)] => (expression, Some(alias)),
        [expression @ .., Item::Name(alias)] if !matches!(expression.last(), None | Some(Item::Dot)) => {
            (expression, Some(alias))
        }
        _ => (tokens, None),
    }
}

fn joins(shape: &mut Shape, items: Items<'_>) {
    let mut outer = false;
    let mut current: Option<Join> = None;
    let mut i = 0;
    while let Some(token) = items.get(i) {
        i += 1;
        match token {
            Item::Key(Word::Left | Word::Right | Word::Full) => outer = true,
            Item::Key(Word::Join) => {
                shape.joins.extend(current.take());
                let named = table(&items[i..]).and_then(|(t, _)| shape.tables.iter().position(|known| *known == t));
                current = named.map(|table| Join { table, outer, on: Vec::new() });
                outer = false;
            }
            Item::Key(Word::On) => {
                let end = join_end(&items[i..]);
                if let Some(join) = current.as_mut() {
                    join.on = pairs(&items[i..i + end]);
                }
                i += end;
            }
            _ => {}
        }
    }
    shape.joins.extend(current);
}

/// Tokens of one ON condition.
fn join_end(items: Items<'_>) -> usize {
    let mut depth = 0usize;
    for (i, token) in items.iter().enumerate() {
        match token {
            Item::Open => depth += 1,
            Item::Close => depth = depth.saturating_sub(1),
            Item::Key(
                Word::Join | Word::Left | Word::Right | Word::Full | Word::Cross | Word::Natural | Word::Inner,
            )
            | Item::Comma
                if depth == 0 =>
            {
                return i;
            }
            _ => {}
        }
    }
    items.len()
}

fn pairs(items: Items<'_>) -> Vec<(Column, Column)> {
    let parts = split(bare(items), |t| is(Some(t), Word::And));
    let pair = |part: &Items<'_>| {
        let sides = split(bare(part), |t| *t == Item::Op(b"=".to_vec()));
        match sides[..] {
            [a, b] => Some((column(a)?, column(b)?)),
            _ => None,
        }
    };
    parts.iter().filter_map(pair).take(COLUMN_CAP).collect()
}

fn order(shape: &mut Shape, items: Items<'_>) {
    let items = if is(items.first(), Word::By) { &items[1..] } else { items };
    for part in split(items, |t| *t == Item::Comma) {
        let end = part
            .iter()
            .position(|t| matches!(key(t), Some(Word::Asc | Word::Desc | Word::Nulls)))
            .unwrap_or(part.len());
        let part = &part[..end];
        shape.order_random |= matches!(part, [Item::Name(f), Item::Open, Item::Close] if f == "random");
        if let Some(column) = column(part) {
            push(&mut shape.order_by, column);
        }
    }
}

fn set(shape: &mut Shape, items: Items<'_>) {
    for part in split(items, |t| *t == Item::Comma) {
        if let Some(Item::Name(name)) = part.first()
            && shape.set_columns.len() < COLUMN_CAP
        {
            shape.set_columns.push(name.clone());
        }
    }
}

fn insert(shape: &mut Shape, items: Items<'_>) {
    let Some(open) = items.iter().position(|t| *t == Item::Open) else {
        return;
    };
    for part in split(bare(&items[open..]), |t| *t == Item::Comma) {
        if let [Item::Name(name)] = part
            && shape.insert_columns.len() < COLUMN_CAP
        {
            shape.insert_columns.push(name.clone());
        }
    }
}

fn conflict(shape: &mut Shape, items: Items<'_>) {
    let nothing = items.windows(2).any(|w| is(w.first(), Word::Do) && is(w.get(1), Word::Nothing));
    shape.on_conflict = if nothing { OnConflict::Nothing } else { OnConflict::Update };
}

/// Replaces aliases by table names, and gives lone columns the table of a statement that has but one.
fn resolve(shape: &mut Shape) {
    let tables = shape.tables.clone();
    let fix = |column: &mut Column| {
        if column.table.is_empty() {
            if let [only] = &tables[..] {
                column.table.clone_from(&only.name);
            }
        } else if let Some(table) = tables.iter().find(|t| t.alias.as_deref() == Some(column.table.as_str())) {
            column.table.clone_from(&table.name);
        }
    };
    let lists = [
        &mut shape.columns,
        &mut shape.equals,
        &mut shape.in_lists,
        &mut shape.ranges,
        &mut shape.likes,
        &mut shape.order_by,
    ];
    lists.into_iter().flatten().for_each(fix);
    shape.prefetch.iter_mut().for_each(fix);
    for (a, b) in shape.joins.iter_mut().flat_map(|j| &mut j.on) {
        fix(a);
        fix(b);
    }
}
