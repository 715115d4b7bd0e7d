//! Asking a gateway.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;

use crate::api;
use crate::dialing;
use crate::error::{Error, excerpt, refusal};
use crate::outbound::Tls;
use crate::public;
use crate::query::{AuditQuery, EventQuery, RunQuery, append};
use crate::sse::{SseEvent, SseParser};

mod declared;
mod mcp;
mod replays;
mod starts;
mod waits;
mod webhooks;

/// How long a single question may take; streams have no end.
pub const TIMEOUT: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks one gateway, with one key. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    // Marked as sensitive, so that neither Debug nor a log shows it.
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the gateway at `base_url` that shows `key` (none: only [`Client::ready`] will be answered).
    ///
    /// # Errors
    /// [`Error::Unexpected`] if the URL is not an absolute http or https URL, or the key cannot be one.
    pub fn new(base_url: &str, key: Option<&str>) -> Result<Self, Error> {
        let base = parse_url(base_url)?;
        let authorization = key.map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
                .map_err(|_| Error::Unexpected("the key has characters that no key has".to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        Ok(Self { http: connect(&base)?, base, authorization: authorization.transpose()? })
    }

    /// The gateway's URL, without a slash at the end.
    pub fn base_url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether the gateway can store events now.
    ///
    /// # Errors
    /// 503 if it cannot.
    pub async fn ready(&self) -> Result<(), Error> {
        self.ask(Method::GET, self.url(&["readyz"])?, None).await.map(|_| ())
    }

    /// A page of events, newest first.
    ///
    /// # Errors
    /// If the gateway cannot be reached or refuses; so for all that follow.
    pub async fn events(&self, query: &EventQuery) -> Result<api::EventPage, Error> {
        let mut url = self.url(&["v1", "events"])?;
        query.append_to(&mut url);
        self.get(url).await
    }

    /// An event with its headers.
    ///
    /// # Errors
    /// 404 if there is none.
    pub async fn event(&self, id: &str) -> Result<api::EventDetail, Error> {
        self.get(self.url(&["v1", "events", id])?).await
    }

    /// The body of an event, byte for byte.
    ///
    /// # Errors
    /// 404 if there is no such event.
    pub async fn event_body(&self, id: &str) -> Result<Bytes, Error> {
        self.ask(Method::GET, self.url(&["v1", "events", id, "body"])?, None).await
    }

    /// Why an event started what it started, and nothing else.
    ///
    /// # Errors
    /// 404 if there is no such event.
    pub async fn explain(&self, id: &str) -> Result<api::Explanation, Error> {
        self.get(self.url(&["v1", "events", id, "explain"])?).await
    }

    /// What happens from now on, or after the event with the sequence number `after`; with the lines of the runs'
    /// logs. Ends when the gateway ends it.
    ///
    /// # Errors
    /// If the stream cannot be opened; an item is an error if it breaks.
    pub async fn event_stream(
        &self,
        after: Option<i64>,
    ) -> Result<impl Stream<Item = Result<api::Activity, Error>> + Send + Unpin + use<>, Error> {
        let mut url = self.url(&["v1", "events", "stream"])?;
        append(&mut url, "logs", Some(true));
        let events = self.subscribe(url, after.map(|seq| seq.to_string())).await?;
        Ok(Box::pin(
            events.filter_map(|event| std::future::ready(event.and_then(|event| activity(&event)).transpose())),
        ))
    }

    /// A page of runs, newest first.
    ///
    /// # Errors
    /// If a filter is not one.
    pub async fn runs(&self, query: &RunQuery) -> Result<api::RunPage, Error> {
        let mut url = self.url(&["v1", "runs"])?;
        query.append_to(&mut url);
        self.get(url).await
    }

    /// A run with its tries.
    ///
    /// # Errors
    /// 404 if there is none.
    pub async fn run(&self, id: &str) -> Result<api::RunDetail, Error> {
        self.get(self.url(&["v1", "runs", id])?).await
    }

    /// The lines of a run's log after line `after`: as many as the gateway gives at once, none at the end.
    ///
    /// # Errors
    /// 404 if there is no such run.
    pub async fn run_log(&self, id: &str, after: u64) -> Result<api::Log, Error> {
        let mut url = self.url(&["v1", "runs", id, "logs"])?;
        append(&mut url, "after", Some(after));
        self.get(url).await
    }

    /// The lines of a run's log after line `after`, as they come, until the run ends.
    ///
    /// # Errors
    /// If the stream cannot be opened; an item is an error if it breaks before the run ends.
    pub async fn follow_log(
        &self,
        id: &str,
        after: u64,
    ) -> Result<impl Stream<Item = Result<api::LogLine, Error>> + Send + Unpin + use<>, Error> {
        let mut url = self.url(&["v1", "runs", id, "logs"])?;
        append(&mut url, "follow", Some(true));
        let events = self.subscribe(url, (after > 0).then(|| after.to_string())).await?;
        Ok(Box::pin(lines(events)))
    }

    /// Asks a run to end.
    ///
    /// # Errors
    /// 404 if there is no such run. One that ended already is answered with the state that it has.
    pub async fn cancel_run(&self, id: &str) -> Result<api::Cancelled, Error> {
        self.post(self.url(&["v1", "runs", id, "cancel"])?, None).await
    }

    /// Lets a held run go on.
    ///
    /// # Errors
    /// 404 if there is no such run, 409 if it is not held.
    pub async fn release_run(&self, id: &str) -> Result<api::Released, Error> {
        self.post(self.url(&["v1", "runs", id, "release"])?, None).await
    }

    /// Fetches runs as a worker, and waits for the first as long as `poll` says.
    ///
    /// # Errors
    /// 404 if there is no such agent for the own key, 409 if its runs are not fetched.
    pub async fn poll(&self, poll: &api::Poll) -> Result<api::Polled, Error> {
        let patience = TIMEOUT + Duration::from_secs(poll.wait_seconds.unwrap_or(30));
        let url = self.url(&["v1", "worker", "poll"])?;
        read(&self.ask_within(Some(patience), Method::POST, url, Some(encode(poll)?), None).await?)
    }

    /// Keeps the lease of a run, and asks whether somebody wants its end.
    ///
    /// # Errors
    /// 409 `lease_lost` if the lease is another one by now: the run is to be left alone.
    pub async fn heartbeat(&self, id: &str, heartbeat: &api::Heartbeat) -> Result<api::Heard, Error> {
        let body = encode(heartbeat)?;
        self.post(self.url(&["v1", "runs", id, "heartbeat"])?, Some(body)).await
    }

    /// Adds lines to the log of a run that is carried out elsewhere.
    ///
    /// # Errors
    /// 409 `lease_lost` if the lease is another one by now.
    pub async fn append_lines(&self, id: &str, lines: &api::RunLines) -> Result<api::KeptLines, Error> {
        let body = encode(lines)?;
        self.post(self.url(&["v1", "runs", id, "logs"])?, Some(body)).await
    }

    /// Tells how a run ended that was carried out elsewhere: with an `error` it failed, else it is done.
    ///
    /// # Errors
    /// 409 `lease_lost` if the lease is another one by now, 404 if there is no such run.
    pub async fn end_run(&self, id: &str, end: &api::RunEnd) -> Result<api::EndedRun, Error> {
        let how = if end.error.is_some() { "fail" } else { "complete" };
        let body = encode(end)?;
        self.post(self.url(&["v1", "runs", id, how])?, Some(body)).await
    }

    /// Removes what an event and its runs said, for good; its id and its delivery keys stay. `cancel`: ends its runs
    /// first, if they are not over.
    ///
    /// # Errors
    /// 404 if there is no such event, 403 if the own key may not, 409 if a run of it is not over.
    pub async fn forget_event(&self, id: &str, cancel: bool) -> Result<api::Forgotten, Error> {
        let mut url = self.url(&["v1", "events", id])?;
        append(&mut url, "cancel", cancel.then_some(true));
        read(&self.ask(Method::DELETE, url, None).await?)
    }

    /// Has the gateway copy its store to a file on its machine, however long that takes.
    ///
    /// # Errors
    /// 403 if the own key may not, 400 if the file is not fit for it.
    pub async fn copy_store(&self, wish: &api::NewCopy) -> Result<api::Copied, Error> {
        read(&self.ask_within(None, Method::POST, self.url(&["v1", "backup"])?, Some(encode(wish)?), None).await?)
    }

    /// What is going on.
    ///
    /// # Errors
    /// If the gateway cannot be reached or refuses.
    pub async fn stats(&self) -> Result<api::Stats, Error> {
        self.get(self.url(&["v1", "stats"])?).await
    }

    /// The agents, by name.
    ///
    /// # Errors
    /// If the gateway cannot be reached or refuses.
    pub async fn agents(&self) -> Result<api::AgentList, Error> {
        self.get(self.url(&["v1", "agents"])?).await
    }

    /// The sources, by name.
    ///
    /// # Errors
    /// If the gateway cannot be reached or refuses.
    pub async fn sources(&self) -> Result<api::SourceList, Error> {
        self.get(self.url(&["v1", "sources"])?).await
    }

    /// What came to a source, newest first, rejections included; at most `limit` (1 to 500; none: as many as the gateway
    /// gives by itself).
    ///
    /// # Errors
    /// 404 if there is no such source, 400 if there is no such limit.
    pub async fn deliveries(&self, source: &str, limit: Option<u32>) -> Result<api::DeliveryList, Error> {
        let mut url = self.url(&["v1", "sources", source, "deliveries"])?;
        append(&mut url, "limit", limit);
        self.get(url).await
    }

    /// The first secret that a sender showed to a source when its webhook was set up; those that were shown after it are in `later`.
    ///
    /// # Errors
    /// 404 if there is none, 403 if the own key may not see it.
    pub async fn captured_secret(&self, source: &str) -> Result<api::CapturedSecret, Error> {
        self.get(self.url(&["v1", "sources", source, "captured"])?).await
    }

    /// Removes all secrets that were shown to a source.
    ///
    /// # Errors
    /// 404 if there is none, 403 if the own key may not.
    pub async fn forget_captured_secret(&self, source: &str) -> Result<(), Error> {
        self.ask(Method::DELETE, self.url(&["v1", "sources", source, "captured"])?, None).await.map(drop)
    }

    /// Holds a trigger against stored events.
    ///
    /// # Errors
    /// 400 if the trigger is none, 403 if the own key may not see all events.
    pub async fn test_trigger(&self, test: &api::TriggerTest) -> Result<api::TriggerTestResult, Error> {
        let body = encode(test)?;
        self.post(self.url(&["v1", "triggers", "test"])?, Some(body)).await
    }

    /// A page of the audit log, newest first.
    ///
    /// # Errors
    /// 403 if the own key may not.
    pub async fn audit(&self, query: &AuditQuery) -> Result<api::AuditPage, Error> {
        let mut url = self.url(&["v1", "audit"])?;
        query.append_to(&mut url);
        self.get(url).await
    }

    /// Makes an API key.
    ///
    /// # Errors
    /// 403 if the own key may not.
    pub async fn create_key(&self, wish: &api::NewKey) -> Result<api::CreatedKey, Error> {
        let body = encode(wish)?;
        self.post(self.url(&["v1", "keys"])?, Some(body)).await
    }

    /// The API keys, without the secrets.
    ///
    /// # Errors
    /// 403 if the own key may not.
    pub async fn keys(&self) -> Result<api::KeyList, Error> {
        self.get(self.url(&["v1", "keys"])?).await
    }

    /// Removes an API key: it is refused from then on, and the streams that it has open end.
    ///
    /// # Errors
    /// 404 if there is no such key, 403 if the own key may not.
    pub async fn remove_key(&self, id: &str) -> Result<api::RemovedKey, Error> {
        read(&self.ask(Method::DELETE, self.url(&["v1", "keys", id])?, None).await?)
    }

    /// Sends a sample to everybody who is told of problems, and answers what they said.
    ///
    /// # Errors
    /// 400 if nothing of that name is told, 403 if the own key may not.
    pub async fn test_notifications(&self, wish: &api::NotificationTest) -> Result<api::NotificationAnswers, Error> {
        let body = encode(wish)?;
        self.post(self.url(&["v1", "notifications", "test"])?, Some(body)).await
    }

    /// The URL of these path segments, each one percent-encoded.
    fn url(&self, segments: &[&str]) -> Result<Url, Error> {
        // `.` and `..` would name another resource, however they are encoded.
        if let Some(wrong) = segments.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
            return Err(Error::Unexpected(format!("`{wrong}` is neither an id nor a name")));
        }
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(segments),
            Err(()) => return Err(Error::Unexpected(format!("`{}` has no paths", self.base))),
        };
        Ok(url)
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, Error> {
        read(&self.ask(Method::GET, url, None).await?)
    }

    async fn post<T: DeserializeOwned>(&self, url: Url, body: Option<Vec<u8>>) -> Result<T, Error> {
        read(&self.ask(Method::POST, url, body).await?)
    }

    async fn ask(&self, method: Method, url: Url, body: Option<Vec<u8>>) -> Result<Bytes, Error> {
        self.ask_with(method, url, body, None).await
    }

    async fn ask_with(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
        header: Option<(&str, &str)>,
    ) -> Result<Bytes, Error> {
        self.ask_within(Some(TIMEOUT), method, url, body, header).await
    }

    /// Asks, and waits so long for the whole answer; none: however long it takes.
    async fn ask_within(
        &self,
        patience: Option<Duration>,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
        header: Option<(&str, &str)>,
    ) -> Result<Bytes, Error> {
        let mut request = self.http.request(method, url).headers(self.headers("application/json"));
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = self.check(request.send().await).await?;
        response.bytes().await.map_err(|error| unreachable(&self.base, error))
    }

    /// Opens a stream of server-sent events.
    async fn subscribe(
        &self,
        url: Url,
        last: Option<String>,
    ) -> Result<impl Stream<Item = Result<SseEvent, Error>> + Send + use<>, Error> {
        let mut request = self.http.get(url).headers(self.headers("text/event-stream"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = self.check(request.send().await).await?;
        Ok(events(response, self.base.clone()))
    }

    fn headers(&self, accept: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        headers
    }

    async fn check(&self, answer: Result<Response, reqwest::Error>) -> Result<Response, Error> {
        let response = answer.map_err(|error| unreachable(&self.base, error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| unreachable(&self.base, error))?;
        Err(refusal(status, &body))
    }
}

/// An absolute http or https URL.
pub(crate) fn parse_url(text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).map_err(|error| Error::NoUrl(format!("`{text}` is not a URL: {error}")))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(Error::NoUrl(format!("`{text}` is not a URL of a gateway: it begins with http:// or https://"))),
    }
}

/// The connections for a URL.
pub(crate) fn connect(url: &Url) -> Result<reqwest::Client, Error> {
    // What runs on this machine is never asked through a proxy, which would ask its own machine.
    build(builder_for(url))
}

fn builder_for(url: &Url) -> reqwest::ClientBuilder {
    if is_local(url) { builder().no_proxy() } else { builder() }
}

/// How a URL is reached by the gateway itself.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// Connections are kept, and used again.
    pub(crate) kept: reqwest::Client,
    /// Each request has one of its own.
    pub(crate) fresh: reqwest::Client,
}

