//! Ids of deliveries: of the content where the protocol has none, and fresh ones for samples that carry theirs in the
//! body.

use aws_lc_rs::digest;
use bytes::Bytes;

use super::paths::Paths;
use super::{encode_hex, json};

/// `sha256:` and the digest of these parts: the id of a delivery whose protocol has none. The length of each part is
/// part of it, so that two lists of parts with the same id are the same list.
pub(super) fn content_id(parts: &[&[u8]]) -> String {
    let mut digest = digest::Context::new(&digest::SHA256);
    for part in parts {
        digest.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    format!("sha256:{}", encode_hex(digest.finish().as_ref()))
}

/// Digits that stand for a fresh text, as protocols with numeric ids write them (19 of them, no leading zero).
pub(super) fn number_for(fresh: &str) -> String {
    let digest = digest::digest(&digest::SHA256, fresh.as_bytes());
    let number = digest.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    (1_000_000_000_000_000_000 + number % 8_000_000_000_000_000_000).to_string()
}

/// The body with `value` at each of these pointers that it has: as a text where there is one, else as it is. A body
/// that is no JSON stays as it is.
pub(super) fn with_values(body: &Bytes, pointers: &[&'static str], value: &str) -> Bytes {
    let Ok(text) = json::text_of(body) else { return body.clone() };
    let paths = Paths::known(pointers);
    let Ok(found) = paths.find(text) else { return body.clone() };
    let offset = |raw: &str| raw.as_ptr() as usize - text.as_ptr() as usize;
    let mut places: Vec<_> = pointers.iter().filter_map(|pointer| found.raw(pointer)).collect();
    places.sort_by_key(|raw| std::cmp::Reverse(offset(raw)));
    let mut changed = text.to_owned();
    for raw in places {
        let quoted = serde_json::to_string(value).unwrap_or_default();
        let new = if raw.starts_with('"') { quoted.as_str() } else { value };
        changed.replace_range(offset(raw)..offset(raw) + raw.len(), new);
    }
    changed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_have_the_same_id_and_others_another() {
        assert_eq!(content_id(&[b"a", b"b"]), content_id(&[b"a", b"b"]));
        assert_ne!(content_id(&[b"a", b"b"]), content_id(&[b"ab"]));
        assert_ne!(content_id(&[b"ab", b""]), content_id(&[b"", b"ab"]));
    }

    #[test]
    fn a_fresh_number_has_nineteen_digits() {
        for fresh in ["", "1", "delivery"] {
            assert_eq!(number_for(fresh).len(), 19);
        }
        assert_ne!(number_for("1"), number_for("2"));
    }

    #[test]
    fn values_are_replaced_where_they_stand() {
        let body = Bytes::from_static(br#"{"id": 17, "x": {"id_str" : "seventeen"}, "y": [1]}"#);
        let changed = with_values(&body, &["/x/id_str", "/id", "/none"], "4");
        assert_eq!(&changed[..], br#"{"id": 4, "x": {"id_str" : "4"}, "y": [1]}"#);
        for other in [&b"a=b"[..], b"\xff", b"", b"[]"] {
            assert_eq!(with_values(&Bytes::copy_from_slice(other), &["/id"], "4"), other);
        }
    }
}
