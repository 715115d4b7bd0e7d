//! What may be asked on behalf of somebody who is not the operator: the public internet, and nothing that only this machine or
//! its network reaches.
//!
//! A name is looked up once, and the connection goes to an address that was looked at: a name that means something else a
//! moment later (DNS rebinding) gains nothing. No proxy is used, which would look the name up by itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether an address is of the public internet, and no cloud's own service behind one.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // This network, shared addresses of providers, assignments, benchmarks, what was 6to4.
        (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) | (192, 88, 99) => true,
        // Azure's own services have an address that looks like anybody's.
        (168, 63, 129) => true,
        (224.., ..) => true,
        _ => false,
    };
    !(special || address.is_private() || address.is_loopback() || address.is_link_local() || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // Addresses of version 4 in another form: mapped, by NAT64, by 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Of protocols (Teredo, benchmarks, overlays), documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Everything else that is anybody's: not unique local, link local, multicast, or this machine.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Why something is not asked on behalf of somebody who is not the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotPublic {
    /// The URL names an address.
    Address,
    /// The URL has a name that leads to other addresses only.
    Name,
    /// The URL's port is none of the web's.
    Port,
}

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "its address is not of the public internet",
            Self::Name => "its name leads to no address of the public internet",
            Self::Port => "its port is none of the web's: 80, 443, or from 1024 on",
        })
    }
}

impl std::error::Error for NotPublic {}

/// Refuses a URL that names an address which is not public, or the port of something else than the web. A name is looked at
/// when it is looked up.
pub(crate) fn check(url: &Url) -> Result<(), NotPublic> {
    let host = url.host_str().unwrap_or_default();
    // However it is written (`127.1`, `0x7f000001`), it stands here in its usual form.
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    match (literal, url.port_or_known_default()) {
        (Some(address), _) if !is_public(address) => Err(NotPublic::Address),
        (_, Some(80 | 443 | 1024..)) => Ok(()),
        _ => Err(NotPublic::Port),
    }
}

/// Refuses a URL that [`crate::Outbound::in_public`] would refuse before it looks a name up.
///
/// # Errors
/// What it is, in words for people, without the URL.
pub fn refuse_private(url: &str) -> Result<(), String> {
    let url = Url::parse(url).map_err(|_| "it cannot be used".to_owned())?;
    check(&url).map_err(|error| error.to_string())
}

/// Looks names up, and forgets what is not public.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(keep_public(tokio::net::lookup_host((name.as_str(), 0)).await?)?) })
    }
}

/// The addresses that may be connected to: nothing looks the name up again.
fn keep_public(found: impl Iterator<Item = SocketAddr>) -> Result<Addrs, NotPublic> {
    let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
    match public.is_empty() {
        true => Err(NotPublic::Name),
        false => Ok(Box::new(public.into_iter())),
    }
}

/// Has connections go to public addresses only.
pub(crate) fn restrict(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.no_proxy().dns_resolver(Arc::new(PublicOnly))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.8.8.8",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_is_seen_however_it_is_written() {
        for url in [
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1./",
        ] {
            assert!(check(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        for port in [22, 25, 6379] {
            let url = Url::parse(&format!("http://example.com:{port}/")).unwrap();
            let refused = if port < 1024 { Err(NotPublic::Port) } else { Ok(()) };
            assert_eq!(check(&url), refused, "{port}");
        }
        assert_eq!(check(&Url::parse("https://1.1.1.1/").unwrap()), Ok(()));
        assert_eq!(check(&Url::parse("https://example.com/").unwrap()), Ok(()));
    }

    #[test]
    fn of_what_a_name_leads_to_only_public_addresses_are_connected_to() {
        let lookup = |found: &[&str]| {
            let found: Vec<SocketAddr> = found.iter().map(|address| address.parse().unwrap()).collect();
            keep_public(found.into_iter()).map(|kept| kept.map(|address| address.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(lookup(&["10.0.0.1:0", "1.1.1.1:0", "[::1]:0"]), Ok(vec!["1.1.1.1:0".to_owned()]));
        for found in [&["127.0.0.1:0", "[fe80::1]:0"][..], &["[::ffff:192.168.0.1]:0"], &[]] {
            assert_eq!(lookup(found), Err(NotPublic::Name), "{found:?}");
        }
    }
}
