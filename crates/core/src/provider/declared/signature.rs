//! The ways in which senders prove themselves: a signature over what a template says, or a token that is shown.

use std::time::Duration;

use http::HeaderName;

use crate::delivery::{Delivery, HeaderFault, bearer_token};
use crate::provider::generic::{Algorithm, Encoding};
use crate::provider::key::equal;
use crate::provider::proof;
use crate::provider::{Key, decode_base64, decode_hex, encode_base64, encode_hex};
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

mod parse;
mod secret;
mod time;

pub(super) use parse::schemes;
pub(super) use secret::{prepare, prepare_signing};
use time::Time;

/// The most signatures of one header that are looked at.
const MOST_SIGNATURES: usize = 16;

/// One way to prove a sender.
#[derive(Debug, Clone)]
pub(super) struct Scheme {
    pub(super) proof: Proof,
    /// The header of the proof.
    pub(super) header: HeaderName,
    /// A header without which this way is not meant.
    pub(super) when: Option<HeaderName>,
}

#[derive(Debug, Clone)]
pub(super) enum Proof {
    Signature(Box<Signature>),
    /// The secret behind a prefix.
    Token(String),
    /// `Authorization: Bearer …`.
    Bearer,
    /// `Authorization: Basic …`.
    Basic,
}

/// What is signed, how, and where it is written.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub(super) algorithm: Signing,
    pub(super) form: Form,
    pub(super) encoding: Encoding,
    pub(super) written: Written,
    pub(super) signed: Vec<Piece>,
    pub(super) time: Option<Time>,
    pub(super) id: Option<HeaderName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signing {
    Hmac(Algorithm),
    Ed25519,
}

/// How the secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Hex,
    Base64,
    /// `whsec_` and base64.
    Whsec,
}

/// How the header is written.
#[derive(Debug, Clone)]
pub(super) enum Written {
    /// A prefix and the signature.
    Alone(String),
    /// Names with values; of the signature's name, several.
    Pairs { separator: String, assign: String, signature: String, time: Option<String> },
}

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Body,
    Time,
    Id,
}

/// Kinds of keys; of one kind, a provider has one key a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hmac,
    Ed25519,
    Token,
}

/// The text of the header, if it is there and this way is meant.
enum Offer<'d> {
    None,
    /// `Authorization` of another kind.
    Other,
    Text(&'d str),
}

/// The index of the key that proved the delivery. The first way whose header is there, and for which there is a key, decides: from a
/// bad signature nothing leads to a token.
pub(super) fn verify(
    schemes: &[Scheme],
    tolerance: Option<Duration>,
    keys: &[NamedKey],
    delivery: &Delivery,
) -> Result<usize, Rejection> {
    let usable: Vec<_> = schemes.iter().filter(|scheme| keys.iter().any(|named| scheme.takes(&named.key))).collect();
    let mut other = None;
    for scheme in &usable {
        match scheme.offer(delivery)? {
            Offer::Text(text) => return scheme.verify(tolerance, keys, delivery, text),
            Offer::Other => other = Some(&scheme.header),
            Offer::None => {}
        }
    }
    if let Some(header) = other {
        return Err(Rejection::mismatch(format!("{header} is of another kind than this source has a secret for")));
    }
    // Proved, but by another kind of secret: whoever set the source up took the other one of the two that the sender has.
    let proved = schemes.iter().find(|scheme| matches!(scheme.offer(delivery), Ok(Offer::Text(_))));
    if let Some(scheme) = proved {
        let made = match scheme.kind() {
            Kind::Token => "shows a token",
            Kind::Hmac | Kind::Ed25519 => "is a signature",
        };
        let message = format!("{} {made}, and the secret of this source is of another kind", scheme.header);
        return Err(Rejection::mismatch(message));
    }
    let mut headers: Vec<_> = usable.iter().map(|scheme| scheme.header.as_str()).collect();
    headers.dedup();
    Err(Rejection::missing(&format!("the header {}", headers.join(" or "))))
}

impl Scheme {
    pub(super) fn kind(&self) -> Kind {
        match &self.proof {
            Proof::Signature(signature) => match signature.algorithm {
                Signing::Hmac(_) => Kind::Hmac,
                Signing::Ed25519 => Kind::Ed25519,
            },
            Proof::Token(_) | Proof::Bearer | Proof::Basic => Kind::Token,
        }
    }

