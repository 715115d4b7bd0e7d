//! What holds for management (API, metrics, dashboard, MCP) and not for deliveries: the names that it answers to, and what
//! browsers are told of its answers.
//!
//! A page in the browser of somebody who may reach the gateway can have a name of its own lead to the gateway's address
//! (DNS rebinding); the browser then takes its answers for the page's own. Such a request names the page's host. An address
//! is no name that could lead elsewhere, so every address will do.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::error::Failure;
use crate::app::App;
use crate::config::Gateway;

/// What every answer says that does not say otherwise. There is no CORS header: no page of another origin may read any.
const SAID: [(HeaderName, HeaderValue); 6] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // Keys, secrets and what events say: nobody keeps a copy.
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// To browsers that came by HTTPS: for half a year by nothing else.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=15552000");

/// Lets a request through if it is to a name of this gateway.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let in_force = app.current();
    let gateway = &in_force.config.gateway;
    let refusal = check_host(gateway, &request).err();
    let mut response = match refusal {
        None => next.run(request).await,
        Some(failure) => {
            app.metrics.count_api_refused(failure.code());
            failure.into_response()
        }
    };
    protect(response.headers_mut());
    if is_https_only(gateway) {
        response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert(HTTPS_ONLY);
    }
    response
}

/// Whether the host of the public URL is the gateway's alone, and speaks HTTPS: what has a port of its own shares the host, and
/// browsers hold this against all ports. They do not heed it where they came by plain HTTP.
fn is_https_only(gateway: &Gateway) -> bool {
    let url = gateway.public_url.as_ref().and_then(|url| url.parse::<Uri>().ok());
    url.is_some_and(|url| url.scheme_str() == Some("https") && url.port_u16().is_none_or(|port| port == 443))
}

fn protect(headers: &mut HeaderMap) {
    for (name, value) in SAID {
        headers.entry(name).or_insert(value);
    }
}

fn check_host(gateway: &Gateway, request: &Request) -> Result<(), Failure> {
    let named = request.headers().get_all(HOST).iter().map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let mut hosts = request.uri().authority().cloned().map(Some).into_iter().chain(named).peekable();
    if hosts.peek().is_none() {
        return Err(refuse("none"));
    }
    hosts.try_for_each(|host| match host {
        Some(host) if is_own(gateway, host.host()) => Ok(()),
        Some(host) => Err(refuse(&format!("`{}`", host.host()))),
        None => Err(refuse("one that cannot be read")),
    })
}

fn refuse(host: &str) -> Failure {
    let detail = format!(
        "this gateway is asked by a host's name that is not known to be its own: {host}. Use its address, `localhost` or \
         the host of `public_url`, or add the name to `[gateway] allowed_hosts`"
    );
    Failure::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", detail)
}

fn is_own(gateway: &Gateway, host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let is = |name: &str| name.eq_ignore_ascii_case(host);
    let public = gateway.public_url.as_ref().and_then(|url| url.parse::<Uri>().ok());
    is("localhost")
        || public.as_ref().and_then(Uri::host).is_some_and(is)
        || gateway.allowed_hosts.iter().any(|name| is(name))
}