impl Reach {
    fn build(builder: impl Fn() -> Result<reqwest::ClientBuilder, reqwest::Error>) -> Result<Self, reqwest::Error> {
        let builder = || Ok::<_, reqwest::Error>(dialing::note_dialing(builder()?));
        Ok(Self { kept: builder()?.build()?, fresh: builder()?.pool_max_idle_per_host(0).build()? })
    }

    /// As everybody does it; `in_public`: that reaches the public internet only.
    pub(crate) fn plain(url: &Url, in_public: bool) -> Result<Self, reqwest::Error> {
        Self::build(|| Ok(if in_public { public::restrict(builder()) } else { builder_for(url) }))
    }

    /// With a TLS of its own, for one URL.
    pub(crate) fn by(url: &Url, tls: Tls<'_>, in_public: bool) -> Result<Self, reqwest::Error> {
        Self::build(|| builder_by(url, tls, in_public))
    }
}

fn builder_by(url: &Url, tls: Tls<'_>, in_public: bool) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    let mut builder = if in_public { public::restrict(builder()) } else { builder_for(url) };
    if let Some((certificate, key)) = tls.identity {
        builder = builder.identity(reqwest::Identity::from_pem(&[key, b"\n", certificate].concat())?);
    }
    if let Some(authorities) = tls.authorities {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(authorities)?);
    }
    Ok(builder.https_only(true))
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        // A redirect would show the key, or a signed delivery, to another place.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("doorbell/", env!("CARGO_PKG_VERSION")))
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    builder.build().map_err(|error| Error::Unexpected(format!("cannot open connections: {error}")))
}

