//! tokio-postgres with TLS by rustls and channel binding.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Inner;

use crate::support::pki::{Pair, client_config};

#[derive(Clone)]
struct Connector(Arc<rustls::ClientConfig>);

struct Stream<S>(Box<Inner<S>>);

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type TlsConnect = Connector;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, _: &str) -> Result<Connector, std::io::Error> {
        Ok(self.clone())
    }
}

impl<S> TlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, std::io::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let name = ServerName::try_from("localhost").unwrap();
        Box::pin(async move { Ok(Stream(Box::new(TlsConnector::from(self.0).connect(name, stream).await?))) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = &self.0.get_ref().1.peer_certificates().unwrap()[0];
        // The tests' certificates are signed with SHA-256.
        ChannelBinding::tls_server_end_point(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref().to_vec())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Logs in as the case says and asks for one value.
pub async fn ask(case: &serde_json::Value, sql: &str) -> Result<String, String> {
    let text = |name: &str| case[name].as_str().unwrap();
    let mut config = Config::new();
    config.user(text("user")).password(text("password")).dbname(text("dbname"));
    config.port(case["port"].as_u64().unwrap() as u16);
    match text("socket") {
        "" => config.host("localhost").hostaddr("127.0.0.1".parse().unwrap()),
        socket => config.host_path(socket),
    };
    config.ssl_mode(if text("ca").is_empty() { SslMode::Disable } else { SslMode::Require });
    config.channel_binding(if case["plus"] == true { Binding::Require } else { Binding::Disable });
    let own = (!text("cert").is_empty()).then(|| Pair { cert: text("cert").into(), key: text("key").into() });
    let ca = (!text("ca").is_empty()).then(|| std::path::PathBuf::from(text("ca")));
    let connector = Connector(client_config(ca.as_deref(), own.as_ref(), &[b"postgresql"]));
    // An error's own text is "db error"; the words are its source's.
    let words = |e: tokio_postgres::Error| match e.as_db_error() {
        Some(db) => format!("{}: {}", db.code().code(), db.message()),
        None => format!("{e}: {:?}", std::error::Error::source(&e).map(ToString::to_string)),
    };
    let (client, connection) = config.connect(connector).await.map_err(words)?;
    let driving = tokio::spawn(connection);
    let row = client.query_one(sql, &[]).await.map_err(words)?;
    let value = row.get::<_, String>(0);
    drop(client);
    let _ = driving.await;
    Ok(value)
}
