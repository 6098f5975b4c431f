//! A [`Socket`] with TLS against rustls' own blocking streams: readiness, ends, back-pressure, change of worker.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::JoinHandle;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::tls_verify::{ServerCheck, provider};
use super::{Acceptor, Connector, Socket};
use crate::config::{ChannelBinding, Ciphers, ClientTls, ServerTls, TlsMode, TlsVersion};

type Stream = StreamOwned<ServerConnection, UnixStream>;

/// A certificate and its key in files of their own.
fn files() -> (PathBuf, PathBuf) {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let base = std::env::temp_dir().join(format!("pgsluice-tls-{}-{n}", std::process::id()));
    let (cert, key) = (base.with_extension("pem"), base.with_extension("key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

fn acceptor(min_version: TlsVersion) -> Acceptor {
    let (cert, key) = files();
    let settings = ClientTls {
        mode: TlsMode::Prefer,
        cert: Some(cert.clone()),
        key: Some(key.clone()),
        ca: None,
        min_version,
        ciphers: Ciphers::default(),
    };
    let acceptor = Acceptor::load(&settings).unwrap().unwrap();
    std::fs::remove_file(cert).unwrap();
    std::fs::remove_file(key).unwrap();
    acceptor
}

fn connector() -> Arc<Connector> {
    let settings = ServerTls {
        mode: TlsMode::Require,
        ca: None,
        cert: None,
        key: None,
        min_version: TlsVersion::V12,
        ciphers: Ciphers::default(),
        direct: false,
        channel_binding: ChannelBinding::Prefer,
    };
    Connector::of(&settings)
}

/// A server of rustls' own with session tickets, as an OpenSSL server sends them: what it does on its thread, and the
/// socket that is its client.
async fn server(work: impl FnOnce(Stream) + Send + 'static) -> (Socket, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), theirs);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        tls.flush().unwrap();
        work(tls);
    });
    let mut socket = Socket::new(ours.into()).unwrap();
    let tls = connector().connect("localhost").unwrap().unwrap();
    socket.secure(tls, Vec::new()).await.unwrap();
    (socket, thread)
}

fn run<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn has_input(socket: &mut Socket) -> bool {
    poll_fn(|cx| Poll::Ready(socket.has_input(cx))).await
}

/// Lets the reactor hear what has come.
async fn turn() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}

/// Waits for the other thread without stopping the reactor.
async fn heard<T>(from: &mpsc::Receiver<T>) -> T {
    loop {
        if let Ok(word) = from.try_recv() {
            return word;
        }
        turn().await;
    }
}

#[test]
fn tickets_and_key_updates_are_no_input_and_a_byte_is() {
    run(async {
        let (go, wait) = mpsc::channel::<()>();
        let (say, said) = mpsc::channel::<()>();
        let (mut socket, thread) = server(move |mut tls| {
            say.send(()).unwrap();
            for _ in 0..3 {
                wait.recv().unwrap();
                tls.conn.refresh_traffic_keys().unwrap();
                tls.flush().unwrap();
                say.send(()).unwrap();
            }
            wait.recv().unwrap();
            tls.write_all(b"!").unwrap();
            tls.flush().unwrap();
            let mut all = Vec::new();
            let _ = tls.read_to_end(&mut all);
            assert_eq!(all, b"still here");
        })
        .await;
        // The handshake is over on both sides: the tickets are here, or soon.
        heard(&said).await;
        for _ in 0..3 {
            for _ in 0..5 {
                turn().await;
                assert!(!has_input(&mut socket).await);
                assert!(!socket.peer_closed());
            }
            go.send(()).unwrap();
            heard(&said).await;
        }
        // Under the new keys in both directions.
        socket.send_all(b"still here").await.unwrap();
        go.send(()).unwrap();
        while !has_input(&mut socket).await {
            turn().await;
        }
        assert!(!socket.peer_closed(), "there is a byte to read");
        let mut buf = [0; 10];
        assert_eq!(socket.recv(&mut buf).await.unwrap(), 1);
        assert!(!has_input(&mut socket).await);
        drop(socket);
        thread.join().unwrap();
    });
}

