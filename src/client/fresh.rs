//! Prepared statements and a schema that changes.
//!
//! On a connection of its own a client whose prepared statement has come to give other columns hears 0A000 ("cached plan
//! must not change result type") at its next Bind, and prepares anew. Many drivers count on it: they remember what a
//! statement gives and do not ask again. Here the next Bind may be at a server that meets the text only now and
//! sees nothing wrong with it. So, in this order:
//! - a client that asks with every Bind (a Describe of the portal behind it, as libpq sends) gets the new statement at
//!   once, without an error: it cannot be misled;
//! - for any other, the statement must be the one it knows: either the server has had it since, and says 0A000 itself, or
//!   its shape is compared before anything is bound, and 0A000 is said in the server's place;
//! - whoever prepares a text anew gets a new statement once a change was seen: DDL that went by (or was rolled back: what was
//!   prepared in a transaction may mean what that had created), or such an error.

use std::sync::Arc;

use super::ahead::has;
use super::plan::Plan;
use super::session::Session;
use super::unnamed::UNNAMED;
use crate::server::{self, Server, Shape};
use crate::wire::cursor::Cursor;
use crate::wire::tag::{backend, frontend as tag};
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER, TxStatus, frame, names};

/// Registration of a Bind that is to fail because what it names has changed.
pub(super) const OUTDATED: u32 = u32::MAX;
/// Its statement at the server; there is none.
pub(super) const NO_STATEMENT: &[u8] = b"pgsluice_outdated";

/// What a Bind or Describe of a shared statement is to use.
pub(super) enum Chosen {
    /// This.
    Use(Arc<server::Statement>),
    /// It is being asked; the client waits.
    Wait,
    /// It has changed under the client.
    Outdated(Arc<server::Statement>),
}

impl Session {
    /// The state of the schema as this client sees it.
    pub(super) fn schema_now(&self) -> u32 {
        match &self.names {
            Some(names) if names.moment != 0 => names.moment,
            _ => self.pool.schema.now(),
        }
    }

    /// Which statement `name` means here and now, and the name's registration. `told`: the client is told its columns
    /// before it sees a row.
    pub(super) fn choose(
        &mut self,
        name: &[u8],
        told: bool,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
    ) -> Option<(Chosen, u32)> {
        let named = self.names.as_mut()?.get(name)?;
        let registration = named.registration;
        let mut shared = named.at_servers()?;
        let now = self.schema_now();
        let free = told || !shared.described();
        // What is skipped or refused anyway needs no look; and while it is skipped, nothing is answered.
        let tracker = &server.tracker;
        let refused = tracker.failing() || tracker.answered() && tracker.status() == TxStatus::Failed;
        if free
            && !refused
            && !shared.current(now)
            && let Some(new) = self.pool.shared.statements.again(&shared, &self.pool.schema, now)
        {
            self.names().renew(name, &new);
            shared = new;
        }
        if free || refused {
            return Some((Chosen::Use(shared), registration));
        }
        let held = has(shared.id, server);
        match server.statements.shape(shared.id).filter(|_| held) {
            Some(Shape::Same) => return Some((Chosen::Use(shared), registration)),
            Some(Shape::Other) => return Some((Chosen::Outdated(shared), registration)),
            Some(Shape::Asked(place)) if server.tracker.pending(place) => return Some((Chosen::Wait, registration)),
            _ => {}
        }
        self.ensure(&shared, server, plan, data);
        let out = plan.inject(data);
        names::put_statement(out, tag::DESCRIBE, &shared.name);
        frame::put(out, tag::FLUSH, |_| {});
        server.tracker.push(Entry { statement: shared.id, ..Entry::new(Request::Describe, Action::Skip) });
        server.statements.set_shape(shared.id, Shape::Asked(server.tracker.last_place()));
        Some((Chosen::Wait, registration))
    }

