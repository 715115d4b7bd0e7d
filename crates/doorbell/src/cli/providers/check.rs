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
    provider.samples().iter().map(|sample| one(provider, sample, keys.clone(), by_its_maker)).collect()
}

/// Why a sample is not as it should be, or was only read.
enum Not {
    Right(String),
    Signed(String),
}

fn one(provider: &Arc<dyn Provider>, sample: &Sample, keys: Option<(Key, Key)>, by_its_maker: bool) -> Report {
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
    keys: Option<(Key, Key)>,
    events: &mut Vec<String>,
) -> Result<(), Not> {
    let wrong = |error: String| Not::Right(error);
    let unsigned = signer(provider, sample, None)?;
    *events = read(&unsigned).map_err(wrong)?;
    let Some((signing, verifying)) = keys else {
        return Err(Not::Signed("read only: its secrets are of a form that is not known here".to_owned()));
    };
    let genuine = Signer { key: Some(signing), ..signer(provider, sample, Some(verifying))? };
    let refusal = |expectation| {
        let delivery = genuine.delivery(genuine.sign(expectation, &random::uuid()));
        verify(&genuine.source, &Arc::new(delivery)).err()
    };
    match refusal(Expectation::Accepted) {
        None => {}
        Some(rejection) if rejection.code == RejectionCode::SignatureMissing => {
            return Err(Not::Signed(format!("read only: nobody but {} can sign", provider.guide().title)));
        }
        Some(rejection) => return Err(Not::Right(format!("signed, and refused: {rejection}"))),
    }
    *events = read(&genuine).map_err(wrong)?;
    for (expectation, what) in [
        (Expectation::TamperedIsRefused, "changed after it was signed"),
        (Expectation::UnsignedIsRefused, "not signed"),
    ] {
        if refusal(expectation).is_none() {
            return Err(Not::Right(format!("it was {what}, and verified")));
        }
    }
    if provider.tolerance().is_some()
        && refusal(Expectation::StaleIsRefused).map(|rejection| rejection.code)
            != Some(RejectionCode::TimestampOutOfRange)
    {
        return Err(Not::Right("it was signed too long ago, and not refused for that".to_owned()));
    }
    Ok(())
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

/// A key to sign with and the one that verifies it, of a secret of whichever form the provider takes.
fn test_keys(provider: &dyn Provider) -> Option<(Key, Key)> {
    let bytes = clock::random::<32>();
    let texts = [encode_hex(&bytes), encode_base64(&bytes), format!("whsec_{}", encode_base64(&bytes))];
    if provider.signing_field().is_some() {
        let signing = texts.iter().find_map(|text| provider.prepare_signing(&Secret::new(text.as_str())).ok())?;
        let public = signing.public()?;
        let halves = [encode_hex(public), encode_base64(public), format!("whpk_{}", encode_base64(public))];
        let verifying = halves.iter().find_map(|text| provider.prepare(&Secret::new(text.as_str())).ok())?;
        return Some((signing, verifying));
    }
    let key = texts.iter().find_map(|text| provider.prepare(&Secret::new(text.as_str())).ok())?;
    Some((key.clone(), key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::providers;

    #[test]
    fn every_sample_of_every_provider_is_as_it_should_be() {
        for provider in providers() {
            for report in samples(&provider, true) {
                assert_eq!(report.problem, None, "{} {}", report.provider, report.sample);
            }
        }
    }
}
