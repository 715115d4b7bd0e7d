//! Random text: delivery ids and secrets.

use doorbell_core::provider::encode_hex;

use crate::clock;

/// A version 4 UUID, as providers name their deliveries.
pub(super) fn uuid() -> String {
    let mut bytes = clock::random::<16>();
    bytes[6] = (bytes[6] & 0x0F) | 0x40;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    let digits = encode_hex(&bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A secret of 256 bits, in hexadecimal digits.
pub(super) fn secret() -> String {
    encode_hex(&clock::random::<32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_is_a_uuid_and_never_the_same() {
        let (one, two) = (uuid(), uuid());
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert_ne!(one, two);
    }

    #[test]
    fn a_secret_has_256_bits() {
        assert_eq!(secret().len(), 64);
    }
}
