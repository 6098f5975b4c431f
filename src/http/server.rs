//! The HTTP thread: hyper on a runtime of its own; every answer is small, ready at once and made from atomics.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Access;
use super::api;
use super::health;
use super::metrics::Metrics;
use super::ui;
use crate::client::Process;

/// Connections served at once; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;
/// A request's head must have come within this time; an idle connection ends after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is asked to end after this time.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// And is ended this much later.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes of a request's head at most.
const MAX_HEAD: usize = 16 * 1024;
/// Headers of a request at most.
const MAX_HEADERS: usize = 64;

/// Content type of the text exposition format.
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What `/` says to whoever does not want the page.
const INDEX: &str = "pgsluice\n\n\
    /          in a browser: the page that shows all of it\n\
    /metrics   metrics for Prometheus\n\
    /api/v1    causes, findings, queries, tables, routes, pools, pins, history, status as JSON\n\
    /healthz   200 while the process is alive (also /livez)\n\
    /readyz    200 when clients should be sent here\n\
    /startupz  200 once every address is listened at\n";

/// What whoever has not presented the token is told.
const UNAUTHORIZED: &str = "present the token of http_token: Authorization: Bearer TOKEN, or as the password of basic \
    authentication\n";

/// Binds and serves on a thread of its own.
///
/// # Errors
/// Those of `bind` and of starting a thread.
pub fn start(addr: SocketAddr, process: Arc<Process>) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tracing::info!(address = %listener.local_addr().unwrap_or(addr), "serving HTTP");
    let key = crate::auth::random().map_err(io::Error::other)?;
    let access = Access::new(process.config.http_token.clone(), key);
    let site = Arc::new(Site { process, metrics: Metrics::default(), access });
    std::thread::Builder::new().name("http".to_owned()).spawn(move || runtime.block_on(accept(listener, site)))?;
    Ok(())
}

/// What is served.
struct Site {
    process: Arc<Process>,
    metrics: Metrics,
    access: Access,
}

async fn accept(listener: std::net::TcpListener, site: Arc<Site>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(l) => l,
        Err(e) => {
            tracing::error!(error = %e, "cannot serve HTTP");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer, place, Arc::clone(&site)));
            }
            Err(e) => {
                // Out of descriptors or memory: it passes.
                tracing::debug!(error = %e, "HTTP accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit, site: Arc<Site>) {
    let service = service_fn(move |request| {
        let answer = site.answer(&request, peer);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
    );
    // How a connection to a scraper or a probe ended is nobody's concern.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = tokio::time::sleep(CONNECTION_AGE) => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, connection).await;
        }
    }
    drop(place);
}

/// What whoever asks for statements from elsewhere is told while there is no token.
const CLOSED: &str = r#"{"error": "this is shown from elsewhere only to whoever presents the token: set http_token"}"#;

type Answer = Response<Full<Bytes>>;

impl Site {
    fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let path = request.uri().path();
        match path {
            "/healthz" | "/livez" => return text(StatusCode::OK, "ok\n"),
            "/readyz" => return verdict(health::ready(&self.process)),
            "/startupz" => return verdict(health::started(&self.process)),
            _ => {}
        }
        // The page itself tells nothing of this instance; it asks for the token.
        if let Some((kind, content)) = ui::file(path, request.headers()) {
            let mut answer = page(StatusCode::OK, kind, content);
            ui::guard(answer.headers_mut());
            return answer;
        }
        if !self.access.admits(request.headers().get(AUTHORIZATION)) {
            let mut answer = text(StatusCode::UNAUTHORIZED, UNAUTHORIZED);
            // Basic: what a browser asks for by itself.
            let challenge = HeaderValue::from_static("Basic realm=\"pgsluice\", charset=\"UTF-8\"");
            answer.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pgsluice\""));
            answer.headers_mut().append(WWW_AUTHENTICATE, challenge);
            return answer;
        }
        match path {
            "/metrics" => page(StatusCode::OK, METRICS_TYPE, self.metrics.render(&self.process)),
            "/" => text(StatusCode::OK, INDEX),
            _ if path.starts_with(api::PREFIX)
                && !self.access.admits_without_token(peer, request.headers().get(HOST)) =>
            {
                page(StatusCode::FORBIDDEN, JSON, CLOSED)
            }
            _ if path.starts_with(api::PREFIX) => {
                let (status, body) = api::answer(&self.process, path, request.uri().query());
                page(status, JSON, body)
            }
            _ => text(StatusCode::NOT_FOUND, "no such page; / lists what there is\n"),
        }
    }
}

fn verdict(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    page(status, TEXT, body)
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
