//! What a source of type `generic` says about its sender, checked.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::hmac;
use http::HeaderName;
use serde::Deserialize;

use super::Generic;

/// How a sender proves itself and names its events. The default: `X-Webhook-Signature` with the HMAC-SHA256 of the
/// body in hex, `sha256=` before it or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenericOptions {
    /// The header of the signature or the token. Default: `X-Webhook-Signature`; `Authorization` for a token.
    pub header: Option<String>,
    /// What must stand before the signature or the token. Default: the algorithm's name and `=`, where it is there;
    /// `Bearer ` before a token in `Authorization`, nothing before one in another header.
    pub prefix: Option<String>,
    /// How the signature is written.
    pub encoding: Encoding,
    /// The hash of the HMAC.
    pub algorithm: Algorithm,
    /// A signature or a token.
    pub scheme: Scheme,
    /// The header with the id of the delivery, the same when it is sent again. Default: `Idempotency-Key`, else
    /// `webhook-id`; without them every delivery is an event of its own.
    pub delivery_header: Option<String>,
    /// The header that names the event. Default, and where it is missing: the body's `event`, else its `type`.
    pub event_header: Option<String>,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hex digits in either case.
    #[default]
    Hex,
    /// Standard base64, padded.
    Base64,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA-1, for old senders.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a sender proves itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// By an HMAC of the body.
    #[default]
    Hmac,
    /// By showing the secret itself, as in `Authorization: Bearer …`.
    Bearer,
}

/// An option that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` {problem}")]
pub struct InvalidOptions {
    /// The option, as a source spells it.
    pub option: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        })
    }
}

impl Algorithm {
    pub(in crate::provider) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    /// What many senders write before the signature.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1=",
            Self::Sha256 => "sha256=",
            Self::Sha512 => "sha512=",
        }
    }
}

impl Generic {
    /// A sender as `options` describe it.
    ///
    /// # Errors
    /// If a header's name or the prefix is not one.
    pub fn new(options: GenericOptions) -> Result<Self, InvalidOptions> {
        let usual = match options.scheme {
            Scheme::Hmac => HeaderName::from_static("x-webhook-signature"),
            Scheme::Bearer => http::header::AUTHORIZATION,
        };
        let header = header_name("header", options.header)?.unwrap_or(usual);
        let secret_headers = match options.scheme {
            Scheme::Hmac => Vec::new(),
            Scheme::Bearer => vec![Cow::Owned(header.as_str().to_owned())],
        };
        Ok(Self {
            header,
            prefix: checked_prefix(options.prefix)?,
            encoding: options.encoding,
            algorithm: options.algorithm,
            scheme: options.scheme,
            delivery_header: header_name("delivery_header", options.delivery_header)?,
            event_header: header_name("event_header", options.event_header)?,
            secret_headers,
        })
    }
}

fn header_name(option: &'static str, name: Option<String>) -> Result<Option<HeaderName>, InvalidOptions> {
    let Some(name) = name else { return Ok(None) };
    match name.parse() {
        Ok(header) => Ok(Some(header)),
        Err(_) => Err(InvalidOptions { option, problem: format!("is not the name of a header: {name:?}") }),
    }
}

/// White space around a header's value is not part of it, so a prefix cannot begin with it.
fn checked_prefix(prefix: Option<String>) -> Result<Option<String>, InvalidOptions> {
    match prefix {
        Some(text) if text.starts_with(' ') || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
            Err(InvalidOptions {
                option: "prefix",
                problem: format!("cannot stand at the beginning of a header: {text:?}"),
            })
        }
        checked => Ok(checked),
    }
}
