//! Keys for logins at servers are derived by a few threads, however many logins there are and whatever servers ask for.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use support::pooler::{Pooler, Setup};
use support::raw;

/// The next message of a client: tag and body.
fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// A server that asks for SCRAM with many iterations, at all connections together.
fn costly(mut stream: TcpStream, number: usize, together: &Barrier, proofs: &mpsc::Sender<()>) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut startup)?;
    let authentication = |code: u32, data: &[u8]| raw::frame(b'R', &[&code.to_be_bytes()[..], data].concat());
    stream.write_all(&authentication(10, b"SCRAM-SHA-256\0\0"))?;
    let first = message(&mut stream)?;
    let nonce = String::from_utf8_lossy(&first).rsplit_once("r=").unwrap().1.to_owned();
    together.wait();
    let challenge = format!("r={nonce}more,s=c2FsdHNhbHQ{:05},i=200000", 10_000 + number);
    stream.write_all(&authentication(11, challenge.as_bytes()))?;
    message(&mut stream)?;
    proofs.send(()).ok();
    // It stays until the pooler is gone.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn threads(pooler: &Pooler) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", pooler.pid())).unwrap().count()
}

#[test]
fn a_crowd_of_logins_at_servers_takes_few_threads() {
    let seats = (thread::available_parallelism().unwrap().get() / 2).max(1);
    let crowd = seats * 2 + 8;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut toml = "auth_type = \"trust\"\nclient_login_timeout = \"1min\"\n".to_owned();
    for n in 0..crowd {
        toml.push_str(&format!("[users.u{n}]\npassword = \"secret\"\n"));
    }
    toml.push_str(&format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nport = {port}\nserver_tls_mode = \"disable\"\nserver_connect_timeout = \"1min\"\n"
    ));
    let pooler = Setup::toml(&toml).start();
    let together = Arc::new(Barrier::new(crowd + 1));
    let (send, proofs) = mpsc::channel();
    for n in 0..crowd {
        let mut client = raw::Client::connect(pooler.address()).unwrap();
        client.send_startup(&[("user", &format!("u{n}")), ("database", "app")]).unwrap();
        thread::spawn(move || client.read());
        let (stream, _) = listener.accept().unwrap();
        let (together, send) = (Arc::clone(&together), send.clone());
        thread::spawn(move || costly(stream, n, &together, &send));
    }
    let before = threads(&pooler);
    together.wait();
    let mut most = 0;
    let mut done = 0;
    // Each derivation takes its time: the first ones are under way until the first proofs come.
    while done < seats + 1 {
        most = most.max(threads(&pooler));
        done += proofs.recv_timeout(std::time::Duration::from_millis(5)).map_or(0, |()| 1);
    }
    assert!(most > before, "derived beside the worker: {most} threads, {before} before");
    assert!(most <= before + seats, "{most} threads, {before} before, {seats} allowed");
}
