//! The public URL: whether it leads here, and to how much; and the clock.

use std::time::Duration;

use doorbell_client::{Obstacle, Seen, probe};
use doorbell_core::time::Timestamp;

use super::{AS_ITS_USER, Finding, Subject, fail, ok, warn};
use crate::clock;
use crate::config::Config;
use crate::http::INSTANCE;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// `Date` has whole seconds, and an answer takes some time.
const SKEW_SEEN: Duration = Duration::from_secs(30);
/// What providers that sign the time allow, as a rule.
const SKEW_FATAL: Duration = Duration::from_secs(240);

/// Whether the public URL leads to this gateway, and to no more of it than it should.
pub(super) async fn check_url(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "public url";
    let Some(config) = subject.config() else { return Vec::new() };
    let Some(url) = &config.gateway.public_url else { return vec![no_url(CHECK, config)] };
    let seen = match probe(&format!("{url}/healthz"), INSTANCE, LIMIT).await {
        Ok(seen) => seen,
        Err((Obstacle::Refused, _)) if subject.is_stopped() => {
            return vec![warn(CHECK, format!("nothing listens at {url}, nor does the gateway run"), "start it first")];
        }
        Err((obstacle, said)) => {
            return vec![fail(CHECK, format!("{url} cannot be reached: {said}"), way_out(obstacle, url))];
        }
    };
    let Some(gateway) = &subject.gateway else {
        let advice = if subject.is_stopped() { "start the gateway, and ask again" } else { AS_ITS_USER };
        return vec![warn(
            CHECK,
            format!("{url} answers ({}); whether as this gateway shows when it runs", seen.status),
            advice,
        )];
    };
    if let Some(finding) = misled(CHECK, url, &seen, &gateway.address.instance) {
        return vec![finding];
    }
    let mut findings = vec![ok(CHECK, format!("{url} leads to this gateway"))];
    findings.extend(exposed(CHECK, url).await);
    findings
}

fn no_url(check: &'static str, config: &Config) -> Finding {
    let listen = config.gateway.listen;
    if listen.ip().is_loopback() {
        let advice = "put a tunnel or a proxy with TLS in front of it, and set `[gateway] public_url`";
        warn(check, format!("none is set, and {listen} is reached from this machine only"), advice)
    } else {
        let advice = "set `[gateway] public_url` to what senders use: it is what `doorbell sources` prints";
        warn(check, "none is set", advice)
    }
}

fn way_out(obstacle: Obstacle, url: &str) -> &'static str {
    match obstacle {
        Obstacle::Name => "the host's name leads nowhere: check its spelling, and its DNS record",
        Obstacle::Refused => "nothing listens there: start the proxy or the tunnel, and check the port",
        Obstacle::Timeout => {
            "a firewall drops it, or it leads elsewhere; from inside a network its own public address may not be \
             reachable: ask from outside, `curl URL/healthz`"
        }
        Obstacle::Tls if url.starts_with("https") => {
            "senders refuse it, too: renew the certificate, or use one that they trust, for this name, with its chain; \
             if the port speaks plain HTTP, use http://"
        }
        Obstacle::Tls | Obstacle::Other => "see what `curl -v URL/healthz` says",
    }
}

/// What answers is not this gateway.
fn misled(check: &'static str, url: &str, seen: &Seen, instance: &str) -> Option<Finding> {
    let advice = "let the proxy or the tunnel lead to the address in `[gateway] listen`, all paths as they are";
    match (&seen.header, seen.status) {
        (Some(other), _) if other == instance => None,
        (Some(_), _) => Some(fail(check, format!("{url} leads to another gateway"), advice)),
        (None, 300..400) => {
            let to = seen.location.as_deref().unwrap_or("elsewhere");
            let advice = "set `public_url` to where it leads: senders do not follow";
            Some(fail(check, format!("{url}/healthz is redirected to {to}"), advice))
        }
        (None, 200) if seen.body == "ok" => {
            let advice = "let the proxy pass the header on, or ring it: `doorbell ring PROVIDER EVENT --to URL`";
            Some(warn(check, format!("{url} answers as a gateway does, without the header {INSTANCE}"), advice))
        }
        (None, status) => {
            let what = format!("what answers at {url}/healthz is not this gateway: {status} {}", seen.body);
            Some(fail(check, what, advice))
        }
    }
}

