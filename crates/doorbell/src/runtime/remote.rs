//! Carrying an attempt out behind a URL: the envelope is posted there, signed by the Standard Webhooks scheme
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>), and what is answered says
//! how it ended.
//!
//! Neither the URL nor a header is in any reason: both may be secrets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_client::{Outbound, Posted, Unanswered};
use doorbell_core::envelope::Envelope;
use doorbell_core::provider::standard::sign_ours;
use doorbell_core::run::Outcome;
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::redaction::Secrets;
use super::{Ended, Stop, name_of};
use crate::clock;
use crate::config::{HttpRuntime, write_duration};

/// The largest answer that is read, in bytes: that of a result.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// Characters of an answer that a reason quotes.
const MOST_QUOTED: usize = 200;
/// The longest wait that an agent may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// One attempt to be carried out behind a URL.
#[derive(Debug)]
pub struct Call {
    /// Where, and how it is signed.
    pub runtime: Arc<HttpRuntime>,
    /// How long it may take.
    pub timeout: Duration,
    /// What it is handed.
    pub envelope: Envelope,
    /// How it can tell later how it ended.
    pub callback: Callback,
    /// The variables by which it goes on with the trace; none while nothing is traced.
    pub trace: Vec<(&'static str, String)>,
}

/// Where an agent that takes its time tells how it ended.
#[derive(Debug)]
pub struct Callback {
    /// The run's URL.
    pub url: String,
    /// What it shows there. It is not logged.
    pub token: Secret,
    /// When nobody waits any more.
    pub expires_at: Timestamp,
}

/// What became of a call.
#[derive(Debug)]
pub struct Answered {
    /// How it ended; none: the agent took it, and tells later.
    pub ended: Option<Ended>,
    /// How long to wait before the next try, if it said so.
    pub wait: Option<Duration>,
    /// Whether it said that nobody is there any more.
    pub gone: bool,
}

impl From<Ended> for Answered {
    fn from(ended: Ended) -> Self {
        Self { ended: Some(ended), wait: None, gone: false }
    }
}

/// The envelope, with what only agents behind a URL get.
#[derive(Serialize)]
struct Handed<'a> {
    #[serde(flatten)]
    envelope: &'a Envelope,
    callback: Shown<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    url: &'a str,
    token: &'a str,
    expires_at: String,
}

/// Carries an attempt out. When `stop` comes first, nobody listens to the answer any more.
pub async fn call(call: Call, outbound: &Outbound, mut stop: watch::Receiver<Option<Stop>>) -> Answered {
    let (runtime, timeout) = (Arc::clone(&call.runtime), call.timeout);
    let issued = runtime.credentials.iter().chain([&runtime.secret, &call.callback.token]);
    let secrets = Arc::new(Secrets::new(issued));
    let post = async {
        // A large event takes a while to be written and signed.
        let (headers, body) = match tokio::task::spawn_blocking(move || prepare(&call)).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(why)) => return failed(Outcome::Refused(why)).into(),
            Err(error) => return failed(Outcome::Failed(format!("the request cannot be made: {error}"))).into(),
        };
        let outbound = runtime.connections.as_deref().unwrap_or(outbound);
        match outbound.post(&runtime.url, &headers, body, LARGEST_ANSWER).await {
            Ok(posted) => judge(posted, &secrets),
            Err(Unanswered::Refused(why)) => {
                let why =
                    format!("its URL is not asked: {why}, and one that was set through the API may lead nowhere else");
                failed(Outcome::Refused(why)).into()
            }
            Err(Unanswered::Short(why)) => {
                failed(Outcome::NotStarted(secrets.redact(&format!("its URL cannot be asked: {why}")).into_owned()))
                    .into()
            }
            Err(Unanswered::Failed(why)) => {
                failed(Outcome::Failed(secrets.redact(&format!("no answer: {why}")).into_owned())).into()
            }
        }
    };
    tokio::select! {
        biased;
        stop = super::stopped(&mut stop) => Ended::without_process(stop.into()).into(),
        answered = post => answered,
        () = tokio::time::sleep(timeout) => {
            let outcome = Outcome::Failed(format!("timed out after {}", write_duration(timeout)));
            Ended { ended: "timed_out", ..Ended::without_process(outcome) }.into()
        }
    }
}

/// Names and values of headers.
type Headers = Vec<(String, Vec<u8>)>;

/// Headers and body of the request.
fn prepare(call: &Call) -> Result<(Headers, Bytes), String> {
    let shown = Shown {
        url: &call.callback.url,
        token: call.callback.token.expose_str().unwrap_or_default(),
        expires_at: call.callback.expires_at.to_string(),
    };
    let body = serde_json::to_vec(&Handed { envelope: &call.envelope, callback: shown })
        .map_err(|error| format!("the event cannot be written as JSON: {error}"))?;
    let run = call.envelope.run_id.to_string();
    let mut headers: Headers =
        call.runtime.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_vec())).collect();
    let mut add = |name: &str, value: String| headers.push((name.to_ascii_lowercase(), value.into_bytes()));
    add("content-type", "application/json".to_owned());
    sign_ours(&call.runtime.secret, &run, clock::now(), &body).into_iter().for_each(|(name, value)| add(name, value));
    call.trace.iter().for_each(|(name, value)| add(name, value.clone()));
    Ok((headers, body.into()))
}

fn failed(outcome: Outcome) -> Ended {
    Ended::without_process(outcome)
}

