//! Workers: threads with a single-threaded runtime each. Worker 0 also accepts and deals clients round-robin.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use super::{EXIT_CUT_OFF, EXIT_FAILED, EXIT_OK, signals};
use crate::client::{Outcome, Process, Worker, serve};
use crate::config::ListenAddr;
use crate::net::clock::now_us;
use crate::net::{Listener, PeerAddr, Socket, set_worker_id};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// Accepted connections on their way to another worker.
const DEALT: usize = 1024;

/// A connection on its way to its worker.
struct Accepted {
    fd: OwnedFd,
    peer: PeerAddr,
    local: ListenAddr,
}

pub(super) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Starts every worker, serves until a signal, and drains.
pub(super) fn run_all(process: &Arc<Process>) -> ExitCode {
    let keys: [u8; 16] = match crate::auth::random() {
        Ok(k) => k,
        Err(e) => return failed(&e.to_string()),
    };
    let key = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| keys[i * 8 + j]));
    let literal_key = [key(0), key(1)];
    let mut others = Vec::new();
    for id in 1..process.config.workers {
        let (send, receive) = mpsc::channel(DEALT);
        let process = Arc::clone(process);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || follow(id, process, literal_key, receive));
        match thread {
            Ok(_) => others.push(send),
            Err(e) => return failed(&format!("cannot start worker {id}: {e}")),
        }
    }
    if let Some(addr) = process.config.http_listen
        && let Err(e) = crate::http::start(addr, Arc::clone(process))
    {
        return failed(&format!("cannot listen for HTTP at {addr}: {e}"));
    }
    if let Err(e) = super::keeper::start(process) {
        return failed(&format!("cannot start a thread: {e}"));
    }
    if let Err(e) = super::inspector::start(process) {
        return failed(&format!("cannot start a thread: {e}"));
    }
    match runtime() {
        Ok(rt) => {
            let code = rt.block_on(lead(Arc::clone(process), literal_key, others));
            // A reload that hangs would keep the process for ever otherwise.
            rt.shutdown_background();
            code
        }
        Err(e) => failed(&format!("cannot start: {e}")),
    }
}

fn failed(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::from(EXIT_FAILED)
}

/// Worker 0: accepts, waits for signals, drains.
async fn lead(process: Arc<Process>, literal_key: [u64; 2], others: Vec<mpsc::Sender<Accepted>>) -> ExitCode {
    // Before anybody can see that it is there: a SIGHUP that nobody listens for ends a process.
    let mut signals = match signals::Signals::new(Arc::clone(&process)) {
        Ok(s) => s,
        Err(e) => return failed(&format!("cannot listen for signals: {e}")),
    };
    let worker = Worker::new(0, Arc::clone(&process), literal_key);
    tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    let dealer = Rc::new(Dealer { worker, others, next: Cell::new(0) });
    let mut accepting = Vec::new();
    for addr in &process.config.listen {
        match Listener::bind(addr, process.config.backlog) {
            Ok(l) => {
                tracing::info!(address = %l.addr(), "listening");
                if let Ok(mut listening) = process.listening.lock() {
                    listening.push(l.addr().clone());
                }
                accepting.push(tokio::task::spawn_local(accept(l, Rc::clone(&dealer))));
            }
            Err(e) => return failed(&format!("cannot listen at {addr}: {e}")),
        }
    }
    process.pools.warm();
    if signals.end_asked().await == signals::Asked::End {
        return ExitCode::from(if process.clients.count() == 0 { EXIT_OK } else { EXIT_CUT_OFF });
    }
    super::drain(&process);
    // Dropping a listener closes it and removes its file: connects fail over to whoever is ready.
    for a in accepting {
        a.abort();
    }
    let deadline = process.config.timeouts.shutdown_timeout;
    tracing::info!(
        clients = process.clients.count(),
        deadline_s = deadline.as_secs(),
        "draining: clients end between transactions"
    );
    let ended = async {
        while process.clients.count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let cut_off = tokio::select! {
        () = ended => false,
        () = tokio::time::sleep(deadline) => true,
        _ = signals.end_asked() => true,
    };
    if cut_off {
        tracing::warn!(clients = process.clients.count(), "ending now: clients are cut off");
        return ExitCode::from(EXIT_CUT_OFF);
    }
    tracing::info!("drained");
    ExitCode::from(EXIT_OK)
}

/// Other workers: serve what they are dealt.
fn follow(id: usize, process: Arc<Process>, literal_key: [u64; 2], mut dealt: mpsc::Receiver<Accepted>) {
    set_worker_id(id);
    let rt = match runtime() {
        Ok(rt) => rt,
        Err(e) => {
            tracing::error!(worker = id, error = %e, "cannot start a worker");
            return;
        }
    };
    rt.block_on(async move {
        let worker = Worker::new(id, process, literal_key);
        tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        while let Some(a) = dealt.recv().await {
            start(&worker, a);
        }
    });
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut n = 0u32;
    loop {
        ticks.tick().await;
        worker.sweep(now_us());
        n = n.wrapping_add(1);
        if worker.id == 0 && n.is_multiple_of(4) {
            worker.process.pools.tick(now_us());
        }
    }
}

/// Deals accepted clients to workers in turn.
struct Dealer {
    worker: Rc<Worker>,
    others: Vec<mpsc::Sender<Accepted>>,
    next: Cell<usize>,
}

impl Dealer {
    async fn deal(&self, a: Accepted) {
        let n = self.next.get();
        self.next.set((n + 1) % (self.others.len() + 1));
        match n.checked_sub(1).and_then(|i| self.others.get(i)) {
            // A worker that is gone has logged why; its clients are dropped.
            Some(other) => drop(other.send(a).await),
            None => start(&self.worker, a),
        }
    }
}

async fn accept(listener: Listener, dealer: Rc<Dealer>) {
    loop {
        match listener.accept().await {
            Ok((fd, peer)) => dealer.deal(Accepted { fd, peer, local: listener.addr().clone() }).await,
            Err(e) => {
                // Out of descriptors or memory: it passes, and asking again at once would only burn the CPU.
                tracing::error!(error = %e, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn start(worker: &Rc<Worker>, a: Accepted) {
    let w = Rc::clone(worker);
    let stranger = match w.process.welcome(now_us()) {
        Ok(stranger) => stranger,
        Err(refusal) => return w.process.strangers.turn_away(&a.fd, refusal),
    };
    match Socket::new(a.fd) {
        Ok(socket) => {
            tokio::task::spawn_local(async move {
                match serve(Rc::clone(&w), socket, stranger, a.peer, a.local).await {
                    Outcome::Done => {}
                    Outcome::Session(session, server) => drop(tokio::task::spawn_local(session.run(server))),
                    Outcome::Console(console) => crate::admin::serve(w, *console).await,
                }
            });
        }
        Err(e) => tracing::error!(error = %e, "cannot register a connection"),
    }
}
