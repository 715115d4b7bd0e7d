//! Credentials: odd ones, and ones that nobody uses. Missing and empty ones are problems of the configuration.

use std::collections::BTreeSet;

use super::{Finding, Subject, ok, some, warn};
use crate::config::{Credentials, Stored};

const CHECK: &str = "secrets";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let credentials = Credentials::new(&subject.environment);
    let stored = match credentials.list() {
        Ok(stored) => stored,
        Err(error) => {
            return vec![super::fail(CHECK, format!("cannot be listed: {error}"), "make the folder readable")];
        }
    };
    let mut findings: Vec<Finding> = stored.iter().filter_map(|stored| check_one(&credentials, stored)).collect();
    if findings.is_empty() {
        findings.push(ok(CHECK, format!("{} stored, nothing odd about them", stored.len())));
    }
    findings.extend(check_use(subject, &stored));
    findings
}

fn check_one(credentials: &Credentials, stored: &Stored) -> Option<Finding> {
    let Stored { kind, instance, field, origin, .. } = stored;
    let keep = format!("keep it again: `doorbell creds add {kind}:{instance} --field {field}`");
    let (secret, _) = match credentials.find(kind, instance, field) {
        Ok(found) => found?,
        Err(error) => return Some(warn(CHECK, format!("{kind}:{instance} ({field}) cannot be read: {error}"), keep)),
    };
    let odd = oddity(secret.expose()).or_else(|| looks_cut(kind, secret.expose()))?;
    Some(warn(CHECK, format!("{kind}:{instance} ({origin}) {odd}"), keep))
}

/// A secret of Standard Webhooks that is probably not all of it: they have 24 bytes at least, as base64 after `whsec_`. The
/// prefix may be left out, so that whatever looks like base64 is taken.
pub(in crate::cli) fn looks_cut(kind: &str, secret: &[u8]) -> Option<&'static str> {
    const SHORTEST: usize = 32;
    let secret = secret.trim_ascii();
    let is_short = kind == "standard_webhook_secret" && !secret.starts_with(b"whsec_") && secret.len() < SHORTEST;
    is_short.then_some("does not begin with `whsec_` and is short for a secret of Standard Webhooks: is it all of it?")
}

/// What a person did not mean to store; one line end at the end is none of it.
fn oddity(secret: &[u8]) -> Option<&'static str> {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'');
    let quoted = secret.len() > 1 && secret.first() == secret.last() && secret.first().is_some_and(is_quote);
    if secret.trim_ascii().is_empty() {
        Some("is empty")
    } else if secret.starts_with(b"\xef\xbb\xbf") {
        Some("begins with a byte order mark, as some editors write it, which counts to the secret")
    } else if secret.ends_with(b"\n") || secret.ends_with(b"\r") {
        Some("ends with several line ends; all but the last count to the secret")
    } else if secret.trim_ascii().len() < secret.len() {
        Some("begins or ends with white space, which counts to the secret")
    } else if secret.iter().any(|byte| matches!(byte, b'\n' | b'\r')) && !secret.starts_with(b"-----BEGIN") {
        Some("has several lines")
    } else if secret.contains(&0) {
        Some("has a NUL byte in it")
    } else if quoted {
        Some("is in quotes, which count to the secret")
    } else {
        None
    }
}

/// Those of the home folder are shared by all projects of a user, so this is said and nothing is to be done.
fn check_use(subject: &Subject, stored: &[Stored]) -> Option<Finding> {
    let config = subject.config()?;
    let used: BTreeSet<&str> = config.settings.iter().map(|setting| setting.path.as_str()).collect();
    let unused = stored.iter().filter(|Stored { kind, instance, field, .. }| {
        !used.contains(format!("credentials.{kind}:{instance}.{field}").as_str())
    });
    // A credential may have fields beside the one that is used.
    let mut names: Vec<String> = unused
        .filter(|Stored { kind, instance, .. }| {
            let prefix = format!("credentials.{kind}:{instance}.");
            !used.iter().any(|path| path.starts_with(&prefix))
        })
        .map(|Stored { kind, instance, .. }| format!("{kind}:{instance}"))
        .collect();
    names.dedup();
    if names.is_empty() {
        return None;
    }
    Some(ok(CHECK, format!("this project does not use {}; another one of yours may", some(&names))))
}

#[cfg(test)]
mod tests {
    use super::{looks_cut, oddity};

    #[test]
    fn a_standard_secret_that_is_short_and_has_no_prefix_is_odd() {
        assert!(looks_cut("standard_webhook_secret", b"nowhsec").is_some());
        for fine in ["whsec_c2VjcmV0", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(looks_cut("standard_webhook_secret", fine.as_bytes()), None, "{fine}");
        }
        assert_eq!(looks_cut("github_webhook_secret", b"nowhsec"), None);
    }

    #[test]
    fn what_nobody_means_to_store_is_odd() {
        for odd in ["", " ", "\n", "x\n", "x\r", " x", "x\t", "a\nb", "\u{feff}x", "\"x\"", "'x'", "a\0b"] {
            assert!(oddity(odd.as_bytes()).is_some(), "{odd:?}");
        }
        for fine in ["x", "a b", "\"", "it's", "-----BEGIN KEY-----\nabc\n-----END KEY-----"] {
            assert_eq!(oddity(fine.as_bytes()), None, "{fine:?}");
        }
    }
}
