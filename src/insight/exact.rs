//! Advice where foreign keys decide: what is probable by names becomes certain by a database's catalogue.
//!
//! Which key it is, which table it leads to, whether one row or many stand behind it, whether it may be NULL: that is
//! known. Fields are called as Django calls them by default; the name of a reverse relation no database knows, so it is
//! said to be the default one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::advice::{Relation, bare};
use super::describe::Described;
use super::judge::Kind;
use super::names::{field, model};
use super::{Insight, MAX_DATABASES, wording};
use crate::catalog::{Catalog, ForeignKey, Table};
use crate::sql::Limit;

/// Catalogues by database.
#[derive(Default)]
pub(crate) struct Catalogs(RwLock<HashMap<Arc<str>, Arc<Catalog>>>);

impl Insight {
    /// Takes what is known of a database's schema now.
    pub fn set_catalog(&self, database: &Arc<str>, catalog: Arc<Catalog>) {
        let mut known = self.catalogs.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_DATABASES || known.contains_key(database) {
            known.insert(Arc::clone(database), catalog);
        }
    }

    /// What is known of a database's schema.
    pub fn catalog(&self, database: &str) -> Option<Arc<Catalog>> {
        self.catalogs.0.read().unwrap_or_else(PoisonError::into_inner).get(database).cloned()
    }
}

/// Certain advice.
pub(crate) struct Exact {
    /// What it really is.
    pub(crate) relation: Relation,
    pub(crate) advice: String,
    pub(crate) mend: String,
}

/// Advice for the statements of a loop, the one judged first; `None`: names must do.
pub(crate) fn exact(
    kind: Kind,
    relation: Relation,
    texts: &[Arc<Described>],
    parent: Option<&Described>,
    catalog: &Catalog,
) -> Option<Exact> {
    if !matches!(kind, Kind::NPlusOne | Kind::Chain) {
        return None;
    }
    let (first, others) = texts.split_first()?;
    let holders: Vec<&Described> = parent.into_iter().chain(texts.iter().map(|text| &**text)).collect();
    let judge = |relation, child| Judge { catalog, parent, holders: &holders, child }.exact(relation);
    let mut exact = judge(relation, first)?;
    for other in others {
        // Half a chain that is certain is none.
        let more = judge(super::advice::relation(other, parent, &holders), other)?;
        if !exact.advice.contains(&more.advice) {
            exact.advice.push_str("; and ");
            exact.advice.push_str(&more.advice);
        }
    }
    Some(exact)
}

struct Judge<'a> {
    catalog: &'a Catalog,
    parent: Option<&'a Described>,
    holders: &'a [&'a Described],
    child: &'a Described,
}

impl<'a> Judge<'a> {
    fn table(&self, of: &Described, at: usize) -> Option<(usize, &'a Table)> {
        let named = of.shape.tables.get(at)?;
        let place = self.catalog.place(named.schema.as_deref(), &named.name)?;
        Some((place, self.catalog.at(place)))
    }

    fn exact(&self, relation: Relation) -> Option<Exact> {
        use Relation::{
            Aggregate, Count, Exists, FilteredReverseFk, First, Fk, GenericFk, GetPk, ManyToMany, OneToOne, ReverseFk,
        };
        match relation {
            // A foreign key called by its role, beside a generic one: the catalogue knows it.
            Fk | GetPk | GenericFk => self.forward(),
            OneToOne | ReverseFk | FilteredReverseFk => self.reverse(relation),
            Count | Exists | First | Aggregate => self.computed(relation),
            ManyToMany => self.many(),
            _ => None,
        }
    }

