//! Requests that the gateway makes by itself to others than its users: a certificate, a confirmation, how a run ended, a
//! run that is carried out behind a URL.
//!
//! Nothing is sent along that would say who asks, redirects are not followed, and what comes back is bounded.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Url};

use crate::client::{Reach, is_local, parse_url};
use crate::dialing;
use crate::public::{self, NotPublic};

/// Bytes of an answer that are read where only its status matters.
const LARGEST_ANSWER: usize = 16 << 10;

/// Asks others. Its connections are made when the first is needed, and kept.
#[derive(Debug, Default)]
pub struct Outbound {
    others: OnceLock<Reach>,
    /// What is on this machine is asked in another way: not through a proxy.
    here: OnceLock<Reach>,
    /// Whether only the public internet is asked.
    is_confined: bool,
}

/// How TLS is spoken where it is not spoken as with everybody. All of it is PEM.
#[derive(Clone, Copy, Default)]
pub struct Tls<'a> {
    /// The certificate that is shown, with those that lead to its authority, and its private key.
    pub identity: Option<(&'a [u8], &'a [u8])>,
    /// The authorities that are trusted, and no others.
    pub authorities: Option<&'a [u8]>,
}

/// A key is a secret.
impl std::fmt::Debug for Tls<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Why there is no whole answer to a post, without the URL and the headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// It must not be asked: another try would come to the same.
    Refused(String),
    /// It did not answer.
    Failed(String),
    /// It was not asked, since this machine is short of something, such as descriptors.
    Short(String),
}

/// What somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before the next try, if it says so in seconds.
    pub retry_after: Option<Duration>,
}

/// What somebody answered to a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before the next try, if it says so.
    pub retry_after: Option<Duration>,
    /// What it says its body is.
    pub content_type: Option<String>,
    /// The body; none if it is larger than was wanted.
    pub body: Option<Bytes>,
}

impl Outbound {
    /// Asks the public internet only: for URLs that somebody else than the operator chose. Private, local and link-local
    /// addresses are refused, however a URL writes them and wherever a name leads.
    pub fn in_public() -> Self {
        Self { is_confined: true, ..Self::default() }
    }

    /// Asks one https URL with a TLS of its own; `in_public` as [`Outbound::in_public`].
    ///
    /// # Errors
    /// What is wrong with the PEM, in words for people.
    pub fn with_tls(url: &str, tls: Tls<'_>, in_public: bool) -> Result<Self, String> {
        let parsed = parse_url(url).map_err(|_| "its URL cannot be used".to_owned())?;
        let reach = Reach::by(&parsed, tls, in_public).map_err(unreachable)?;
        Ok(Self { others: reach.clone().into(), here: reach.into(), is_confined: in_public })
    }

    /// Posts a body to an http or https URL, and reads an answer of at most `limit` bytes. However long it takes: the caller
    /// drops it when it has waited long enough.
    ///
    /// It may arrive twice: a connection that was kept and is cut before anything is answered says nothing of the server, so it
    /// is sent once more over a new one.
    ///
    /// # Errors
    /// Why there is no whole answer, in words for people, without the URL and the headers.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(String, Vec<u8>)],
        body: Bytes,
        limit: usize,
    ) -> Result<Posted, Unanswered> {
        let parsed = parse_url(url).map_err(|_| Unanswered::Failed("its URL cannot be used".to_owned()))?;
        if self.is_confined {
            public::check(&parsed).map_err(|error| Unanswered::Refused(error.to_string()))?;
        }
        let reach = self.reach(&parsed).map_err(Unanswered::Failed)?;
        let request = reach.kept.post(parsed).body(body);
        let request = with_headers(request, headers).map_err(Unanswered::Failed)?;
        let response = dialing::send(&reach.fresh, request).await.map_err(|error| {
            let refused = causes(&error).find_map(|cause| cause.downcast_ref::<NotPublic>()).copied();
            match refused {
                Some(why) => Unanswered::Refused(why.to_string()),
                None if is_short(&error) => Unanswered::Short(unreachable(error)),
                None => Unanswered::Failed(unreachable(error)),
            }
        })?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let body = read_up_to(response, limit).await.map_err(Unanswered::Failed)?;
        Ok(Posted { status, retry_after, content_type, body })
    }

    /// Gets what an https URL has: `200`, and at most `limit` bytes.
    ///
    /// # Errors
    /// Why not, in words for the log: they name neither the URL nor what came.
    pub async fn fetch(&self, url: &str, limit: usize, patience: Duration) -> Result<Bytes, String> {
        if !url.starts_with("https://") {
            return Err("only https is asked".to_owned());
        }
        let response = self.send(&Method::GET, url, None, patience).await?;
        match response.status().as_u16() {
            200 => read(response, limit).await,
            status @ 300..=399 => Err(format!("{status}: redirects are not followed")),
            status => Err(format!("answered with {status}")),
        }
    }

    /// Sends a request, with JSON if there is some, and waits for the status of the answer.
    ///
    /// # Errors
    /// Why there is none, in words for the log, without the URL.
    pub async fn ask(
        &self,
        method: &Method,
        url: &str,
        json: Option<String>,
        patience: Duration,
    ) -> Result<Reply, String> {
        let response = self.send(method, url, json, patience).await?;
        let retry_after = retry_after(response.headers());
        let status = response.status().as_u16();
        // So that the connection can be used again; what it says matters to nobody.
        let _ = read(response, LARGEST_ANSWER).await;
        Ok(Reply { status, retry_after })
    }

    async fn send(
        &self,
        method: &Method,
        url: &str,
        json: Option<String>,
        patience: Duration,
    ) -> Result<reqwest::Response, String> {
        let parsed = parse_url(url).map_err(|_| "its URL cannot be used".to_owned())?;
        let mut request = self.reach(&parsed)?.kept.request(method.clone(), parsed).timeout(patience);
        if let Some(json) = json {
            request = request.header("content-type", "application/json").body(json);
        }
        request.send().await.map_err(unreachable)
    }

    /// The connections that reach a URL.
    fn reach(&self, url: &Url) -> Result<&Reach, String> {
        if self.is_confined {
            public::check(url).map_err(|error| error.to_string())?;
        }
        let kept = if is_local(url) { &self.here } else { &self.others };
        match kept.get() {
            Some(reach) => Ok(reach),
            None => {
                let made = Reach::plain(url, self.is_confined).map_err(unreachable)?;
                Ok(kept.get_or_init(|| made))
            }
        }
    }
}

