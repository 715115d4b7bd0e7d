//! Whether what is known of a provider holds together: each sample is signed, verified, changed and read.

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::event::Event;
use doorbell_core::provider::{Key, Provider, Sample, encode_base64, encode_hex};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::verify::{RejectionCode, verify};
use serde::Serialize;

use crate::cli::random;
use crate::cli::ring::{Expectation, Signer};
use crate::clock;

/// How one sample went.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) provider: String,
    pub(super) sample: String,
    /// As it was read.
    pub(super) events: Vec<String>,
    /// What is not as it should be.
    pub(super) problem: Option<String>,
    /// Why it was only read.
    pub(super) skipped: Option<String>,
}

/// Tries every sample. `by_its_maker`: whether it may be that nobody but the provider can sign.
pub(super) fn samples(provider: &Arc<dyn Provider>, by_its_maker: bool) -> Vec<Report> {
    if provider.samples().is_empty() {
        let problem = (!by_its_maker).then(|| "it has no sample to test with".to_owned());
        let skipped = by_its_maker.then(|| "it has no samples".to_owned());
        let (name, sample) = (provider.name().to_owned(), "-".to_owned());
        return vec![Report { provider: name, sample, events: Vec::new(), problem, skipped }];
    }
    let keys = test_keys(provider.as_ref());
    provider.samples().iter().map(|sample| one(provider, sample, &keys, by_its_maker)).collect()
}

/// Why a sample is not as it should be, or was only read.
enum Not {
    Right(String),
    Signed(String),
}

fn one(provider: &Arc<dyn Provider>, sample: &Sample, keys: &[(Key, Key)], by_its_maker: bool) -> Report {
    let mut events = Vec::new();
    let tried = try_sample(provider, sample, keys, &mut events);
    let (problem, skipped) = match tried {
        Ok(()) => (None, None),
        Err(Not::Signed(why)) if by_its_maker => (None, Some(why)),
        Err(Not::Right(why) | Not::Signed(why)) => (Some(why), None),
    };
    Report { provider: provider.name().to_owned(), sample: sample.event.to_string(), events, problem, skipped }
}

fn try_sample(
    provider: &Arc<dyn Provider>,
    sample: &Sample,
    keys: &[(Key, Key)],
    events: &mut Vec<String>,
) -> Result<(), Not> {
    *events = read(&signer(provider, sample, None)?).map_err(Not::Right)?;
    let named = format!("{}.{}", provider.name(), sample.event);
    let is_of_it =
        |kind: &String| *kind == named || kind.strip_prefix(&named).is_some_and(|rest| rest.starts_with('.'));
    if !events.iter().any(is_of_it) {
        return Err(Not::Right(format!("its `event` is `{}`, and it is read as {}", sample.event, events.join(", "))));
    }
    let (mut taken, mut aged) = (false, false);
    let mut refused = None;
    for (signing, verifying) in keys {
        let signer = Signer { key: Some(signing.clone()), ..signer(provider, sample, Some(verifying.clone()))? };
        let refusal = |expectation| signer.refusal(signer.sign(expectation, &random::uuid()));
        if let Some(rejection) = refusal(Expectation::Accepted) {
            refused = Some(rejection);
            continue;
        }
        taken = true;
        *events = read(&signer).map_err(Not::Right)?;
        if refusal(Expectation::TamperedIsRefused).is_none() {
            return Err(Not::Right("it was changed after it was signed, and verified".to_owned()));
        }
        if refusal(Expectation::UnsignedIsRefused).is_none() {
            return Err(Not::Right("it was not signed, and verified".to_owned()));
        }
        let stale = refusal(Expectation::StaleIsRefused).map(|rejection| rejection.code);
        aged |= stale == Some(RejectionCode::TimestampOutOfRange);
    }
    match refused {
        _ if taken && provider.tolerance().is_some() && !aged => {
            Err(Not::Right("it was signed too long ago, and not refused for that".to_owned()))
        }
        _ if taken => Ok(()),
        None => Err(Not::Signed("read only: its secrets are of a form that is not known here".to_owned())),
        Some(rejection) if rejection.code == RejectionCode::SignatureMissing => {
            Err(Not::Signed(format!("read only: nobody but {} can sign", provider.guide().title)))
        }
        Some(rejection) => Err(Not::Right(format!("signed, and refused: {rejection}"))),
    }
}