pub(crate) fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

pub(crate) fn unreachable(url: &Url, source: reqwest::Error) -> Error {
    let mut shown = url.clone();
    // Neither can fail for a URL with a host.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    Error::Unreachable { url: shown.as_str().trim_end_matches('/').to_owned(), source: source.without_url() }
}

fn encode(wish: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(wish).map_err(|error| Error::Unexpected(error.to_string()))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| {
        Error::Unexpected(format!("the answer is not one of this version of Doorbell ({error}): {}", excerpt(body)))
    })
}

/// The events of an open stream, until it ends.
fn events(response: Response, url: Url) -> impl Stream<Item = Result<SseEvent, Error>> + Send {
    let bytes: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(response.bytes_stream());
    stream::try_unfold((bytes, SseParser::default(), url), |(mut bytes, mut parser, url)| async move {
        loop {
            if let Some(event) = parser.next() {
                return Ok(Some((event, (bytes, parser, url))));
            }
            match bytes.next().await {
                Some(Ok(piece)) => parser.push(&piece).map_err(|error| Error::Unexpected(error.to_string()))?,
                Some(Err(error)) => return Err(unreachable(&url, error)),
                None => return Ok(None),
            }
        }
    })
}

/// What an event of `/v1/events/stream` says; none if it is of a kind that this version does not know.
fn activity(event: &SseEvent) -> Result<Option<api::Activity>, Error> {
    match event.name.as_str() {
        "event" | "duplicate" | "rejected" | "run" | "config" | "log" => read(event.data.as_bytes()).map(Some),
        _ => Ok(None),
    }
}