fn with_headers(mut request: RequestBuilder, headers: &[(String, Vec<u8>)]) -> Result<RequestBuilder, String> {
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} cannot be the name of a header"))?;
        let mut value =
            HeaderValue::from_bytes(value).map_err(|_| format!("what `{name}` is to have no header can have"))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    Ok(request)
}

/// `Retry-After`, in seconds or as a date. A date counts from the answer's own `Date`, so that two clocks that differ do no
/// harm; without that it says nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    let wanted = text(RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let moment = |text| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
    Some(Duration::try_from(moment(wanted)?.duration_since(moment(text(DATE)?)?)).unwrap_or_default())
}

async fn read(response: reqwest::Response, limit: usize) -> Result<Bytes, String> {
    read_up_to(response, limit).await?.ok_or_else(|| format!("its answer is larger than {limit} bytes"))
}

/// The body; none if it is larger than `limit`.
async fn read_up_to(mut response: reqwest::Response, limit: usize) -> Result<Option<Bytes>, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// Whether a connection could not be made for want of something on this machine: ENOMEM, ENFILE, EMFILE and ENOBUFS of Linux
/// (errno(3)).
fn is_short(error: &reqwest::Error) -> bool {
    let codes = causes(error).filter_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error());
    error.is_connect() && codes.into_iter().any(|code| [12, 23, 24, 105].contains(&code))
}

/// Without the URL, which may be a secret.
fn unreachable(error: reqwest::Error) -> String {
    let error = error.without_url();
    causes(&error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SOON: Duration = Duration::from_secs(20);

    /// A server that answers one request with these bytes, and says what it was asked.
    async fn answering(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/there", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let length = socket.read(&mut bytes).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        });
        (url, asked)
    }

    #[tokio::test]
    async fn only_https_is_fetched() {
        let refused = Outbound::default().fetch("http://127.0.0.1:1/", 10, SOON).await;
        assert_eq!(refused, Err("only https is asked".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_says_its_status_and_when_to_come_again() {
        let (url, asked) =
            answering("HTTP/1.1 429 Too Many\r\nretry-after: 1.5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
        let reply = Outbound::default().ask(&Method::PATCH, &url, Some("{}".to_owned()), SOON).await.unwrap();
        assert_eq!(reply, Reply { status: 429, retry_after: Some(Duration::from_millis(1500)) });
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("PATCH /there ") && asked.contains("content-type: application/json"), "{asked}");
    }

    #[tokio::test]
    async fn a_post_brings_its_headers_and_a_bounded_answer_back() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnull";
        let headers = [("x-proof".to_owned(), b"me".to_vec())];
        for (limit, body) in [(4, Some(Bytes::from_static(b"null"))), (3, None)] {
            let (url, asked) = answering(answer).await;
            let posted = Outbound::default().post(&url, &headers, Bytes::from_static(b"{}"), limit).await.unwrap();
            let content_type = Some("application/json".to_owned());
            assert_eq!(posted, Posted { status: 200, retry_after: None, content_type, body });
            let asked = asked.await.unwrap();
            assert!(asked.starts_with("POST /there ") && asked.contains("x-proof: me"), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_header_that_cannot_be_sent_is_not_shown() {
        let headers = [("authorization".to_owned(), b"hunter2\n".to_vec())];
        let refused = Outbound::default().post("http://127.0.0.1:1/", &headers, Bytes::new(), 1).await;
        let Err(Unanswered::Failed(error)) = refused else { panic!("{refused:?}") };
        assert!(error.contains("authorization") && !error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn who_is_confined_to_the_public_internet_reaches_nothing_else() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let reached = tokio::spawn(async move { listener.accept().await.map(drop) });
        let confined = Outbound::in_public();
        for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"] {
            let refused = confined.post(&format!("http://{host}:{port}/"), &[], Bytes::new(), 1).await;
            let Err(Unanswered::Refused(why)) = refused else { panic!("{host}: {refused:?}") };
            assert!(why.contains("public internet"), "{host}: {why}");
        }
        assert!(!reached.is_finished());
    }

    #[test]
    fn a_time_to_come_again_may_be_a_date() {
        let wait = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            retry_after(&pairs.iter().map(pair).collect())
        };
        let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        let later = ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT");
        assert_eq!(wait(&[date, later]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[("date", later.1), ("retry-after", date.1)]), Some(Duration::ZERO), "it is over");
        assert_eq!(wait(&[later]), None);
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "-1")]), None);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let (url, _) =
            answering("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(Outbound::default().ask(&Method::GET, &url, None, SOON).await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_said_without_its_url() {
        let error = Outbound::default().ask(&Method::GET, "http://127.0.0.1:1/secret", None, SOON).await.unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
