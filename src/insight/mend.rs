//! The mend as code: the line of Django that replaces the loop. Names are guessed as in [`super::advice`].

use super::advice::{Relation, bare, foreign_key, only_key};
use super::describe::Described;
use super::judge::Kind;
use super::names::{self, capital, field, plural};
use super::reach::{Reach, generic_key, looked_up, many_field, reach};

/// A cache for what libraries keep in the cache.
const SETTINGS: &str =
    r#"CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://..."}}"#;

/// The code for a finding; empty when a sentence is all there is to say.
pub(crate) fn snippet(kind: Kind, relation: Relation, child: Option<&Described>, parent: Option<&Described>) -> String {
    let Some(child) = child.filter(|child| !child.table().is_empty()) else {
        return String::new();
    };
    let model = names::model(child.table());
    if relation == Relation::Settings {
        return SETTINGS.to_owned();
    }
    if kind == Kind::Duplicate {
        return format!("rows = list({model}.objects.filter(...))  # once, then shared");
    }
    let outer =
        parent.map_or_else(|| "queryset".to_owned(), |parent| format!("{}.objects", names::model(parent.table())));
    let word = bare(child.table()).replace('_', "");
    let column = looked_up(child, parent).map_or("id", |column| field(&column.name));
    let reach = reach(child, parent);
    read(relation, child, parent, &Words { model: &model, outer: &outer, word: &word, column, reach })
        .unwrap_or_else(|| write(relation, child, &model))
}

struct Words<'a> {
    model: &'a str,
    outer: &'a str,
    word: &'a str,
    column: &'a str,
    reach: Reach<'a>,
}

fn read(relation: Relation, child: &Described, parent: Option<&Described>, words: &Words<'_>) -> Option<String> {
    let Words { model, outer, word, column, reach: Reach { back, prefix: via, outer: own } } = words;
    Some(match relation {
        Relation::Fk => {
            let own =
                parent.and_then(|parent| foreign_key(parent, child).or_else(|| only_key(parent).map(str::to_owned)));
            format!("{outer}.select_related(\"{}\")", own.as_deref().unwrap_or(word))
        }
        Relation::OneToOne => format!("{outer}.select_related(\"{via}{word}\")"),
        Relation::ReverseFk => format!("{outer}.prefetch_related(\"{via}{word}_set\")"),
        Relation::FilteredReverseFk => format!(
            "{outer}.prefetch_related(\n    Prefetch(\"{via}{word}_set\", queryset={model}.objects.filter(...), to_attr=\"{word}_list\")\n)"
        ),
        Relation::ManyToMany => {
            let name = many_field(child).map_or_else(|| plural(word), str::to_owned);
            format!("{outer}.prefetch_related(\"{via}{name}\")")
        }
        Relation::GenericRelation => format!("{outer}.prefetch_related(\"{}\")", plural(word)),
        Relation::GenericFk => {
            let name = parent.and_then(generic_key).unwrap_or("content_object");
            format!("{outer}.prefetch_related(\"{name}\")")
        }
        Relation::Count => format!("{outer}.annotate(n=Count(\"{via}{word}\", distinct=True))"),
        Relation::Exists => {
            format!("{outer}.annotate(\n    has_{word}=Exists({model}.objects.filter({back}=OuterRef(\"{own}\")))\n)")
        }
        Relation::First => format!(
            "{outer}.annotate(\n    latest=Subquery({model}.objects.filter({back}=OuterRef(\"{own}\")).order_by(...).values(\"pk\")[:1])\n)"
        ),
        Relation::Aggregate => {
            let function = child.shape.aggregate.as_deref().unwrap_or("sum");
            format!("{outer}.annotate(value={}(\"{via}{word}__...\"))", capital(function))
        }
        Relation::GetPk => format!("{word}_by_id = {model}.objects.in_bulk(ids)"),
        Relation::Get if child.shape.equals.len() > 1 => format!("{model}.objects.filter({column}__in=values, ...)"),
        Relation::Get => format!("{model}.objects.filter({column}__in=values)"),
        Relation::Deferred => {
            let columns = child.shape.columns.iter().map(|column| field(&column.name));
            let fields: Vec<_> = columns.filter(|name| *name != "id").take(4).collect();
            format!("{model}.objects.only(..., \"{}\")", fields.join("\", \""))
        }
        Relation::Prefetch => format!("prefetch_related_objects(objects, \"{word}_set\")  # once, for all objects"),
        _ => return None,
    })
}

fn write(relation: Relation, child: &Described, model: &str) -> String {
    match relation {
        Relation::GetOrCreate => format!("{model}.objects.bulk_create(missing, ignore_conflicts=True)"),
        Relation::Insert => format!("{model}.objects.bulk_create(objects, batch_size=1000)"),
        Relation::Update => {
            let fields: Vec<_> = child.shape.set_columns.iter().take(4).map(|name| field(name)).collect();
            format!("{model}.objects.bulk_update(objects, [\"{}\"], batch_size=1000)", fields.join("\", \""))
        }
        Relation::Delete => format!("{model}.objects.filter(pk__in=ids).delete()"),
        Relation::Upsert | Relation::UpdateOrCreate => format!(
            "{model}.objects.bulk_create(\n    objects, update_conflicts=True, unique_fields=[...], update_fields=[...]\n)"
        ),
        Relation::ManyToManyAdd => "instance.relation.add(*objects)".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::Text;
    use crate::sql::{LexSettings, RawSql, Statement};

    fn described(sql: &str) -> Described {
        let lex = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
        Described::new(&Statement::default(), Text { sql: RawSql(sql.as_bytes()), lex })
    }

    #[test]
    fn the_code_names_models_and_fields() {
        let books = described(r#"SELECT "shop_book"."id", "shop_book"."author_id" FROM "shop_book""#);
        let author = described(r#"SELECT "shop_author"."id" FROM "shop_author" WHERE "shop_author"."id" = 1 LIMIT 21"#);
        let of_author = described(r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."author_id" = 1"#);
        let category = described(r#"SELECT "shop_category"."id" FROM "shop_category""#);
        let save = described(r#"UPDATE "shop_book" SET "title" = 'x', "author_id" = 2 WHERE "shop_book"."id" = 1"#);
        for (kind, relation, child, parent, code) in [
            (Kind::NPlusOne, Relation::Fk, &author, Some(&books), r#"Book.objects.select_related("author")"#),
            (
                Kind::NPlusOne,
                Relation::ReverseFk,
                &of_author,
                Some(&author),
                r#"Author.objects.prefetch_related("book_set")"#,
            ),
            (Kind::NPlusOne, Relation::Count, &of_author, None, r#"queryset.annotate(n=Count("book", distinct=True))"#),
            (Kind::NPlusOne, Relation::GetPk, &author, None, "author_by_id = Author.objects.in_bulk(ids)"),
            (
                Kind::WriteLoop,
                Relation::Update,
                &save,
                None,
                r#"Book.objects.bulk_update(objects, ["title", "author"], batch_size=1000)"#,
            ),
            (
                Kind::NPlusOne,
                Relation::ManyToMany,
                &category,
                Some(&books),
                r#"Book.objects.prefetch_related("categories")"#,
            ),
            (Kind::WriteLoop, Relation::Other, &save, None, ""),
        ] {
            assert_eq!(snippet(kind, relation, Some(child), parent), code, "{relation:?}");
        }
        assert_eq!(snippet(Kind::NPlusOne, Relation::Fk, None, None), "");
    }
}
