//! Fuzz entry: what a stranger sends before a login, around TLS and inside of it, against the code that serves clients, over a
//! pair of sockets. A fuzz target and the corpus replay of the ordinary tests call it.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Outcome, Process, Worker, serve};
use crate::config::{Config, ListenAddr};
use crate::net::clock::now_us;
use crate::net::{Connector, PeerAddr, Socket};
use crate::wire::tag::backend;
use crate::wire::{Frame, control};

/// Nothing that a client sends may keep its login so long, once it has no more to say.
const LIMIT: Duration = Duration::from_secs(20);

/// A process that offers TLS and knows one user.
pub struct StartupFuzz {
    process: Arc<Process>,
    /// How the fuzzed client begins TLS where it does so as it should.
    connector: Arc<Connector>,
}

impl StartupFuzz {
    /// With this certificate and its key, in PEM.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn new(cert: &Path, key: &Path) -> Result<StartupFuzz, Box<dyn Error>> {
        let text = format!(
            "client_login_timeout = 0\nfailed_login_delay = 0\nclient_tls_cert_file = {:?}\nclient_tls_key_file = {:?}\n\
             [users.app]\npassword = \"not in any corpus\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = 1\n\
             server_tls_mode = \"require\"\n",
            cert.display().to_string(),
            key.display().to_string()
        );
        let config = Arc::new(Config::from_toml(&text, Path::new("fuzz.toml"))?);
        let process = super::process(Arc::clone(&config))?;
        let app = config.database("app").ok_or("the database is there")?;
        let connector = process.tls.connector(&app.pool.tls);
        Ok(StartupFuzz { process, connector })
    }

    /// The first byte says how the rest is sent: as it is; inside of TLS that was asked for; inside of TLS from the first
    /// byte. Then the client has no more to say. It must be told something that is whole, be logged in by nothing, and be told
    /// nothing in the clear once TLS was agreed on.
    pub fn run(&self, data: &[u8]) {
        let Some((way, data)) = data.split_first() else { return };
        let Ok(runtime) = super::worker::runtime() else { return };
        let done = runtime.block_on(async { tokio::time::timeout(LIMIT, self.meet(*way % 3, data)).await });
        let Ok(met) = done else { panic!("the login hangs") };
        // Without sockets there is nothing to say.
        let Ok(said) = met else { return };
        if let Some(said) = said {
            check(&said, *way % 3 == 0);
        }
    }

    /// What the client was told, from where it sent its bytes; `None`: no TLS came about to send them in.
    async fn meet(&self, way: u8, data: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let (server, client) = (Socket::new(theirs.into())?, Socket::new(ours.into())?);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let Ok(stranger) = self.process.welcome(now_us()) else { return Ok(None) };
        let worker = Worker::new(0, Arc::clone(&self.process), [0, 0]);
        let served = serve(worker, server, stranger, PeerAddr::Tcp(peer), ListenAddr::Tcp(peer));
        let (outcome, said) = tokio::join!(served, self.play(way, data, client));
        assert!(matches!(outcome, Outcome::Done), "somebody was logged in");
        said
    }

    async fn play(&self, way: u8, data: &[u8], mut socket: Socket) -> std::io::Result<Option<Vec<u8>>> {
        if way == 1 {
            let mut request = Vec::new();
            control::ssl_request(&mut request);
            socket.send_all(&request).await?;
            let mut answer = [0];
            socket.recv(&mut answer).await?;
            assert_eq!(answer, *b"S", "TLS is offered");
        }
        if way > 0 {
            let Ok(Some(tls)) = self.connector.connect("localhost") else { return Ok(None) };
            assert!(socket.secure(tls, Vec::new()).await.is_ok(), "TLS comes about");
        }
        // It may have been told enough, and be gone.
        let _ = socket.send_all(data).await;
        let _ = rustix::net::shutdown(socket.as_fd(), rustix::net::Shutdown::Write);
        let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(n) = socket.recv(&mut chunk).await {
            if n == 0 {
                break;
            }
            said.extend_from_slice(&chunk[..n]);
        }
        Ok(Some(said))
    }
}

/// Answers to requests for encryption; then records of TLS alone, or messages that ask or refuse.
fn check(said: &[u8], bare: bool) {
    let mut rest = said;
    while bare && let Some((b'N', behind)) = rest.split_first() {
        rest = behind;
    }
    if bare && let Some((first @ (b'S' | 20..=23), behind)) = rest.split_first() {
        // Without a request the first record is the beginning itself.
        let mut records = if *first == b'S' { behind } else { rest };
        while let [kind, 3, _, a, b, behind @ ..] = records {
            assert!((20..=23).contains(kind), "a record of TLS");
            records = behind.get(usize::from(u16::from_be_bytes([*a, *b]))..).unwrap_or_default();
        }
        assert!(records.is_empty(), "something in the clear behind the answer");
        return;
    }
    while !rest.is_empty() {
        let Ok(Some(frame)) = Frame::peek(rest) else { panic!("half a message") };
        assert!(
            matches!(frame.tag, backend::ERROR | backend::AUTHENTICATION | backend::NEGOTIATE_PROTOCOL_VERSION),
            "what no stranger is told"
        );
        assert!(frame.len <= rest.len(), "half a message");
        rest = &rest[frame.len..];
    }
}
