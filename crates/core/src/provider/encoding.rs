//! Hex and base64 as signature headers use them: decoded to bytes, strictly, so that case and padding tricks are
//! plain mismatches.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::secret::Secret;

/// Before the base64 of a secret of Standard Webhooks.
pub(super) const WHSEC: &str = "whsec_";

/// Padding or not: both are in use for secrets.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of a secret that is written in base64, padded or not; none if it is not that.
pub(super) fn decode_secret(text: &str) -> Option<Secret> {
    LENIENT.decode(text).ok().map(Secret::new)
}

/// Bytes of a hex text in either case; none if it is not hex or of odd length.
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Lower-case hex.
pub fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Bytes of a standard, padded base64 text; none if it is not that.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Standard, padded base64.
pub fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hex_reads_back_in_either_case(bytes: Vec<u8>) {
            let text = encode_hex(&bytes);
            prop_assert_eq!(decode_hex(&text.to_uppercase()), Some(bytes.clone()));
            prop_assert_eq!(decode_hex(&text), Some(bytes));
        }

        #[test]
        fn no_text_makes_decoding_panic(text: String) {
            let _ = (decode_hex(&text), decode_base64(&text));
        }
    }

    #[test]
    fn odd_and_foreign_digits_are_refused() {
        assert_eq!(decode_hex("abc"), None);
        assert_eq!(decode_hex("zz"), None);
        assert_eq!(decode_hex("+1"), None);
        assert_eq!(decode_base64("YQ"), None);
    }
}
