//! URLs that a sender names: only the plainest form is taken, so that whoever fetches it can only read it as we did.

use std::borrow::Cow;

/// The host of an `https` URL, and what follows it. None for a port, a user, escapes in the host, a fragment, segments that
/// lead elsewhere (`..`), or any character that URL parsers disagree about.
pub(super) fn https(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("https://")?;
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/?&=%+:,".contains(&byte);
    let in_host = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let labels = host.split('.').all(|label| !label.is_empty());
    let folders = path.split(['?', '&']).next().unwrap_or_default();
    let leads_away = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    let straight = !folders.split('/').any(leads_away);
    let good = labels && straight && host.bytes().all(in_host) && path.bytes().all(plain);
    good.then_some((host, path))
}

/// The fields of a URL's query.
pub(super) fn query(url: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let query = url.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default());
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

/// A URL as messages show it: without its query, which may carry secrets and is long.
pub(super) fn shown(url: &str) -> Cow<'_, str> {
    match url.split_once('?') {
        Some((path, _)) => Cow::Owned(format!("{path}?…")),
        None => Cow::Borrowed(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_url_is_not_shown() {
        assert_eq!(shown("https://a.example/b?token=hunter2&c=?"), "https://a.example/b?…");
        assert_eq!(shown("https://a.example/b"), "https://a.example/b");
    }

    #[test]
    fn only_the_plainest_urls_have_a_host() {
        assert_eq!(https("https://a.example/b?c=d%20"), Some(("a.example", "/b?c=d%20")));
        assert_eq!(https("https://a.example"), Some(("a.example", "")));
        for odd in [
            "http://a.example/",
            "HTTPS://a.example/",
            "https://",
            "https:///b",
            "https://a.example:8443/",
            "https://a.example@evil.example/",
            "https://evil.example\\@a.example/",
            "https://a.example/\\b",
            "https://a.example/#b",
            "https://A.example/",
            "https://a.example%2f/",
            "https://a.exämple/",
            " https://a.example/",
            "https://a.example/\n",
            "https://a..example/",
            "https://a.example/certs/../x",
            "https://a.example/certs/%2e%2E/x",
            "https://a.example/./x?y",
        ] {
            assert_eq!(https(odd), None, "{odd}");
        }
    }
}
