//! Whether one SELECT's rows hold the key that another looks up: what tells a loop's list from a list that happens to
//! have as many rows. By Django's default names, as in [`super::advice`]; allocates nothing.

use super::advice::{bare, is_key};
use super::describe::Described;
use crate::sql::Column;

/// What names say about two statements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Bond {
    None,
    /// A foreign key is called by its role (`owner_id`), which may be the table meant; or names cannot be read.
    Maybe,
    /// The rows hold the key that is looked up.
    Tied,
}

/// Whether the rows of `list` hold a key that `child` compares, as far as names tell.
/// `is_model` tells whether some table is called so.
pub(crate) fn bond(child: &Described, list: &Described, is_model: impl Fn(&str) -> bool) -> Bond {
    let shape = &child.shape;
    let keys = shape.equals.iter().chain(&shape.in_lists);
    keys.map(|key| holds(list, key, child.table(), &is_model)).max().unwrap_or(Bond::Maybe)
}

/// Whether the rows of `list` hold the value that is compared with `key`, a column of `table` where it does not say.
fn holds(list: &Described, key: &Column, table: &str, is_model: &impl Fn(&str) -> bool) -> Bond {
    let table = if key.table.is_empty() { table } else { &key.table };
    if is_key(&key.name) {
        // The row itself was read before (a list of ids, a deferred column), or a row that refers to it.
        if list.table() == table || references(list).any(|stem| called(table, stem)) {
            return Bond::Tied;
        }
        let role = |stem: &str| !list.tables.iter().any(|known| called(known, stem));
        return if references(list).any(role) { Bond::Maybe } else { Bond::None };
    }
    let tied = match key.name.strip_suffix("_id") {
        // The rows that are referred to were read, by themselves or joined; or others with the same reference.
        Some(stem) => {
            let joined = |column: &Column| is_key(&column.name) && called(&column.table, stem);
            called(list.table(), stem) || columns(list).any(|column| column.name == key.name || joined(column))
        }
        // A value, looked up by name: `email`, `slug`. Both must call it so.
        None => columns(list).any(|column| column.name == key.name),
    };
    let role = key.name.strip_suffix("_id").is_some_and(|stem| !is_model(stem));
    if tied {
        Bond::Tied
    } else if role || list.shape.star {
        Bond::Maybe
    } else {
        Bond::None
    }
}

/// Columns of the rows, and of the rows joined to them (select_related). Not those that the list was itself looked up by: every row has the same value there,
/// or one of those that a list before it had (a prefetch).
pub(super) fn columns(list: &Described) -> impl Iterator<Item = &Column> {
    let shape = &list.shape;
    let given = |column: &Column| shape.equals.iter().chain(&shape.in_lists).any(|key| key.name == column.name);
    shape.columns.iter().filter(move |column| !given(column))
}

/// Foreign keys among the rows' columns, without `_id`.
fn references(list: &Described) -> impl Iterator<Item = &str> {
    columns(list).filter_map(|column| column.name.strip_suffix("_id"))
}

/// Whether `table` is called as a foreign key to it probably is: `shop_book` by `book`, `home_address` by `address`.
pub(super) fn called(table: &str, stem: &str) -> bool {
    let model = bare(table);
    same(model, stem) || word_ends(model, stem) || word_ends(stem, model)
}

/// Equal but for underscores: the model ProductClass is `productclass`, its key `product_class_id`.
fn same(a: &str, b: &str) -> bool {
    !b.is_empty() && a.bytes().filter(|c| *c != b'_').eq(b.bytes().filter(|c| *c != b'_'))
}

fn word_ends(name: &str, word: &str) -> bool {
    !word.is_empty() && name.strip_suffix(word).is_some_and(|rest| rest.ends_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::Text;
    use crate::sql::{LexSettings, RawSql, Statement};

    fn of(child: &str, list: &str) -> Bond {
        let lex = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
        let described = |sql: &str| Described::new(&Statement::default(), Text { sql: RawSql(sql.as_bytes()), lex });
        bond(&described(child), &described(list), |name| name != "writer")
    }

    #[test]
    fn rows_hold_the_key_or_do_not() {
        let author = r#"SELECT "shop_author"."id" FROM "shop_author" WHERE "shop_author"."id" = 1 LIMIT 21"#;
        let of_author = r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."author_id" = 1"#;
        let class = r#"SELECT "shop_productclass"."id" FROM "shop_productclass" WHERE "shop_productclass"."id" = 1"#;
        let mail = r#"SELECT "shop_reader"."id" FROM "shop_reader" WHERE "shop_reader"."email" = 'x' LIMIT 21"#;
        let books = r#"SELECT "shop_book"."id", "shop_book"."author_id" FROM "shop_book""#;
        let authors = r#"SELECT "shop_author"."id", "shop_author"."email" FROM "shop_author""#;
        let tags = r#"SELECT "shop_tag"."id" FROM "shop_tag""#;
        let fetched = r#"SELECT "shop_book"."id", "shop_book"."author_id" FROM "shop_book" WHERE "shop_book"."author_id" IN (1, 2)"#;
        let products = r#"SELECT "shop_product"."id", "shop_product"."product_class_id" FROM "shop_product""#;
        for (child, list, expected) in [
            (author, books, true),
            (author, authors, true),
            (author, tags, false),
            // A prefetch: its keys were known before.
            (author, fetched, false),
            (of_author, authors, true),
            (of_author, books, true),
            (of_author, tags, false),
            (class, products, true),
            (class, books, false),
            (mail, authors, true),
            (mail, books, false),
        ] {
            assert_eq!(of(child, list) == Bond::Tied, expected, "{child}\n{list}");
        }
        let posts = r#"SELECT "blog_post"."id", "blog_post"."owner_id" FROM "blog_post""#;
        assert_eq!((of(author, posts), of(author, products)), (Bond::Maybe, Bond::Maybe));
        assert_eq!(of(of_author, posts), Bond::None);
        let of_writer = r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."writer_id" = 1"#;
        assert_eq!((of(of_writer, posts), of(of_author, tags)), (Bond::Maybe, Bond::None));
    }
}
