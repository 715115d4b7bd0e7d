//! Who sends a request, and by which URL. Behind proxies that are trusted, they say so in `X-Forwarded-*` headers; nobody
//! else's headers count.
//!
//! RFC 7239's `Forwarded` is not read: a proxy that writes one of the two passes the other on as the sender wrote it, so
//! reading both would let senders choose their address.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::uri::Authority;
use http::{Extensions, HeaderMap, Request};
use ipnet::IpNet;

use crate::app::{App, Snapshot};

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";

/// Scheme and host of the URL that a request was sent to, as a trusted proxy says it.
#[derive(Debug, Clone)]
struct Origin(String);

/// Puts in place of a trusted proxy's address that of whoever it speaks for.
pub(super) fn note_sender<B>(trusted: &[IpNet], request: &mut Request<B>) {
    if trusted.is_empty() {
        return;
    }
    let Some(ConnectInfo(direct)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() else { return };
    if !is_trusted(trusted, direct.ip()) {
        return;
    }
    let (sender, origin) = (sender(trusted, request.headers()), origin(request.headers()));
    if let Some(sender) = sender {
        request.extensions_mut().insert(ConnectInfo(sender));
    }
    if let Some(origin) = origin {
        request.extensions_mut().insert(Origin(origin));
    }
}

/// The URL that senders use, without the path: the public one, else as a trusted proxy says it, else the local one.
pub(super) fn url_of<'a>(app: &'a App, in_force: &'a Snapshot, extensions: &'a Extensions) -> &'a str {
    match (&in_force.config.gateway.public_url, extensions.get::<Origin>()) {
        (None, Some(Origin(origin))) => origin,
        _ => app.public_url(in_force),
    }
}

/// Whether an address is that of a trusted proxy.
pub(super) fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// The rightmost address that is not a trusted proxy's, because each of those adds the one it was called from at the right;
/// the leftmost, if all are. None if there is none, or what a trusted one added is no address.
fn sender(trusted: &[IpNet], headers: &HeaderMap) -> Option<SocketAddr> {
    let mut furthest = None;
    // Several headers are one list.
    for header in headers.get_all(FOR).iter().rev() {
        for entry in header.to_str().ok()?.rsplit(',') {
            let address = read_address(entry)?;
            furthest = Some(address);
            if !is_trusted(trusted, address.ip()) {
                return furthest;
            }
        }
    }
    furthest
}

/// An address, perhaps with a port.
fn read_address(text: &str) -> Option<SocketAddr> {
    let text = text.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0)).or_else(|_| text.parse()).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Of several, the first counts: it is what the proxy saw that the sender spoke to.
fn origin(headers: &HeaderMap) -> Option<String> {
    let first = |name| Some(headers.get(name)?.to_str().ok()?.split(',').next()?.trim());
    let scheme = first(PROTO)?.to_ascii_lowercase();
    let host: Authority = first(HOST).or_else(|| headers.get("host")?.to_str().ok())?.parse().ok()?;
    let is_one = matches!(scheme.as_str(), "http" | "https") && !host.as_str().contains('@') && !host.host().is_empty();
    is_one.then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn networks() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).into()
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn seen(direct: &str, pairs: &[(&str, &str)]) -> (String, Option<String>) {
        let mut request = Request::new(());
        *request.headers_mut() = headers(pairs);
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(direct.parse().unwrap(), 1)));
        note_sender(&networks(), &mut request);
        let ConnectInfo(address) = *request.extensions().get::<ConnectInfo<SocketAddr>>().unwrap();
        (address.ip().to_string(), request.extensions().get::<Origin>().map(|Origin(origin)| origin.clone()))
    }

    #[test]
    fn the_rightmost_address_that_is_not_a_proxys_counts() {
        for (lists, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9, 10.2.2.2"], "203.0.113.9"),
            (&["1.1.1.1", "203.0.113.9,10.2.2.2", "10.3.3.3"], "203.0.113.9"),
            (&["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["2001:db8::1, fd00::7"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            // What nobody trusted wrote is not even read.
            (&["<script>, , 203.0.113.9"], "203.0.113.9"),
            (&["unknown"], "10.1.1.1"),
            (&["203.0.113.9, unknown"], "10.1.1.1"),
            (&["203.0.113.9,"], "10.1.1.1"),
            (&[""], "10.1.1.1"),
            (&[], "10.1.1.1"),
        ] {
            let pairs: Vec<_> = lists.iter().map(|list| (FOR, *list)).collect();
            assert_eq!(seen("10.1.1.1", &pairs).0, expected, "{lists:?}");
            assert_eq!(seen("::ffff:10.1.1.1", &pairs).0.trim_start_matches("::ffff:"), expected, "{lists:?}");
        }
    }

    #[test]
    fn whoever_is_not_trusted_speaks_for_itself_only() {
        let pairs = [(FOR, "1.1.1.1"), (PROTO, "https"), (HOST, "evil.example"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(seen("203.0.113.9", &pairs), ("203.0.113.9".to_owned(), None));
        assert_eq!(seen("11.0.0.1", &pairs).0, "11.0.0.1");
    }

    #[test]
    fn the_url_is_as_the_first_proxy_saw_it() {
        let origin_of = |pairs: &[(&str, &str)]| seen("10.1.1.1", pairs).1;
        let of = |proto, host| origin_of(&[(PROTO, proto), (HOST, host)]);
        assert_eq!(of("https", "hooks.example.com").as_deref(), Some("https://hooks.example.com"));
        assert_eq!(of("HTTPS, http", "a.example:8443, b").as_deref(), Some("https://a.example:8443"));
        let kept = [(PROTO, "https"), ("host", "hooks.example.com")];
        assert_eq!(origin_of(&kept).as_deref(), Some("https://hooks.example.com"), "a proxy that passes Host on");
        for (proto, host) in
            [("ftp", "a"), ("", "a"), ("https", "a b"), ("https", "u@a"), ("https", "a/b"), ("https", "")]
        {
            assert_eq!(of(proto, host), None, "{proto} {host}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_survived(list in "[0-9a-f:., \\[\\]]{0,60}", proto in "\\PC{0,9}", host in "\\PC{0,20}") {
            let mut headers = HeaderMap::new();
            for (name, value) in [(FOR, list), (PROTO, proto), (HOST, host)] {
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    headers.insert(name, value);
                }
            }
            let _ = (sender(&networks(), &headers), origin(&headers));
        }
    }
}
