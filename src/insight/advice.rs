//! What to change, in Django's words.
//!
//! Names are guessed from tables and columns (`shop_book` is `Book`, `author_id` is `author`, the reverse of a foreign
//! key is `book_set`): right under Django's defaults, and said to be probable where it is a guess.

use super::describe::Described;
use super::judge::Kind;
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
pub(crate) fn relation(
    child: &Described,
    parent: Option<&Described>,
    along: &[&Described],
) -> Relation {
    let alone = relation_alone(child);
    let same_table = |other: &&&Described| other.table() == child.table();
    let written = along
        .iter()
        .filter(same_table)
        .any(|other| other.shape.operation == Operation::Insert);
    let got = along
        .iter()
        .filter(same_table)
        .find(|other| other.shape.limit == Limit::TwentyOne);
    match (alone, parent) {
        (Relation::Get, _) if written => Relation::GetOrCreate,
        (Relation::Insert | Relation::Update, _) if got.is_some_and(|get| get.shape.for_update) => {
            Relation::UpdateOrCreate
        }
        (Relation::Insert, _) if got.is_some() => Relation::GetOrCreate,
        (Relation::GetPk, Some(parent)) if is_deferred(&child.shape, &parent.shape) => {
            Relation::Deferred
        }
        (Relation::GetPk, _)
            if along
                .iter()
                .any(|other| other.table() == "django_content_type") =>
        {
            Relation::GenericFk
        }
        (Relation::GetPk, _) if owner_of(child, parent, along).is_some() => Relation::Fk,
        _ => alone,
    }
}

/// What a statement is when nothing else is known.
pub(crate) fn relation_alone(child: &Described) -> Relation {
    let shape = &child.shape;
    match shape.operation {
        Operation::Select => read(child),
        Operation::Insert if shape.on_conflict == OnConflict::Nothing && is_through(shape) => {
            Relation::ManyToManyAdd
        }
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
    let by_reference = shape
        .equals
        .iter()
        .chain(&shape.in_lists)
        .any(|column| column.name.ends_with("_id"));
    let joined = key.is_some_and(|column| {
        shape.joins.iter().any(|join| {
            shape
                .tables
                .get(join.table)
                .is_some_and(|t| t.name == column.table)
        })
    });
    if shape.exists {
        Relation::Exists
    } else if shape.count {
        Relation::Count
    } else if shape.aggregate.is_some() {
        Relation::Aggregate
    } else if child.table() == "django_content_type" && by_id {
        Relation::GenericFk
    } else if has("content_type_id") && has("object_id") {
        Relation::GenericRelation
    } else if shape.limit == Limit::TwentyOne {
        match key {
            Some(column) if is_key(&column.name) => Relation::GetPk,
            Some(column) if column.name.ends_with("_id") && shape.equals.len() == 1 => {
                Relation::OneToOne
            }
            _ => Relation::Get,
        }
    } else if shape.prefetch.is_some() || (!shape.in_lists.is_empty() && shape.equals.is_empty()) {
        Relation::Prefetch
    } else if shape.limit == Limit::One {
        Relation::First
    } else if joined && by_reference {
        Relation::ManyToMany
    } else if by_reference
        && (shape.equals.len() > 1 || shape.other_predicates || !shape.ranges.is_empty())
    {
        Relation::FilteredReverseFk
    } else if by_reference {
        Relation::ReverseFk
    } else {
        Relation::Other
    }
}

fn is_key(column: &str) -> bool {
    matches!(column, "id" | "pk" | "uuid") || column.ends_with("_ptr_id")
}

/// A table of two or three columns, two of them references: what joins two models.
fn is_through(shape: &Shape) -> bool {
    shape.insert_columns.len() <= 3
        && shape
            .insert_columns
            .iter()
            .filter(|name| name.ends_with("_id"))
            .count()
            == 2
}

/// The child reads columns of the parent's own table that the parent left out.
fn is_deferred(child: &Shape, parent: &Shape) -> bool {
    child.table().is_some()
        && child.table() == parent.table()
        && !parent.star
        && child
            .columns
            .iter()
            .any(|column| !parent.columns.iter().any(|known| known.name == column.name))
}

/// The foreign key in the parent's columns that leads to the child's table: by name, or the only one.
fn foreign_key(parent: &Described, child: &Described) -> Option<String> {
    let model = bare(child.table());
    let keys: Vec<&str> = parent
        .shape
        .columns
        .iter()
        .filter_map(|column| column.name.strip_suffix("_id"))
        .collect();
    keys.iter()
        .find(|stem| model == **stem || model.replace('_', "") == stem.replace('_', ""))
        .or_else(|| {
            keys.iter()
                .find(|stem| model.ends_with(**stem) || stem.ends_with(model))
        })
        .or_else(|| keys.first().filter(|_| keys.len() == 1))
        .map(|stem| (*stem).to_owned())
}

/// The statement whose rows hold a foreign key to the child: the parent, or another of the loop.
fn owner_of<'a>(
    child: &Described,
    parent: Option<&'a Described>,
    along: &[&'a Described],
) -> Option<&'a Described> {
    let others = along
        .iter()
        .copied()
        .filter(|other| other.table() != child.table());
    parent
        .into_iter()
        .chain(others)
        .find(|owner| foreign_key(owner, child).is_some())
}