#[test]
fn what_is_decrypted_counts_as_readable() {
    run(async {
        let (mut socket, thread) = server(|mut tls| {
            let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
            tls.write_all(&data).unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        })
        .await;
        let mut all = Vec::new();
        loop {
            // Never asleep while something is there: the sender says nothing more.
            poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
            let mut buf = [0; 7];
            let read = poll_fn(|cx| Poll::Ready(socket.poll_recv(cx, &mut buf))).await;
            match read {
                Poll::Pending => {}
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(n)) => all.extend_from_slice(&buf[..n]),
                Poll::Ready(Err(e)) => panic!("{e}"),
            }
        }
        assert_eq!(all.len(), 100_000);
        assert!(all.iter().enumerate().all(|(n, b)| *b == (n % 251) as u8));
        assert!(socket.peer_closed());
        thread.join().unwrap();
    });
}

/// Whether the peer has closed, as the reactor and the records say now.
async fn closed(socket: &mut Socket) -> bool {
    poll_fn(|cx| Poll::Ready(socket.poll_closed(cx).is_ready())).await
}

#[test]
fn an_end_by_close_notify_alone_is_noticed_before_what_is_unread() {
    run(async {
        let (go, wait) = mpsc::channel::<()>();
        let (mut socket, thread) = server(move |mut tls| {
            wait.recv().unwrap();
            tls.write_all(b"hello").unwrap();
            tls.flush().unwrap();
            wait.recv().unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
            // The stream itself stays open.
            wait.recv().unwrap();
        })
        .await;
        let mut buf = [0; 100];
        assert!(!closed(&mut socket).await);
        assert_eq!(socket.peek(&mut buf), 0);
        go.send(()).unwrap();
        while socket.peek(&mut buf) < 5 {
            assert!(!closed(&mut socket).await);
            turn().await;
        }
        assert!(!closed(&mut socket).await, "bytes are no end");
        go.send(()).unwrap();
        socket.closed().await;
        assert_eq!(socket.peek(&mut buf[..3]), 3);
        assert_eq!(socket.recv(&mut buf).await.unwrap(), 5);
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(socket.recv(&mut buf).await.unwrap(), 0);
        go.send(()).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn who_waits_for_the_end_hoards_nothing_and_loses_nothing() {
    run(async {
        let (say, said) = mpsc::channel::<()>();
        let (mut socket, thread) = server(move |mut tls| {
            let data: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
            tls.write_all(&data[..1_940_000]).unwrap();
            tls.flush().unwrap();
            say.send(()).unwrap();
            tls.write_all(&data[1_940_000..]).unwrap();
            tls.flush().unwrap();
            // Cut off: no close_notify.
        })
        .await;
        for _ in 0..50 {
            assert!(!closed(&mut socket).await);
            turn().await;
        }
        assert!(said.try_recv().is_err(), "it was all taken out of the kernel");
        let (mut all, mut buf) = (Vec::new(), [0; 1009]);
        while all.len() < 1_940_000 {
            let n = socket.recv(&mut buf).await.unwrap();
            assert!(n > 0);
            all.extend_from_slice(&buf[..n]);
            if all.len() < 100_000 {
                assert!(!closed(&mut socket).await);
            }
        }
        // The end is seen with much still unread.
        socket.closed().await;
        loop {
            match socket.recv(&mut buf).await.unwrap() {
                0 => break,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
        assert_eq!(all.len(), 2_000_000);
        assert!(all.iter().enumerate().all(|(n, b)| *b == (n % 251) as u8));
        thread.join().unwrap();
    });
}

#[test]
fn what_the_kernel_does_not_take_is_owed() {
    run(async {
        let (go, wait) = mpsc::channel::<()>();
        let (mut socket, thread) = server(move |mut tls| {
            wait.recv().unwrap();
            let mut all = Vec::new();
            let _ = tls.read_to_end(&mut all);
            assert_eq!(all.len(), 3_000_000);
            assert!(all.iter().enumerate().all(|(n, b)| *b == (n % 241) as u8));
        })
        .await;
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 241) as u8).collect();
        let mut sent = socket.try_send(&data).unwrap();
        assert!(sent < 1_000_000, "the kernel has limits, and nothing is hoarded: {sent}");
        assert_eq!(socket.try_send(&data[sent..]).unwrap(), 0, "still full");
        go.send(()).unwrap();
        while sent < data.len() {
            poll_fn(|cx| socket.poll_writable(cx)).await.unwrap();
            // The same bytes again, with more behind them or without.
            let end = (sent + 50_000).min(data.len());
            sent += socket.try_send(&data[sent..end]).unwrap();
        }
        drop(socket);
        thread.join().unwrap();
    });
}

#[test]
fn another_worker_goes_on_in_the_midst() {
    let (go, wait) = mpsc::channel::<()>();
    let (mut socket, thread) = run(async {
        let (mut socket, thread) = server(move |mut tls| {
            tls.write_all(b"one two").unwrap();
            tls.flush().unwrap();
            wait.recv().unwrap();
            tls.write_all(b"three").unwrap();
            tls.flush().unwrap();
            let mut all = Vec::new();
            let _ = tls.read_to_end(&mut all);
            assert_eq!(all, b"four");
        })
        .await;
        let mut buf = [0; 3];
        assert_eq!(socket.recv(&mut buf).await.unwrap(), 3);
        (socket, thread)
    });
    run(async {
        socket = socket.rehome().unwrap();
        let mut buf = [0; 100];
        assert_eq!(socket.recv(&mut buf).await.unwrap(), 4, "what was decrypted has come along");
        assert_eq!(&buf[..4], b" two");
        go.send(()).unwrap();
        let n = socket.recv(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"three");
        socket.send_all(b"four").await.unwrap();
        drop(socket);
    });
    thread.join().unwrap();
}

/// Handshakes of clients with one and the other version, their bytes cut into pieces of every size.
#[test]
fn handshakes_come_in_any_pieces() {
    run(async {
        for (piece, version) in [(1, TlsVersion::V12), (7, TlsVersion::V13), (300, TlsVersion::V12)] {
            let acceptor = acceptor(version);
            let (ours, theirs) = UnixStream::pair().unwrap();
            let versions: &[_] =
                if version == TlsVersion::V12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
            let config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ServerCheck::new(None, false)))
                .with_no_client_auth();
            let thread = std::thread::spawn(move || {
                let name = ServerName::try_from("localhost").unwrap();
                let tls = ClientConnection::new(Arc::new(config), name).unwrap();
                let mut tls = StreamOwned::new(tls, Pieces { stream: theirs, size: piece });
                tls.write_all(b"hello").unwrap();
                let mut answer = [0; 5];
                tls.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"HELLO");
            });
            let mut socket = Socket::new(ours.into()).unwrap();
            socket.secure(acceptor.accept().unwrap(), Vec::new()).await.unwrap();
            let expected = if version == TlsVersion::V12 { "TLSv1.2/TLS_" } else { "TLSv1.3/TLS_" };
            assert!(socket.tls().unwrap().summary().starts_with(expected));
            let mut all = Vec::new();
            while all.len() < 5 {
                let mut buf = [0; 16];
                let n = socket.recv(&mut buf).await.unwrap();
                all.extend_from_slice(&buf[..n]);
            }
            socket.send_all(&all.to_ascii_uppercase()).await.unwrap();
            thread.join().unwrap();
        }
    });
}

