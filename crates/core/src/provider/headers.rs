//! What of a request's head may be kept, shown and handed on.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderMap, Method};
use serde::{Serialize, Serializer};

use super::Provider;
use crate::delivery::Delivery;
use crate::event::json_of;

/// The method and the URL of a request that says everything in its URL, as HTTP/2 writes what is no header beside those that are.
const METHOD: &str = ":method";
const URL: &str = ":url";

/// Whether a header (its name in lower case) carries a secret whatever the provider is.
fn is_always_secret(name: &str) -> bool {
    let mut words = name.rsplit(['-', '_', '.']);
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match last {
        // Twilio's I-Twilio-Idempotency-Token tells a repetition.
        "token" => before != "idempotency",
        "key" => makes_a_key_secret(before),
        word => is_secret(word) || is_secret_by_name(name),
    }
}

// As patterns, and no lists to be searched: each header of each delivery is looked at.

/// Last words of names of headers that carry a secret whatever the provider is: tokens that senders share with their
/// receivers, and what proxies say of the one they let in. Rather one too many: nothing here reads such a header.
fn is_secret(word: &str) -> bool {
    matches!(
        word,
        "accesstoken"
            | "apikey"
            | "apitoken"
            | "assertion"
            | "auth"
            | "authentication"
            | "authorization"
            | "authtoken"
            | "cookie"
            | "credential"
            | "credentials"
            | "jwt"
            | "passphrase"
            | "passwd"
            | "password"
            | "pwd"
            | "secret"
            | "secretkey"
            | "session"
            | "token"
    )
}

/// Words before `key` that make it a secret. Others name something: `X-Event-Key`, `Idempotency-Key`.
fn makes_a_key_secret(word: &str) -> bool {
    matches!(
        word,
        "access"
            | "account"
            | "admin"
            | "api"
            | "app"
            | "application"
            | "auth"
            | "client"
            | "functions"
            | "integration"
            | "master"
            | "private"
            | "secret"
            | "service"
            | "shared"
            | "subscription"
            | "webhook"
    )
}

/// Names of headers that carry a secret and do not look like it.
fn is_secret_by_name(name: &str) -> bool {
    matches!(name, "set-cookie2" | "x-amzn-oidc-data" | "x-ms-client-principal" | "x-ms-token-aad-id-token-payload")
}

/// The headers that may be stored, shown and handed on: names in lower case, those with a secret left out, repeated
/// ones joined with `, `, bytes that are not UTF-8 replaced.
pub fn visible_headers(provider: &dyn Provider, headers: &HeaderMap) -> BTreeMap<String, String> {
    visible(provider, headers).into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
}

/// The same, by name.
fn visible<'h>(provider: &dyn Provider, headers: &'h HeaderMap) -> Vec<(&'h str, Cow<'h, str>)> {
    let mut visible: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = name.as_str();
        if is_always_secret(name) || provider.secret_headers().iter().any(|secret| secret == name) {
            continue;
        }
        // Nearly all are text, which this sees faster than the lossy way does.
        let value = value.to_str().map_or_else(|_| String::from_utf8_lossy(value.as_bytes()), Cow::Borrowed);
        // The values of one name come one after the other.
        match visible.last_mut().filter(|(last, _)| *last == name) {
            Some((_, joined)) => *joined = Cow::Owned(format!("{joined}, {value}")),
            None => visible.push((name, value)),
        }
    }
    visible.sort_unstable_by_key(|(name, _)| *name);
    visible
}

/// What is kept of a delivery's head: its visible headers and, of one without a body (Twilio's and HubSpot's `GET`), the
/// method and the URL, in which it says everything. Parameters of the URL with a secret are left out, as headers are.
pub fn kept_headers(provider: &dyn Provider, delivery: &Delivery) -> BTreeMap<String, String> {
    let mut kept = visible_headers(provider, &delivery.headers);
    if delivery.body.is_empty() {
        kept.insert(METHOD.to_owned(), delivery.method.to_string());
        kept.insert(URL.to_owned(), without_secrets(&delivery.url).into_owned());
    }
    kept
}

/// The same as JSON, as it is stored.
pub fn kept_headers_as_json(provider: &dyn Provider, delivery: &Delivery) -> String {
    match delivery.body.is_empty() {
        true => json_of(&kept_headers(provider, delivery)),
        // Nothing is copied but into the JSON: this is done for every delivery.
        false => json_of(&Pairs(&visible(provider, &delivery.headers))),
    }
}

/// Names and values, serialised as a map.
struct Pairs<'p>(&'p [(&'p str, Cow<'p, str>)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The method and the URL that [`kept_headers`] kept; `POST` and nothing where it kept none.
pub(crate) fn kept_target<'k>(kept: impl Fn(&str) -> Option<&'k str>) -> (Method, String) {
    let method = kept(METHOD).and_then(|method| method.parse().ok());
    (method.unwrap_or(Method::POST), kept(URL).unwrap_or_default().to_owned())
}

/// The URL without the parameters that are named like a token, password or key to something.
fn without_secrets(url: &str) -> Cow<'_, str> {
    let Some((path, query)) = url.split_once('?') else { return Cow::Borrowed(url) };
    let is_secret = |pair: &&str| {
        form_urlencoded::parse(pair.as_bytes())
            .next()
            .is_some_and(|(name, _)| is_always_secret(&name.to_ascii_lowercase()))
    };
    if !query.split('&').any(|pair| is_secret(&pair)) {
        return Cow::Borrowed(url);
    }
    let left: Vec<&str> = query.split('&').filter(|pair| !is_secret(pair)).collect();
    Cow::Owned(format!("{path}?{}", left.join("&")))
}
