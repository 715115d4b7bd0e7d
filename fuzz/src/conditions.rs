//! Expressions of triggers, over bodies of senders: the expression, a line of `---`, a body.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use doorbell::conditions::STACK;
use doorbell_core::condition::{Body, Expression, Facts, LONGEST_KEY, Meter};
use serde_json::json;

/// Any expression is refused with its place, or has a value or a reason for any body, in bounded time.
pub(crate) fn conditions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (source, body) = text.split_once("\n---\n").unwrap_or((&text, "{}"));
    let (condition, key) = (Expression::condition(source), Expression::key(source));
    for flaw in [&condition, &key].into_iter().filter_map(|checked| checked.as_ref().err()) {
        assert!(!flaw.message.is_empty() && source.get(flaw.at.clone()).is_some(), "{flaw:?}");
    }
    if condition.is_err() && key.is_err() {
        return;
    }
    let facts = facts(body);
    let evaluate = move || {
        let stop = AtomicBool::new(false);
        let mut meter = Meter::new(&stop);
        if let Ok(condition) = condition {
            let _ = condition.holds(&facts, &mut meter);
            let _ = condition.operands(&facts);
        }
        if let Ok(key) = key {
            assert!(key.name(&facts, &mut meter).map_or(0, |key| key.len()) <= LONGEST_KEY);
        }
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(evaluate).expect("there is room for a thread");
    thread.join().expect("no expression panics");
}

fn facts(body: &str) -> Facts {
    Facts {
        source: "github".to_owned(),
        integration_id: "acme".to_owned(),
        event_type: "github.issues.opened".to_owned(),
        idempotency_key: None,
        timestamp: 1_790_000_000,
        headers: json!({"x-github-event": "issues"}),
        context: json!({"event": "issues", "action": "opened", "number": 7, "labels": ["bug", "area-x"]}),
        body: Body::new(Bytes::copy_from_slice(body.as_bytes()), None),
    }
}