    /// `book.author`: the loop's rows hold a foreign key to the child.
    fn forward(&self) -> Option<Exact> {
        let (place, target) = self.table(self.child, 0)?;
        let by = &self.child.shape.equals.first()?.name;
        let others = self.holders.iter().filter(|holder| holder.table() != self.child.table());
        let (holder, paths) =
            others.map(|holder| (holder, self.paths(holder, place, by))).find(|(_, p)| !p.is_empty())?;
        let mut fields: Vec<String> = paths.iter().map(|(path, ..)| format!("\"{path}\"")).collect();
        fields.dedup();
        let fields = fields.join(", ");
        let known: Vec<String> = paths
            .iter()
            .map(|(_, table, key)| {
                let one = if table.is_unique(&key.column) { " and unique (one to one)" } else { "" };
                let join = match table.column(&key.column) {
                    Some(column) if column.not_null => "NOT NULL, so an INNER JOIN",
                    _ => "may be NULL, so a LEFT JOIN",
                };
                format!("{}.{} references {}.{by}{one}, {join}", table.name, key.column, target.name)
            })
            .collect();
        let ids: Vec<String> = paths.iter().map(|(path, ..)| format!("obj.{}_id", path.replace("__", "."))).collect();
        Some(Exact {
            relation: Relation::Fk,
            advice: format!(
                "select_related({fields}) on the query of {}: {}; if only the id is needed, {}",
                holder.table(),
                known.join("; "),
                ids.join(", ")
            ),
            mend: format!("{}.objects.select_related({fields})", model(holder.table())),
        })
    }

    /// The foreign keys to a column that a statement's rows hold, with their paths from its own table.
    fn paths(&self, holder: &Described, to: usize, by: &str) -> Vec<(String, &'a Table, &'a ForeignKey)> {
        let shape = &holder.shape;
        let Some((_, own)) = self.table(holder, 0) else { return Vec::new() };
        let mut found = Vec::new();
        for at in 0..shape.tables.len() {
            let Some((place, table)) = self.table(holder, at) else { continue };
            let named = &shape.tables[at];
            let selected = |name: &str| {
                let of = |table: &str| {
                    table == named.name || named.alias.as_deref() == Some(table) || (table.is_empty() && at == 0)
                };
                shape.columns.iter().any(|column| column.name == *name && of(&column.table)) || (shape.star && at == 0)
            };
            // What is joined must be reached from the own table by one key, else there is no path to name.
            let mut ways = own.foreign_keys.iter().filter(|key| key.to == place);
            let prefix = match (at, ways.next(), ways.next()) {
                (0, ..) => String::new(),
                (_, Some(way), None) => format!("{}__", field(&way.column)),
                _ => continue,
            };
            let keys = table.foreign_keys.iter().filter(|key| key.to == to && *key.to_column == *by);
            found.extend(
                keys.filter(|key| selected(&key.column))
                    .map(|key| (format!("{prefix}{}", field(&key.column)), table, key)),
            );
        }
        found
    }

    /// The key of the child that leads back to the loop's rows: the child's table, the key, the table it leads to.
    fn back(&self) -> Option<(&'a Table, &'a ForeignKey, &'a Table)> {
        let (_, table) = self.table(self.child, 0)?;
        let shape = &self.child.shape;
        let own = shape.equals.iter().chain(&shape.in_lists).filter(|column| {
            column.table.is_empty()
                || column.table == *table.name
                || shape.tables[0].alias.as_ref() == Some(&column.table)
        });
        let leads = |key: &&ForeignKey| self.prefix(key.to).is_some();
        let mut keys = own.filter_map(|column| table.foreign_key(&column.name)).filter(leads);
        let key = keys.next()?;
        // Two that lead there: which one the loop follows is not known.
        keys.next().is_none().then(|| (table, key, self.catalog.at(key.to)))
    }

    /// What stands before a related name of a table, seen from the loop's rows: nothing when they are its own, `order__`
    /// when one key of theirs leads there; `None`: they do not reach it.
    fn prefix(&self, place: usize) -> Option<String> {
        let Some(parent) = self.parent else { return Some(String::new()) };
        let (own_place, own) = self.table(parent, 0)?;
        if own_place == place {
            return Some(String::new());
        }
        let shape = &parent.shape;
        let ours = |table: &str| table.is_empty() || table == parent.table();
        let held = |name: &str| shape.columns.iter().any(|column| column.name == name && ours(&column.table));
        let mut ways = own.foreign_keys.iter().filter(|key| key.to == place && (shape.star || held(&key.column)));
        let way = ways.next()?;
        ways.next().is_none().then(|| format!("{}__", field(&way.column)))
    }

    /// The table whose query the relation is asked of: the loop's, where it reaches the owner's through a key.
    fn asked<'b>(&'b self, owner: &'b Table, via: &str) -> &'b str {
        self.parent.filter(|_| !via.is_empty()).map_or(&*owner.name, Described::table)
    }

