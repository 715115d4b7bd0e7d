//! Any sender that signs its bodies with HMAC, or shows a token: told how by the keys of its source.

use std::borrow::Cow;

use http::HeaderName;

use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_base64, decode_hex, encode_base64, encode_hex, filter, is_name, proof,
};
use crate::delivery::{Delivery, HeaderFault, bearer_token};
use crate::event::Context;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

pub(super) mod body;
mod options;

pub use options::{Algorithm, Encoding, GenericOptions, InvalidOptions, Scheme};

/// A sender that is described by the keys of its source.
#[derive(Debug, Clone)]
pub struct Generic {
    header: HeaderName,
    prefix: Option<String>,
    encoding: Encoding,
    algorithm: Algorithm,
    scheme: Scheme,
    delivery_header: Option<HeaderName>,
    event_header: Option<HeaderName>,
    secret_headers: Vec<Cow<'static, str>>,
}

static FILTERS: [FilterField; 2] =
    [filter("events", &[Cow::Borrowed("event")], &[]), filter("actions", &[Cow::Borrowed("action")], &[])];

static SAMPLES: [Sample; 2] = [
    Sample::new(
        "deploy.finished",
        "a deployment finished",
        r#"{"event":"deploy.finished","service":"api","environment":"production","version":"2.14.0","successful":true,"seconds":94,"url":"https://deploys.example.com/4711","actor":{"name":"Robin"}}"#,
    ),
    Sample::new(
        "alert.raised",
        "a monitor raised an alert",
        r#"{"event":"alert.raised","id":"alert-2041","severity":"critical","title":"Error rate above 5 %","value":7,"url":"https://status.example.com/alerts/2041","tags":["api","production"]}"#,
    ),
];

impl Provider for Generic {
    fn name(&self) -> &str {
        "generic"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Any other sender"),
            setup: Cow::Borrowed(include_str!("../../guides/generic.md")),
            identity: Cow::Borrowed(
                "The body is signed, or (`scheme = \"bearer\"`) nothing is. The id of the delivery is the header that \
                 `delivery_header` names, else `Idempotency-Key` or `webhook-id`; without one every delivery is an event of \
                 its own, unless `dedup = \"id_or_body\"`.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("generic_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        match self.scheme {
            Scheme::Hmac => Key::hmac(self.algorithm.hmac(), secret),
            Scheme::Bearer => Key::token(secret),
        }
    }

    fn make_secret(&self, random: [u8; 32]) -> Option<Secret> {
        Some(Secret::new(encode_hex(&random)))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let name = self.header.as_str();
        let header = proof::header(delivery, name)?;
        let index = match self.scheme {
            Scheme::Hmac => {
                let signature = self.signature_in(header)?;
                keys.iter().position(|named| named.key.signs(&[&delivery.body], &signature))
            }
            Scheme::Bearer => {
                let token = self.token_in(header)?.as_bytes();
                keys.iter().position(|named| named.key.is_token(token))
            }
        };
        index.ok_or_else(|| {
            Rejection::mismatch(match self.scheme {
                Scheme::Hmac => format!(
                    "{name} was not made over this body with a secret of this source: the secrets or the algorithms \
                     differ, or the body was changed on its way"
                ),
                Scheme::Bearer => format!("{name} has none of the tokens of this source"),
            })
        })
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let fields = body::fields(delivery);
        let in_header = self.event_header.as_ref().and_then(|name| delivery.header(name.as_str()).ok());
        let event = in_header.filter(|event| is_name(event)).or(fields.event()).unwrap_or("event");
        let mut context = Context::default();
        context.set("event", event);
        context.set_some("action", fields.action());
        fields.describe(&mut context);
        Ok(vec![Reading { context, delivery_id: self.delivery_id(delivery)?, handshake: false }])
    }

    fn secret_headers(&self) -> &[Cow<'static, str>] {
        &self.secret_headers
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let Unsent { event, body, delivery_id, .. } = unsent;
        let id_header = self.delivery_header.as_ref().map_or("idempotency-key", HeaderName::as_str);
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            (id_header.to_owned(), delivery_id.to_owned()),
        ];
        headers.extend(self.event_header.as_ref().map(|name| (name.to_string(), event.to_owned())));
        headers.extend(key.and_then(|key| self.proof(key, &body)).map(|proof| (self.header.to_string(), proof)));
        Signed { headers, body }
    }
}

impl Generic {
    fn signature_in(&self, header: &str) -> Result<Vec<u8>, Rejection> {
        let text = match &self.prefix {
            Some(prefix) => header.strip_prefix(prefix.as_str()),
            None => Some(header.strip_prefix(self.algorithm.prefix()).unwrap_or(header)),
        };
        let decode = match self.encoding {
            Encoding::Hex => decode_hex,
            Encoding::Base64 => decode_base64,
        };
        text.and_then(decode).ok_or_else(|| {
            let prefix = self.prefix.as_ref().map(|prefix| format!("`{prefix}` and ")).unwrap_or_default();
            Rejection::mismatch(format!("{} is not {prefix}a signature in {}", self.header, self.encoding))
        })
    }

    fn token_in<'h>(&self, header: &'h str) -> Result<&'h str, Rejection> {
        let token = match &self.prefix {
            Some(prefix) => header.strip_prefix(prefix.as_str()),
            None if self.header == http::header::AUTHORIZATION => bearer_token(header),
            None => Some(header),
        };
        token.map(str::trim_start).ok_or_else(|| {
            let prefix = self.prefix.as_deref().unwrap_or("Bearer ");
            Rejection::mismatch(format!("{} does not begin with `{prefix}`", self.header))
        })
    }

    /// The value of the header that proves the sender.
    fn proof(&self, key: &Key, body: &[u8]) -> Option<String> {
        let prefix = self.prefix.as_deref();
        match key {
            Key::Hmac(_) => {
                let signature = key.mac(&[body])?;
                let text = match self.encoding {
                    Encoding::Hex => encode_hex(signature.as_ref()),
                    Encoding::Base64 => encode_base64(signature.as_ref()),
                };
                Some(format!("{}{text}", prefix.unwrap_or(self.algorithm.prefix())))
            }
            Key::Token(token) => {
                let bearer = if self.header == http::header::AUTHORIZATION { "Bearer " } else { "" };
                Some(format!("{}{}", prefix.unwrap_or(bearer), token.expose_str()?))
            }
            Key::Ed25519(_) | Key::Ed25519Pair(_) | Key::Several(_) => None,
        }
    }

    /// One that is there and cannot be read is an error: without an id, the same delivery would start the same agents again.
    fn delivery_id(&self, delivery: &Delivery) -> Result<Option<String>, Unreadable> {
        let names = match &self.delivery_header {
            Some(name) => &[name.as_str()][..],
            None => &["idempotency-key", "webhook-id"],
        };
        for name in names {
            match delivery.header(name) {
                Ok(id) => return Ok(Some(id.to_owned())),
                Err(HeaderFault::Missing) => {}
                Err(fault) => return Err(Unreadable::broken(format!("the header {name}, the delivery's id, {fault}"))),
            }
        }
        Ok(None)
    }
}
