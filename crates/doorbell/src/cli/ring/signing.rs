//! Signing what is rung: as the provider does it, or wrong on purpose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_core::delivery::Delivery;
use doorbell_core::provider::{Key, Provider, Signed, Unsent};
use doorbell_core::source::Source;
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{self, Rejection};

use super::report::Expectation;
use crate::cli::context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::live::handshake_proves;
use crate::clock;

/// How much older than tolerated a stale delivery is: more than the clocks of two machines differ.
const TOO_LATE_BY: Duration = Duration::from_secs(60);

/// What signs deliveries of one event to one source.
#[derive(Debug)]
pub(in crate::cli) struct Signer {
    pub(in crate::cli) source: Arc<Source>,
    /// None: there is nothing to sign with.
    pub(in crate::cli) key: Option<Key>,
    pub(in crate::cli) event: String,
    pub(in crate::cli) body: Bytes,
    /// The URL as the gateway sees it.
    pub(in crate::cli) url: String,
}

/// What deliveries to a source are signed with: its first secret, or the private half of a test key beside it.
pub(super) fn key_of(source: &Source) -> anyhow::Result<Option<Key>> {
    let Some(named) = source.keys().first() else { return Ok(None) };
    let field = source.provider().signing_field().filter(|_| matches!(named.key, Key::Ed25519(_)));
    let Some(field) = field else { return Ok(Some(named.key.clone())) };
    let (kind, instance) = (source.provider().credential().name, &named.instance);
    let credential = format!("{kind}:{instance}");
    let found = context::credentials().find(&kind, instance, field);
    let found = found.map_err(|error| Failure::new(Exit::Failed, format!("cannot read {credential}: {error}")))?;
    let Some((secret, origin)) = found else {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "only {} can sign for {credential}: its key verifies and cannot sign",
                source.provider().guide().title
            ),
        )
        .hint(format!(
            "to ring with a key of your own, keep its private half: `doorbell creds add {credential} --field {field}`, \
             and its public half as the source's credential"
        ))
        .into());
    };
    let key = source.provider().prepare_signing(&secret);
    let key = key.map_err(|error| Failure::new(Exit::Failed, format!("{credential} ({origin}, {field}) {error}")))?;
    Ok(Some(key))
}

impl Signer {
    /// Whether what it signs is what the source takes, or refuses as expected.
    ///
    /// # Errors
    /// If it is not: nobody but the provider can sign, the two halves of a test key do not belong together, or what is signed
    /// with this secret has no time.
    pub(super) fn check(&self, expectation: Expectation) -> Result<(), Failure> {
        let provider = self.source.provider();
        let Some(rejection) = self.refusal(self.sign(Expectation::Accepted, "1")) else {
            let stale = expectation == Expectation::StaleIsRefused;
            if stale && self.refusal(self.sign(expectation, "1")).is_none() {
                let message =
                    format!("with this secret, `{}` signs no time, so no delivery of it is too old", provider.name());
                return Err(Failure::usage(message).hint("`doorbell providers show` says which of its secrets does"));
            }
            return Ok(());
        };
        let title = provider.guide().title;
        if let Some(field) = provider.signing_field().filter(|_| matches!(self.key, Some(Key::Ed25519Pair(_)))) {
            let message = format!("what the `{field}` of the credential signs, its public key does not verify");
            return Err(Failure::new(Exit::Failed, message).hint("keep both halves of one pair"));
        }
        let message = format!("nobody but {title} can sign deliveries of `{}`: {rejection}", provider.name());
        Err(Failure::new(Exit::Failed, message).hint(
            "--unsigned shows that others are refused; a source with `allow_unsigned = true` can be rung without a \
             signature",
        ))
    }