    /// `author.book_set`, `user.profile`.
    fn reverse(&self, relation: Relation) -> Option<Exact> {
        let (table, key, owner) = self.back()?;
        let word = bare(&table.name).replace('_', "");
        let known = format!("{}.{} references {}.{}", table.name, key.column, owner.name, key.to_column);
        let via = self.prefix(key.to)?;
        let outer = self.asked(owner, &via);
        let manager = model(outer);
        let unless = "unless the model sets related_name";
        if table.is_unique(&key.column) && self.child.shape.limit == Limit::TwentyOne {
            return Some(Exact {
                relation: Relation::OneToOne,
                advice: format!(
                    "select_related(\"{via}{word}\") on the query of {outer}: {known} and is unique, so it is one to one, by a LEFT \
                     JOIN; it is called {word} {unless}"
                ),
                mend: format!("{manager}.objects.select_related(\"{via}{word}\")"),
            });
        }
        let called = format!("{known}, with many rows for one; it is called {word}_set {unless}");
        if relation == Relation::FilteredReverseFk {
            return Some(Exact {
                relation,
                advice: format!(
                    "prefetch_related(Prefetch(\"{via}{word}_set\", queryset=..., to_attr=\"...\")) on the query of {outer}, the \
                     filter in its queryset: {called}; a .filter() on the related manager does not use a plain prefetch"
                ),
                mend: format!(
                    "{manager}.objects.prefetch_related(\n    Prefetch(\"{via}{word}_set\", queryset={}.objects.filter(...), to_attr=\"{word}_list\")\n)",
                    model(&table.name)
                ),
            });
        }
        Some(Exact {
            relation: Relation::ReverseFk,
            advice: format!("prefetch_related(\"{via}{word}_set\") on the query of {outer}: {called}"),
            mend: format!("{manager}.objects.prefetch_related(\"{via}{word}_set\")"),
        })
    }

    /// `.count()` and its kin, by a foreign key.
    fn computed(&self, relation: Relation) -> Option<Exact> {
        let (table, key, owner) = self.back()?;
        let probable = wording::advice(Kind::NPlusOne, relation, &[self.child], self.parent);
        let certain = probable.strip_prefix("probably ")?;
        Some(Exact {
            relation,
            advice: format!(
                "{certain}; {}.{} references {}.{}, and related_name, where the model sets it, is its name there",
                table.name, key.column, owner.name, key.to_column
            ),
            mend: super::mend::snippet(Kind::NPlusOne, relation, Some(self.child), self.parent),
        })
    }

    /// `book.tags.all()`.
    fn many(&self) -> Option<Exact> {
        let (place, target) = self.table(self.child, 0)?;
        let by = self.child.shape.equals.first()?;
        let named = self
            .child
            .shape
            .tables
            .iter()
            .find(|table| table.name == by.table || table.alias.as_ref() == Some(&by.table))?;
        let through = self.catalog.table(named.schema.as_deref(), &named.name)?;
        let here = through.foreign_key(&by.name)?;
        let via = self.prefix(here.to)?;
        let mut there = through.foreign_keys.iter().filter(|key| key.to == place && key.column != here.column);
        there.next().filter(|_| there.next().is_none())?;
        let owner = self.catalog.at(here.to);
        let outer = self.asked(owner, &via);
        let after = |table: &Table| through.name.strip_prefix(&*table.name)?.strip_prefix('_').map(str::to_owned);
        let word = bare(&target.name).replace('_', "");
        // Django calls the table of a ManyToManyField by the model's table and the field.
        let (name, called) = match (after(owner), after(target)) {
            (Some(field), _) => (field, String::new()),
            (None, Some(_)) => {
                (format!("{word}_set"), format!("; it is called {word}_set unless the field sets related_name"))
            }
            (None, None) => return None,
        };
        Some(Exact {
            relation: Relation::ManyToMany,
            advice: format!(
                "prefetch_related(\"{via}{name}\") on the query of {outer}: {} joins {} to {} by foreign keys{called}",
                through.name, owner.name, target.name
            ),
            mend: format!("{}.objects.prefetch_related(\"{via}{name}\")", model(outer)),
        })
    }
}
