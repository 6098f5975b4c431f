//! Deadlines without timers: a session writes its deadline into a cell, and one sweep a worker marks and wakes the
//! late ones.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

/// Why a session was woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// `client_idle_timeout`.
    Idle,
    /// `query_wait_timeout`.
    Wait,
    /// `query_timeout`.
    Query,
    /// `idle_transaction_timeout`.
    IdleTransaction,
}

/// One session's deadline.
pub struct Alarm {
    /// Monotonic microseconds; `u64::MAX` for none.
    deadline_us: Cell<u64>,
    reason: Cell<Reason>,
    /// Set by the sweep when the deadline has passed: sessions need no look at the clock.
    due: Cell<bool>,
    /// Set by the sweep when it wakes the session because the worker drains.
    drain: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Alarm {
    /// Sets the deadline `after_us` from `now_us`; zero means never. One that has been found late stays so when it is set
    /// again: an answer that keeps moving does not put it off.
    pub fn set(&self, reason: Reason, now_us: u64, after_us: u64) {
        let deadline = if after_us == 0 { u64::MAX } else { now_us + after_us };
        self.reason.set(reason);
        self.due.set(self.due.get() && deadline <= self.deadline_us.get());
        self.deadline_us.set(deadline);
    }

    /// No deadline.
    pub fn clear(&self) {
        self.due.set(false);
        self.deadline_us.set(u64::MAX);
    }

    /// The deadline that has passed, if any. The sweep is coarse: at most a quarter of a second late.
    pub fn rang(&self) -> Option<Reason> {
        self.due.get().then(|| self.reason.get())
    }

    /// Whether the worker drains.
    pub fn draining(&self) -> bool {
        self.drain.get()
    }

    /// Keeps the session's waker; a task's waker stays the same, so this clones once.
    pub fn listen(&self, cx: &Context<'_>) {
        let mut w = self.waker.borrow_mut();
        if !w.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *w = Some(cx.waker().clone());
        }
    }
}

/// Alarms of one worker's sessions.
#[derive(Default)]
pub struct Alarms {
    all: RefCell<Vec<Weak<Alarm>>>,
}

impl Alarms {
    /// An alarm for a new session.
    pub fn add(&self) -> Rc<Alarm> {
        let alarm = Rc::new(Alarm {
            deadline_us: Cell::new(u64::MAX),
            reason: Cell::new(Reason::Idle),
            due: Cell::new(false),
            drain: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.all.borrow_mut().push(Rc::downgrade(&alarm));
        alarm
    }

    /// Wakes late sessions (every one when draining) and forgets those that ended.
    pub fn sweep(&self, now_us: u64, drain: bool) {
        self.all.borrow_mut().retain(|weak| {
            let Some(alarm) = weak.upgrade() else {
                return false;
            };
            alarm.drain.set(drain);
            alarm.due.set(alarm.deadline_us.get() <= now_us);
            if (drain || alarm.due.get())
                && let Some(w) = &*alarm.waker.borrow()
            {
                w.wake_by_ref();
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_has_passed_is_not_put_off_by_setting_it_again() {
        let alarms = Alarms::default();
        let alarm = alarms.add();
        alarm.set(Reason::Query, 0, 1_000);
        alarms.sweep(999, false);
        assert_eq!(alarm.rang(), None);
        alarms.sweep(1_000, false);
        alarm.set(Reason::Query, 0, 1_000);
        assert_eq!(alarm.rang(), Some(Reason::Query), "more of the same answer has come");
        alarm.set(Reason::IdleTransaction, 1_000, 1_000);
        assert_eq!(alarm.rang(), None, "a later one");
        alarms.sweep(5_000, false);
        alarm.set(Reason::Idle, 5_000, 0);
        assert_eq!(alarm.rang(), None, "none at all");
    }
}