/// What of the gateway is reached through the public URL that need not be.
async fn exposed(check: &'static str, url: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(seen) = probe(&format!("{url}/metrics"), INSTANCE, LIMIT).await
        && seen.status == 200
    {
        let advice = "set `[gateway] admin_listen`: the tunnel does not say for whom it speaks (X-Forwarded-For)";
        findings.push(fail(check, format!("anybody can read {url}/metrics"), advice));
    }
    if let Ok(seen) = probe(&format!("{url}/v1/stats"), INSTANCE, LIMIT).await
        && seen.status == 401
        && seen.body.contains("key_missing")
    {
        let advice = "set `[gateway] admin_listen = \"127.0.0.1:8081\"`, unless you use the API from outside";
        findings.push(warn(check, format!("the API can be reached through {url}; only keys protect it"), advice));
    }
    findings
}

/// Whether this machine's clock is right, by that of another.
pub(super) async fn check_clock(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "clock";
    let public = subject.config().and_then(|config| config.gateway.public_url.clone());
    let Some(url) = subject.clock.clone().or_else(|| public.map(|url| format!("{url}/healthz"))) else {
        return vec![ok(CHECK, "cannot be told without another one: `doorbell doctor --clock URL`")];
    };
    let before = clock::now();
    let seen = match probe(&url, INSTANCE, LIMIT).await {
        Ok(seen) => seen,
        Err((_, said)) if subject.clock.is_some() => {
            return vec![warn(CHECK, format!("cannot be told: {url}: {said}"), "name another server with --clock")];
        }
        // That it cannot be reached is said above.
        Err(_) => return vec![ok(CHECK, "cannot be told: the public URL does not answer")],
    };
    let Some(theirs) = seen.date.as_deref().and_then(read_date) else {
        return vec![warn(
            CHECK,
            format!("cannot be told: {url} does not say its time"),
            "name another server with --clock",
        )];
    };
    vec![judge_clock(CHECK, before, clock::now(), theirs, &url, seen.header.is_some())]
}

/// `own`: the answer came from a gateway, so that the time may be this machine's own.
fn judge_clock(
    check: &'static str,
    before: Timestamp,
    after: Timestamp,
    theirs: Timestamp,
    url: &str,
    own: bool,
) -> Finding {
    // It was read some time between the two, and cut to the second.
    let ahead = before.since(theirs.after(Duration::from_secs(1)));
    let behind = theirs.since(after);
    let (skew, which) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    let what = format!("is {} s {which} {url}", skew.as_secs());
    let advice = "set it by NTP (`timedatectl set-ntp true`): signatures that carry a time are refused otherwise";
    if skew > SKEW_FATAL {
        fail(check, what, advice)
    } else if skew > SKEW_SEEN {
        warn(check, what, advice)
    } else if own {
        ok(check, "agrees with the public URL, whose time may be this machine's own: `--clock URL` asks another one")
    } else {
        ok(check, format!("agrees with {url}"))
    }
}

/// A date as HTTP has it (RFC 9110, 5.6.7).
fn read_date(text: &str) -> Option<Timestamp> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Status;
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_found_in_either_direction() {
        let theirs = read_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(theirs.as_millis(), 784_111_777_000);
        let status = |by: i64| {
            let at = Timestamp::from_millis(theirs.as_millis() + by * 1000);
            judge_clock("clock", at, at.after(Duration::from_secs(1)), theirs, "http://x", false).status
        };
        assert_eq!([0, -20, 20].map(status), [Status::Ok; 3]);
        assert_eq!([-120, 120].map(status), [Status::Warn; 2]);
        assert_eq!([-600, 600].map(status), [Status::Fail; 2]);
    }
}
