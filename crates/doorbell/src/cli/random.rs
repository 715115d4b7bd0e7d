//! Random text: delivery ids and secrets.

use doorbell_core::moment;
use doorbell_core::provider::encode_hex;

use crate::clock;

/// A UUID that says when it was made, as GitHub names its deliveries.
pub(super) fn uuid() -> String {
    let random = u128::from_be_bytes(clock::random());
    moment::uuid(clock::now(), (random >> 64) as u16, random as u64)
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
        assert!(moment::moment_of(&one).is_some());
        assert_ne!(one, two);
    }

    #[test]
    fn a_secret_has_256_bits() {
        assert_eq!(secret().len(), 64);
    }
}
