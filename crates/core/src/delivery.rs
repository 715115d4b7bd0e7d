//! One HTTP request to a source, as it was received: nothing decoded, nothing trusted.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use crate::provider::kept_target;
use crate::time::Timestamp;

/// One HTTP request to a source.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The method of the request.
    pub method: Method,
    /// The public URL that the sender called, for the protocols that sign it (Twilio, HubSpot).
    pub url: String,
    /// All headers, duplicates included.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When it was received.
    pub received_at: Timestamp,
    /// The certificate (PEM) that `Provider::certificate_url` asked for.
    pub certificate: Option<Bytes>,
}

/// Why a header has no single usable value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// It is not there, or empty.
    #[error("is missing")]
    Missing,
    /// It is there more than once. Stacks differ in which one they take, so none is taken.
    #[error("is there more than once")]
    Repeated,
    /// It is not visible ASCII.
    #[error("is not visible ASCII")]
    NotText,
}

impl Delivery {
    /// What was received, made of what was stored of it (`kept`: what `kept_headers` kept).
    pub fn stored(kept: &BTreeMap<String, String>, body: Bytes, received_at: Timestamp) -> Self {
        let (method, url) = kept_target(|name| kept.get(name).map(String::as_str));
        let pairs =
            kept.iter().filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?)));
        Self { method, url, headers: pairs.collect(), body, received_at, certificate: None }
    }

    /// The only value of a header, trimmed.
    ///
    /// # Errors
    /// If it is missing, empty, repeated or not text.
    pub fn header(&self, name: &str) -> Result<&str, HeaderFault> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().ok_or(HeaderFault::Missing)?;
        if values.next().is_some() {
            return Err(HeaderFault::Repeated);
        }
        match first.to_str().map(str::trim) {
            Ok("") => Err(HeaderFault::Missing),
            Ok(text) => Ok(text),
            Err(_) => Err(HeaderFault::NotText),
        }
    }

    /// Whether the content type is a form, as a browser would send it.
    pub fn is_form(&self) -> bool {
        self.content_type().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }

    /// The media type without its parameters; empty if there is none.
    pub fn content_type(&self) -> &str {
        let full = self.header("content-type").unwrap_or_default();
        full.split(';').next().unwrap_or_default().trim()
    }
}

/// The token of an `Authorization` header, `Bearer <token>`: the name of the scheme in any case, then spaces (RFC 9110,
/// sections 11.1 and 11.4).
pub fn bearer_token(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_bearer_header_stands_behind_spaces_and_a_scheme_without_case() {
        assert_eq!(bearer_token("bEARER  abc "), Some("abc"));
        for other in ["Basic abc", "Bearer", "Bearer ", "Bearerabc", "", "abc"] {
            assert_eq!(bearer_token(other), None, "{other}");
        }
    }
}
