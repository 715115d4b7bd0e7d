//! The trust boundary: the only way from a delivery to a [`Verified`] one.

use std::sync::Arc;

use crate::delivery::Delivery;
use crate::source::{NamedKey, Source};

/// A delivery whose sender was proved (or whose source was said, aloud, to need no proof).
///
/// It cannot be built outside this module, and an event can only be read from it.
#[derive(Debug, Clone)]
pub struct Verified {
    source: Arc<Source>,
    delivery: Arc<Delivery>,
    key: Option<usize>,
}

impl Verified {
    /// The source that took it.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// What was received.
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// The key that proved it; none if the source takes unsigned deliveries.
    pub fn key(&self) -> Option<&NamedKey> {
        self.key.and_then(|index| self.source.keys().get(index))
    }
}

/// Why a delivery was refused: always a 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Rejection {
    /// The stable code.
    pub code: RejectionCode,
    /// What exactly was wrong, without secrets; for the owner of the source.
    pub detail: String,
}

/// The stable codes of a [`Rejection`], from least to most telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectionCode {
    /// There is no signature.
    SignatureMissing,
    /// There is one, but no key of the source made it for these bytes. Anything malformed is this, too.
    SignatureMismatch,
    /// The signature is right, but older or newer than the source tolerates.
    TimestampOutOfRange,
}

impl RejectionCode {
    /// The code as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMismatch => "signature_mismatch",
            Self::TimestampOutOfRange => "timestamp_out_of_range",
        }
    }
}

impl Rejection {
    /// There is no signature where `place` says.
    pub fn missing(place: &str) -> Self {
        Self { code: RejectionCode::SignatureMissing, detail: format!("no signature: {place} is missing") }
    }

    /// There is a signature, and it is not right.
    pub fn mismatch(detail: impl Into<String>) -> Self {
        Self { code: RejectionCode::SignatureMismatch, detail: detail.into() }
    }
}

/// Proves who sent a delivery. The current time is the delivery's own [`Delivery::received_at`].
///
/// # Errors
/// If no key of the source made the signature.
pub fn verify(source: &Arc<Source>, delivery: &Arc<Delivery>) -> Result<Verified, Rejection> {
    let key = if source.keys().is_empty() {
        // `Source::new` lets this happen only with `allow_unsigned`.
        None
    } else {
        let keys = source.keys_at(delivery.received_at);
        if keys.is_empty() {
            return Err(Rejection::mismatch("every secret of this source has ended"));
        }
        let made_it = &keys[source.provider().verify(&keys, delivery)?];
        source.keys().iter().position(|key| key.instance == made_it.instance)
    };
    Ok(Verified { source: Arc::clone(source), delivery: Arc::clone(delivery), key })
}
