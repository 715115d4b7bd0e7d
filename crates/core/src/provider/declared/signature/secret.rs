//! Secrets as senders show them, made into keys.

use super::{Form, Proof, Scheme, Signature, Signing};
use crate::delivery::bearer_token;
use crate::provider::encoding::{WHSEC, decode_secret};
use crate::provider::{InvalidKey, Key, decode_hex};
use crate::secret::Secret;

/// The key of a secret: of one kind if it can be of one only, else of several. A definition has no public key beside another
/// kind ([`super::schemes`]), so none is ever taken as a secret.
pub(in super::super) fn prepare(schemes: &[Scheme], secret: &Secret) -> Result<Key, InvalidKey> {
    if secret.is_blank() {
        return Err(InvalidKey::Blank);
    }
    let mut kinds: Vec<&Scheme> = Vec::new();
    for scheme in schemes {
        if !kinds.iter().any(|known| known.kind() == scheme.kind()) {
            kinds.push(scheme);
        }
    }
    // Where there are several kinds, `whsec_` tells which one a secret is for: a signing secret is never taken as a token.
    let is_whsec = |scheme: &Scheme| scheme.signature().is_some_and(|signature| signature.form == Form::Whsec);
    if kinds.len() > 1 && kinds.iter().any(|scheme| is_whsec(scheme)) {
        let marked = text_of(secret).starts_with(WHSEC);
        kinds.retain(|scheme| is_whsec(scheme) == marked);
    }
    let (mut keys, mut error) = (Vec::new(), None);
    for scheme in kinds {
        match key_of(schemes, scheme, secret) {
            Ok(key) => keys.push(key),
            Err(invalid) => error = error.or(Some(invalid)),
        }
    }
    match (keys.len(), error) {
        (0, error) => Err(error.unwrap_or(InvalidKey::Blank)),
        (1, _) => Ok(keys.remove(0)),
        _ => Ok(Key::Several(keys.into())),
    }
}

/// The private half of a key pair, from its seed.
pub(in super::super) fn prepare_signing(schemes: &[Scheme], secret: &Secret) -> Result<Key, InvalidKey> {
    let pair = schemes.iter().filter_map(Scheme::signature).find(|signature| signature.algorithm == Signing::Ed25519);
    match pair {
        Some(signature) => Key::ed25519_pair(decoded(signature.form, secret)?.expose()),
        None => prepare(schemes, secret),
    }
}

fn key_of(schemes: &[Scheme], scheme: &Scheme, secret: &Secret) -> Result<Key, InvalidKey> {
    match &scheme.proof {
        Proof::Signature(signature) => signing_key(signature, secret),
        Proof::Token(_) | Proof::Bearer | Proof::Basic => {
            // Some write the whole header down.
            let bare = secret.expose_str().and_then(bearer_token).map(Secret::new);
            let token = bare.as_ref().unwrap_or(secret);
            if schemes.iter().any(|scheme| matches!(scheme.proof, Proof::Basic)) {
                return Ok(Key::Token(token.clone()));
            }
            Key::token(token)
        }
    }
}

fn signing_key(signature: &Signature, secret: &Secret) -> Result<Key, InvalidKey> {
    let bytes = decoded(signature.form, secret)?;
    match signature.algorithm {
        Signing::Hmac(algorithm) => Key::hmac(algorithm.hmac(), &bytes),
        Signing::Ed25519 => Key::ed25519(bytes.expose()),
    }
}

fn decoded(form: Form, secret: &Secret) -> Result<Secret, InvalidKey> {
    let malformed = |text: &str| InvalidKey::Malformed(text.to_owned());
    let text = text_of(secret);
    let bytes = match form {
        Form::Text => return Ok(secret.clone()),
        Form::Hex => decode_hex(text)
            .map(Secret::new)
            .ok_or_else(|| malformed("is not hex: copy it whole, as the sender shows it"))?,
        Form::Base64 => {
            decode_secret(text).ok_or_else(|| malformed("is not base64: copy it whole, as the sender shows it"))?
        }
        Form::Whsec => {
            if text.starts_with("whpk_") || text.starts_with("whsk_") {
                // HMAC with a public key would verify whatever anybody signs.
                return Err(malformed("is a key of another kind: take the secret that begins with `whsec_`"));
            }
            decode_secret(text.strip_prefix(WHSEC).unwrap_or(text))
                .ok_or_else(|| malformed("is not `whsec_` and base64: copy it whole, as the sender shows it"))?
        }
    };
    match bytes.expose().is_empty() {
        true => Err(InvalidKey::Blank),
        false => Ok(bytes),
    }
}

fn text_of(secret: &Secret) -> &str {
    secret.expose_str().map(str::trim).unwrap_or_default()
}

/// Whether two ways of one provider would need two keys of one kind.
pub(super) fn clash(one: &Scheme, other: &Scheme) -> bool {
    let (one, other) = match (one.signature(), other.signature()) {
        (Some(one), Some(other)) => (one, other),
        _ => return false,
    };
    let same_kind = matches!(
        (one.algorithm, other.algorithm),
        (Signing::Hmac(_), Signing::Hmac(_)) | (Signing::Ed25519, Signing::Ed25519)
    );
    same_kind && (one.algorithm, one.form) != (other.algorithm, other.form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoded_secret_of_white_space_is_blank_too() {
        assert_eq!(decoded(Form::Hex, &Secret::new("")).unwrap_err(), InvalidKey::Blank);
        assert_eq!(decoded(Form::Whsec, &Secret::new("whsec_")).unwrap_err(), InvalidKey::Blank);
        assert!(decoded(Form::Whsec, &Secret::new("whpk_YQ==")).is_err());
        assert!(decoded(Form::Base64, &Secret::new("YQ")).is_ok());
    }
}
