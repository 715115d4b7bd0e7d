//! Who asks: a bearer key or run token, always, also on loopback.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use doorbell_core::delivery::bearer_token;
use doorbell_core::id::KeyId;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::error::Failure;
use crate::app::{Caller, hash_key};
use crate::ops::leases;
use crate::store::Lease;

/// Who asks, as a handler takes it.
#[derive(Debug)]
pub(super) struct By(pub(super) Caller);

impl FromRequestParts<Shared> for By {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let header = parts.headers.get(AUTHORIZATION).ok_or_else(|| {
            let detail = "send `Authorization: Bearer dbk_…`; `doorbell keys create` makes a key";
            Failure::new(StatusCode::UNAUTHORIZED, "key_missing", detail)
        })?;
        let presented = header.to_str().ok().and_then(bearer_token);
        if let Some(lease) = presented.and_then(Lease::from_token) {
            // What it reaches has no characters that are written otherwise in a path.
            let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
            // In a box: each request has room for whatever it may ever wait for, and most show a key.
            let caller = Box::pin(leases::reach(&shared.app, lease, parts.method == Method::GET, &path)).await?;
            return Ok(Self(caller));
        }
        presented.and_then(|key| shared.app.access.identify(key)).map(Self).ok_or_else(invalid)
    }
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
            None if shared.app.access.identify(presented).is_some() => Ok(Self(CancellationToken::new())),
            None => Err(invalid()),
        }
    }
}

/// What the caller showed.
#[derive(Debug)]
pub(super) struct Shown {
    /// Its hash.
    pub(super) hash: Vec<u8>,
    /// The API key; none if it is a run's token.
    pub(super) key: Option<KeyId>,
    /// What is cancelled when the key is removed.
    pub(super) removed: CancellationToken,
}

impl FromRequestParts<Shared> for Shown {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let KeyRemoved(removed) = KeyRemoved::from_request_parts(parts, shared).await?;
        let presented = parts.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok()).and_then(bearer_token);
        let key = presented.and_then(|presented| shared.app.access.key(presented)).map(|(key, _)| key);
        Ok(Self { hash: shown_hash(&parts.headers).unwrap_or_default(), key, removed })
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
