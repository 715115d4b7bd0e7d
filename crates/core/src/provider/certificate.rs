//! X.509 certificates of senders that sign with RSA: is it theirs, is it in force, did its key make this signature.
//!
//! No chain is checked: the certificate was fetched over TLS from a host of the sender, and that connection's chain was
//! checked. A certificate file of SNS has no chain with it, either.

use std::time::Duration;

use aws_lc_rs::signature::{ParsedPublicKey, RsaParameters};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use crate::time::Timestamp;
use crate::verify::Rejection;

/// What the certificate is for is its maker's choice: it stands for messages, not for a server.
struct AnyUse;

impl ExtendedKeyUsageValidator for AnyUse {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// The key of the certificate in `pem`, if one of its names passes and it is in force at `now`.
pub(super) fn key(
    pem: &[u8],
    now: Timestamp,
    algorithm: &'static RsaParameters,
    is_name: impl Fn(&str) -> bool,
) -> Result<ParsedPublicKey, Rejection> {
    let der = CertificateDer::from_pem_slice(pem)
        .map_err(|_| Rejection::mismatch("what was fetched as the sender's certificate is not a certificate in PEM"))?;
    let certificate = EndEntityCert::try_from(&der).map_err(|error| broken(&error))?;
    let seconds = u64::try_from(now.as_seconds()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    // Without anchors, everything but the issuer is checked, the time first.
    match certificate.verify_for_usage(&[], &[], &[], now, AnyUse, None, None) {
        Ok(_) | Err(webpki::Error::UnknownIssuer) => {}
        Err(error) => return Err(broken(&error)),
    }
    let named = certificate.valid_dns_names().any(&is_name) || common_names(certificate.subject()).any(&is_name);
    if !named {
        return Err(Rejection::mismatch("the certificate that was fetched is not one of the sender"));
    }
    ParsedPublicKey::new(algorithm, certificate.subject_public_key_info().as_ref())
        .map_err(|_| Rejection::mismatch("the certificate has no RSA key of 2048 bits or more"))
}

fn broken(error: &webpki::Error) -> Rejection {
    Rejection::mismatch(format!("the sender's certificate cannot be used: {error}"))
}

/// The common names of a subject: `SET`s of a `SEQUENCE` of an `OBJECT IDENTIFIER` and a text.
fn common_names(mut subject: &[u8]) -> impl Iterator<Item = &str> {
    let mut sets = std::iter::from_fn(move || {
        let (_, set, rest) = element(subject)?;
        subject = rest;
        Some(set)
    });
    std::iter::from_fn(move || sets.find_map(common_name))
}

fn common_name(set: &[u8]) -> Option<&str> {
    const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
    let (_, pair, _) = element(set).filter(|(tag, ..)| *tag == 0x30)?;
    let (_, _, text) = element(pair).filter(|(tag, kind, _)| *tag == 0x06 && *kind == COMMON_NAME)?;
    let (_, text, _) = element(text)?;
    std::str::from_utf8(text).ok()
}

/// The tag and the content of the first element of `der`, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_are_found_and_nothing_broken_is_one() {
        // O=a, CN=b, CN=cd
        let subject = b"\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x0c\x01a\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01b\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x13\x02cd";
        assert_eq!(common_names(subject).collect::<Vec<_>>(), ["b", "cd"]);
        for cut in 0..subject.len() {
            assert!(common_names(&subject[..cut]).count() < 2, "{cut}");
        }
    }
}
