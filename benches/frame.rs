//! Cost of the relay's two steps for each message: stepping over it by its header, and matching it with what is owed.
//!
//! A buffer of 16 KiB full of small messages, as one read brings them. `cargo bench --bench frame`: the items/s of the
//! `fastest` column are messages (1 G item/s is 1 ns for each); the rest tells how busy the machine was.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pgsluice::wire::tag::backend;
use pgsluice::wire::tracker::Entry;
use pgsluice::wire::{Action, Frame, HEADER, Request, Tracker, frame};

fn main() {
    divan::main();
}

/// One lent buffer.
const BUFFER: usize = 16 * 1024;

/// What a client asked for, over and over.
#[derive(Clone, Copy)]
enum Asked {
    /// Simple Query for one row.
    Query,
    /// Bind, Execute and Sync of a prepared statement, for one row.
    Prepared,
    /// Simple Query for a hundred rows.
    List,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Asked::Query => "query",
            Asked::Prepared => "prepared",
            Asked::List => "list",
        })
    }
}

const ASKED: [Asked; 3] = [Asked::Query, Asked::Prepared, Asked::List];

impl Asked {
    fn requests(self) -> &'static [Request] {
        match self {
            Asked::Query | Asked::List => &[Request::Query],
            Asked::Prepared => &[Request::Bind, Request::Execute, Request::Sync],
        }
    }

    /// Tags and body lengths of one answer.
    fn answer(self) -> Vec<(u8, usize)> {
        let (head, rows) = match self {
            Asked::Query => ((backend::ROW_DESCRIPTION, 60), 1),
            Asked::List => ((backend::ROW_DESCRIPTION, 60), 100),
            Asked::Prepared => ((backend::BIND_COMPLETE, 0), 1),
        };
        let mut all = vec![head];
        all.extend(std::iter::repeat_n((backend::DATA_ROW, 40), rows));
        all.extend([(backend::COMMAND_COMPLETE, 9), (backend::READY_FOR_QUERY, 1)]);
        all
    }

    /// As many whole answers as a buffer holds, and the number of messages in it.
    fn buffer(self) -> (Vec<u8>, usize) {
        let answer = self.answer();
        let size: usize = answer.iter().map(|(_, len)| HEADER + len).sum();
        let mut bytes = Vec::with_capacity(BUFFER);
        let mut messages = 0;
        while bytes.len() + size <= BUFFER {
            for (tag, len) in &answer {
                // The one byte of ReadyForQuery says idle; nobody reads the other bodies here.
                frame::put(&mut bytes, *tag, |body| body.resize(body.len() + len, b'I'));
                messages += 1;
            }
        }
        (bytes, messages)
    }
}

/// Calls `each` with every message of `bytes`.
#[inline(always)]
fn walk(bytes: &[u8], mut each: impl FnMut(Frame, &[u8])) {
    let mut at = 0;
    while let Ok(Some(f)) = Frame::peek(&bytes[at..]) {
        each(f, &bytes[at + HEADER..at + f.len]);
        at += f.len;
    }
}

/// By their headers alone.
#[divan::bench(args = ASKED)]
fn step(bencher: Bencher<'_, '_>, asked: Asked) {
    let (bytes, messages) = asked.buffer();
    bencher.counter(ItemsCount::new(messages)).bench_local(|| {
        let mut sum = 0;
        walk(black_box(&bytes), |f, _| sum += usize::from(f.tag) + f.len);
        sum
    });
}

/// And matched with the requests, which are noted one at a time as each answer ends.
#[divan::bench(args = ASKED)]
fn step_and_track(bencher: Bencher<'_, '_>, asked: Asked) {
    let (bytes, messages) = asked.buffer();
    let mut tracker = Tracker::new();
    bencher.counter(ItemsCount::new(messages)).bench_local(|| {
        let mut forwarded = 0;
        walk(black_box(&bytes), |f, body| {
            if tracker.answered() {
                asked.requests().iter().for_each(|r| tracker.push(Entry::new(*r, Action::Forward)));
            }
            let forward = tracker.answer(f.tag, body).expect("an answer to what was asked");
            forwarded += usize::from(forward);
        });
        assert_eq!(forwarded, messages);
        assert!(tracker.releasable());
    });
}