/// What an answer means.
fn judge(posted: Posted, secrets: &Arc<Secrets>) -> Answered {
    let status = posted.status;
    let reason = || {
        let body = posted.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        match quote(&secrets.redact(&body)) {
            words if words.is_empty() => format!("answered with {status}"),
            words => format!("answered with {status}: {words}"),
        }
    };
    let wait = posted.retry_after.map(|wait| wait.min(LONGEST_WAIT));
    match status {
        202 => Answered { ended: None, wait: None, gone: false },
        200..=299 => succeeded(&posted, secrets).into(),
        410 => {
            let outcome = Outcome::Refused(format!("{}: nobody is there any more", reason()));
            Answered { ended: Some(failed(outcome)), wait: None, gone: true }
        }
        429 | 500..=599 => Answered { ended: Some(failed(Outcome::Failed(reason()))), wait, gone: false },
        300..=399 => {
            let why = format!("answered with {status}: redirects are not followed, name the URL that they lead to");
            failed(Outcome::Refused(why)).into()
        }
        _ => failed(Outcome::Refused(reason())).into(),
    }
}

fn succeeded(posted: &Posted, secrets: &Arc<Secrets>) -> Ended {
    let (result, ignored) = match read_result(posted, secrets) {
        Ok(result) => (result, None),
        Err(why) => (None, Some(format!("the result is ignored: the answer {why}"))),
    };
    let outcome = Outcome::Succeeded;
    Ended { ended: name_of(&outcome), outcome, exit_code: None, result, ignored }
}

/// The result: a body that is JSON, or that looks like it where nobody says what it is.
fn read_result(posted: &Posted, secrets: &Arc<Secrets>) -> Result<Option<String>, String> {
    let said = posted.content_type.as_deref().map(str::to_ascii_lowercase);
    let is_json = said.as_deref().is_some_and(|said| said.contains("json"));
    let Some(body) = &posted.body else {
        return if is_json { Err("is larger than 1 MiB".to_owned()) } else { Ok(None) };
    };
    let text = std::str::from_utf8(body).map(str::trim).map_err(|error| error.to_string());
    let looks_like_it = said.is_none() && text.as_ref().is_ok_and(|text| text.starts_with(['{', '[']));
    if !(is_json || looks_like_it) || body.trim_ascii().is_empty() {
        return Ok(None);
    }
    match text.and_then(|text| secrets.redact_json(text).map_err(|error| error.to_string())) {
        Ok(result) => Ok(Some(result)),
        Err(_) if looks_like_it => Ok(None),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

/// The beginning of what was answered, in one line.
fn quote(body: &str) -> String {
    let words = body.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn posted(status: u16, content_type: Option<&str>, body: &'static str) -> Posted {
        let body = Some(Bytes::from_static(body.as_bytes()));
        Posted {
            status,
            retry_after: Some(Duration::from_secs(7)),
            content_type: content_type.map(str::to_owned),
            body,
        }
    }

    fn judged(posted: Posted) -> Answered {
        judge(posted, &Arc::new(Secrets::new([&Secret::new("hunter2")])))
    }

    fn outcome(status: u16) -> Outcome {
        judged(posted(status, None, "no hunter2")).ended.unwrap().outcome
    }

    #[test]
    fn what_may_pass_is_tried_again_and_other_refusals_are_not() {
        for status in [429, 500, 502, 503, 504] {
            assert!(matches!(outcome(status), Outcome::Failed(_)), "{status}");
            assert_eq!(judged(posted(status, None, "")).wait, Some(Duration::from_secs(7)));
        }
        for status in [301, 307, 400, 401, 404, 410, 422] {
            assert!(matches!(outcome(status), Outcome::Refused(_)), "{status}");
        }
        assert!(judged(posted(410, None, "")).gone && !judged(posted(404, None, "")).gone);
        assert!(judged(posted(202, None, "")).ended.is_none());
    }

    #[test]
    fn a_reason_quotes_the_answer_without_secrets_and_not_all_of_it() {
        let Outcome::Refused(reason) = outcome(400) else { panic!() };
        assert!(reason.starts_with("answered with 400: no ") && !reason.contains("hunter2"), "{reason}");
        assert_eq!(quote(&"ä ".repeat(1000)).chars().count(), MOST_QUOTED + 1);
    }

    #[test]
    fn a_json_body_is_the_result() {
        let result = |content_type, body| {
            let ended = judged(posted(200, content_type, body)).ended.unwrap();
            assert_eq!(ended.outcome, Outcome::Succeeded);
            (ended.result, ended.ignored.is_some())
        };
        let json = Some("application/json; charset=utf-8");
        assert_eq!(result(json, "{\"ok\": true}\n"), (Some("{\"ok\": true}".to_owned()), false));
        assert!(!result(json, "\"hunter2\"").0.unwrap().contains("hunter2"));
        assert_eq!(result(json, ""), (None, false));
        assert_eq!(result(json, "{"), (None, true));
        assert_eq!(result(None, "[1]"), (Some("[1]".to_owned()), false));
        assert_eq!(result(None, "thanks"), (None, false));
        assert_eq!(result(Some("text/plain"), "{\"ok\": true}"), (None, false));
        let large = Posted { body: None, ..posted(200, json, "") };
        assert!(judged(large).ended.unwrap().ignored.unwrap().contains("1 MiB"));
    }
}
