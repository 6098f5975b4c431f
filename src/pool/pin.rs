//! Why a client keeps its server between transactions: the kinds of session state that cannot follow it to another.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many clients of a pool are pinned.
#[derive(Default)]
pub struct Pinned(AtomicUsize);

impl Pinned {
    /// One more. Returns how many others there are.
    pub fn enter(&self) -> usize {
        self.0.fetch_add(1, Relaxed)
    }

    /// One less.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// One kind of state. The order is that of [`Pin::ALL`] and of the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Pin {
    /// A cursor WITH HOLD is open.
    Cursor,
    /// LISTEN.
    Listen,
    /// A session-level advisory lock is held.
    AdvisoryLock,
    /// Temporary objects exist.
    Temp,
    /// A statement was prepared with SQL's PREPARE.
    Prepared,
    /// LOAD, or a function made in pg_temp.
    Load,
    /// Protocol-level prepared statements beyond what is shared.
    Statement,
    /// State that could not be read from the server.
    Unreadable,
}

impl Pin {
    /// Every kind.
    pub const ALL: [Pin; 8] = [
        Pin::Cursor,
        Pin::Listen,
        Pin::AdvisoryLock,
        Pin::Temp,
        Pin::Prepared,
        Pin::Load,
        Pin::Statement,
        Pin::Unreadable,
    ];

    /// Its bit in a set of kinds.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The first kind of a set.
    pub fn first(set: u8) -> Option<Pin> {
        Pin::ALL.into_iter().find(|p| set & p.bit() != 0)
    }

    /// Label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Pin::Cursor => "cursor",
            Pin::Listen => "listen",
            Pin::AdvisoryLock => "advisory_lock",
            Pin::Temp => "temp",
            Pin::Prepared => "prepare",
            Pin::Load => "load",
            Pin::Statement => "statement",
            Pin::Unreadable => "unreadable",
        }
    }

    /// In words, for the console and errors.
    pub fn reason(self) -> &'static str {
        match self {
            Pin::Cursor => "a cursor WITH HOLD",
            Pin::Listen => "LISTEN",
            Pin::AdvisoryLock => "a session-level advisory lock",
            Pin::Temp => "a temporary table",
            Pin::Prepared => "SQL-level PREPARE",
            Pin::Load => "LOAD or a function in pg_temp",
            Pin::Statement => "more or longer prepared statements than pgsluice shares",
            Pin::Unreadable => "a parameter that pgsluice cannot follow",
        }
    }

    /// What ends it, and what avoids it.
    pub fn hint(self) -> &'static str {
        match self {
            Pin::Cursor => {
                "Ends at CLOSE. Django's .iterator() opens one outside atomic(); run the loop inside atomic(), or set DISABLE_SERVER_SIDE_CURSORS."
            }
            Pin::Listen => "Ends at UNLISTEN *. Keep listeners few: one process that listens and hands on.",
            Pin::AdvisoryLock => {
                "Ends at pg_advisory_unlock. pg_advisory_xact_lock inside a transaction needs no server of its own."
            }
            Pin::Temp => "Ends when it is dropped. CREATE TEMP TABLE ... ON COMMIT DROP ends with its transaction.",
            Pin::Prepared => "Ends at DEALLOCATE. Statements prepared by the driver (the protocol) are shared instead.",
            Pin::Load => "Ends with the session. Use session_preload_libraries.",
            Pin::Statement => "Ends at DISCARD ALL. Lower the driver's statement cache.",
            Pin::Unreadable => {
                "Ends with the session. Write the parameter's name out, and keep its value short and ASCII."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_bits_agree() {
        for (i, pin) in Pin::ALL.into_iter().enumerate() {
            assert_eq!(pin as usize, i);
            assert_eq!(Pin::first(pin.bit()), Some(pin));
        }
        assert_eq!(Pin::first(0), None);
    }
}
