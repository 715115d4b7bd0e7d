//! `[gateway]` and `[store]`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use doorbell_core::flow::Rate;
use http::uri::Authority;
use ipnet::IpNet;

use super::Gateway;
use super::document::{Keys, Node, Table};
use super::flow::rate;
use super::gateway_tls;
use super::origin::Survey;
use super::problem::{Findings, Place, Problem};

const KEYS: Keys<'static> = Keys {
    known: &[
        "listen",
        "admin_listen",
        "public_url",
        "private_callbacks",
        "trusted_proxies",
        "allowed_hosts",
        "max_connections",
        "max_connections_per_address",
        "key_rate_limit",
        "hook_rate_limit",
        "failure_limit",
        "max_body",
        "drain_timeout",
        "condition_timeout",
        "hot_reload",
        "tls",
    ],
    planned: &[],
    hints: &[
        ("port", "address and port are one key here: listen = \"127.0.0.1:8080\""),
        ("host", "address and port are one key here: listen = \"127.0.0.1:8080\""),
        ("url", "did you mean `public_url`?"),
    ],
};

const STORE_KEYS: Keys<'static> = Keys { known: &["url", "retention", "audit_retention"], planned: &[], hints: &[] };

/// How long things are kept at least, where they are not kept for ever.
const SHORTEST_RETENTION: Duration = Duration::from_secs(1);

/// Reads `[gateway]`, with the files that it names; notes in `survey` how those stand.
pub(super) fn read(root: &Path, table: &Table, survey: &mut Survey, findings: &mut Findings) -> Option<Gateway> {
    table.check(findings, KEYS);
    table.settle(findings, "gateway");
    let listen = table.read(findings, "listen", address);
    let admin_listen = table.read(findings, "admin_listen", address);
    if let (Some(listen), Some(admin)) = (listen, admin_listen)
        && overlap(listen, admin)
        && let Some(node) = table.get("admin_listen")
    {
        let problem = Problem::at(&node.place, format!("`listen` has {listen} already"));
        findings.problem(problem.help("give the API an address of its own, such as \"127.0.0.1:8081\""));
    }
    let public_url = table.read(findings, "public_url", public_url);
    let private_callbacks = table.read(findings, "private_callbacks", private_callbacks);
    let trusted_proxies = trusted_proxies(table, findings);
    let allowed_hosts = allowed_hosts(table, findings);
    let connections = |node: &Node| node.whole(1..=1_000_000).map(|count| usize::try_from(count).unwrap_or(1));
    let max_connections = table.read(findings, "max_connections", connections);
    let max_connections_per_address = table.read(findings, "max_connections_per_address", connections);
    let key_rate_limit = table.read(findings, "key_rate_limit", |node| limit(node, "10000/10s"));
    let hook_rate_limit = table.read(findings, "hook_rate_limit", |node| limit(node, "10000/10s"));
    let failure_limit = table.read(findings, "failure_limit", |node| limit(node, "1000/1m"));
    let max_body = table.read(findings, "max_body", |node| node.size(1 << 10..=1 << 30));
    let drain_timeout = table.read(findings, "drain_timeout", |node| node.duration(Duration::ZERO));
    let condition_timeout = table.read(findings, "condition_timeout", |node| node.duration(Duration::from_millis(1)));
    let hot_reload = table.read(findings, "hot_reload", Node::flag);
    let tls = gateway_tls::read(root, table, public_url.as_deref(), survey, findings);
    if tls.as_ref().is_some_and(|tls| tls.acme.is_some())
        && hot_reload == Some(false)
        && let Some(entry) = table.entry("hot_reload")
    {
        let problem = Problem::at(&entry.place, "a certificate that is issued is put in force like a saved file");
        findings.problem(problem.help("leave `hot_reload` on with [gateway.tls.acme]"));
    }
    if let Some(entry) = table.entry("tls") {
        tls.as_ref()?;
        if public_url.is_none() {
            let warning = "without `public_url`, which has the certificate's name, the URLs that are printed are this machine's own";
            findings.warn(&entry.place, warning.to_owned());
        }
    }
    Some(Gateway {
        listen: listen?,
        admin_listen,
        public_url,
        private_callbacks: private_callbacks.unwrap_or_default(),
        tls,
        trusted_proxies,
        allowed_hosts,
        max_connections: max_connections?,
        max_connections_per_address: max_connections_per_address?,
        key_rate_limit: key_rate_limit?,
        hook_rate_limit: hook_rate_limit?,
        failure_limit: failure_limit?,
        max_body: max_body?,
        drain_timeout: drain_timeout?,
        condition_timeout: condition_timeout?,
        hot_reload: hot_reload?,
    })
}

/// `[store]`: the URL, and how long things are kept (none: for ever).
pub(super) struct Kept {
    pub(super) store_url: String,
    pub(super) retention: Option<Duration>,
    pub(super) audit_retention: Option<Duration>,
}

/// Reads `[store]`.
pub(super) fn read_store(table: &Table, findings: &mut Findings) -> Option<Kept> {
    table.check(findings, STORE_KEYS);
    table.settle(findings, "store");
    let url = table.read(findings, "url", store_url);
    let retention = table.read(findings, "retention", retention);
    let audit_retention = table.read(findings, "audit_retention", self::retention);
    Some(Kept { store_url: url?, retention: retention?, audit_retention: audit_retention? })
}