/// `category` as `categories`: how a many-to-many field is probably called.
fn plural(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if word.ends_with('s') => format!("{word}es"),
        _ => format!("{word}s"),
    }
}

/// `shop_book` without the application: `book`.
fn bare(table: &str) -> &str {
    table.split_once('_').map_or(table, |(_, model)| model)
}

/// `shop_book` as a class name: `Book`.
fn model(table: &str) -> String {
    let name = bare(table);
    let class: String = name
        .split('_')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_uppercase().chain(letters).collect()
            })
        })
        .collect();
    if class.is_empty() {
        "Model".into()
    } else {
        class
    }
}

/// The advice for a group of repeated statements. `texts` has the statements of the loop, first the one judged.
pub(crate) fn advice(
    kind: Kind,
    relation: Relation,
    texts: &[&Described],
    parent: Option<&Described>,
) -> String {
    let Some(child) = texts.first() else {
        return String::new();
    };
    if kind == Kind::Duplicate {
        return duplicate(child);
    }
    let mut advice =
        reading(relation, child, parent, texts).unwrap_or_else(|| writing(relation, child));
    for other in texts.iter().skip(1) {
        let along = reading(self::relation(other, parent, texts), other, parent, texts);
        if let Some(more) = along.filter(|more| !advice.contains(more.as_str())) {
            advice.push_str("; and ");
            advice.push_str(&more);
        }
    }
    advice
}

