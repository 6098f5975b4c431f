//! The advice itself: what to write instead, with names derived from tables and columns.

use super::advice::{Relation, bare, foreign_key, owner_of, references, relation};
use super::describe::Described;
use super::judge::Kind;
use super::names::{capital, field, plural};
use super::reach::{Reach, generic_key, looked_up, many_field, reach};
use crate::sql::Operation;

/// Django's table of permissions, read by has_perm().
const PERMISSIONS: &str = "auth_permission";

/// The advice for a group of repeated statements. `texts` has the statements of the loop, first the one judged.
pub(crate) fn advice(kind: Kind, first: Relation, texts: &[&Described], parent: Option<&Described>) -> String {
    let Some(child) = texts.first() else {
        return String::new();
    };
    if kind == Kind::Duplicate && first != Relation::Settings {
        let mut advice = duplicate(child);
        // Rows that share one foreign key.
        if let Some(more) = related(first, &Names::new(child, parent, texts)).filter(|_| first == Relation::Fk) {
            advice.push_str("; or ");
            advice.push_str(&more);
        }
        return advice;
    }
    let mut advice = reading(first, &Names::new(child, parent, texts)).unwrap_or_else(|| writing(first, child));
    for other in texts.iter().skip(1) {
        let along = reading(relation(other, parent, texts), &Names::new(other, parent, texts));
        if let Some(more) = along.filter(|more| !advice.contains(more.as_str())) {
            advice.push_str("; and ");
            advice.push_str(&more);
        }
    }
    advice
}

/// Names that the wording needs. Only tables and columns are known: models are called by their tables, fields and
/// related names as Django calls them by default.
struct Names<'a> {
    child: &'a Described,
    table: &'a str,
    /// Table in lower case without application and underscores (`book`): how related names begin.
    word: String,
    /// The query whose rows are looped over.
    outer: String,
    /// Foreign key of the loop's rows that leads to the child (`author`), when its name tells.
    field: Option<String>,
    /// The query that has that foreign key.
    holder: String,
    /// The generic foreign key of the loop's rows, and whether they have foreign keys beside it.
    generic: Option<(&'a str, bool)>,
    /// Compared column.
    column: &'a str,
    /// How the loop's rows reach the child.
    reach: Reach<'a>,
}

