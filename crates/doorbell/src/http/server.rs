//! The accept loop: connections with limits and time-outs, and a graceful end.
//!
//! Our own, because `axum::serve` sets no time-out for reading headers, so that a few slow senders could hold every
//! connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{Acceptor, ClientHello};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::crowd::{Allowance, Crowd, ask_for_tls};
use crate::app::PROOF;

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request's headers may take, and a connection may be idle (at most twice as long).
    pub header_timeout: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// How long nothing of an answer may be read by whoever asked.
    pub unread_timeout: Duration,
    /// How long answers under way may take when the gateway closes.
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(15),
            connections: 8192,
            unread_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// The largest block of headers.
const LARGEST_HEADERS: usize = 64 * 1024;
/// How often a connection that sent half a preface is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long to wait when no connection can be accepted (no file descriptors are left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether a connection speaks HTTP/2: it sends a whole preface, or anything else than the beginning of one. None if it ends
/// before.
async fn speaks_http2(stream: &TcpStream) -> Option<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut begun = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut begun).await {
            Ok(0) | Err(_) => return None,
            Ok(read) if begun[..read] == *PREFACE => return Some(true),
            Ok(read) if !PREFACE.starts_with(&begun[..read]) => return Some(false),
            // Peeking answers at once while there is anything to see, so more is looked for now and then.
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// The requests of one connection.
#[derive(Debug, Default)]
struct Requests {
    under_way: AtomicUsize,
    /// Those of them whose answers wait to be read on.
    unread: AtomicUsize,
    /// Beginnings, ends and sent pieces so far.
    changes: AtomicUsize,
}

impl Requests {
    /// Waits until nothing is under way for longer than `idle` (at most twice as long), or nothing of the answers is taken for longer
    /// than `unread`: then false.
    async fn are_over(&self, idle: Duration, unread: Duration) -> bool {
        let mut before = self.changes.load(Ordering::Acquire);
        let mut still = Duration::ZERO;
        loop {
            tokio::time::sleep(idle).await;
            let now = self.changes.load(Ordering::Acquire);
            let under_way = self.under_way.load(Ordering::Acquire);
            if now == before && under_way == 0 {
                return true;
            }
            // What is not answered yet, or not to its end, waits for us.
            let stands = now == before && under_way == self.unread.load(Ordering::Acquire);
            still = if stands { still + idle } else { Duration::ZERO };
            if still > unread {
                return false;
            }
            before = now;
        }
    }
}

/// A request, until its answer is sent or nobody wants it.
struct UnderWay(Arc<Requests>);

impl UnderWay {
    fn begin(requests: &Arc<Requests>) -> Self {
        requests.under_way.fetch_add(1, Ordering::AcqRel);
        requests.changes.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(requests))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer, which is under way until it is sent.
struct Answer {
    body: axum::body::Body,
    under_way: UnderWay,
    /// Whether what there was of it was handed over, and no more is asked for: it is for the other side to read on.
    unread: bool,
}

impl Answer {
    fn begin(body: axum::body::Body, under_way: UnderWay) -> Self {
        let mut answer = Self { body, under_way, unread: false };
        answer.note(true);
        answer
    }

    fn note(&mut self, unread: bool) {
        match (self.unread, unread) {
            (false, true) => {
                self.under_way.0.unread.fetch_add(1, Ordering::AcqRel);
            }
            (true, false) => {
                self.under_way.0.unread.fetch_sub(1, Ordering::AcqRel);
            }
            _ => {}
        }
        self.unread = unread;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.note(false);
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let answer = self.get_mut();
        let polled = Pin::new(&mut answer.body).poll_frame(context);
        // A stream that has nothing to say for a while is not one that nobody reads.
        answer.note(polled.is_ready());
        if polled.is_ready() {
            answer.under_way.0.changes.fetch_add(1, Ordering::AcqRel);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

/// How connections are served.
#[derive(Debug)]
struct Builders {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Builders {
    fn new(limits: Limits) -> Self {
        let mut http1 = http1::Builder::new();
        // A request has at most 100 headers, hyper's own limit: for a larger one it fills 16 KiB of the heap with each request,
        // which waiting connections then hold on to.
        http1.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(LARGEST_HEADERS);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.header_timeout)
            .max_header_list_size(u32::try_from(LARGEST_HEADERS).unwrap_or(u32::MAX));
        Self { http1, http2 }
    }
}

/// Notes in a request what the connection alone does not say of who sends it.
pub type Introduction = Arc<dyn Fn(&mut hyper::Request<Incoming>) + Send + Sync>;

/// What those who connect to one address are served.
#[derive(Clone)]
pub struct Service {
    /// The routes.
    pub router: Router,
    /// What every request goes through before: a call, since a layer of the router would cost each of them three places on the
    /// heap.
    pub introduce: Introduction,
    /// What connections may cost.
    pub limits: Limits,
    /// Counts the open connections.
    pub open: Gauge,
    /// How many connections one address may have; none: any number.
    pub allowance: Allowance,
    /// Counts the connections that were refused, because their address had too many.
    pub refused: Counter,
    /// The certificate in force, asked for each connection; none: plain HTTP is spoken.
    pub tls: Option<Certificates>,
}

impl Service {
    /// Over plain HTTP, and without a limit of each address.
    pub fn plain(router: Router, limits: Limits) -> Self {
        let (open, refused) = (Gauge::default(), Counter::default());
        let (introduce, allowance): (Introduction, Allowance) = (Arc::new(|_| ()), Arc::new(|_| None));
        Self { router, introduce, limits, open, allowance, refused, tls: None }
    }
}

/// Answers the certificate for whoever says hello; none if there is none.
pub type Certificates = Arc<dyn Fn(&ClientHello<'_>) -> Option<Arc<ServerConfig>> + Send + Sync>;

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// How often it is said that there is no room for further connections.
const SAY_FULL: Duration = Duration::from_secs(60);

/// Gives a connection its slot, when there is one: those that wait stay with the system, which accepts some more.
async fn slot(slots: &Arc<Semaphore>, said: &mut Option<Instant>) -> Option<OwnedSemaphorePermit> {
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        return Some(slot);
    }
    if said.is_none_or(|at| at.elapsed() >= SAY_FULL) {
        *said = Some(Instant::now());
        tracing::warn!("connections.full: further ones wait until others end (`[gateway] max_connections`)");
    }
    // The semaphore is never closed.
    Arc::clone(slots).acquire_owned().await.ok()
}

/// Serves until `closing` is cancelled, then lets the answers under way end.
pub async fn serve(listener: TcpListener, service: Service, closing: CancellationToken) {
    let limits = service.limits;
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut said_full = None;
    let connections = TaskTracker::new();
    let crowd = Crowd::new(Arc::clone(&service.allowance), service.refused.clone());
    let server = Arc::new(Server { builders: Builders::new(limits), service, closing: closing.clone() });
    loop {
        let accepted = async {
            let slot = slot(&slots, &mut said_full).await;
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
        let Some(place) = crowd.enter(address.ip()) else {
            crowd.turn_away(stream);
            continue;
        };
        // Answers are small and wanted now.
        let _ = stream.set_nodelay(true);
        let (server, open) = (Arc::clone(&server), Open::count(&server.service.open));
        connections.spawn(async move {
            server.greet(stream, address).await;
            drop((slot, place, open));
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.close_timeout, connections.wait()).await.is_err() {
        tracing::warn!("connections.cut: some answers were still under way");
    }
}

/// What serves the connections of one listener.
struct Server {
    builders: Builders,
    service: Service,
    closing: CancellationToken,
}

impl Server {
    /// Serves a connection, once it says in time what it speaks.
    async fn greet(&self, stream: TcpStream, address: SocketAddr) {
        let patience = self.service.limits.header_timeout;
        let Some(certificates) = &self.service.tls else {
            // Which version of HTTP it is shows in the first bytes. Hyper waits for those without a limit, and what it has
            // read of them makes its buffer twice as large for as long as the connection lives.
            if let Ok(Some(is_http2)) = tokio::time::timeout(patience, speaks_http2(&stream)).await {
                self.serve_connection(is_http2, stream, address).await;
            }
            return;
        };
        let handshake = async {
            if begins_as_text(&stream).await? {
                ask_for_tls(stream).await;
                return None;
            }
            let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await.ok()?;
            let certificate = certificates(&begun.client_hello())?;
            begun.into_stream(certificate).await.ok()
        };
        // In a box each: connections that speak plain HTTP need no room for it.
        let Ok(Some(stream)) = Box::pin(tokio::time::timeout(patience, handshake)).await else { return };
        let is_http2 = match stream.get_ref().1.alpn_protocol() {
            // It has seen what it came for.
            Some(PROOF) => return,
            protocol => protocol == Some(b"h2"),
        };
        Box::pin(self.serve_connection(is_http2, stream, address)).await;
    }

    /// Serves a connection until it is over.
    async fn serve_connection(
        &self,
        is_http2: bool,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) {
        let requests = Arc::new(Requests::default());
        let counted = Arc::clone(&requests);
        let (router, introduce) = (self.service.router.clone(), Arc::clone(&self.service.introduce));
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            let under_way = UnderWay::begin(&counted);
            request.extensions_mut().insert(ConnectInfo(address));
            introduce(&mut request);
            let answered = router.clone().oneshot(request);
            async move {
                let answer = answered.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer::begin(body, under_way)))
            }
        });
        let (stream, limits, closing) = (TokioIo::new(stream), self.service.limits, &self.closing);
        // In a box each: a task has room for the largest thing that it may ever hold, and twice for what is handed on. Many
        // connections only wait, and most of them speak HTTP/1, whose state is the smaller one.
        if is_http2 {
            let connection = Box::pin(self.builders.http2.serve_connection(stream, service));
            end_in_time(connection, http2::Connection::graceful_shutdown, &requests, limits, closing).await;
        } else {
            let connection = Box::pin(self.builders.http1.serve_connection(stream, service));
            end_in_time(connection, http1::Connection::graceful_shutdown, &requests, limits, closing).await;
        }
    }
}

/// Waits until a connection ends, is idle, or the gateway closes; then what is left of the answers is still sent, as long as it is
/// read.
async fn end_in_time<C: Future>(
    mut connection: Pin<Box<C>>,
    shut: fn(Pin<&mut C>),
    requests: &Requests,
    limits: Limits,
    closing: &CancellationToken,
) {
    tokio::select! {
        // Senders break connections all the time; nothing of it is ours to report.
        _ = connection.as_mut() => return,
        () = closing.cancelled() => {}
        // HTTP/2 keeps connections open by pings, which say nothing of whether anything is asked.
        is_idle = requests.are_over(limits.header_timeout, limits.unread_timeout) => if !is_idle { return },
    }
    shut(connection.as_mut());
    // The last of an answer may stand in a buffer.
    let _ = tokio::time::timeout(limits.unread_timeout, connection).await;
}

/// Whether a connection begins with a letter, as every request of HTTP does and no handshake of TLS. None if it ends before.
async fn begins_as_text(stream: &TcpStream) -> Option<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) => Some(first[0].is_ascii_alphabetic()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::Body;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;

    const FRAME_SETTINGS: u8 = 4;
    const FRAME_PING: u8 = 6;
    const ACKNOWLEDGED: u8 = 1;

    async fn start(router: Router) -> SocketAddr {
        let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
        start_with(Service::plain(router, limits)).await
    }

    async fn start_with(service: Service) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, service, CancellationToken::new()));
        address
    }

    /// Speaks HTTP/2, answers every ping, and asks nothing, until the other side closes the connection.
    async fn keep_open(address: SocketAddr) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        stream.write_all(preface).await.unwrap();
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            let (kind, flags) = (head[3], head[4]);
            if flags & ACKNOWLEDGED != 0 || !matches!(kind, FRAME_SETTINGS | FRAME_PING) {
                continue;
            }
            let payload = if kind == FRAME_PING { payload } else { Vec::new() };
            let mut answer = vec![0, 0, payload.len() as u8, kind, ACKNOWLEDGED, 0, 0, 0, 0];
            answer.extend(payload);
            if stream.write_all(&answer).await.is_err() {
                break;
            }
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn an_http2_connection_that_only_answers_pings_is_closed() {
        let address = start(Router::new()).await;
        tokio::time::timeout(LONG, keep_open(address)).await.expect("it was kept open");
    }

    #[tokio::test]
    async fn a_stream_that_says_nothing_for_long_is_not_taken_for_one_that_nobody_reads() {
        let requests = Arc::new(Requests::default());
        let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
        let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let mut answer = Answer::begin(Body::from_stream(pieces), UnderWay::begin(&requests));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert_eq!(requests.unread.load(Ordering::Acquire), 1, "nobody asked for anything of it yet");
        assert!(hyper::body::Body::poll_frame(Pin::new(&mut answer), &mut context).is_pending());
        assert_eq!(requests.unread.load(Ordering::Acquire), 0);
        sender.send(Ok(Bytes::from_static(b"piece"))).await.unwrap();
        assert!(hyper::body::Body::poll_frame(Pin::new(&mut answer), &mut context).is_ready());
        assert_eq!(requests.unread.load(Ordering::Acquire), 1);
        drop(answer);
        assert_eq!(requests.unread.load(Ordering::Acquire), 0);
    }

    /// Serves a large answer and waits until no connection is open any more, after one asked so and read nothing.
    async fn ask_and_read_nothing(question: &[u8]) {
        let limits = Limits {
            header_timeout: Duration::from_millis(50),
            unread_timeout: Duration::from_millis(200),
            ..Limits::default()
        };
        let router = Router::new().route("/", get(async || Body::from(vec![b'x'; 32 << 20])));
        let service = Service::plain(router, limits);
        let open = service.open.clone();
        let address = start_with(service).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(question).await.unwrap();
        let wait_for = async |count: i64| {
            while open.get() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, wait_for(1)).await.expect("it is open");
        // Sooner than hyper gives a connection up that answers no ping.
        tokio::time::timeout(LONG / 2, wait_for(0)).await.expect("it was kept open");
    }

    #[tokio::test]
    async fn a_connection_whose_answers_nobody_reads_is_closed() {
        ask_and_read_nothing(&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(30)).await;
    }

    #[tokio::test]
    async fn an_http2_connection_that_gives_no_room_for_its_answer_is_closed() {
        // The preface; that a stream's first window is 0; and `GET /`, which ends the stream.
        let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
        let get = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01x";
        ask_and_read_nothing(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), settings, get].concat()).await;
    }

    #[tokio::test]
    async fn an_address_with_too_many_connections_is_told_so_until_it_has_fewer() {
        let allowance: Allowance = Arc::new(|_| Some(2));
        let service = Service { allowance, ..Service::plain(Router::new(), Limits::default()) };
        let refused = service.refused.clone();
        let address = start_with(service).await;
        let ask = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            (stream, String::from_utf8(head.to_vec()).unwrap())
        };
        let (first, second, third) = (ask().await, ask().await, ask().await);
        assert_eq!([&first.1, &second.1, &third.1], ["HTTP/1.1 404", "HTTP/1.1 404", "HTTP/1.1 429"]);
        assert_eq!(refused.get(), 1);
        drop(first);
        // The place is free once the gateway has seen the end.
        tokio::time::timeout(LONG, async { while ask().await.1 != "HTTP/1.1 404" {} }).await.unwrap();
    }

    #[tokio::test]
    async fn when_there_is_no_room_a_connection_waits_and_is_then_served() {
        let limits = Limits { connections: 1, ..Limits::default() };
        let address = start_with(Service::plain(Router::new(), limits)).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        second.write_all(request).await.unwrap();
        let mut head = [0; 12];
        first.write_all(request).await.unwrap();
        first.read_exact(&mut head).await.unwrap();
        drop(first);
        tokio::time::timeout(LONG, second.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 404");
    }

    #[tokio::test]
    async fn an_answer_that_takes_longer_than_a_connection_may_be_idle_is_sent_whole() {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
        let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
        let answer = move || {
            let receiver = receiver.lock().unwrap().take().unwrap();
            let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
                receiver.recv().await.map(|piece| (piece, receiver))
            });
            std::future::ready(Body::from_stream(pieces))
        };
        let address = start(Router::new().route("/", get(answer))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        sender.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
        // As long as it takes to find two others idle.
        for _ in 0..2 {
            tokio::time::timeout(LONG, keep_open(address)).await.unwrap();
        }
        sender.send(Ok(Bytes::from_static(b"last"))).await.unwrap();
        drop(sender);
        let mut whole = String::new();
        stream.read_to_string(&mut whole).await.unwrap();
        assert!(whole.contains("first") && whole.contains("last"), "{whole}");
    }
}
