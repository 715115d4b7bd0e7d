//! `[gateway]` and `[store]`.

use std::net::SocketAddr;
use std::time::Duration;

use super::Gateway;
use super::document::{Keys, Node, Table};
use super::problem::{Findings, Place, Problem};

const KEYS: Keys<'static> = Keys {
    known: &[
        "listen",
        "admin_listen",
        "public_url",
        "private_callbacks",
        "max_body",
        "drain_timeout",
        "condition_timeout",
        "hot_reload",
    ],
    planned: &["trusted_proxies"],
    hints: &[
        ("port", "address and port are one key here: listen = \"127.0.0.1:8080\""),
        ("host", "address and port are one key here: listen = \"127.0.0.1:8080\""),
        ("url", "did you mean `public_url`?"),
    ],
};

const STORE_KEYS: Keys<'static> = Keys { known: &["url", "retention"], planned: &[], hints: &[] };

/// How long things are kept at least, where they are not kept for ever.
const SHORTEST_RETENTION: Duration = Duration::from_secs(1);

/// Reads `[gateway]`.
pub(super) fn read(table: &Table, findings: &mut Findings) -> Option<Gateway> {
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
    let max_body = table.read(findings, "max_body", |node| node.size(1 << 10..=1 << 30));
    let drain_timeout = table.read(findings, "drain_timeout", |node| node.duration(Duration::ZERO));
    let condition_timeout = table.read(findings, "condition_timeout", |node| node.duration(Duration::from_millis(1)));
    let hot_reload = table.read(findings, "hot_reload", Node::flag);
    Some(Gateway {
        listen: listen?,
        admin_listen,
        public_url,
        private_callbacks: private_callbacks.unwrap_or_default(),
        max_body: max_body?,
        drain_timeout: drain_timeout?,
        condition_timeout: condition_timeout?,
        hot_reload: hot_reload?,
    })
}

/// Reads `[store]`: the URL, and how long things are kept (none: for ever).
pub(super) fn read_store(table: &Table, findings: &mut Findings) -> Option<(String, Option<Duration>)> {
    table.check(findings, STORE_KEYS);
    table.settle(findings, "store");
    let url = table.read(findings, "url", store_url);
    let retention = table.read(findings, "retention", retention);
    Some((url?, retention?))
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
