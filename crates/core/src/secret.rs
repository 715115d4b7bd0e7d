//! Secret bytes: no Display, no readable Debug, wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// A secret: a signing secret, a token, a key.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the one place that computes with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text, where the secret is text.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether nothing but white space is in it. Such a secret verifies nothing: HMAC would accept an empty key.
    pub fn is_blank(&self) -> bool {
        self.0.iter().all(u8::is_ascii_whitespace)
    }

    /// Whether these bytes are the secret, in time that depends on the lengths only.
    pub fn equals(&self, bytes: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, bytes).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn a_secret_of_white_space_is_blank() {
        assert!(Secret::new(" \n\t").is_blank() && Secret::new("").is_blank() && !Secret::new(" x").is_blank());
    }
}