    /// What it proves, if it is what a provider sends when a webhook is set up: no agent is to start then.
    pub(super) fn handshake(&self) -> Option<&'static str> {
        let delivery = self.delivery(self.sign(Expectation::Accepted, "1"));
        let readings = self.source.provider().read(&delivery).ok()?;
        readings.iter().any(|reading| reading.handshake).then(|| handshake_proves(!self.source.keys().is_empty()))
    }

    /// A delivery that the gateway is to take, or to refuse as expected.
    pub(in crate::cli) fn sign(&self, expectation: Expectation, delivery_id: &str) -> Signed {
        let provider = self.source.provider();
        let now = match (expectation, provider.tolerance()) {
            (Expectation::StaleIsRefused, Some(tolerance)) => clock::now().before(tolerance + TOO_LATE_BY),
            _ => clock::now(),
        };
        match expectation {
            Expectation::Accepted | Expectation::StaleIsRefused => self.sign_at(self.key.as_ref(), delivery_id, now),
            Expectation::UnsignedIsRefused => self.sign_at(None, delivery_id, now),
            Expectation::TamperedIsRefused => self.tamper(delivery_id, now),
        }
    }

    fn tamper(&self, delivery_id: &str, now: Timestamp) -> Signed {
        let signed = self.sign_at(self.key.as_ref(), delivery_id, now);
        // White space at the end: what it says is the same, and no signature may let it pass.
        let changed = Signed { body: [&signed.body[..], b"\n"].concat().into(), ..signed.clone() };
        if self.source.keys().is_empty() || self.refusal(changed.clone()).is_some() {
            return changed;
        }
        // A token says nothing about the body, so it is the token that is changed.
        let unsigned = self.sign_at(None, delivery_id, now).headers;
        let spoil = |(name, value): (String, String)| match unsigned.contains(&(name.clone(), value.clone())) {
            true => (name, value),
            false => (name, format!("{value}x")),
        };
        Signed { headers: signed.headers.into_iter().map(spoil).collect(), body: signed.body }
    }

    /// Why the source would refuse it; none: it would not.
    pub(in crate::cli) fn refusal(&self, signed: Signed) -> Option<Rejection> {
        verify::verify(&self.source, &Arc::new(self.delivery(signed))).err()
    }

    fn sign_at(&self, key: Option<&Key>, delivery_id: &str, now: Timestamp) -> Signed {
        let provider: &dyn Provider = self.source.provider();
        let unsent = Unsent { event: &self.event, body: self.body.clone(), delivery_id, now, url: &self.url };
        provider.sign(key, unsent)
    }

    /// What the gateway would receive.
    pub(in crate::cli) fn delivery(&self, signed: Signed) -> Delivery {
        let headers = signed.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        Delivery {
            method: http::Method::POST,
            url: self.url.clone(),
            headers: headers.collect::<http::HeaderMap>(),
            body: signed.body,
            received_at: clock::now(),
            certificate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use doorbell_core::provider::github::Github;
    use doorbell_core::provider::standard::Standard;
    use doorbell_core::secret::Secret;
    use doorbell_core::source::{Dedup, NamedKey};
    use doorbell_core::verify::RejectionCode;

    fn signer() -> Signer {
        signer_of(Github, "It's a Secret to Everybody")
    }

    fn signer_of(provider: impl Provider + 'static, secret: &str) -> Signer {
        let key = provider.prepare(&Secret::new(secret)).unwrap();
        let keys = vec![NamedKey { instance: "acme".to_owned(), key: key.clone() }];
        let source = Arc::new(Source::new("acme", Arc::new(provider), keys, false, Dedup::Id).unwrap());
        let body = Bytes::from_static(br#"{"action":"opened"}"#);
        Signer { source, key: Some(key), event: "issues.opened".to_owned(), body, url: "http://gateway/".to_owned() }
    }

    fn refusal(signer: &Signer, expectation: Expectation) -> Option<RejectionCode> {
        signer.refusal(signer.sign(expectation, "1")).map(|rejection| rejection.code)
    }

    #[test]
    fn a_stale_delivery_is_right_but_for_its_age() {
        let standard = |tolerance| signer_of(Standard { tolerance }, "whsec_c2VjcmV0");
        for tolerance in [Duration::from_secs(1), Duration::from_secs(86_400)] {
            let stale = refusal(&standard(tolerance), Expectation::StaleIsRefused);
            assert_eq!(stale, Some(RejectionCode::TimestampOutOfRange));
        }
        let usual = standard(Duration::from_secs(300));
        assert_eq!(refusal(&usual, Expectation::Accepted), None);
        assert!(refusal(&usual, Expectation::TamperedIsRefused).is_some());
        assert!(refusal(&usual, Expectation::UnsignedIsRefused).is_some());
    }

    #[test]
    fn only_the_genuine_delivery_passes() {
        assert_eq!(refusal(&signer(), Expectation::Accepted), None);
        assert!(refusal(&signer(), Expectation::TamperedIsRefused).is_some());
        assert!(refusal(&signer(), Expectation::UnsignedIsRefused).is_some());
    }

    #[test]
    fn what_cannot_be_signed_here_is_said() {
        assert!(signer().check(Expectation::Accepted).is_ok());
        let nobody = Signer { key: None, ..signer() };
        let failure = nobody.check(Expectation::Accepted).unwrap_err().to_string();
        assert!(failure.contains("nobody but GitHub can sign"), "{failure}");
    }

    #[test]
    fn a_handshake_is_told_from_an_event() {
        assert_eq!(signer().handshake(), None);
        let ping = Signer { event: "ping".to_owned(), ..signer() };
        assert_eq!(ping.handshake(), Some("the sender reaches this gateway, and its signature is right"));
    }
}