fn retention(node: &Node) -> Result<Option<Duration>, Problem> {
    match node.text("") {
        Ok(text) if text == "off" => Ok(None),
        _ => {
            let kept = node.duration(SHORTEST_RETENTION);
            kept.map(Some).map_err(|problem| problem.help("\"off\" keeps everything"))
        }
    }
}

fn address(node: &Node) -> Result<SocketAddr, Problem> {
    let text = node.text("an address such as \"127.0.0.1:8080\"")?;
    text.parse().map_err(|_| {
        let problem = Problem::at(&node.place, format!("{text:?} is not an IP address and a port"));
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
        problem.help(format!("\"127.0.0.1:{port}\" is for this machine only, \"0.0.0.0:{port}\" for every network"))
    })
}

/// A rate, or "off".
fn limit(node: &Node, example: &str) -> Result<Option<Rate>, Problem> {
    match node.text("") {
        Ok(text) if text == "off" => Ok(None),
        _ => rate(node, example).map(Some).map_err(|problem| problem.help("\"off\" sets no limit")),
    }
}

/// Names without a port, as they stand in a `Host` header.
fn allowed_hosts(table: &Table, findings: &mut Findings) -> Vec<String> {
    let expected = "a list of names such as [\"doorbell.internal\"]";
    let texts = table.read(findings, "allowed_hosts", |node| node.texts(expected)).unwrap_or_default();
    let mut hosts = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        match text.parse::<Authority>() {
            Ok(host) if host.host() == text && !text.contains('*') => hosts.push(text.to_ascii_lowercase()),
            _ => {
                let problem = Problem::at(&place, format!("{text:?} is not the name of a host"));
                findings.problem(
                    problem.help("each name as it is, without a port, a scheme or a `*`: \"doorbell.internal\""),
                );
            }
        }
    }
    hosts
}

fn trusted_proxies(table: &Table, findings: &mut Findings) -> Vec<IpNet> {
    let expected = "a list of addresses and networks such as [\"10.0.0.0/8\"]";
    let texts = table.read(findings, "trusted_proxies", |node| node.texts(expected)).unwrap_or_default();
    let mut networks = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        let Some(network) = findings.take(network(&text, &place)) else { continue };
        if network.prefix_len() == 0 {
            let warning = format!("`{text}` trusts everybody: whoever sends a request says where it came from");
            findings.warn(&place, warning);
        }
        networks.push(network);
    }
    networks
}

/// `10.1.2.3`, or `10.0.0.0/8`.
fn network(text: &str, place: &Place) -> Result<IpNet, Problem> {
    let text = text.trim();
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            Problem::at(place, format!("{text:?} is not an IP address or network"))
                .help("for example \"10.1.2.3\", \"10.0.0.0/8\" or \"fd00::/8\"; names of hosts are not looked up")
        })?,
    };
    if network.addr() != network.network() {
        let problem = Problem::at(place, format!("`{text}` is an address inside of a network"));
        return Err(problem.help(format!(
            "the network is \"{}\", the address \"{}\"",
            network.trunc(),
            network.addr()
        )));
    }
    Ok(network)
}

/// Whether two addresses cannot be listened on at once. Port 0 is any free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (all || one.ip() == other.ip())
}

fn public_url(node: &Node) -> Result<String, Problem> {
    let text = node.text("a URL such as \"https://hooks.example.com\"")?;
    let url = text.parse::<http::Uri>().ok().filter(|url| {
        let web = matches!(url.scheme_str(), Some("http" | "https"));
        let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        web && plain && url.query().is_none() && !text.contains('#')
    });
    match url {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err(Problem::at(&node.place, "not the URL of a gateway")
            .help("https:// or http://, a host and perhaps a path, e.g. \"https://hooks.example.com\"")),
    }
}

fn private_callbacks(node: &Node) -> Result<Vec<String>, Problem> {
    let read = |(text, place): (String, Place)| {
        let origin = text.parse().ok().and_then(|url: http::Uri| origin_of(&url).filter(|_| is_bare(&url, &text)));
        origin.ok_or_else(|| {
            Problem::at(&place, format!("{text:?} is no scheme, host and port"))
                .help("nothing more stands in it, e.g. \"http://127.0.0.1:9000\"")
        })
    };
    node.words("a list of strings such as [\"http://127.0.0.1:9000\"]")?.into_iter().map(read).collect()
}

fn is_bare(url: &http::Uri, text: &str) -> bool {
    url.path() == "/" && url.query().is_none() && !text.contains('#')
}

/// Scheme, host and port of a URL of the web, always written the same way; none if it has a user in it.
pub fn origin_of(url: &http::Uri) -> Option<String> {
    let (scheme, authority) = (url.scheme_str()?.to_ascii_lowercase(), url.authority()?);
    let port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = authority.host().to_ascii_lowercase();
    let is_plain = !host.is_empty() && !authority.as_str().contains('@');
    is_plain.then(|| format!("{scheme}://{host}:{}", authority.port_u16().unwrap_or(port)))
}

fn store_url(node: &Node) -> Result<String, Problem> {
    let example = "url = \"sqlite:.doorbell/doorbell.db\"";
    let text = node.text("a URL such as \"sqlite:.doorbell/doorbell.db\"")?;
    let scheme = text.split(':').next().unwrap_or_default();
    match scheme {
        "sqlite" if text.len() > "sqlite:".len() => Ok(text),
        "postgres" | "postgresql" => {
            Err(Problem::at(&node.place, format!("`{scheme}` is not supported yet")).help(example))
        }
        _ => Err(Problem::at(&node.place, "not the URL of a store").help(example)),
    }
}
