//! Who sent a delivery: handshakes that are unsigned by protocol, then the proof.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use doorbell_core::delivery::Delivery;
use doorbell_core::provider::{Answer, Greeting};
use doorbell_core::source::Source;
use doorbell_core::verify::{self, Rejection, Verified};
use http::StatusCode;

use super::super::Shared;
use super::super::error::Failure;
use crate::ops;
use crate::ops::captured::Kept;

/// Why nobody proved a delivery.
#[derive(Debug)]
pub(super) enum Unproved {
    /// It is not what it should be.
    Refused(Rejection),
    /// It cannot be looked at now.
    Unknown(Failure, String),
}

impl Unproved {
    /// What the sender hears, and what exactly was wrong, which is for the source's owner.
    pub(super) fn said(self) -> (Failure, String) {
        match self {
            Self::Refused(rejection) => {
                let code = rejection.code.as_str();
                let failure = Failure::new(StatusCode::UNAUTHORIZED, code, "the signature was not accepted");
                (failure, rejection.detail)
            }
            Self::Unknown(failure, detail) => (failure, detail),
        }
    }
}

/// The answer to a request that sets a webhook up and is unsigned by protocol; none for every other request.
///
/// # Errors
/// If it is such a request for every source, and nobody may be given the answer.
pub(super) async fn greet(
    shared: &Shared,
    sources: &[Arc<Source>],
    remote: SocketAddr,
    delivery: &Delivery,
) -> Result<Option<Answer>, Unproved> {
    let mut refused: Option<Rejection> = None;
    let mut unknown = false;
    let mut answered = None;
    for source in sources {
        match source.provider().greet(&source.keys_at(delivery.received_at), delivery) {
            Ok(None) => unknown = true,
            Ok(Some(Greeting::Answer(answer))) => {
                // As many lines as rejections have: strangers ask, too.
                if let Some(suppressed) = shared.greetings.admit(source.name(), Instant::now()) {
                    tracing::info!(source = source.name(), remote = %remote.ip(), suppressed, "source.greeted");
                }
                answered.get_or_insert(answer);
            }
            Ok(Some(Greeting::Secret { secret, answer })) => {
                capture(shared, source, remote, delivery, &secret).await?;
                answered.get_or_insert(answer);
            }
            Err(rejection) => note(&mut refused, rejection),
        }
    }
    match (answered, refused) {
        (Some(answer), _) => Ok(Some(answer)),
        (None, Some(rejection)) if !unknown => Err(Unproved::Refused(rejection)),
        _ => Ok(None),
    }
}

/// Keeps a secret that the sender shows once, until the source's owner has seen it.
async fn capture(
    shared: &Shared,
    source: &Source,
    remote: SocketAddr,
    delivery: &Delivery,
    secret: &doorbell_core::secret::Secret,
) -> Result<(), Unproved> {
    if ops::captured::is_set_up(&shared.app, source) {
        // Whoever shows one now is not setting it up. As many lines as greetings have.
        if let Some(suppressed) = shared.greetings.admit(source.name(), Instant::now()) {
            tracing::warn!(source = source.name(), remote = %remote.ip(), suppressed,
                "source.secret_not_kept: its credential has verified deliveries already; for another subscription, \
                 give the source a credential of another name first");
        }
        return Ok(());
    }
    if shared.captures.admit(source.name(), Instant::now()).is_none() {
        let detail = "too many secrets were shown to this source in a short time; try again later";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_secrets", detail).retry_later();
        return Err(Unproved::Unknown(failure, detail.to_owned()));
    }
    let remote = remote.ip().to_canonical().to_string();
    let kept = ops::captured::keep(&shared.app, source.name(), secret, &remote, delivery.received_at).await;
    let kept = kept.map_err(|error| {
        tracing::error!(source = source.name(), error, "source.secret_not_kept");
        let detail = "the secret that it shows could not be kept; try again";
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "secret_not_kept", detail).retry_later();
        Unproved::Unknown(failure, error)
    })?;
    let source = source.name();
    match kept {
        Kept::Known => Ok(()),
        Kept::New => {
            tracing::warn!(source, remote, "source.secret_captured: `doorbell sources captured` shows it to the owner");
            Ok(())
        }
        Kept::Full => {
            let detail = "no further secret is kept before the owner forgets those that were shown to this source: \
                          `doorbell sources captured`, then `--forget`";
            tracing::warn!(source, remote, "source.secret_not_kept: {detail}");
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_secrets", detail).retry_later();
            Err(Unproved::Unknown(failure, detail.to_owned()))
        }
    }
}

/// The delivery, proved for every source that can; or the most telling refusal. None, if there is a source for which it
/// cannot be looked at now.
pub(super) async fn prove(
    shared: &Shared,
    sources: &[Arc<Source>],
    delivery: &Arc<Delivery>,
) -> Result<Vec<Verified>, Unproved> {
    let mut verified = Vec::new();
    let mut refused: Option<Rejection> = None;
    let mut unknown = None;
    for source in sources {
        let delivery = match with_certificate(shared, source, delivery).await {
            Ok(delivery) => delivery,
            Err(Unproved::Refused(rejection)) => {
                note(&mut refused, rejection);
                continue;
            }
            Err(other) => {
                unknown = Some(other);
                continue;
            }
        };
        match verify::verify(source, &delivery) {
            Ok(proved) => verified.push(proved),
            Err(rejection) => note(&mut refused, rejection),
        }
    }
    match (unknown, refused) {
        // Whoever sends it comes again, for all of them: an answer of 2xx would lose it for the one that could not look at it.
        (Some(unknown), _) => Err(unknown),
        _ if !verified.is_empty() => Ok(verified),
        (None, Some(rejection)) => Err(Unproved::Refused(rejection)),
        (None, None) => Ok(verified),
    }
}

/// The delivery with the certificate that its signature is checked with, where its protocol has one.
async fn with_certificate(
    shared: &Shared,
    source: &Source,
    delivery: &Arc<Delivery>,
) -> Result<Arc<Delivery>, Unproved> {
    if source.keys().is_empty() {
        return Ok(Arc::clone(delivery));
    }
    let keys = source.keys_at(delivery.received_at);
    let url = source.provider().certificate_url(&keys, delivery).map_err(Unproved::Refused)?;
    let Some(url) = url else { return Ok(Arc::clone(delivery)) };
    match shared.certificates.get(&url).await {
        Ok(certificate) => Ok(Arc::new(Delivery { certificate: Some(certificate), ..Delivery::clone(delivery) })),
        Err(error) => {
            let detail = "the certificate that it is signed with could not be fetched; try again";
            let failure =
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "certificate_unavailable", detail).retry_later();
            Err(Unproved::Unknown(failure, format!("the certificate at {url} could not be fetched: {error}")))
        }
    }
}

fn note(refused: &mut Option<Rejection>, rejection: Rejection) {
    if refused.as_ref().is_none_or(|earlier| rejection.code > earlier.code) {
        *refused = Some(rejection);
    }
}