/// The lines of a log's stream, up to its `end`.
fn lines(
    events: impl Stream<Item = Result<SseEvent, Error>> + Send,
) -> impl Stream<Item = Result<api::LogLine, Error>> {
    stream::try_unfold(Box::pin(events), |mut events| async move {
        loop {
            let Some(event) = events.next().await.transpose()? else {
                return Err(Error::Unexpected(
                    "the log broke off before the run ended: ask again for the rest".to_owned(),
                ));
            };
            match event.name.as_str() {
                "line" => return Ok(Some((read(event.data.as_bytes())?, events))),
                "end" => return Ok(None),
                _ => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(base: &str) -> Client {
        Client::new(base, Some("dbk_secret")).unwrap()
    }

    #[test]
    fn path_segments_are_percent_encoded() {
        let url = client("http://gateway:1/").url(&["v1", "runs", "a/b?c#d e"]).unwrap();
        assert_eq!(url.as_str(), "http://gateway:1/v1/runs/a%2Fb%3Fc%23d%20e");
        let below = client("https://example.com/doorbell/").url(&["healthz"]).unwrap();
        assert_eq!(below.as_str(), "https://example.com/doorbell/healthz", "a gateway may stand below a path");
    }

    #[test]
    fn no_segment_leads_elsewhere() {
        for segment in ["", ".", ".."] {
            assert!(client("http://gateway").url(&["v1", "runs", segment, "cancel"]).is_err(), "{segment:?}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", client("http://gateway")).contains("dbk_secret"));
        assert!(Client::new("http://gateway", Some("dbk\n")).is_ok(), "white space around it is not part of it");
        assert!(Client::new("http://gateway", Some("dbk\nx")).is_err());
    }

    #[test]
    fn only_http_urls_are_gateways() {
        for wrong in ["gateway", "localhost:8080", "ftp://gateway", "mailto:a@b"] {
            assert!(Client::new(wrong, None).is_err(), "{wrong}");
        }
        assert_eq!(client("http://127.0.0.1:8080/").base_url(), "http://127.0.0.1:8080");
    }

    #[test]
    fn this_machine_is_not_asked_through_a_proxy() {
        for (url, local) in [
            ("http://localhost:1", true),
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://0.0.0.0:1", true),
            ("https://example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_local(&Url::parse(url).unwrap()), local, "{url}");
        }
    }

    #[test]
    fn kinds_of_activity_that_came_later_are_passed_over() {
        let event = |name: &str, data: &str| SseEvent { name: name.to_owned(), data: data.to_owned() };
        assert!(matches!(activity(&event("holiday", "{}")), Ok(None)));
        let line = r#"{"type":"log","runId":"run_1","line":{"n":1,"at":"","attempt":1,"stream":"stdout","text":"hi"}}"#;
        assert!(
            matches!(activity(&event("log", line)), Ok(Some(api::Activity::Log { run_id, .. })) if run_id == "run_1")
        );
        assert!(activity(&event("run", "{")).is_err());
    }
}
