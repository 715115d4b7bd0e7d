//! Random text: delivery ids and secrets.

use anyhow::anyhow;

fn bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

/// A version 4 UUID, as providers name their deliveries.
pub(super) fn uuid() -> anyhow::Result<String> {
    let mut bytes = bytes::<16>()?;
    bytes[6] = (bytes[6] & 0x0F) | 0x40;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    let digits = doorbell_core::provider::encode_hex(&bytes);
    Ok([&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-"))
}

/// A secret of 256 bits, in hexadecimal digits.
pub(super) fn secret() -> anyhow::Result<String> {
    Ok(doorbell_core::provider::encode_hex(&bytes::<32>()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_delivery_id_is_a_uuid_and_never_the_same() {
        let (one, two) = (uuid().unwrap(), uuid().unwrap());
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert_ne!(one, two);
    }

    #[test]
    fn a_secret_has_256_bits() {
        assert_eq!(secret().unwrap().len(), 64);
    }
}