impl<'a> Names<'a> {
    fn new(child: &'a Described, parent: Option<&'a Described>, along: &[&'a Described]) -> Self {
        let table = child.table();
        let holder = owner_of(child, parent, along);
        Self {
            child,
            table,
            word: bare(table).replace('_', ""),
            outer: query_of(parent),
            field: holder.and_then(|holder| foreign_key(holder, child)),
            holder: query_of(holder.or(parent)),
            generic: parent.and_then(|parent| {
                let beside =
                    references(parent).any(|stem| !stem.ends_with("content_type") && !stem.ends_with("object"));
                Some((generic_key(parent)?, beside))
            }),
            column: looked_up(child, parent).map_or("id", |column| field(&column.name)),
            reach: reach(child, parent),
        }
    }
}

/// How a statement is called in advice.
fn query_of(statement: Option<&Described>) -> String {
    match statement.map(Described::table) {
        Some(table) if !table.is_empty() => format!("the query of {table}"),
        _ => "the query that the loop runs over".into(),
    }
}

/// Advice for a repeated SELECT; `None` for a write.
fn reading(relation: Relation, names: &Names<'_>) -> Option<String> {
    related(relation, names).or_else(|| computed(relation, names)).or_else(|| fetched(relation, names))
}

/// Rows of a related model.
fn related(relation: Relation, names: &Names<'_>) -> Option<String> {
    let Names { table, word, outer, holder, .. } = names;
    let via = &names.reach.prefix;
    Some(match relation {
        Relation::Fk => match &names.field {
            Some(field) => format!(
                "probably select_related(\"{field}\") on {holder} (repeated: {table}); if only the id is needed, obj.{field}_id"
            ),
            None => {
                format!("probably select_related() on {holder}, with its foreign key to {table}")
            }
        },
        Relation::ReverseFk => {
            format!("probably prefetch_related(\"{via}{word}_set\") on {outer} (repeated: {table})")
        }
        Relation::FilteredReverseFk => format!(
            "probably prefetch_related(Prefetch(\"{via}{word}_set\", queryset=..., to_attr=\"...\")) on {outer}, the filter in its \
             queryset (repeated: {table}); a .filter() on the related manager does not use a plain prefetch"
        ),
        Relation::OneToOne => {
            format!("probably select_related(\"{via}{word}\") on {outer} (repeated: {table})")
        }
        Relation::ManyToMany if *table == PERMISSIONS => format!(
            "has_perm() for each row: read {table} once for all users of {outer} (user__in=..., group__user__in=...), or \
             ask for request.user only, which remembers its permissions"
        ),
        Relation::ManyToMany => {
            let name = many_field(names.child).map_or_else(|| plural(word), str::to_owned);
            format!("probably prefetch_related(\"{via}{name}\") on {outer} (repeated: {table})")
        }
        Relation::GenericFk => {
            let (name, beside) = names.generic.unwrap_or(("content_object", false));
            let probably = if beside { "probably " } else { "" };
            let or =
                if beside { "; if it is reached by a foreign key instead, select_related() with that" } else { "" };
            format!(
                "{probably}prefetch_related(\"{name}\"), or GenericPrefetch (Django 5.0), on {outer} (repeated: {table}){or}"
            )
        }
        Relation::GenericRelation => format!(
            "probably prefetch_related(\"{}\"), the GenericRelation, on {outer} (repeated: {table})",
            plural(word)
        ),
        _ => return None,
    })
}

/// Values computed from related rows.
fn computed(relation: Relation, names: &Names<'_>) -> Option<String> {
    let Names { table, word, outer, .. } = names;
    let Reach { back, prefix: via, outer: own } = &names.reach;
    Some(match relation {
        Relation::Count => format!(
            "probably annotate(n=Count(\"{via}{word}\", distinct=True)) on {outer} (repeated: {table}), or prefetch it and use len()"
        ),
        Relation::Exists => format!(
            "probably annotate(has_{word}=Exists(...filter({back}=OuterRef(\"{own}\")))) on {outer}, with a subquery of {table}"
        ),
        Relation::First => format!(
            "probably annotate(latest=Subquery(...filter({back}=OuterRef(\"{own}\")).order_by(...).values(...)[:1])) on {outer}, with \
             a subquery of {table}; or prefetch_related(Prefetch(\"{via}{word}_set\", queryset=...order_by(...))) and take the first \
             in Python"
        ),
        Relation::Aggregate => {
            let function = names.child.shape.aggregate.as_deref().unwrap_or("sum");
            format!(
                "probably annotate(value={}(\"{via}{word}__...\")) on {outer} (repeated: {table})",
                capital(function)
            )
        }
        _ => return None,
    })
}

/// Objects fetched one at a time.
fn fetched(relation: Relation, names: &Names<'_>) -> Option<String> {
    let Names { child, table, column, .. } = names;
    Some(match relation {
        Relation::GetPk => {
            format!("in_bulk(ids) of {table} once, instead of get(pk=...) in a loop")
        }
        Relation::Get if child.shape.equals.len() > 1 => {
            format!("filter({column}__in=values, ...) of {table} once, if it is {column} that differs each time")
        }
        Relation::Get => format!(
            "filter({column}__in=values) of {table} once, or in_bulk(values, field_name=\"{column}\") when it is unique"
        ),
        Relation::Settings => format!(
            "settings in {table} are read again and again: what reads them keeps them in Django's cache as a rule, so CACHES is \
             probably DummyCache or not set; configure a cache that lasts, or read them once a request"
        ),
        Relation::Deferred => {
            let columns = child.shape.columns.iter().map(|column| field(&column.name));
            let fields: Vec<&str> = columns.filter(|name| *name != "id").take(4).collect();
            format!("add \"{}\" to only(), or drop the defer(), where {table} is read first", fields.join("\", \""))
        }
        Relation::Prefetch => format!(
            "this is already a prefetch, run for one object at a time: prefetch_related() on the outer query, or \
             prefetch_related_objects(list, ...) once (repeated: {table})"
        ),
        Relation::GetOrCreate => format!(
            "filter({column}__in=values) of {table} once, then bulk_create(missing, ignore_conflicts=True), instead of \
             get_or_create() in a loop"
        ),
        _ if child.shape.operation == Operation::Select => {
            format!("read {table} once before the loop (filter(...__in=values) or annotate())")
        }
        _ => return None,
    })
}

/// Advice for a repeated write.
fn writing(relation: Relation, child: &Described) -> String {
    let table = child.table();
    match relation {
        Relation::Insert => {
            format!("bulk_create(objects, batch_size=1000) for {table}, instead of create() or save() in a loop")
        }
        Relation::Update => format!(
            "bulk_update(objects, [{}]) for {table}, or one filter(...).update(...), instead of save() in a loop",
            fields_of(&child.shape.set_columns)
        ),
        Relation::Delete => {
            format!("filter(pk__in=ids).delete() for {table}, instead of delete() in a loop")
        }
        Relation::Upsert | Relation::UpdateOrCreate => format!(
            "bulk_create(objects, update_conflicts=True, unique_fields=[...], update_fields=[...]) for {table}, instead of \
             update_or_create() in a loop"
        ),
        Relation::ManyToManyAdd => format!(
            "add(*objects) at once, or bulk_create(rows, ignore_conflicts=True) on the through model (table {table})"
        ),
        _ => format!("write {table} with one statement for many rows"),
    }
}

/// The first fields of an UPDATE, quoted: those that a save() wrote.
fn fields_of(columns: &[String]) -> String {
    let mut names: Vec<String> = columns.iter().take(4).map(|column| format!("\"{}\"", field(column))).collect();
    if columns.len() > names.len() {
        names.push("...".into());
    }
    names.join(", ")
}

fn duplicate(child: &Described) -> String {
    let table = child.table();
    if table == PERMISSIONS {
        format!("the permissions of one user were read again and again: ask request.user, which remembers {table}")
    } else if child.shape.has_where {
        format!("the same row of {table} was fetched again and again: keep the instance, or use cached_property")
    } else {
        format!("the same query of {table} was evaluated again and again: evaluate it once with list() and share it")
    }
}