    /// A message of the answer to a Describe of a shared statement.
    pub(super) fn note_shape(&mut self, e: &Entry, t: u8, body: &[u8], len: usize, server: &mut Server) {
        if e.statement == UNNAMED {
            return self.note_unnamed(e, t, body, len, server);
        }
        let Some(statement) = server.statements.get(e.statement) else { return };
        let hash = shape(t, body, len);
        let same = if t == backend::PARAMETER_DESCRIPTION { statement.takes(hash) } else { statement.gives(hash) };
        let before = server.statements.shape(e.statement).unwrap_or_default();
        if t == backend::PARAMETER_DESCRIPTION {
            self.names().told = hash;
        }
        if !same {
            statement.outlive();
            server.statements.set_shape(e.statement, Shape::Other);
        } else if before != Shape::Other && t != backend::PARAMETER_DESCRIPTION {
            server.statements.set_shape(e.statement, Shape::Same);
        }
        if t != backend::PARAMETER_DESCRIPTION {
            let parameters = std::mem::take(&mut self.names().told);
            if e.action == Action::Forward && (!same || before == Shape::Other) {
                self.relearn(&statement, parameters, hash);
            }
        }
    }

    /// The client has just been told what the text means now: its name means that.
    fn relearn(&mut self, old: &server::Statement, parameters: u64, result: u64) {
        let now = self.schema_now();
        let Some(new) = self.pool.shared.statements.again(old, &self.pool.schema, now) else { return };
        if (parameters == 0 || new.takes(parameters)) && new.gives(result) {
            for (_, named) in self.names().all() {
                let instead = named.instead.as_mut().map(|(_, s)| s);
                for meant in named.shared.as_mut().into_iter().chain(instead).filter(|s| s.id == old.id) {
                    *meant = server::Registered::new(Arc::clone(&new));
                }
            }
        }
    }

    /// An error of a Bind, Describe or EXECUTE that tells that a statement has outlived the schema it was made under.
    pub(super) fn note_outlived(&mut self, e: &Entry, body: &[u8], server: &Server) -> bool {
        use crate::wire::error::{code, field};
        let about = matches!(e.request, Request::Bind | Request::Describe | Request::Query);
        let told = match &code(body) {
            // plancache.c; the same code says much else.
            b"0A000" => field(body, b'R') == Some(b"RevalidateCachedQuery"),
            // A type is gone ("cache lookup failed for type").
            b"XX000" => e.request != Request::Query,
            _ => false,
        };
        if !about || !told || e.statement == 0 {
            return false;
        }
        let named =
            || self.names().all().find(|(_, n)| n.is(e.statement)).and_then(|(_, n)| n.shared.as_deref().cloned());
        if let Some(s) = server.statements.get(e.statement).or_else(named) {
            s.outlive();
        }
        true
    }

    /// A statement was executed: whether it changed what others mean. Told by its command tag.
    pub(super) fn note_schema(&mut self, body: &[u8]) {
        if !matches!(body.first(), Some(b'A' | b'C' | b'D' | b'R')) {
            return;
        }
        if changes_schema(body) {
            // A session that has temporary tables drops those.
            if !(self.pins.may_have_temp() && body == b"DROP TABLE\0") {
                let moment = self.pool.schema.moment();
                self.names().moment = moment;
            }
        } else if body == b"ROLLBACK\0" {
            self.created_undone();
        } else if body.starts_with(b"CREATE ") && self.shares_statements() {
            self.names().created = true;
        }
    }

    /// What the transaction has created is gone again, or will be: an error, a ROLLBACK (perhaps to a savepoint), a client
    /// that left.
    #[inline]
    pub(super) fn created_undone(&mut self) {
        if let Some(names) = &mut self.names
            && names.created
        {
            names.moment = self.pool.schema.moment();
        }
    }

    /// The transaction is over, or given up: what it changed is seen by others from now on.
    pub(super) fn publish_schema(&mut self) {
        if let Some(names) = &mut self.names {
            names.created = false;
            if std::mem::take(&mut names.moment) != 0 {
                self.pool.schema.changed();
            }
        }
    }
}

/// Whether a Describe of the portal follows at `at`, so that the client is told the columns.
pub(super) fn described_next(data: &[u8], at: usize, portal: &[u8]) -> bool {
    let rest = data.get(at..).unwrap_or_default();
    match Frame::peek(rest) {
        Ok(Some(f)) if f.tag == tag::DESCRIBE && f.len <= rest.len() => {
            matches!(names::Target::read(&rest[HEADER..f.len]), Ok(names::Target::Portal(p)) if p == portal)
        }
        _ => false,
    }
}

