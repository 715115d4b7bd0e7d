//! Bodies as conditions see them: JSON, forms and text, by what a sender calls them.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use doorbell_core::condition::{Body, Expression, Facts, Meter};

/// A line with the content type, then a body: conditions have a value or a reason, and always the same.
pub(crate) fn bodies(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (content_type, body) = (String::from_utf8_lossy(&data[..end]), data.get(end + 1..).unwrap_or_default());
    let facts = Facts {
        source: "generic".to_owned(),
        integration_id: "acme".to_owned(),
        event_type: "generic.event".to_owned(),
        idempotency_key: None,
        timestamp: 1_790_000_000,
        headers: serde_json::Value::Null,
        context: serde_json::Value::Null,
        body: Body::new(Bytes::copy_from_slice(body), Some(content_type.as_ref())),
    };
    let stop = AtomicBool::new(false);
    for source in ["has(event.body.a)", "event.body.a == 'b'", "size(event.body) > 1"] {
        let condition = Expression::condition(source).expect("it is CEL");
        let ask = || condition.holds(&facts, &mut Meter::new(&stop));
        assert_eq!(ask(), ask());
        assert!(condition.operands(&facts).iter().all(|shown| !shown.is_empty()));
    }
}
