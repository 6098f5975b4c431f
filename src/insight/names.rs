//! How Django probably calls what a table or a column is: models, fields, related names. Right under its defaults.

use super::advice::bare;

/// The model of a table: `shop_book` is `Book`.
pub(crate) fn model(table: &str) -> String {
    bare(table).split('_').map(capital).collect()
}

/// The field of a column: `customer_id` is `customer`.
pub(crate) fn field(column: &str) -> &str {
    column.strip_suffix("_id").filter(|stem| !stem.is_empty()).unwrap_or(column)
}

/// The word with a capital letter.
pub(crate) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `category` as `categories`: how a many-to-many field is probably called.
pub(crate) fn plural(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if word.ends_with('s') => format!("{word}es"),
        _ => format!("{word}s"),
    }
}
