//! Fresh ids for samples that carry theirs in the body.

use aws_lc_rs::digest;
use bytes::Bytes;

use super::json;
use super::paths::Paths;

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