fn signer(provider: &Arc<dyn Provider>, sample: &Sample, key: Option<Key>) -> Result<Signer, Not> {
    let keys: Vec<NamedKey> = key.into_iter().map(|key| NamedKey { instance: "test".to_owned(), key }).collect();
    let unsigned = keys.is_empty();
    let source = Source::new("test", Arc::clone(provider), keys, unsigned, Dedup::Id);
    Ok(Signer {
        source: Arc::new(source.map_err(|error| Not::Right(error.to_string()))?),
        key: None,
        event: sample.event.to_string(),
        body: Bytes::from(sample.body.to_string()),
        url: format!("https://hooks.example.com/v1/webhooks/{}/test", provider.name()),
    })
}

/// The types of what a delivery of it says.
fn read(signer: &Signer) -> Result<Vec<String>, String> {
    let delivery = signer.delivery(signer.sign(Expectation::Accepted, &random::uuid()));
    let verified = verify(&signer.source, &Arc::new(delivery)).map_err(|error| error.to_string())?;
    let events = Event::read(&verified).map_err(|error| format!("it cannot be read: {error}"))?;
    if events.is_empty() {
        return Err("there is no event in it".to_owned());
    }
    Ok(events.iter().map(Event::event_type).collect())
}

/// Keys to sign with, each with the one that verifies it, of secrets of every form that the provider takes.
fn test_keys(provider: &dyn Provider) -> Vec<(Key, Key)> {
    let bytes = clock::random::<32>();
    let texts = [encode_hex(&bytes), encode_base64(&bytes), format!("whsec_{}", encode_base64(&bytes))];
    let prepared = texts.iter().filter_map(|text| provider.prepare(&Secret::new(text.as_str())).ok());
    let mut keys: Vec<(Key, Key)> =
        prepared.filter(|key| !matches!(key, Key::Ed25519(_))).map(|key| (key.clone(), key)).collect();
    if provider.signing_field().is_some() {
        keys.extend(test_pair(provider, &bytes));
    }
    keys
}

/// A pair of keys of which one verifies only.
fn test_pair(provider: &dyn Provider, seed: &[u8]) -> Option<(Key, Key)> {
    let public = Key::ed25519_pair(seed).ok()?.public()?.to_vec();
    let both = [seed, &public].concat();
    let privates = [encode_hex(seed), encode_base64(seed), format!("whsk_{}", encode_base64(&both))];
    let publics = [encode_hex(&public), encode_base64(&public), format!("whpk_{}", encode_base64(&public))];
    let mut signing = privates.iter().filter_map(|text| provider.prepare_signing(&Secret::new(text.as_str())).ok());
    let mut verifying = publics.iter().filter_map(|text| provider.prepare(&Secret::new(text.as_str())).ok());
    let signing = signing.find(|key| matches!(key, Key::Ed25519Pair(_)))?;
    Some((signing, verifying.find(|key| matches!(key, Key::Ed25519(_)))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::providers;

    #[test]
    fn every_sample_of_every_provider_is_as_it_should_be() {
        let mut skipped = std::collections::BTreeSet::new();
        for provider in providers() {
            for report in samples(&provider, true) {
                assert_eq!(report.problem, None, "{} {}", report.provider, report.sample);
                skipped.extend(report.skipped.map(|_| report.provider));
            }
        }
        assert_eq!(skipped.into_iter().collect::<Vec<_>>(), ["paypal", "sns"], "all others are signed and verified");
    }
}
