//! What each statement means: SHOW, what drivers say by themselves, and what is refused.

use super::parse::{self, Token};
use super::show;
use super::table::{Table, row};
use crate::client::Process;
use crate::wire::error::{ErrorFields, Severity, sqlstate};
use crate::wire::tag::backend;
use crate::wire::{control, frame};

/// What a console user may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// SHOW only (`stats_users`).
    Look,
    /// Everything (`admin_users`).
    Admin,
}

/// Commands of PgBouncer's console that act.
const ACTIONS: [&str; 12] = [
    "PAUSE",
    "RESUME",
    "RECONNECT",
    "RELOAD",
    "KILL",
    "KILL_CLIENT",
    "DISABLE",
    "ENABLE",
    "SUSPEND",
    "SHUTDOWN",
    "WAIT_CLOSE",
    "SET",
];

/// What drivers ask and set by themselves when they connect; values that are always so.
const PARAMETERS: [(&str, &str); 11] = [
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("timezone", "UTC"),
    ("intervalstyle", "postgres"),
    ("standard_conforming_strings", "on"),
    ("application_name", ""),
    ("client_min_messages", "notice"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("transaction_isolation", "read committed"),
];

/// Runs the statements of one Query message (`body`: text and its closing NUL) up to the first error and appends their
/// answers, without ReadyForQuery.
pub fn run(process: &Process, rights: Rights, body: &[u8], in_transaction: &mut bool, out: &mut Vec<u8>) {
    let text = body.strip_suffix(&[0]).and_then(|b| std::str::from_utf8(b).ok());
    let Some(text) = text else {
        let fields = ErrorFields::error(sqlstate::PROTOCOL_VIOLATION, "invalid query text");
        return control::error(out, &fields);
    };
    let statements = match parse::statements(text) {
        Ok(statements) => statements,
        Err(fields) => return control::error(out, &fields),
    };
    if statements.is_empty() {
        frame::put(out, backend::EMPTY_QUERY, |_| {});
    }
    for statement in &statements {
        if let Err(fields) = one(process, rights, statement, in_transaction, out) {
            return control::error(out, &fields);
        }
    }
}

fn one(
    process: &Process,
    rights: Rights,
    statement: &[Token],
    in_transaction: &mut bool,
    out: &mut Vec<u8>,
) -> Result<(), ErrorFields> {
    let Some((verb, rest)) = statement.split_first() else {
        return Ok(());
    };
    // Drivers begin by themselves; there is nothing here that a transaction could protect.
    for (words, tag, begins) in [
        (&["BEGIN", "START"][..], "BEGIN", true),
        (&["COMMIT", "END"], "COMMIT", false),
        (&["ROLLBACK", "ABORT"], "ROLLBACK", false),
    ] {
        if words.iter().any(|w| verb.is(w)) {
            *in_transaction = begins;
            control::command_complete(out, tag);
            return Ok(());
        }
    }
    if verb.is("SHOW") || verb.is("SELECT") {
        return show_one(process, statement, rest, out);
    }
    if verb.is("SET") && sets_parameter(rest) {
        control::command_complete(out, "SET");
        return Ok(());
    }
    let Some(action) = ACTIONS.iter().find(|a| verb.is(a)) else {
        return Err(invalid(statement));
    };
    if rights == Rights::Look {
        return Err(ErrorFields::error(sqlstate::INSUFFICIENT_PRIVILEGE, "admin access needed"));
    }
    if *action == "RELOAD" && rest.is_empty() {
        return match process.reload() {
            Ok(()) => {
                control::command_complete(out, "RELOAD");
                Ok(())
            }
            Err(message) => Err(ErrorFields::error(sqlstate::CONFIG_FILE, message)
                .hint("What cannot be used is as it was before; the rest was read again.")),
        };
    }
    Err(ErrorFields::error(sqlstate::NOT_SUPPORTED, format!("{action} is not built yet: nothing was changed")).hint(
        "The console has SHOW and RELOAD so far; SHOW HELP lists them. SIGTERM drains; other changes need a restart.",
    ))
}

fn show_one(process: &Process, statement: &[Token], rest: &[Token], out: &mut Vec<u8>) -> Result<(), ErrorFields> {
    if let [what] = rest {
        if what.is("HELP") {
            help(out);
            return Ok(());
        }
        let known = |(name, _): &&(&str, &str)| what.name().is_some_and(|w| w.eq_ignore_ascii_case(name));
        if let Some((name, value)) = PARAMETERS.iter().find(known) {
            let mut table = Table::new(name);
            table.push(row![*value]);
            table.write(out);
            return Ok(());
        }
    }
    match show::table(process, rest)? {
        Some(table) => table.write(out),
        None => return Err(invalid(statement)),
    }
    Ok(())
}

/// `[SESSION | LOCAL] name {= | TO} ...`, `TIME ZONE ...`, `NAMES ...` of a parameter that drivers set.
fn sets_parameter(rest: &[Token]) -> bool {
    let rest = match rest.split_first() {
        Some((first, rest)) if first.is("SESSION") || first.is("LOCAL") => rest,
        _ => rest,
    };
    match rest {
        [time, zone, _, ..] if time.is("TIME") && zone.is("ZONE") => true,
        [names, _] if names.is("NAMES") => true,
        [Token::Word(name), to, ..] if to.is("TO") || *to == Token::Symbol('=') => {
            PARAMETERS.iter().any(|(known, _)| name.eq_ignore_ascii_case(known))
        }
        _ => false,
    }
}

/// PgBouncer's words for what it does not know. Of the statement only its leading keywords are repeated: no literal.
fn invalid(statement: &[Token]) -> ErrorFields {
    let keyword = |t: &&Token| matches!(t, Token::Word(w) if w.len() <= 32 && w.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_'));
    let words: Vec<_> = statement.iter().take(2).take_while(keyword).filter_map(Token::name).collect();
    ErrorFields::error(sqlstate::SYNTAX_ERROR, format!("invalid command '{}', use SHOW HELP;", words.join(" ")))
        .hint(format!("SHOW {}", show::names().join("|")))
}

/// SHOW HELP: a notice, as PgBouncer's.
fn help(out: &mut Vec<u8>) {
    let detail = format!(
        "\n\tSHOW HELP|{}\n\tSHOW CAUSES [LIMIT n]\n\tSHOW NPLUSONE [LIMIT n]\n\tSHOW FINGERPRINTS [BY total|calls|mean|p95|rows|bytes] [LIMIT n]\n\tSHOW FINGERPRINT id\n\tRELOAD\n",
        show::names().join("|")
    );
    let fields =
        ErrorFields { severity: Severity::Notice, ..ErrorFields::error("00000", "Console usage").detail(detail) };
    control::error(out, &fields);
    control::command_complete(out, "SHOW");
}
