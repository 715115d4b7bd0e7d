//! Keys: what verifies a signature, prepared once per secret.

use std::fmt::Debug;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use aws_lc_rs::{constant_time, hmac};

use crate::secret::Secret;

/// A signing key, prepared once per secret.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a source has few keys, and every verification reads one")]
pub enum Key {
    /// For HMAC of one algorithm.
    Hmac(hmac::Key),
    /// Compared as it is (bearer and shared tokens, names that are part of what is signed).
    Token(Secret),
    /// A public key: it can only verify.
    Ed25519(ParsedPublicKey),
    /// A key pair to sign tests with.
    Ed25519Pair(Arc<Ed25519KeyPair>),
    /// One secret as keys of several kinds, for providers that prove themselves in more than one way.
    Several(Arc<[Key]>),
}

/// The secret cannot be a key of this provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Nothing, or white space.
    #[error("is empty: an empty secret would verify anybody's deliveries")]
    Blank,
    /// Of the wrong form.
    #[error("{0}")]
    Malformed(String),
}

impl Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "Key::Hmac(…)",
            Self::Token(_) => "Key::Token(…)",
            Self::Ed25519(_) => "Key::Ed25519(…)",
            Self::Ed25519Pair(_) => "Key::Ed25519Pair(…)",
            Self::Several(_) => "Key::Several(…)",
        })
    }
}

/// The points of small order, as they are written: with one of them as the public key, anybody can make signatures that
/// verify. (RFC 7748, section 7, and the list of libsodium's `ge25519_has_small_order`: without the sign bit.)
const SMALL_ORDER: [[u8; 32]; 7] = {
    let mut points = [[0_u8; 32], [0; 32], [0; 32], [0; 32], [0xff; 32], [0xff; 32], [0xff; 32]];
    points[1][0] = 1;
    points[2] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    points[3] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    // p - 1, p and p + 1: the same as -1, 0 and 1, written in another way.
    points[4][0] = 0xec;
    points[4][31] = 0x7f;
    points[5][0] = 0xed;
    points[5][31] = 0x7f;
    points[6][0] = 0xee;
    points[6][31] = 0x7f;
    points
};

impl Key {
    /// For HMAC with this algorithm.
    ///
    /// # Errors
    /// If the secret is blank: HMAC takes an empty key, and then anybody could sign.
    pub fn hmac(algorithm: hmac::Algorithm, secret: &Secret) -> Result<Self, InvalidKey> {
        match secret.is_blank() {
            true => Err(InvalidKey::Blank),
            false => Ok(Self::Hmac(hmac::Key::new(algorithm, secret.expose()))),
        }
    }

    /// A text that is shown in a header.
    ///
    /// # Errors
    /// If it is blank, or a header cannot carry it.
    pub fn token(secret: &Secret) -> Result<Self, InvalidKey> {
        match secret.expose() {
            _ if secret.is_blank() => Err(InvalidKey::Blank),
            text if text.iter().all(u8::is_ascii_graphic) => Ok(Self::Token(secret.clone())),
            _ => Err(InvalidKey::Malformed(
                "is not a token: a header carries visible ASCII characters only, without spaces".to_owned(),
            )),
        }
    }

    /// A public key of Ed25519.
    ///
    /// # Errors
    /// If it is not 32 bytes, or a point with which anybody could sign.
    pub fn ed25519(public: &[u8]) -> Result<Self, InvalidKey> {
        let mut point = <[u8; 32]>::try_from(public)
            .map_err(|_| InvalidKey::Malformed(format!("is a key of {} bytes, not of 32", public.len())))?;
        point[31] &= 0x7f;
        if SMALL_ORDER.contains(&point) {
            return Err(InvalidKey::Malformed("is a key for which anybody can sign".to_owned()));
        }
        let parsed = ParsedPublicKey::new(&ED25519, public)
            .map_err(|_| InvalidKey::Malformed("is not a public key of Ed25519".to_owned()))?;
        Ok(Self::Ed25519(parsed))
    }

