//! Providers as data: any text is one, or everything that is wrong with it is said.

use doorbell_core::provider::declared::{Declared, Definition};
use doorbell_core::provider::{Provider, Unsent};
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;

/// Any text declares a provider that can sign, or has problems that stand somewhere in it.
pub(crate) fn definitions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Definition::parse(text) {
        Ok(definition) => {
            let provider = Declared::new(definition);
            let Ok(key) = provider.prepare(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")) else { return };
            let unsent =
                Unsent::new("a.b", r#"{"type":"a.b","update_id":1}"#, "1", Timestamp::from_seconds(1_790_000_000));
            let _ = provider.sign(Some(&key), unsent);
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.message.is_empty());
                assert!(problem.span.is_none_or(|span| text.get(span).is_some()));
            }
        }
    }
}
