//! Conditions of WHERE for a [`Shape`].

use super::shape::{Item, Shape};
use super::shape_parse::{Items, bare, column, is, key, push, split};
use super::words::Word;

/// Parentheses followed for conditions in parentheses.
const NEST_CAP: usize = 32;

/// Conditions joined by AND, through enclosing parentheses.
pub(super) fn condition(shape: &mut Shape, items: Items<'_>, nest: usize) {
    let items = bare(items);
    if nest > NEST_CAP {
        shape.other_predicates = true;
        return;
    }
    let parts = split_and(items);
    if parts.len() > 1 {
        for part in parts {
            condition(shape, part, nest + 1);
        }
        return;
    }
    if !predicate(shape, items) {
        shape.other_predicates = true;
    }
}

/// Splits at AND, but not at the one of BETWEEN.
fn split_and(items: Items<'_>) -> Vec<Items<'_>> {
    let open = std::cell::Cell::new(0usize);
    split(items, |t| match key(t) {
        Some(Word::Between) => {
            open.set(open.get() + 1);
            false
        }
        Some(Word::And) if open.get() > 0 => {
            open.set(open.get() - 1);
            false
        }
        other => other == Some(Word::And),
    })
}

fn value(items: Items<'_>) -> bool {
    matches!(bare(items), [Item::Literal { .. }])
}

/// One condition; false when it is none of those told apart.
fn predicate(shape: &mut Shape, items: Items<'_>) -> bool {
    if split(items, |t| is(Some(t), Word::Or)).len() > 1 {
        return false;
    }
    let at = |word: Word| split(items, |t| is(Some(t), word));
    if let [left, right] = at(Word::In)[..] {
        return match (column(left), right.get(1)) {
            (Some(column), Some(Item::Literal { .. } | Item::Open)) => {
                push(&mut shape.in_lists, column);
                true
            }
            _ => false,
        };
    }
    if let [left, _] = at(Word::Between)[..] {
        return column(left).map(|c| push(&mut shape.ranges, c)).is_some();
    }
    for word in [Word::Like, Word::Ilike] {
        if let [left, right] = at(word)[..] {
            shape.leading_wildcard |= right.iter().any(|i| matches!(i, Item::Literal { wildcard: true, .. }));
            let wrapped = match left {
                [Item::Name(_), Item::Open, inner @ .., Item::Close] => inner,
                _ => left,
            };
            return column(wrapped).map(|c| push(&mut shape.likes, c)).is_some();
        }
    }
    comparison(shape, items)
}

fn comparison(shape: &mut Shape, items: Items<'_>) -> bool {
    let mut depth = 0isize;
    let position = items.iter().position(|t| {
        depth += match t {
            Item::Open => 1,
            Item::Close => -1,
            _ => 0,
        };
        depth == 0
            && matches!(t, Item::Op(op) if matches!(op.as_slice(), b"=" | b"<" | b">" | b"<=" | b">=" | b"~" | b"~*"))
    });
    let Some(at) = position else { return false };
    let (left, right) = (&items[..at], &items[at + 1..]);
    let any = matches!(right, [Item::Key(Word::Any), Item::Open, inner @ .., Item::Close] if value(inner));
    let found = if value(right) || any {
        column(left)
    } else if value(left) {
        column(right)
    } else {
        None
    };
    let (Some(column), Item::Op(op)) = (found, &items[at]) else {
        return false;
    };
    let list = match op.as_slice() {
        b"=" if any => &mut shape.in_lists,
        b"=" => &mut shape.equals,
        b"~" | b"~*" => &mut shape.likes,
        _ => &mut shape.ranges,
    };
    push(list, column);
    true
}
