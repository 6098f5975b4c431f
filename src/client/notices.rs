//! Notices that a client would have got at a direct login: of the server's login, and of its own parameters.

use super::application;
use crate::config::PoolMode;
use crate::pool::Pool;
use crate::server::{ParamSet, Server};
use crate::wire::error::{ErrorFields, field, sqlstate};
use crate::wire::tag::backend as tag;
use crate::wire::{Severity, control, frame};

/// What a client that logs in with `startup` is told. `server`: its own, in session pooling.
pub(super) fn greet(out: &mut Vec<u8>, pool: &Pool, startup: &ParamSet, server: Option<&Server>) {
    if pool.settings.pool_mode == PoolMode::Session {
        return put(out, server.map_or(&[], |s| &s.notices), startup);
    }
    put(out, &pool.welcomes.notices(&startup.without("application_name")), startup);
    // Servers are asked without the name of the application, which may be another for each client.
    if let Some(name) = startup.get("application_name")
        && name.len() > application::MAX_IDENTIFIER
        && !quiet(startup)
    {
        let message = format!("identifier \"{name}\" will be truncated to \"{}\"", application::cut(name));
        let fields = ErrorFields::error(sqlstate::NAME_TOO_LONG, message);
        control::error(out, &ErrorFields { severity: Severity::Notice, ..fields });
    }
}

/// Notices as they came. PostgreSQL checks the database, which may warn, before it looks at the client's parameters;
/// what it says after that is as loud as they want.
pub(super) fn put(out: &mut Vec<u8>, notices: &[Box<[u8]>], startup: &ParamSet) {
    let quiet = quiet(startup);
    for body in notices.iter().filter(|body| !quiet || field(body, b'V') == Some(b"WARNING")) {
        frame::put(out, tag::NOTICE, |b| b.extend_from_slice(body));
    }
}

/// Whether the client wants no NOTICE.
fn quiet(startup: &ParamSet) -> bool {
    let least = startup.get("client_min_messages").map(str::to_ascii_lowercase);
    matches!(least.as_deref(), Some("warning" | "error" | "fatal" | "panic"))
}