    /// A key pair of Ed25519 from its seed.
    ///
    /// # Errors
    /// If the seed is not 32 bytes.
    pub fn ed25519_pair(seed: &[u8]) -> Result<Self, InvalidKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| InvalidKey::Malformed("is not the seed of a key pair: 32 bytes".to_owned()))?;
        Ok(Self::Ed25519Pair(Arc::new(pair)))
    }

    /// Whether `signature` is of these parts, one after the other; HMACs are compared in constant time.
    pub fn signs(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(_) => self.mac(parts).is_some_and(|mac| equal(mac.as_ref(), signature)),
            Self::Ed25519(key) => key.verify_sig(&parts.concat(), signature).is_ok(),
            Self::Several(keys) => keys.iter().any(|key| key.signs(parts, signature)),
            Self::Ed25519Pair(_) | Self::Token(_) => false,
        }
    }

    /// Whether `token` is this token; compared in constant time.
    pub fn is_token(&self, token: &[u8]) -> bool {
        self.token_secret().is_some_and(|secret| secret.equals(token))
    }

    /// The text that is shown; none if this key is of another kind.
    pub fn token_secret(&self) -> Option<&Secret> {
        match self {
            Self::Token(secret) => Some(secret),
            Self::Several(keys) => keys.iter().find_map(Self::token_secret),
            _ => None,
        }
    }

    /// The HMAC of these parts, one after the other; none if this is no key for HMAC.
    pub fn mac(&self, parts: &[&[u8]]) -> Option<hmac::Tag> {
        let key = match self {
            Self::Hmac(key) => key,
            Self::Several(keys) => return keys.iter().find_map(|key| key.mac(parts)),
            _ => return None,
        };
        let mut context = hmac::Context::with_key(key);
        parts.iter().for_each(|part| context.update(part));
        Some(context.sign())
    }

    /// A signature of these parts, one after the other; none if this key only verifies.
    pub fn signature(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        match self {
            Self::Hmac(_) => self.mac(parts).map(|mac| mac.as_ref().to_vec()),
            Self::Ed25519Pair(pair) => Some(pair.sign(&parts.concat()).as_ref().to_vec()),
            Self::Several(keys) => keys.iter().find_map(|key| key.signature(parts)),
            Self::Ed25519(_) | Self::Token(_) => None,
        }
    }

    /// The public half of a key pair.
    pub fn public(&self) -> Option<&[u8]> {
        match self {
            Self::Ed25519Pair(pair) => Some(pair.public_key().as_ref()),
            _ => None,
        }
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_signs_what_its_public_key_verifies() {
        let pair = Key::ed25519_pair(&[7; 32]).unwrap();
        let public = Key::ed25519(pair.public().unwrap()).unwrap();
        let signature = pair.signature(&[b"one", b"two"]).unwrap();
        assert!(public.signs(&[b"onetwo"], &signature));
        assert!(!public.signs(&[b"onetow"], &signature));
        assert!(!public.signs(&[b"onetwo"], &signature[..63]));
    }

    #[test]
    fn a_public_key_for_which_anybody_can_sign_is_refused() {
        for mut point in SMALL_ORDER {
            for sign in [0, 0x80] {
                point[31] = (point[31] & 0x7f) | sign;
                assert!(Key::ed25519(&point).is_err(), "{point:?}");
            }
        }
        assert!(Key::ed25519(&[1; 31]).is_err());
    }

    #[test]
    fn a_blank_secret_is_no_key() {
        for blank in ["", " ", "\n"] {
            let secret = Secret::new(blank);
            assert_eq!(Key::hmac(hmac::HMAC_SHA256, &secret).unwrap_err(), InvalidKey::Blank);
            assert_eq!(Key::token(&secret).unwrap_err(), InvalidKey::Blank);
        }
        assert!(Key::token(&Secret::new("two words")).is_err());
    }
}
