//! A TCP proxy that makes faults: delay, small pieces, silence, reset, half-close, a cut in the midst of a message.
//!
//! Put it between the pooler and PostgreSQL, or between a client and the pooler. Faults are set for each direction
//! while connections live, and come from a seed: the same seed and traffic give the same faults.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Random;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes pass as they are.
    None,
    /// Each piece waits for a random time up to this.
    Delay(Duration),
    /// Pieces of a random size from 1 to this many bytes; 1 sends every byte alone.
    Split(usize),
    /// Nothing passes (and TCP says nothing) until another fault is set.
    Stall,
    /// The next bytes are swallowed and both sides are reset.
    Reset,
    /// This direction ends (FIN); the other goes on.
    HalfClose,
    /// So many more bytes pass, counted over all connections; then both sides are closed.
    CutAfter(u64),
}

/// The direction that a fault is set for.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// A running proxy; drop ends it with all its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    seed: u64,
    faults: [watch::Sender<Fault>; 2],
    /// Bytes that may still pass under [`Fault::CutAfter`].
    budget: [AtomicI64; 2],
    /// Counts calls of [`Proxy::reset_all`].
    resets: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

/// Why a connection ended at once, both directions together.
enum End {
    Reset,
    Close,
}

impl Proxy {
    /// Listens on a port of its own and passes on to `upstream`.
    pub fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            seed,
            faults: [watch::channel(Fault::None).0, watch::channel(Fault::None).0],
            budget: [AtomicI64::new(0), AtomicI64::new(0)],
            resets: watch::channel(0).0,
            stop: watch::channel(false).0,
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let own = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { accept(TcpListener::from_std(listener).unwrap(), own).await });
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the fault of a direction, for present and future connections.
    pub fn set(&self, direction: Direction, fault: Fault) {
        if let Fault::CutAfter(bytes) = fault {
            self.shared.budget[direction as usize].store(bytes as i64, Ordering::SeqCst);
        }
        self.shared.faults[direction as usize].send_replace(fault);
    }

    /// Both directions without fault again. What was stalled passes.
    pub fn heal(&self) {
        self.set(Direction::ToServer, Fault::None);
        self.set(Direction::ToClient, Fault::None);
    }

    /// Resets every open connection now.
    pub fn reset_all(&self) {
        self.shared.resets.send_modify(|count| *count += 1);
    }

    /// Future connections go elsewhere.
    pub fn redirect(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap() = upstream;
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = stop.wait_for(|stop| *stop) => return, // the runtime ends, and with it every connection
        };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst) as u64;
        let shared = shared.clone();
        tokio::spawn(async move {
            shared.open.fetch_add(1, Ordering::SeqCst);
            connection(client, &shared, number).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connection(mut client: TcpStream, shared: &Shared, number: u64) {
    let upstream = *shared.upstream.lock().unwrap();
    // Nobody there: the client sees its connection close, as from a dead server behind a load balancer.
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let mut resets = shared.resets.subscribe();
    let end = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let to_server = pump(client_read, server_write, shared, Direction::ToServer, number);
        let to_client = pump(server_read, client_write, shared, Direction::ToClient, number);
        tokio::select! {
            both = async { tokio::try_join!(to_server, to_client) } => both.err(),
            _ = resets.changed() => Some(End::Reset),
        }
    };
    if let Some(End::Reset) = end {
        // Closing with lingering switched off and zero time sends RST.
        for stream in [&client, &server] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn pump(
    mut from: tokio::net::tcp::ReadHalf<'_>,
    mut to: tokio::net::tcp::WriteHalf<'_>,
    shared: &Shared,
    direction: Direction,
    number: u64,
) -> Result<(), End> {
    let mut fault = shared.faults[direction as usize].subscribe();
    let mut random = Random::new(shared.seed ^ (number << 1) ^ direction as u64);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let event = tokio::select! {
            biased;
            fault = serious(&mut fault) => Err(fault),
            read = from.read(&mut buffer) => Ok(read),
        };
        let read = match event {
            Ok(read) => read.map_err(|_| End::Reset)?,
            Err(Fault::Reset) => return Err(End::Reset),
            Err(Fault::Stall) => {
                healed(&mut fault).await;
                continue;
            }
            Err(_) => 0, // half-close
        };
        if read == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        forward(&buffer[..read], &mut to, &mut fault, &mut random, &shared.budget[direction as usize]).await?;
    }
}

/// Waits for a fault that takes effect at once, also between messages.
async fn serious(fault: &mut watch::Receiver<Fault>) -> Fault {
    let now = fault.wait_for(|fault| matches!(fault, Fault::Reset | Fault::HalfClose | Fault::Stall)).await;
    *now.expect("the sender lives as long as the proxy")
}

async fn healed(fault: &mut watch::Receiver<Fault>) {
    let _ = fault.wait_for(|fault| *fault != Fault::Stall).await;
}

/// Passes one piece on under the fault that holds now.
async fn forward(
    mut bytes: &[u8],
    to: &mut tokio::net::tcp::WriteHalf<'_>,
    fault: &mut watch::Receiver<Fault>,
    random: &mut Random,
    budget: &AtomicI64,
) -> Result<(), End> {
    while !bytes.is_empty() {
        let now = *fault.borrow();
        let mut length = bytes.len();
        match now {
            Fault::None | Fault::HalfClose => {}
            Fault::Delay(longest) => {
                tokio::time::sleep(Duration::from_micros(random.below(longest.as_micros() as u64 + 1))).await;
            }
            Fault::Split(largest) => length = length.min(1 + random.below(largest as u64) as usize),
            Fault::Stall => {
                healed(fault).await;
                continue;
            }
            Fault::Reset => return Err(End::Reset),
            Fault::CutAfter(_) => {
                let left = budget.fetch_sub(length as i64, Ordering::SeqCst).max(0) as usize;
                if left < length {
                    let _ = to.write_all(&bytes[..left]).await;
                    return Err(End::Close);
                }
            }
        }
        let (piece, rest) = bytes.split_at(length);
        if to.write_all(piece).await.is_err() {
            return Err(End::Reset);
        }
        bytes = rest;
        if matches!(now, Fault::Split(_)) {
            // Time for the reader to wake up, so that it sees this piece alone.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