/// Advice for a repeated SELECT; `None` for a write.
fn reading(
    relation: Relation,
    child: &Described,
    parent: Option<&Described>,
    along: &[&Described],
) -> Option<String> {
    let target = model(child.table());
    let owner = parent.map_or_else(|| "Parent".to_owned(), |parent| model(parent.table()));
    let set = format!("{}_set", bare(child.table()).replace('_', ""));
    let column = child
        .shape
        .equals
        .first()
        .map_or("id", |column| column.name.as_str());
    let back = child
        .shape
        .equals
        .iter()
        .find_map(|column| column.name.strip_suffix("_id"))
        .unwrap_or("pk");
    Some(match relation {
        Relation::Fk => {
            let holder = owner_of(child, parent, along);
            let field = holder
                .and_then(|holder| foreign_key(holder, child))
                .unwrap_or_else(|| bare(child.table()).to_owned());
            let owner = holder.map_or(owner, |holder| model(holder.table()));
            format!(
                "probably {owner}.objects.select_related(\"{field}\") (table {}); if only the id is needed, obj.{field}_id",
                child.table()
            )
        }
        Relation::ReverseFk => format!(
            "probably {owner}.objects.prefetch_related(\"{set}\") (table {})",
            child.table()
        ),
        Relation::FilteredReverseFk => format!(
            "probably {owner}.objects.prefetch_related(Prefetch(\"{set}\", queryset={target}.objects.filter(...), to_attr=\"...\")); \
             a .filter() on the related manager does not use a plain prefetch"
        ),
        Relation::OneToOne => {
            format!(
                "probably {owner}.objects.select_related(\"{}\") (table {})",
                bare(child.table()).replace('_', ""),
                child.table()
            )
        }
        Relation::ManyToMany => {
            format!(
                "probably {owner}.objects.prefetch_related(\"{}\") (table {})",
                plural(&bare(child.table()).replace('_', "")),
                child.table()
            )
        }
        Relation::Count => format!(
            "probably {owner}.objects.annotate(n=Count(\"{}\", distinct=True)), or prefetch it and use len()",
            bare(child.table()).replace('_', "")
        ),
        Relation::Exists => format!(
            "probably {owner}.objects.annotate(has_{}=Exists({target}.objects.filter({back}=OuterRef(\"pk\"))))",
            bare(child.table()).replace('_', "")
        ),
        Relation::First => first(&owner, &target, &set, back),
        Relation::Aggregate => {
            let function = child.shape.aggregate.as_deref().unwrap_or("sum");
            let function: String = function
                .chars()
                .enumerate()
                .map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c })
                .collect();
            format!(
                "probably {owner}.objects.annotate(value={function}(\"{}__...\"))",
                bare(child.table()).replace('_', "")
            )
        }
        Relation::GetPk => format!(
            "{target}.objects.in_bulk(ids) once, instead of get(pk=...) in a loop (table {})",
            child.table()
        ),
        Relation::Get => format!(
            "one {target}.objects.filter({column}__in=values), or in_bulk(values, field_name=\"{column}\") when it is unique (table {})",
            child.table()
        ),
        Relation::Deferred => {
            let fields: Vec<&str> = child
                .shape
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .filter(|name| *name != "id")
                .take(4)
                .collect();
            format!(
                "add \"{}\" to only(), or drop the defer() of {target}",
                fields.join("\", \"")
            )
        }
        Relation::GenericFk => format!(
            "{owner}.objects.prefetch_related(\"content_object\"), or GenericPrefetch (Django 5.0)"
        ),
        Relation::GenericRelation => {
            format!(
                "probably {owner}.objects.prefetch_related(\"{}\") on the GenericRelation",
                plural(&bare(child.table()).replace('_', ""))
            )
        }
        Relation::Prefetch => format!(
            "this is already a prefetch, run for one object at a time: prefetch_related() on the outer query, or \
             prefetch_related_objects(list, ...) once (table {})",
            child.table()
        ),
        Relation::GetOrCreate => format!(
            "one {target}.objects.filter({column}__in=values), then bulk_create(missing, ignore_conflicts=True), instead of \
             get_or_create() in a loop"
        ),
        Relation::Other if child.shape.operation == Operation::Select => format!(
            "read table {} once before the loop ({target}.objects.filter(...__in=values) or annotate())",
            child.table()
        ),
        _ => return None,
    })
}

fn first(owner: &str, target: &str, set: &str, back: &str) -> String {
    format!(
        "probably {owner}.objects.annotate(latest=Subquery({target}.objects.filter({back}=OuterRef(\"pk\")).order_by(...).values(...)[:1])), \
         or prefetch_related(Prefetch(\"{set}\", queryset={target}.objects.order_by(...))) and take the first in Python"
    )
}

/// Advice for a repeated write.
fn writing(relation: Relation, child: &Described) -> String {
    let target = model(child.table());
    match relation {
        Relation::Insert => format!(
            "{target}.objects.bulk_create(objects, batch_size=1000) instead of create() or save() in a loop"
        ),
        Relation::Update => format!(
            "{target}.objects.bulk_update(objects, [\"{}\"]), or one filter(...).update(...), instead of save() in a loop",
            child
                .shape
                .set_columns
                .iter()
                .take(4)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("\", \"")
        ),
        Relation::Delete => {
            format!("{target}.objects.filter(pk__in=ids).delete() instead of delete() in a loop")
        }
        Relation::Upsert | Relation::UpdateOrCreate => format!(
            "{target}.objects.bulk_create(objects, update_conflicts=True, unique_fields=[...], update_fields=[...]) instead of \
             update_or_create() in a loop"
        ),
        Relation::ManyToManyAdd => {
            format!(
                "add(*objects) at once, or bulk_create(rows, ignore_conflicts=True) on the through model (table {})",
                child.table()
            )
        }
        _ => format!(
            "write table {} with one statement for many rows",
            child.table()
        ),
    }
}

fn duplicate(child: &Described) -> String {
    let target = model(child.table());
    if child.shape.has_where {
        format!(
            "the same {target} was fetched again and again: keep the instance, or use cached_property (table {})",
            child.table()
        )
    } else {
        format!(
            "the same {target} query was evaluated again and again: evaluate it once with list() and share it (table {})",
            child.table()
        )
    }
}