    pub(super) fn signature(&self) -> Option<&Signature> {
        match &self.proof {
            Proof::Signature(signature) => Some(signature),
            _ => None,
        }
    }

    /// Whether this way can be checked with `key`, or gone with it.
    pub(super) fn takes(&self, key: &Key) -> bool {
        match (key, self.kind()) {
            (Key::Several(keys), _) => keys.iter().any(|key| self.takes(key)),
            (Key::Hmac(_), Kind::Hmac)
            | (Key::Ed25519(_) | Key::Ed25519Pair(_), Kind::Ed25519)
            | (Key::Token(_), Kind::Token) => true,
            _ => false,
        }
    }

    fn offer<'d>(&self, delivery: &'d Delivery) -> Result<Offer<'d>, Rejection> {
        if self.when.as_ref().is_some_and(|when| !delivery.headers.contains_key(when)) {
            return Ok(Offer::None);
        }
        let text = match delivery.header(self.header.as_str()) {
            Ok(text) => text,
            Err(HeaderFault::Missing) => return Ok(Offer::None),
            Err(fault) => return Err(Rejection::mismatch(format!("{} {fault}", self.header))),
        };
        let meant = match &self.proof {
            Proof::Bearer => bearer_token(text).is_some(),
            Proof::Basic => basic(text).is_some(),
            Proof::Signature(_) | Proof::Token(_) => true,
        };
        Ok(if meant { Offer::Text(text) } else { Offer::Other })
    }

    fn verify(
        &self,
        tolerance: Option<Duration>,
        keys: &[NamedKey],
        delivery: &Delivery,
        text: &str,
    ) -> Result<usize, Rejection> {
        let shows = |is: &dyn Fn(&Secret) -> bool| {
            let index = keys.iter().position(|named| named.key.token_secret().is_some_and(is));
            index.ok_or_else(|| Rejection::mismatch(format!("{} has none of the secrets of this source", self.header)))
        };
        match &self.proof {
            Proof::Signature(signature) => signature.verify(&self.header, tolerance, keys, delivery, text),
            Proof::Token(prefix) => match text.strip_prefix(prefix.as_str()) {
                Some(token) => shows(&|secret| secret.equals(token.as_bytes())),
                None => Err(Rejection::mismatch(format!("{} does not begin with `{prefix}`", self.header))),
            },
            Proof::Bearer => {
                let token = bearer_token(text).unwrap_or_default();
                shows(&|secret| secret.equals(token.as_bytes()))
            }
            Proof::Basic => {
                let pair = basic(text).unwrap_or_default();
                shows(&|secret| is_pair(secret, &pair))
            }
        }
    }

    /// The value of the header for what is about to be sent; none if the key cannot make it.
    pub(super) fn prove(&self, key: &Key, time: &str, id: &str, body: &[u8]) -> Option<String> {
        let token = || key.token_secret()?.expose_str();
        match &self.proof {
            Proof::Signature(signature) => signature.write(key, time, id, body),
            Proof::Token(prefix) => Some(format!("{prefix}{}", token()?)),
            Proof::Bearer => Some(format!("Bearer {}", token()?)),
            Proof::Basic => {
                let secret = token()?;
                let user = if secret.contains(':') { "" } else { "doorbell:" };
                Some(format!("Basic {}", encode_base64(format!("{user}{secret}").as_bytes())))
            }
        }
    }
}

/// The user and the password of an `Authorization` header, with the colon between them.
fn basic(header: &str) -> Option<Vec<u8>> {
    let (scheme, pair) = header.split_once(' ')?;
    let pair = decode_base64(pair.trim_matches(' '))?;
    (scheme.eq_ignore_ascii_case("basic") && pair.contains(&b':')).then_some(pair)
}

/// A secret with a colon is a user and a password; one without is a password, and any user may have it.
fn is_pair(secret: &Secret, pair: &[u8]) -> bool {
    if secret.expose().contains(&b':') {
        return secret.equals(pair);
    }
    let password = pair.iter().position(|byte| *byte == b':').map(|colon| &pair[colon + 1..]);
    password.is_some_and(|password| secret.equals(password))
}

