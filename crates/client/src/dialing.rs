//! Connections that were kept, and that the other side has closed meanwhile.
//!
//! A server may close a connection at any moment that nothing is on its way. Who sends at that moment cannot know it, and learns
//! only that the connection is gone: that says nothing of the server.

use std::cell::Cell;
use std::error::Error;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};

use reqwest::{RequestBuilder, Response};
use tower::Service;
use tower::layer::layer_fn;

use crate::outbound::causes;

tokio::task_local! {
    /// Whether a connection was opened for the request that this task sends.
    static DIALED: Cell<bool>;
}

/// Has connections noted that are opened for a request.
pub(crate) fn note_dialing(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.connector_layer(layer_fn(Dialing))
}

/// Sends a request. If it went over a connection that was kept, and that was cut before anything was answered, it is sent once
/// more by `fresh`, which keeps none: so it must be one that may arrive twice.
pub(crate) async fn send(fresh: &reqwest::Client, request: RequestBuilder) -> Result<Response, reqwest::Error> {
    let again = request.try_clone().and_then(|again| again.build().ok());
    let (sent, dialed) = DIALED
        .scope(Cell::new(false), async {
            let sent = request.send().await;
            (sent, DIALED.with(Cell::get))
        })
        .await;
    match (sent, again) {
        (Err(error), Some(again)) if !dialed && is_cut(&error) => fresh.execute(again).await,
        (sent, _) => sent,
    }
}

/// Whether the connection ended, and not the answer or our patience.
fn is_cut(error: &reqwest::Error) -> bool {
    let cut = |cause: &(dyn Error + 'static)| {
        let by_http = cause.downcast_ref::<hyper::Error>();
        let by_system = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        by_http.is_some_and(|error| error.is_incomplete_message() || error.is_closed() || error.is_canceled())
            || by_system.is_some_and(|kind| {
                use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
            })
    };
    !error.is_timeout() && causes(error).any(cut)
}

/// Opens connections, and says so to the task that needs one. One that another task goes on to open is for a later request.
#[derive(Debug, Clone)]
struct Dialing<S>(S);

impl<S, R> Service<R> for Dialing<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let opening = self.0.call(request);
        Box::pin(async move {
            let opened = opening.await;
            let _ = DIALED.try_with(|dialed| dialed.set(true));
            opened
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    /// The head of a request.
    async fn head(socket: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(socket.read_u8().await.unwrap());
        }
        String::from_utf8(bytes).unwrap()
    }

    fn clients() -> (reqwest::Client, reqwest::Client) {
        let builder = || note_dialing(reqwest::Client::builder().no_proxy());
        (builder().build().unwrap(), builder().pool_max_idle_per_host(0).build().unwrap())
    }

    #[tokio::test]
    async fn a_kept_connection_that_is_cut_unanswered_costs_nothing_and_a_new_one_that_is_cut_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            head(&mut first).await;
            first.write_all(ANSWER).await.unwrap();
            // The second request comes over the same connection, which ends under it.
            head(&mut first).await;
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            let again = head(&mut second).await;
            second.write_all(ANSWER).await.unwrap();
            // Nothing is kept of a fresh one, and what fails on a new one is not sent again.
            let (mut third, _) = listener.accept().await.unwrap();
            head(&mut third).await;
            drop(third);
            again
        });
        let (kept, fresh) = clients();
        let post = |body: &'static str| send(&fresh, kept.post(&url).header("x-id", "1").body(body));
        assert_eq!(post("").await.unwrap().status(), 200);
        assert_eq!(post("").await.unwrap().status(), 200);
        assert!(is_cut(&post("").await.unwrap_err()));
        let again = served.await.unwrap();
        assert!(again.starts_with("POST / ") && again.contains("x-id: 1"), "{again}");
    }
}
