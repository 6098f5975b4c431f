//! How the loop's rows reach what a repeated statement fetches: directly, or through another relation of theirs; and by
//! which of several compared columns. By Django's default names, as in [`super::advice`].

use super::bond::{called, columns};
use super::describe::Described;
use crate::sql::Column;

/// Columns that tell one row from another; beside them a tenant, a state or a language usually stays the same.
const NATURAL_KEYS: [&str; 14] = [
    "code",
    "slug",
    "key",
    "uuid",
    "token",
    "email",
    "username",
    "number",
    "identifier",
    "sku",
    "path",
    "url",
    "hash",
    "name",
];

/// The way from the loop's rows to the statement's.
#[derive(Debug, PartialEq)]
pub(super) struct Reach<'a> {
    /// The foreign key of the statement that leads back, without `_id`; `pk` when there is none.
    pub(super) back: &'a str,
    /// What stands before a related name (`submission__`); empty when the rows are related directly.
    pub(super) prefix: String,
    /// What the key is compared with, seen from the loop's rows: `pk`, or `submission`.
    pub(super) outer: String,
}

/// The way from `parent` to `child`.
pub(super) fn reach<'a>(child: &'a Described, parent: Option<&Described>) -> Reach<'a> {
    let stems = || child.shape.equals.iter().filter_map(|column| column.name.strip_suffix("_id"));
    let direct = |back| Reach { back, prefix: String::new(), outer: "pk".into() };
    let Some(parent) = parent.filter(|parent| parent.table() != child.table()) else {
        return direct(stems().next().unwrap_or("pk"));
    };
    if let Some(back) = stems().find(|stem| called(parent.table(), stem)) {
        return direct(back);
    }
    let via = stems().find_map(|stem| Some((stem, own_key(parent, stem).or_else(|| joined(parent, stem))?)));
    match via {
        Some((back, path)) => Reach { back, prefix: format!("{path}__"), outer: path.to_owned() },
        None => direct(stems().next().unwrap_or("pk")),
    }
}

/// A foreign key of the list's own rows that is called so.
fn own_key<'a>(list: &'a Described, stem: &str) -> Option<&'a str> {
    let own = |column: &&Column| column.table.is_empty() || column.table == list.table();
    columns(list).filter(own).filter_map(|column| column.name.strip_suffix("_id")).find(|known| *known == stem)
}

/// The foreign key by which the list joined (select_related) a table that is called so.
fn joined<'a>(list: &'a Described, stem: &str) -> Option<&'a str> {
    let shape = &list.shape;
    let join = shape.joins.iter().find(|join| shape.tables.get(join.table).is_some_and(|to| called(&to.name, stem)))?;
    let own = |column: &&Column| column.table == list.table();
    join.on.iter().flat_map(|(a, b)| [a, b]).find(own)?.name.strip_suffix("_id")
}

/// The column whose value probably changes from turn to turn.
pub(super) fn looked_up<'a>(child: &'a Described, parent: Option<&Described>) -> Option<&'a Column> {
    let equals = &child.shape.equals;
    let natural = |name: &&str| equals.iter().find(|column| column.name == **name);
    let value = || equals.iter().rfind(|column| !column.name.ends_with("_id"));
    // The key to the loop's rows; a tenant is nobody's list, as a rule.
    let ours = |column: &&Column| {
        column.name.strip_suffix("_id").is_some_and(|stem| parent.is_some_and(|parent| called(parent.table(), stem)))
    };
    match &equals[..] {
        [] => child.shape.in_lists.first(),
        [one] => Some(one),
        [first, ..] => {
            NATURAL_KEYS.iter().find_map(natural).or_else(value).or_else(|| equals.iter().find(ours)).or(Some(first))
        }
    }
}

/// The field of a ManyToManyField, from its table: Django calls that by the model's table and the field.
pub(super) fn many_field(child: &Described) -> Option<&str> {
    let key = child.shape.equals.first()?;
    let mark = format!("_{}_", key.name.strip_suffix("_id")?.replace('_', ""));
    let (_, field) = key.table.split_once(&mark)?;
    (!field.is_empty()).then_some(field)
}

/// The generic foreign key of a statement's rows, as it is called by default: `content_object`, or `target` for
/// `target_content_type_id` and `target_object_id`.
pub(super) fn generic_key(list: &Described) -> Option<&str> {
    let own = || list.shape.columns.iter().filter(|column| column.table.is_empty() || column.table == list.table());
    own().find_map(|column| {
        let prefix = column.name.strip_suffix("content_type_id")?;
        own().find(|other| other.name.strip_prefix(prefix) == Some("object_id"))?;
        Some(if prefix.is_empty() { "content_object" } else { prefix.trim_end_matches('_') })
    })
}

/// Whether a statement reads settings: rows of key and value in a table that is called like that.
pub(super) fn is_settings(child: &Described) -> bool {
    let has = |name: &str| child.shape.columns.iter().any(|column| column.name == name);
    child.shape.width <= 6
        && (has("key") || has("name"))
        && has("value")
        && ["setting", "preference", "constance", "config"].iter().any(|word| child.table().contains(word))
}