impl Signature {
    fn verify(
        &self,
        header: &HeaderName,
        tolerance: Option<Duration>,
        keys: &[NamedKey],
        delivery: &Delivery,
        text: &str,
    ) -> Result<usize, Rejection> {
        let (signatures, beside) = self.in_header(header, text)?;
        let other = |name: Option<&HeaderName>| name.map(|name| proof::header(delivery, name.as_str())).transpose();
        let time = other(self.time.as_ref().and_then(|time| time.header.as_ref()))?.or(beside).unwrap_or_default();
        let id = other(self.id.as_ref())?.unwrap_or_default();
        let parts = self.parts(time, id, &delivery.body);
        let made_one = |named: &NamedKey| match named.key.mac(&parts) {
            Some(mac) => self.is_hmac() && signatures.iter().any(|one| equal(mac.as_ref(), one)),
            None => !self.is_hmac() && signatures.iter().any(|one| named.key.signs(&parts, one)),
        };
        let index = keys.iter().position(made_one).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{header} was not made over this {} with a secret of this source: the secrets differ, or something was \
                 changed on its way",
                if self.signed.len() == 1 { "body" } else { "body and what is signed with it" }
            ))
        })?;
        // Only after the signature: strangers learn nothing about the clock, and the time is the sender's own word.
        if let Some(expected) = &self.time {
            let name = expected.header.as_ref().unwrap_or(header);
            expected.check(name, time, tolerance.unwrap_or(expected.tolerance), delivery.received_at)?;
        }
        Ok(index)
    }

    fn is_hmac(&self) -> bool {
        matches!(self.algorithm, Signing::Hmac(_))
    }

    /// The signatures of the header, and the time beside them.
    fn in_header<'h>(&self, name: &HeaderName, text: &'h str) -> Result<(Vec<Vec<u8>>, Option<&'h str>), Rejection> {
        let decode = match self.encoding {
            Encoding::Hex => decode_hex,
            Encoding::Base64 => decode_base64,
        };
        let (separator, assign, signature, time) = match &self.written {
            Written::Alone(prefix) => {
                let one = text.strip_prefix(prefix.as_str()).and_then(decode).filter(|one| !one.is_empty());
                return one.map(|one| (vec![one], None)).ok_or_else(|| {
                    let prefix = if prefix.is_empty() { String::new() } else { format!("`{prefix}` and ") };
                    Rejection::mismatch(format!("{name} is not {prefix}a signature in {}", self.encoding))
                });
            }
            Written::Pairs { separator, assign, signature, time } => (separator, assign, signature, time),
        };
        let pairs = || text.split(separator.as_str()).filter_map(|pair| pair.trim().split_once(assign.as_str()));
        let decoded = pairs().filter(|(key, _)| key == signature).filter_map(|(_, value)| decode(value));
        let signatures: Vec<_> = decoded.filter(|one| !one.is_empty()).take(MOST_SIGNATURES).collect();
        if signatures.is_empty() {
            let message =
                format!("{name} has no `{signature}{assign}` with a signature in {} behind it", self.encoding);
            return Err(Rejection::mismatch(message));
        }
        let Some(time) = time else { return Ok((signatures, None)) };
        let mut times = pairs().filter(|(key, _)| key == time).map(|(_, value)| value);
        match (times.next(), times.next()) {
            (Some(one), None) if !one.is_empty() => Ok((signatures, Some(one))),
            (Some(_), Some(_)) => Err(Rejection::mismatch(format!("{name} has more than one `{time}{assign}`"))),
            _ => Err(Rejection::mismatch(format!("{name} has no `{time}{assign}` with a time behind it"))),
        }
    }

    fn parts<'p>(&'p self, time: &'p str, id: &'p str, body: &'p [u8]) -> Vec<&'p [u8]> {
        let part = |piece: &'p Piece| match piece {
            Piece::Text(text) => text.as_bytes(),
            Piece::Body => body,
            Piece::Time => time.as_bytes(),
            Piece::Id => id.as_bytes(),
        };
        self.signed.iter().map(part).collect()
    }

    fn write(&self, key: &Key, time: &str, id: &str, body: &[u8]) -> Option<String> {
        let bytes = key.signature(&self.parts(time, id, body))?;
        let text = match self.encoding {
            Encoding::Hex => encode_hex(&bytes),
            Encoding::Base64 => encode_base64(&bytes),
        };
        Some(match &self.written {
            Written::Alone(prefix) => format!("{prefix}{text}"),
            Written::Pairs { separator, assign, signature, time: beside } => {
                let beside = beside.as_ref().map(|name| format!("{name}{assign}{time}{separator}"));
                format!("{}{signature}{assign}{text}", beside.unwrap_or_default())
            }
        })
    }
}