/// What PostgreSQL says itself (plancache.c, RevalidateCachedQuery).
pub(super) fn outdated_error(out: &mut Vec<u8>) {
    frame::put(out, backend::ERROR, |b| {
        for (field, value) in [
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', "0A000"),
            (b'M', "cached plan must not change result type"),
            (b'F', "plancache.c"),
            (b'R', "RevalidateCachedQuery"),
        ] {
            b.push(field);
            b.extend_from_slice(value.as_bytes());
            b.push(0);
        }
        b.push(0);
    });
}

/// Command tags of what can make a statement give something else. CREATE of what was not there cannot, but for a
/// search path, which errors tell; CREATE OR REPLACE VIEW can.
fn changes_schema(tag: &[u8]) -> bool {
    const KINDS: [&[u8]; 12] = [
        b"TABLE\0",
        b"VIEW\0",
        b"MATERIALIZED VIEW\0",
        b"FOREIGN TABLE\0",
        b"TYPE\0",
        b"DOMAIN\0",
        b"FUNCTION\0",
        b"AGGREGATE\0",
        b"OPERATOR\0",
        b"CAST\0",
        b"SCHEMA\0",
        b"EXTENSION\0",
    ];
    match tag {
        b"CREATE VIEW\0" | b"DROP OWNED\0" | b"COMMIT PREPARED\0" | b"ROLLBACK PREPARED\0" => true,
        _ => {
            tag.strip_prefix(b"ALTER ").or_else(|| tag.strip_prefix(b"DROP ")).is_some_and(|kind| KINDS.contains(&kind))
        }
    }
}

/// Hash of what a ParameterDescription, RowDescription or NoData says, without what may differ for the same columns: OID
/// and number of the table's column (a table made anew), format. Of one that is not here as a whole, its length.
pub(super) fn shape(t: u8, body: &[u8], len: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut h = foldhash::fast::FixedState::default().build_hasher();
    h.write_u8(t);
    if body.len() + HEADER < len || t != backend::ROW_DESCRIPTION {
        h.write_usize(len);
    }
    if body.len() + HEADER == len {
        match t {
            backend::PARAMETER_DESCRIPTION => h.write(body),
            backend::ROW_DESCRIPTION => {
                let mut c = Cursor::new(body);
                let _ = c.u16();
                while let (Ok(name), Ok(fixed)) = (c.cstr(), c.bytes(18)) {
                    h.write(name);
                    h.write(&fixed[6..16]);
                }
            }
            _ => {}
        }
    }
    h.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_schema_is_told_by_its_tag() {
        for tag in ["ALTER TABLE", "DROP TYPE", "CREATE VIEW", "DROP SCHEMA", "ALTER MATERIALIZED VIEW"] {
            assert!(changes_schema(format!("{tag}\0").as_bytes()), "{tag}");
        }
        for tag in ["CREATE TABLE", "ALTER ROLE", "DROP INDEX", "DELETE 5", "COPY 5", "DISCARD ALL", "DEALLOCATE"] {
            assert!(!changes_schema(format!("{tag}\0").as_bytes()), "{tag}");
        }
    }

    fn row_description(name: &str, oid: u32, typ: u32, format: u8) -> Vec<u8> {
        let mut body = vec![0, 1];
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(oid.to_be_bytes());
        body.extend([0, 1]);
        body.extend(typ.to_be_bytes());
        body.extend([0, 4, 0xff, 0xff, 0xff, 0xff, 0, format]);
        body
    }

    #[test]
    fn a_shape_is_names_and_types() {
        let of = |body: Vec<u8>| shape(b'T', &body, body.len() + HEADER);
        let a = of(row_description("id", 1, 23, 0));
        assert_eq!(a, of(row_description("id", 2, 23, 1)), "another table, the other format");
        assert_ne!(a, of(row_description("id", 1, 25, 0)));
        assert_ne!(a, of(row_description("ie", 1, 23, 0)));
        assert_ne!(shape(b'n', b"", 5), shape(b't', b"", 5));
    }

    #[test]
    fn a_describe_of_the_portal_is_seen_when_it_is_there() {
        let mut data = vec![b'D', 0, 0, 0, 7, b'P', b'p', 0];
        assert!(described_next(&data, 0, b"p") && !described_next(&data, 0, b""));
        data[5] = b'S';
        assert!(!described_next(&data, 0, b"p"));
        assert!(!described_next(&data[..6], 0, b"p"));
    }
}
