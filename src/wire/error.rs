//! ErrorResponse and NoticeResponse fields (protocol-error-fields) and the SQLSTATEs pgsluice uses.

use super::cursor::Cursor;

/// SQLSTATE codes (PostgreSQL appendix "Error Codes").
pub mod sqlstate {
    /// too_many_connections: pool wait timed out, or a limit was reached.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// insufficient_resources.
    pub const INSUFFICIENT_RESOURCES: &str = "53000";
    /// admin_shutdown: pgsluice is draining.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// cannot_connect_now: the database is unavailable.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// query_canceled: a timeout of ours.
    pub const QUERY_CANCELED: &str = "57014";
    /// idle_in_transaction_session_timeout.
    pub const IDLE_IN_TRANSACTION: &str = "25P03";
    /// idle_session_timeout.
    pub const IDLE_SESSION: &str = "57P05";
    /// invalid_password.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// invalid_authorization_specification.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// invalid_catalog_name: no such database.
    pub const NO_SUCH_DATABASE: &str = "3D000";
    /// protocol_violation.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// connection_failure: the server went away under a client.
    pub const CONNECTION_FAILURE: &str = "08006";
    /// feature_not_supported.
    pub const NOT_SUPPORTED: &str = "0A000";
    /// syntax_error.
    pub const SYNTAX_ERROR: &str = "42601";
    /// insufficient_privilege.
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// program_limit_exceeded.
    pub const LIMIT_EXCEEDED: &str = "54000";
    /// configuration_limit_exceeded.
    pub const CONFIGURATION_LIMIT: &str = "53400";
    /// name_too_long.
    pub const NAME_TOO_LONG: &str = "42622";
    /// undefined_object.
    pub const UNDEFINED_OBJECT: &str = "42704";
    /// invalid_parameter_value.
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    /// config_file_error.
    pub const CONFIG_FILE: &str = "F0000";
    /// internal_error.
    pub const INTERNAL: &str = "XX000";
}

/// How bad an error is for the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The session goes on.
    Error,
    /// The connection is closed after it.
    Fatal,
    /// Not an error: a notice.
    Warning,
    /// Not an error and nothing to worry about.
    Notice,
}

impl Severity {
    /// The word of fields `S` and `V`.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
        }
    }
}

/// What pgsluice tells a client. What it says itself never holds SQL, parameters or secrets; a server's own words, passed
/// on, may: `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorFields {
    /// Severity.
    pub severity: Severity,
    /// Five characters.
    pub code: String,
    /// Primary message.
    pub message: String,
    /// Secondary message.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl std::fmt::Debug for ErrorFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErrorFields")
            .field("severity", &self.severity)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl ErrorFields {
    /// An ERROR.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        ErrorFields { severity: Severity::Error, code: code.into(), message: message.into(), detail: None, hint: None }
    }

    /// A FATAL.
    pub fn fatal(code: &str, message: impl Into<String>) -> Self {
        ErrorFields { severity: Severity::Fatal, ..Self::error(code, message) }
    }

    /// With a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The value of field `field` in an ErrorResponse body, which may be cut short.
pub fn field(body: &[u8], field: u8) -> Option<&[u8]> {
    let mut c = Cursor::new(body);
    loop {
        let code = c.u8().ok()?;
        if code == 0 {
            return None;
        }
        let value = c.cstr().ok()?;
        if code == field {
            return Some(value);
        }
    }
}

/// The SQLSTATE of an ErrorResponse body; `XX000` when there is none.
pub fn code(body: &[u8]) -> [u8; 5] {
    field(body, b'C').and_then(|v| v.try_into().ok()).unwrap_or(*b"XX000")
}

/// Whether an ErrorResponse ends the connection (FATAL or PANIC in the untranslated field `V`, or `S` before 9.6).
pub fn is_fatal(body: &[u8]) -> bool {
    matches!(field(body, b'V').or_else(|| field(body, b'S')), Some(b"FATAL" | b"PANIC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_words() {
        let fields = ErrorFields::error(sqlstate::PROTOCOL_VIOLATION, "hidden").detail("hidden").hint("hidden");
        assert_eq!(format!("{fields:?}"), r#"ErrorFields { severity: Error, code: "08P01", .. }"#);
    }
}