/// Writes little by little.
struct Pieces {
    stream: UnixStream,
    size: usize,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(self.size);
        self.stream.read(&mut buf[..n])
    }
}

impl Write for Pieces {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.stream.write(&buf[..buf.len().min(self.size)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn noise_fails_and_never_panics() {
    run(async {
        let acceptor = acceptor(TlsVersion::V12);
        let mut seed = 1u64;
        for round in 0..200 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut next = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as u8
            };
            let mut noise: Vec<u8> = (0..usize::from(next())).map(|_| next()).collect();
            if round % 2 == 0 {
                // The beginning of a handshake record, so that it is looked into.
                noise.splice(0..0, [0x16, 3, 1, 0, next(), 1, 0, 0, next()]);
            }
            theirs.write_all(&noise).unwrap();
            drop(theirs);
            let mut socket = Socket::new(ours.into()).unwrap();
            assert!(socket.secure(acceptor.accept().unwrap(), Vec::new()).await.is_err());
            assert!(socket.try_send(b"x").is_err(), "nothing goes out in the clear");
        }
    });
}

#[test]
fn the_names_of_ciphers_are_those_that_ring_has() {
    let ours: Vec<_> = Ciphers::default().names().collect();
    let theirs: Vec<_> = provider().cipher_suites.iter().map(super::tls_verify::iana).collect();
    assert_eq!(ours, theirs);
}
