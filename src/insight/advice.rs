//! What to change, in Django's words.
//!
//! Names are guessed from tables and columns (`shop_book` is `Book`, `author_id` is `author`, the reverse of a foreign
//! key is `book_set`): right under Django's defaults, and said to be probable where it is a guess.

use super::bond::{Bond, bond};
use super::describe::Described;
use super::reach::{generic_key, is_settings};
use crate::sql::{Limit, OnConflict, Operation, Shape};

/// What the repeated statement fetches, as seen from the loop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Relation {
    /// `book.author`.
    Fk,
    /// `author.book_set.all()`.
    ReverseFk,
    /// `author.book_set.filter(...)`.
    FilteredReverseFk,
    /// `user.profile`.
    OneToOne,
    /// `book.tags.all()`.
    ManyToMany,
    /// `.count()`.
    Count,
    /// `.exists()`.
    Exists,
    /// `.first()`, `.latest()`.
    First,
    /// `.aggregate(...)`.
    Aggregate,
    /// `get(pk=...)`.
    GetPk,
    /// `get(name=...)`.
    Get,
    /// A row of a table of settings, by its key or with all of them.
    Settings,
    /// A field left out by `only()` or `defer()`.
    Deferred,
    /// `item.content_object`.
    GenericFk,
    /// `book.items.all()` of a GenericRelation.
    GenericRelation,
    /// A prefetch for one instance at a time.
    Prefetch,
    /// `get_or_create()`.
    GetOrCreate,
    /// `update_or_create()`.
    UpdateOrCreate,
    /// `create()`, `save()` of a new object.
    Insert,
    /// `save()`.
    Update,
    /// `delete()`.
    Delete,
    /// INSERT ... ON CONFLICT DO UPDATE.
    Upsert,
    /// `book.tags.add(...)`.
    ManyToManyAdd,
    /// Anything else.
    Other,
}

impl Relation {
    /// Label value.
    pub fn name(self) -> &'static str {
        match self {
            Relation::Fk => "fk",
            Relation::ReverseFk => "reverse_fk",
            Relation::FilteredReverseFk => "filtered_reverse_fk",
            Relation::OneToOne => "o2o",
            Relation::ManyToMany => "m2m",
            Relation::Count => "count",
            Relation::Exists => "exists",
            Relation::First => "first",
            Relation::Aggregate => "aggregate",
            Relation::GetPk | Relation::Get => "get",
            Relation::Settings => "settings",
            Relation::Deferred => "deferred",
            Relation::GenericFk => "gfk",
            Relation::GenericRelation => "generic_rel",
            Relation::Prefetch => "prefetch",
            Relation::GetOrCreate => "get_or_create",
            Relation::UpdateOrCreate => "update_or_create",
            Relation::Insert => "insert",
            Relation::Update => "update",
            Relation::Delete => "delete",
            Relation::Upsert => "upsert",
            Relation::ManyToManyAdd => "m2m_add",
            Relation::Other => "other",
        }
    }
}

/// The relation of a repeated statement: by itself, by its parent, by what runs along with it.
pub(crate) fn relation(child: &Described, parent: Option<&Described>, along: &[&Described]) -> Relation {
    let alone = relation_alone(child);
    let same_table = |other: &&&Described| other.table() == child.table();
    let written = along.iter().filter(same_table).any(|other| other.shape.operation == Operation::Insert);
    let got = along.iter().filter(same_table).find(|other| other.shape.limit == Limit::TwentyOne);
    match (alone, parent) {
        (Relation::Get, _) if written => Relation::GetOrCreate,
        (Relation::Insert | Relation::Update, _) if got.is_some_and(|get| get.shape.for_update) => {
            Relation::UpdateOrCreate
        }
        (Relation::Insert, _) if got.is_some() => Relation::GetOrCreate,
        (Relation::GetPk, Some(parent)) if is_deferred(&child.shape, &parent.shape) => Relation::Deferred,
        (Relation::GetPk, _) if along.iter().any(|other| other.table() == "django_content_type") => Relation::GenericFk,
        // Content types are cached by Django, so that nobody reads them beside the loop.
        (Relation::GetPk, Some(parent))
            if parent.table() != child.table()
                && generic_key(parent).is_some()
                && foreign_key(parent, child).is_none()
                && !references(parent).any(|stem| is_akin(child, stem)) =>
        {
            Relation::GenericFk
        }
        (Relation::GetPk, _) if owner_of(child, parent, along).is_some() => Relation::Fk,
        // A foreign key that is called by its role.
        (Relation::GetPk, Some(parent))
            if parent.table() != child.table() && bond(child, parent, |_| true) > Bond::None =>
        {
            Relation::Fk
        }
        _ => alone,
    }
}

/// What a statement is when nothing else is known.
pub(crate) fn relation_alone(child: &Described) -> Relation {
    let shape = &child.shape;
    match shape.operation {
        Operation::Select => read(child),
        Operation::Insert if shape.on_conflict == OnConflict::Nothing && is_through(shape) => Relation::ManyToManyAdd,
        Operation::Insert if shape.on_conflict == OnConflict::Update => Relation::Upsert,
        Operation::Insert => Relation::Insert,
        Operation::Update => Relation::Update,
        Operation::Delete => Relation::Delete,
        _ => Relation::Other,
    }
}

