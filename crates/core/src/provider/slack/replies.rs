//! What Slack hears: at once, within three seconds, and at a `response_url` when a run has ended
//! (<https://docs.slack.dev/interactivity/handling-user-interaction#message_responses>: five times within 30 minutes).

use std::sync::LazyLock;
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use serde_json::json;

use super::product::Product;
use super::{events, interactions};
use crate::delivery::Delivery;
use crate::provider::paths::Paths;
use crate::provider::{Answer, Ended, FollowUp, words};

/// The hosts of response URLs, of Slack and of GovSlack.
const HOSTS: [&str; 2] = ["hooks.slack.com", "hooks.slack-gov.com"];

const RESPONSE_LIVES: Duration = Duration::from_secs(30 * 60);

/// The longest text that Slack does not cut itself (<https://docs.slack.dev/reference/methods/chat.postMessage#truncating>).
const LONGEST_TEXT: usize = 40_000;

/// The answer to the request itself. An interaction is answered with nothing, because a body would be shown or be an
/// error; a menu that asks for its options gets none.
pub(super) fn at_once(delivery: &Delivery, started: bool) -> Answer {
    let nothing = Answer::empty(StatusCode::OK);
    match Product::of(delivery) {
        Ok(Product::Event(text)) => match events::challenge(text) {
            Some(challenge) => Answer::json(json!({ "challenge": challenge }).to_string()),
            None => nothing,
        },
        Ok(Product::Command(form)) => {
            let command = escaped(form.field("command").unwrap_or_default(), 100);
            let text = match started {
                true => format!("`{command}` is being worked on: the answer will follow here."),
                false => format!("Nobody here listens to `{command}`."),
            };
            Answer::json(json!({ "response_type": "ephemeral", "text": text }).to_string())
        }
        Ok(Product::Interaction(payload)) if wants_options(&payload) => Answer::json(r#"{"options":[]}"#),
        Ok(Product::Interaction(_)) | Err(_) => nothing,
    }
}

/// What is posted when a run has ended: for whoever asked, only, as is the default at Slack, and beside the message
/// with the button that was pressed, not instead of it.
pub(super) fn later(delivery: &Delivery, ended: &Ended<'_>) -> Option<FollowUp> {
    let url = hook(&response_url(delivery)?)?;
    let text = escaped(&words::report(ended), LONGEST_TEXT);
    let body = json!({ "response_type": "ephemeral", "replace_original": false, "text": text });
    Some(FollowUp {
        method: Method::POST,
        url,
        body: body.to_string(),
        until: delivery.received_at.after(RESPONSE_LIVES),
    })
}

/// Why nothing is posted, although a `response_url` is named.
pub(super) fn refused(delivery: &Delivery) -> Option<String> {
    let foreign = hook(&response_url(delivery)?).is_none();
    foreign.then(|| format!("its `response_url` is not one of Slack's ({}), and is not used", HOSTS.join(", ")))
}

/// Where the delivery says that answers are to be posted.
fn response_url(delivery: &Delivery) -> Option<String> {
    match Product::of(delivery).ok()? {
        Product::Event(_) => None,
        Product::Command(form) => form.field("response_url").map(ToOwned::to_owned),
        Product::Interaction(payload) => {
            static PATHS: LazyLock<Paths> =
                LazyLock::new(|| Paths::known(&["/response_url", "/response_urls/0/response_url"]));
            let found = PATHS.find(&payload).ok()?;
            let url = found.text("/response_url").or_else(|| found.text("/response_urls/0/response_url"))?;
            Some(url.into_owned())
        }
    }
}

fn wants_options(payload: &str) -> bool {
    static PATHS: LazyLock<Paths> = LazyLock::new(|| Paths::known(&["/type"]));
    let kind = PATHS.find(payload).ok().and_then(|found| found.text("/type"));
    interactions::wants_options(kind.as_deref())
}

/// The URL, if it is Slack's: put together again from the parts that were checked, so that nobody can read it
/// differently. The authority is the host and nothing else: no user, no port.
fn hook(url: &str) -> Option<String> {
    let parsed: Uri = url.parse().ok()?;
    let authority = parsed.authority()?.as_str();
    let host = HOSTS.iter().find(|host| **host == authority)?;
    let path = parsed.path_and_query()?.as_str();
    let usual = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (parsed.scheme_str() == Some("https") && path.len() > 1 && usual).then(|| format!("https://{host}{path}"))
}

/// Text in which nothing is a link or a mention (<https://docs.slack.dev/messaging/formatting-message-text#escaping>).
fn escaped(text: &str, limit: usize) -> String {
    words::fit(text, limit, |character| match character {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}
