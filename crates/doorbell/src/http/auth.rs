//! Who asks: a bearer key or run token, always, also on loopback.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use doorbell_core::delivery::bearer_token;
use doorbell_core::provider::encode_hex;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::error::Failure;
use crate::app::{Caller, Known, Unknown, hash_key};
use crate::clock;
use crate::ops::leases;
use crate::store::Lease;

/// Who asks, and the hash of the key or token that was shown: looked up once for a request.
#[derive(Debug, Clone)]
pub(super) struct Introduced {
    pub(super) known: Known,
    pub(super) hash: Vec<u8>,
}

impl Introduced {
    /// Whose idempotency keys these are: of the key that is shown; of the run, whose every try has another token.
    pub(super) fn whose(&self) -> String {
        match &self.known.caller {
            Caller::Run { run, .. } => run.to_string(),
            _ => encode_hex(&self.hash),
        }
    }
}

impl FromRequestParts<Shared> for Introduced {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        identify(parts, shared).await
    }
}

/// Who asks, as a handler takes it.
#[derive(Debug)]
pub(super) struct By(pub(super) Caller);

impl FromRequestParts<Shared> for By {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        identify(parts, shared).await.map(|introduced| Self(introduced.known.caller))
    }
}

/// Who asks. A request counts once for its key, however often this is asked.
async fn identify(parts: &mut Parts, shared: &Shared) -> Result<Introduced, Failure> {
    if let Some(introduced) = parts.extensions.get::<Introduced>() {
        return Ok(introduced.clone());
    }
    let introduced = look_up(parts, shared).await;
    let introduced = introduced.inspect_err(|failure| shared.app.metrics.count_api_refused(failure.code()))?;
    parts.extensions.insert(introduced.clone());
    Ok(introduced)
}

async fn look_up(parts: &Parts, shared: &Shared) -> Result<Introduced, Failure> {
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(|| {
        let detail = "send `Authorization: Bearer dbk_…`; `doorbell keys create` makes a key";
        Failure::new(StatusCode::UNAUTHORIZED, "key_missing", detail)
    })?;
    let presented = header.to_str().ok().and_then(bearer_token);
    let in_force = shared.app.current();
    let gateway = &in_force.config.gateway;
    let hash = presented.map(hash_key);
    let admit = |known: Known, hash: Vec<u8>| {
        shared.door.admit_request(hash.clone(), gateway)?;
        Ok(Introduced { known, hash })
    };
    if let (Some(lease), Some(hash)) = (presented.and_then(Lease::from_token), &hash) {
        // What it reaches has no characters that are written otherwise in a path.
        let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        // In a box: each request has room for whatever it may ever wait for, and most show a key.
        let known = Box::pin(leases::reach(&shared.app, lease, parts.method == Method::GET, &path)).await?;
        return admit(known, hash.clone());
    }
    let refusal = match hash.map(|hash| (shared.app.access.identify(&hash, clock::now()), hash)) {
        Some((Ok(known), hash)) => return admit(known, hash),
        Some((Err(Unknown::Expired(at)), _)) => {
            let detail = format!("this key ended on {at}: an owner makes another one (`doorbell keys create`)");
            Failure::new(StatusCode::UNAUTHORIZED, "key_expired", detail)
        }
        Some((Err(Unknown::Nobody), _)) | None => invalid(),
    };
    Err(match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(remote)) => shared.door.refuse(remote.ip(), gateway, refusal),
        None => refusal,
    })
}

fn invalid() -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "key_invalid", "no such key, or the run of this token has ended")
}

/// What is cancelled when the caller's key is removed: for what outlives the request.
#[derive(Debug)]
pub(super) struct KeyRemoved(pub(super) CancellationToken);

impl FromRequestParts<Shared> for KeyRemoved {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let Introduced { hash, .. } = identify(parts, shared).await?;
        match shared.app.access.removal(&hash) {
            Some(removed) => Ok(Self(removed)),
            // A run's token cannot be removed; a key that was a moment ago is nobody's.
            None if shared.app.access.knows(&hash, clock::now()) => Ok(Self(CancellationToken::new())),
            None => Err(invalid()),
        }
    }
}

/// A caller on this machine, or one with a key: metrics are open on loopback only.
#[derive(Debug)]
pub(super) struct LocalOrKnown;

impl FromRequestParts<Shared> for LocalOrKnown {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
        // A proxy or tunnel on this machine speaks for strangers; it says so in these headers.
        let forwarded = ["x-forwarded-for", "forwarded", "x-real-ip"].iter().any(|h| parts.headers.contains_key(*h));
        if address.is_some_and(|ip| ip.is_loopback()) && !forwarded {
            return Ok(Self);
        }
        match By::from_request_parts(parts, shared).await?.0 {
            Caller::Owner { .. } | Caller::Viewer => Ok(Self),
            _ => Err(Failure::not_found()),
        }
    }
}
