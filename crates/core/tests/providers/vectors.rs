//! Facts about the protocols: signed requests that must verify, and ones that must not.

use std::sync::Arc;

use doorbell_core::provider::generic::{Algorithm, Encoding, Generic, GenericOptions, Scheme};
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{InvalidKey, Provider};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::verify::{RejectionCode, verify};

use super::{Fact, delivery};

fn provider(fact: &Fact) -> Arc<dyn Provider> {
    if fact.provider == "github" {
        return Arc::new(Github);
    }
    let has = |part: &str| fact.scheme.contains(part);
    let options = GenericOptions {
        header: fact.config.get("header").cloned(),
        prefix: has("prefixed").then(|| "sha256=".to_owned()),
        encoding: if has("base64") { Encoding::Base64 } else { Encoding::Hex },
        algorithm: match () {
            () if has("sha1") => Algorithm::Sha1,
            () if has("sha512") => Algorithm::Sha512,
            () => Algorithm::Sha256,
        },
        scheme: if has("bearer") { Scheme::Bearer } else { Scheme::Hmac },
        ..GenericOptions::default()
    };
    Arc::new(Generic::new(options).unwrap())
}

#[test]
fn every_fact_holds() {
    let facts: Vec<Fact> = serde_json::from_str(include_str!("../vectors/providers.json")).unwrap();
    assert_eq!(facts.len(), 36);
    for fact in facts {
        let Fact { why, scheme, .. } = &fact;
        let provider = provider(&fact);
        let key = match provider.prepare(&Secret::new(fact.secret.as_str())) {
            Ok(key) => key,
            Err(error) => {
                assert!(error == InvalidKey::Blank && fact.secret.is_empty() && !fact.valid, "{scheme}: {why}");
                continue;
            }
        };
        let keys = vec![NamedKey { instance: "acme".to_owned(), key }];
        let source = Arc::new(Source::new("facts", provider, keys, false, Dedup::Id).unwrap());
        let headers: Vec<_> = fact.headers.iter().collect();
        let outcome = verify(&source, &delivery(&headers, fact.body.clone()));
        assert_eq!(outcome.is_ok(), fact.valid, "{scheme}: {why}");
        if let Err(rejection) = outcome {
            let missing = why.starts_with("missing");
            assert_eq!(rejection.code == RejectionCode::SignatureMissing, missing, "{scheme}: {why}");
        }
    }
}
