//! The certificate that the gateway shows.

use std::time::Duration;

use doorbell_core::time::Timestamp;

use super::{Finding, Subject, fail, ok, warn};
use crate::clock;

const CHECK: &str = "certificate";

/// When it should have been renewed: certbot and others do it thirty days before the end.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

const ISSUING: &str = "start the gateway, let `listen` be reached from everywhere as port 443 of the names, and see `acme.failed` in its log";

/// Whether it lives for a while.
pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let tls = subject.config().and_then(|config| config.gateway.tls.as_ref());
    tls.map(|tls| match tls.expires_at() {
        Some(expires) => judge(&tls.certificate.display().to_string(), expires, clock::now()),
        None => fail(CHECK, "none is issued yet: senders are refused", ISSUING),
    })
    .into_iter()
    .collect()
}

fn judge(file: &str, expires: Timestamp, now: Timestamp) -> Finding {
    let advice = "renew it: a running gateway takes the new files over by itself, unless `hot_reload` is off";
    let left = expires.since(now);
    match () {
        () if expires <= now => fail(CHECK, format!("{file} expired on {expires}: senders refuse it"), advice),
        () if left < SOON => {
            let days = left.as_secs() / (24 * 60 * 60);
            warn(CHECK, format!("{file} expires in {days} days, on {expires}"), advice)
        }
        () => ok(CHECK, format!("{file} is good until {expires}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_certificate_is_to_be_renewed_before_it_ends() {
        let (day, now) = (Duration::from_secs(24 * 60 * 60), Timestamp::from_seconds(1_800_000_000));
        assert_eq!(judge("a", now.after(day * 15), now).status, Status::Ok);
        assert_eq!(judge("a", now.after(day * 13), now).status, Status::Warn);
        assert_eq!(judge("a", now, now).status, Status::Fail);
    }
}
