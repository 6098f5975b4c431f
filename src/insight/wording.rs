//! The advice itself: what to write instead, with names derived from tables and columns.

use super::advice::{Relation, bare, foreign_key, owner_of, relation};
use super::describe::Described;
use super::judge::Kind;
use crate::sql::Operation;

/// The advice for a group of repeated statements. `texts` has the statements of the loop, first the one judged.
pub(crate) fn advice(
    kind: Kind,
    first: Relation,
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
        reading(first, &Names::new(child, parent, texts)).unwrap_or_else(|| writing(first, child));
    for other in texts.iter().skip(1) {
        let along = reading(
            relation(other, parent, texts),
            &Names::new(other, parent, texts),
        );
        if let Some(more) = along.filter(|more| !advice.contains(more.as_str())) {
            advice.push_str("; and ");
            advice.push_str(&more);
        }
    }
    advice
}

/// Names that the wording needs, guessed by Django's defaults.
struct Names<'a> {
    child: &'a Described,
    table: &'a str,
    /// Model of the repeated statement (`Book`).
    target: String,
    /// The same in lower case without underscores (`book`): how related names begin.
    word: String,
    /// Model of the loop (`Author`).
    owner: String,
    /// Foreign key of the loop's rows that leads to the target (`author`).
    field: String,
    /// Model that has that foreign key.
    holder: String,
    /// Compared column.
    column: &'a str,
    /// Foreign key of the target that leads back to the loop's rows.
    back: &'a str,
}

impl<'a> Names<'a> {
    fn new(child: &'a Described, parent: Option<&'a Described>, along: &[&'a Described]) -> Self {
        let table = child.table();
        let owner = parent.map_or_else(|| "Parent".to_owned(), |parent| model(parent.table()));
        let holder = owner_of(child, parent, along);
        let equals = &child.shape.equals;
        Self {
            child,
            table,
            target: model(table),
            word: bare(table).replace('_', ""),
            field: holder
                .and_then(|holder| foreign_key(holder, child))
                .unwrap_or_else(|| bare(table).to_owned()),
            holder: holder.map_or_else(|| owner.clone(), |holder| model(holder.table())),
            owner,
            column: equals.first().map_or("id", |column| column.name.as_str()),
            back: equals
                .iter()
                .find_map(|column| column.name.strip_suffix("_id"))
                .unwrap_or("pk"),
        }
    }
}

/// Advice for a repeated SELECT; `None` for a write.
fn reading(relation: Relation, names: &Names<'_>) -> Option<String> {
    related(relation, names)
        .or_else(|| computed(relation, names))
        .or_else(|| fetched(relation, names))
}

/// Rows of a related model.
fn related(relation: Relation, names: &Names<'_>) -> Option<String> {
    let Names {
        table,
        target,
        word,
        owner,
        field,
        holder,
        ..
    } = names;
    Some(match relation {
        Relation::Fk => {
            format!(
                "probably {holder}.objects.select_related(\"{field}\") (table {table}); if only the id is needed, obj.{field}_id"
            )
        }
        Relation::ReverseFk => {
            format!("probably {owner}.objects.prefetch_related(\"{word}_set\") (table {table})")
        }
        Relation::FilteredReverseFk => format!(
            "probably {owner}.objects.prefetch_related(Prefetch(\"{word}_set\", queryset={target}.objects.filter(...), \
             to_attr=\"...\")); a .filter() on the related manager does not use a plain prefetch"
        ),
        Relation::OneToOne => {
            format!("probably {owner}.objects.select_related(\"{word}\") (table {table})")
        }
        Relation::ManyToMany => format!(
            "probably {owner}.objects.prefetch_related(\"{}\") (table {table})",
            plural(word)
        ),
        Relation::GenericFk => {
            format!(
                "{owner}.objects.prefetch_related(\"content_object\"), or GenericPrefetch (Django 5.0)"
            )
        }
        Relation::GenericRelation => {
            format!(
                "probably {owner}.objects.prefetch_related(\"{}\") on the GenericRelation",
                plural(word)
            )
        }
        _ => return None,
    })
}

/// Values computed from related rows.
fn computed(relation: Relation, names: &Names<'_>) -> Option<String> {
    let Names {
        target,
        word,
        owner,
        back,
        ..
    } = names;
    Some(match relation {
        Relation::Count => {
            format!(
                "probably {owner}.objects.annotate(n=Count(\"{word}\", distinct=True)), or prefetch it and use len()"
            )
        }
        Relation::Exists => {
            format!(
                "probably {owner}.objects.annotate(has_{word}=Exists({target}.objects.filter({back}=OuterRef(\"pk\"))))"
            )
        }
        Relation::First => format!(
            "probably {owner}.objects.annotate(latest=Subquery({target}.objects.filter({back}=OuterRef(\"pk\"))\
             .order_by(...).values(...)[:1])), or prefetch_related(Prefetch(\"{word}_set\", \
             queryset={target}.objects.order_by(...))) and take the first in Python"
        ),
        Relation::Aggregate => {
            let function = names.child.shape.aggregate.as_deref().unwrap_or("sum");
            format!(
                "probably {owner}.objects.annotate(value={}(\"{word}__...\"))",
                capital(function)
            )
        }
        _ => return None,
    })
}

/// Objects fetched one at a time.
fn fetched(relation: Relation, names: &Names<'_>) -> Option<String> {
    let Names {
        child,
        table,
        target,
        column,
        ..
    } = names;
    Some(match relation {
        Relation::GetPk => format!(
            "{target}.objects.in_bulk(ids) once, instead of get(pk=...) in a loop (table {table})"
        ),
        Relation::Get => format!(
            "one {target}.objects.filter({column}__in=values), or in_bulk(values, field_name=\"{column}\") when it is \
             unique (table {table})"
        ),
        Relation::Deferred => {
            let columns = child
                .shape
                .columns
                .iter()
                .map(|column| column.name.as_str());
            let fields: Vec<&str> = columns.filter(|name| *name != "id").take(4).collect();
            format!(
                "add \"{}\" to only(), or drop the defer() of {target}",
                fields.join("\", \"")
            )
        }
        Relation::Prefetch => format!(
            "this is already a prefetch, run for one object at a time: prefetch_related() on the outer query, or \
             prefetch_related_objects(list, ...) once (table {table})"
        ),
        Relation::GetOrCreate => format!(
            "one {target}.objects.filter({column}__in=values), then bulk_create(missing, ignore_conflicts=True), \
             instead of get_or_create() in a loop"
        ),
        _ if child.shape.operation == Operation::Select => format!(
            "read table {table} once before the loop ({target}.objects.filter(...__in=values) or annotate())"
        ),
        _ => return None,
    })
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

/// `category` as `categories`: how a many-to-many field is probably called.
fn plural(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if word.ends_with('s') => format!("{word}es"),
        _ => format!("{word}s"),
    }
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

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