fn read(child: &Described) -> Relation {
    let shape = &child.shape;
    let has = |name: &str| shape.equals.iter().any(|column| column.name == name);
    let key = shape.equals.first();
    let by_id = key.is_some_and(|column| is_key(&column.name));
    let by_reference = shape.equals.iter().chain(&shape.in_lists).any(|column| column.name.ends_with("_id"));
    let joined = key.is_some_and(|column| {
        shape.joins.iter().any(|join| shape.tables.get(join.table).is_some_and(|t| t.name == column.table))
    });
    if shape.exists {
        Relation::Exists
    } else if shape.count {
        Relation::Count
    } else if shape.aggregate.is_some() {
        Relation::Aggregate
    } else if is_settings(child) {
        Relation::Settings
    } else if child.table() == "django_content_type" && by_id {
        Relation::GenericFk
    } else if has("content_type_id") && has("object_id") {
        Relation::GenericRelation
    } else if shape.limit == Limit::TwentyOne {
        match key {
            Some(column) if is_key(&column.name) => Relation::GetPk,
            Some(column) if column.name.ends_with("_id") && shape.equals.len() == 1 => Relation::OneToOne,
            _ => Relation::Get,
        }
    } else if shape.prefetch.is_some() || (!shape.in_lists.is_empty() && shape.equals.is_empty()) {
        // A prefetch goes by keys; what is listed by `path` or `code` was looked up by hand.
        let by_value = shape.prefetch.is_none() && !by_reference && !shape.in_lists.iter().any(|c| is_key(&c.name));
        if by_value { Relation::Get } else { Relation::Prefetch }
    } else if shape.limit == Limit::One {
        Relation::First
    } else if joined && by_reference {
        Relation::ManyToMany
    } else if by_reference && (shape.equals.len() > 1 || shape.other_predicates || !shape.ranges.is_empty()) {
        Relation::FilteredReverseFk
    } else if by_reference {
        Relation::ReverseFk
    } else {
        Relation::Other
    }
}

pub(super) fn is_key(column: &str) -> bool {
    matches!(column, "id" | "pk" | "uuid") || column.ends_with("_ptr_id")
}

/// A table of two or three columns, two of them references: what joins two models.
fn is_through(shape: &Shape) -> bool {
    shape.insert_columns.len() <= 3 && shape.insert_columns.iter().filter(|name| name.ends_with("_id")).count() == 2
}

/// The child reads columns of the parent's own table that the parent left out.
fn is_deferred(child: &Shape, parent: &Shape) -> bool {
    child.table().is_some()
        && child.table() == parent.table()
        && !parent.star
        && child.columns.iter().any(|column| !parent.columns.iter().any(|known| known.name == column.name))
}

/// The foreign key among a statement's own columns that is called like the child's table.
pub(super) fn foreign_key(owner: &Described, child: &Described) -> Option<String> {
    let model = bare(child.table());
    let keys = || references(owner);
    keys()
        .find(|stem| model == *stem || model.replace('_', "") == stem.replace('_', ""))
        .or_else(|| keys().find(|stem| ends_with(model, stem) || ends_with(stem, model)))
        .map(str::to_owned)
}

/// Whether a foreign key's last word ends the child's name, too: `value_option` may lead to `attributeoption`.
fn is_akin(child: &Described, stem: &str) -> bool {
    let word = stem.rsplit('_').next().unwrap_or(stem);
    word.len() > 3 && bare(child.table()).ends_with(word)
}

/// Columns of the statement's own table that look like foreign keys, without `_id`.
pub(super) fn references(owner: &Described) -> impl Iterator<Item = &str> {
    let columns = owner.shape.columns.iter();
    columns
        .filter(|column| column.table.is_empty() || column.table == owner.table())
        .filter_map(|column| column.name.strip_suffix("_id"))
}

/// `home_address` ends with the word `address`; `sandbox` does not end with the word `box`.
fn ends_with(name: &str, word: &str) -> bool {
    name.strip_suffix(word).is_some_and(|rest| rest.ends_with('_'))
}

/// The only foreign key of a statement's own table: the one meant, when another table's name tells nothing.
pub(super) fn only_key(owner: &Described) -> Option<&str> {
    let mut keys = references(owner);
    keys.next().filter(|_| keys.next().is_none())
}

/// The statement whose rows hold a foreign key to the child: the parent, or another of the loop; by the key's name,
/// and if none fits, the parent when it has one foreign key only.
pub(super) fn owner_of<'a>(
    child: &Described,
    parent: Option<&'a Described>,
    along: &[&'a Described],
) -> Option<&'a Described> {
    let others = along.iter().copied().filter(|other| other.table() != child.table());
    parent.into_iter().chain(others).find(|owner| foreign_key(owner, child).is_some()).or_else(|| {
        let alone = along.iter().all(|other| other.table() == child.table());
        parent.filter(|parent| alone && only_key(parent).is_some())
    })
}

/// `shop_book` without the application: `book`.
pub(crate) fn bare(table: &str) -> &str {
    table.split_once('_').map_or(table, |(_, model)| model)
}
