//! Who asks: a bearer key or run token, always, also on loopback.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use doorbell_core::delivery::bearer_token;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::error::Failure;
use crate::app::{Caller, Known, Unknown, hash_key};
use crate::clock;
use crate::ops::leases;
use crate::store::Lease;

/// Who asks, as a handler takes it.
#[derive(Debug)]
pub(super) struct By(pub(super) Caller);

impl FromRequestParts<Shared> for By {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        identify(parts, shared).await.map(|known| Self(known.caller))
    }
}

/// Who asks. A request counts once for its key, however often this is asked.
pub(super) async fn identify(parts: &mut Parts, shared: &Shared) -> Result<Known, Failure> {
    if let Some(known) = parts.extensions.get::<Known>() {
        return Ok(known.clone());
    }
    let known = look_up(parts, shared).await;
    let known = known.inspect_err(|failure| shared.app.metrics.count_api_refused(failure.code()))?;
    parts.extensions.insert(known.clone());
    Ok(known)
}

async fn look_up(parts: &Parts, shared: &Shared) -> Result<Known, Failure> {
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(|| {
        let detail = "send `Authorization: Bearer dbk_…`; `doorbell keys create` makes a key";
        Failure::new(StatusCode::UNAUTHORIZED, "key_missing", detail)
    })?;
    let presented = header.to_str().ok().and_then(bearer_token);
    let in_force = shared.app.current();
    let gateway = &in_force.config.gateway;
    let admit = |key: &str| shared.door.admit_request(hash_key(key), gateway);
    if let Some((token, lease)) = presented.and_then(|token| Some((token, Lease::from_token(token)?))) {
        // What it reaches has no characters that are written otherwise in a path.
        let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        // In a box: each request has room for whatever it may ever wait for, and most show a key.
        let known = Box::pin(leases::reach(&shared.app, lease, parts.method == Method::GET, &path)).await?;
        return admit(token).map(|()| known);
    }
    let refusal = match presented.map(|key| (key, shared.app.access.identify(key, clock::now()))) {
        Some((key, Ok(known))) => return admit(key).map(|()| known),
        Some((_, Err(Unknown::Expired(at)))) => {
            let detail = format!("this key ended on {at}: an owner makes another one (`doorbell keys create`)");
            Failure::new(StatusCode::UNAUTHORIZED, "key_expired", detail)
        }
        Some((_, Err(Unknown::Nobody))) | None => invalid(),
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
        let presented = parts.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok()).and_then(bearer_token);
        let presented = presented.ok_or_else(invalid)?;
        match shared.app.access.removal(presented) {
            Some(removed) => Ok(Self(removed)),
            // A run's token cannot be removed; a key that was a moment ago is nobody's.
            None if shared.app.access.identify(presented, clock::now()).is_ok() => Ok(Self(CancellationToken::new())),
            None => Err(invalid()),
        }
    }
}

/// The hash of the key or token that a request shows.
pub(super) fn shown_hash(headers: &HeaderMap) -> Option<Vec<u8>> {
    headers.get(AUTHORIZATION)?.to_str().ok().and_then(bearer_token).map(hash_key)
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
