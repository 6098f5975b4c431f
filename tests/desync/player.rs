//! A client: one session after another, each a connection of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::checker::{Checker, Outcomes, Rules, Stop};
use super::conn::{self, Key, Writer};
use super::ops::{Batch, Goodbye, Session};
use super::script::{Maker, Mix};
use crate::support::{Random, raw};

/// What a run is.
pub struct Run {
    pub address: SocketAddr,
    pub seed: u64,
    pub clients: u64,
    /// No session begins after this.
    pub end: Instant,
    pub mix: Mix,
    pub rules: Rules,
    pub failed: AtomicBool,
    pub tally: Mutex<Tally>,
}

/// What all clients together have seen.
#[derive(Default)]
pub struct Tally {
    pub sessions: u64,
    pub batches: u64,
    pub outcomes: Outcomes,
    /// Rows that must be in the table, by nonce; those that must not; those that may.
    pub present: Vec<(u64, u64)>,
    pub absent: Vec<u64>,
    pub failure: Option<String>,
}

impl Tally {
    fn count(&mut self, what: &str) {
        *self.outcomes.entry(what.to_owned()).or_default() += 1;
    }

    fn add(&mut self, checker: &mut Checker, batches: u64) {
        self.sessions += 1;
        self.batches += batches;
        self.present.extend_from_slice(checker.present());
        self.absent.append(&mut checker.absent);
        for (what, count) in std::mem::take(&mut checker.outcomes) {
            *self.outcomes.entry(what).or_default() += count;
        }
    }
}

/// Plays sessions until the end of the run.
pub async fn client(run: Arc<Run>, number: u64) {
    // Drawn, not only counted: the streams of neighbouring numbers are the same, shifted by one.
    let mut seeds = Random::new(Random::new(run.seed ^ number).next());
    let mut count = 0;
    while Instant::now() < run.end && !run.failed.load(Ordering::Relaxed) {
        let seed = seeds.next();
        let session = Maker::session(seed, number, count, run.mix);
        if let Err(failure) = play(&run, &session).await {
            run.failed.store(true, Ordering::Relaxed);
            let mut tally = run.tally.lock().unwrap();
            let text = format!(
                "DESYNC_SEED={} client {number}, session {count} (seed {seed}): {failure}\n{}",
                run.seed,
                session.show()
            );
            tally.failure.get_or_insert(text);
        }
        count += 1;
    }
}

async fn play(run: &Run, session: &Session) -> Result<(), String> {
    let opened = conn::open(run.address, session.startup.clone()).await;
    let (reader, mut writer, key) = match opened {
        Ok(opened) => opened,
        // Killed while it logs in: PostgreSQL itself, never pgsluice.
        Err(_) if run.rules.kills && !run.rules.waits => return Ok(()),
        // Startup parameters that are new are tried out at a server.
        Err(error) if run.rules.waits && !session.startup.is_empty() => {
            // Or each time it is tried the server is killed.
            let Some(code) = ["53300", "08006", "57P01"].into_iter().find(|code| error.contains(code)) else {
                return Err(format!("login: {error}"));
            };
            run.tally.lock().unwrap().count(&format!("login: {code}"));
            return Ok(());
        }
        Err(error) => return Err(format!("login: {error}")),
    };
    let mut checker = Checker::new(reader, &session.startup, run.rules.clone());
    let mut batches = 0;
    let mut result = Ok(());
    let mut left = false;
    for (number, batch) in session.batches.iter().enumerate() {
        if !batch.think.is_zero() {
            sleep(batch.think).await;
        }
        if let Some((share, after)) = batch.leave {
            result = part_way(&mut checker, &mut writer, batch, share, after).await;
            left = true;
        } else {
            result = whole(run, &mut checker, &mut writer, batch, &key).await;
        }
        batches += 1;
        if let Err(stop) = &mut result {
            if let Stop::Wrong(text) = stop {
                *text = format!("batch {number}: {text}\nheard: {:#?}", checker.heard);
            }
            break;
        }
    }
    if result.is_ok() && !left {
        checker.gone();
    }
    run.tally.lock().unwrap().add(&mut checker, batches);
    match result {
        Err(Stop::Wrong(text)) => return Err(text),
        Err(Stop::Ended) => {}
        Ok(()) => farewell(checker, writer, session.goodbye).await,
    }
    Ok(())
}

async fn farewell(checker: Checker, mut writer: Writer, goodbye: Goodbye) {
    match goodbye {
        Goodbye::Terminate => writer.send(&raw::frame(b'X', b""), false, &mut Random::new(0)).await,
        Goodbye::Close => {}
        Goodbye::Reset => checker.reader.reset(writer),
    }
}

fn bytes(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    batch.messages.iter().for_each(|message| message.put(&mut bytes));
    bytes
}

/// Sends a batch and checks its answers, both at once.
async fn whole(run: &Run, checker: &mut Checker, writer: &mut Writer, batch: &Batch, key: &Key) -> Result<(), Stop> {
    let bytes = bytes(batch);
    let mut random = Random::new(batch.seed);
    checker.cancels += if batch.cancel.is_some() { run.rules.signals } else { 0 };
    let send = writer.send(&bytes, batch.cut, &mut random);
    let check = async {
        sleep_if(batch.deaf).await;
        for message in &batch.messages {
            checker.message(message).await?;
        }
        Ok(())
    };
    let cancel = async {
        if let Some(after) = batch.cancel {
            sleep(after).await;
            conn::cancel(run.address, key.clone()).await;
        }
    };
    // When the connection has ended there may be nobody to send to.
    let exchange = async {
        tokio::pin!(check, send);
        tokio::select! {
            result = &mut check => {
                // What a COPY that failed leaves is not answered, but must be sent as a whole.
                if result.is_ok() {
                    send.await;
                }
                result
            }
            () = &mut send => check.await,
        }
    };
    let (result, ()) = tokio::join!(exchange, cancel);
    result?;
    checker.batch_done();
    Ok(())
}

/// Sends a part of a batch, checks what comes for a while, and goes.
async fn part_way(
    checker: &mut Checker,
    writer: &mut Writer,
    batch: &Batch,
    share: u64,
    after: Duration,
) -> Result<(), Stop> {
    let bytes = bytes(batch);
    let part = &bytes[..(bytes.len() as u64 * share / 1000) as usize];
    let mut random = Random::new(batch.seed);
    let exchange = async {
        let check = async {
            for message in &batch.messages {
                checker.message(message).await?;
            }
            Ok(())
        };
        let (result, ()) = tokio::join!(check, writer.send(part, batch.cut, &mut random));
        result
    };
    tokio::time::timeout(after, exchange).await.unwrap_or(Ok(()))
}

async fn sleep_if(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
