//! The accept loop: connections with limits and time-outs, and a graceful end.
//!
//! Our own, because `axum::serve` sets no time-out for reading headers, so that a few slow senders could hold every
//! connection.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What a connection may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request's headers may take, and a connection may be idle.
    pub header_timeout: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// How long answers under way may take when the gateway closes.
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_timeout: Duration::from_secs(15), connections: 8192, close_timeout: Duration::from_secs(5) }
    }
}

/// The largest block of headers.
const LARGEST_HEADERS: usize = 64 * 1024;
/// Headers of one request.
const MOST_HEADERS: usize = 256;
/// How often a connection that sent half a preface is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long to wait when no connection can be accepted (no file descriptors are left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether a connection sends enough to tell what it speaks: a whole HTTP/2 preface, or anything else than the beginning
/// of one. False if it ends before.
async fn speaks(stream: &TcpStream) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut begun = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut begun).await {
            Ok(0) | Err(_) => return false,
            Ok(read) if read == PREFACE.len() || !PREFACE.starts_with(&begun[..read]) => return true,
            // Peeking answers at once while there is anything to see, so more is looked for now and then.
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Counts an open connection for as long as it lives.
struct Open(Gauge);

impl Open {
    fn count(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Serves until `closing` is cancelled, then lets the answers under way end. `open` counts the connections.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, open: Gauge, closing: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(LARGEST_HEADERS)
        .max_headers(MOST_HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header_timeout)
        .max_header_list_size(u32::try_from(LARGEST_HEADERS).unwrap_or(u32::MAX));
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, address) = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "connection.not_accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and wanted now.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(address));
            router.clone().oneshot(request)
        });
        let (builder, watcher, open) = (builder.clone(), graceful.watcher(), Open::count(&open));
        tokio::spawn(async move {
            // Which version of HTTP it is shows in the first bytes, and hyper waits for those without a limit.
            if let Ok(true) = tokio::time::timeout(limits.header_timeout, speaks(&stream)).await {
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                // Senders break connections all the time; nothing of it is ours to report.
                let _ = watcher.watch(connection).await;
            }
            drop((slot, open));
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.close_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections.cut: some answers were still under way");
    }
}
