//! Templates, and what senders put into prompts: a template, a line of `---`, a body.

use bytes::Bytes;
use doorbell_core::envelope::{Envelope, encode_body};
use doorbell_core::event::{Context, Event};
use doorbell_core::id::{EventId, RunId};
use doorbell_core::prompt::{Template, build};
use doorbell_core::provider::visible_headers;
use doorbell_core::time::Timestamp;
use serde_json::Value;

/// Any template is rendered or refused, and no body closes the fence.
pub(crate) fn prompts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (template, body) = text.split_once("\n---\n").unwrap_or((&text, "{}"));
    let mut context = Context::default();
    context.set("event", "issues");
    context.set("title", body);
    let envelope = envelope(context, &Bytes::copy_from_slice(body.as_bytes()), serde_json::Map::new());
    let params = serde_json::json!({"team": "platform", "sizes": [1, 2.5, true]});
    if let Ok(template) = Template::new(template) {
        let _ = template.render(&envelope, &params);
        let _ = build(Some(&template), &envelope, &params);
    }
    check(&envelope);
}

/// The prompt of an event.
pub(crate) fn show(event: &Event) {
    let headers = visible_headers(event.source().provider(), &event.delivery().headers);
    let headers = headers.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    check(&envelope(event.context().clone(), &event.delivery().body, headers));
}

/// Nothing that a sender chooses gets out of the fence, nor onto a line of its own before it.
fn check(envelope: &Envelope) {
    let json = serde_json::to_string(envelope).expect("an envelope is JSON");
    assert_eq!(&serde_json::from_str::<Envelope>(&json).expect("it reads back"), envelope);
    let template = Template::new("{{ event }}|{{ event.body }}").expect("it is a template");
    let prompt = build(Some(&template), envelope, &Value::Null).expect("it takes few instructions");
    let (instructions, block) = prompt.split_once("\n\nThe event block below").expect("the block is announced");
    assert!(!instructions.contains(['<', '>', '\n', '\r', '\u{2028}']), "{instructions:?}");
    let fenced = block.split_once("\n<event>\n").and_then(|(_, rest)| rest.strip_suffix("\n</event>\n"));
    assert!(!fenced.expect("the block is fenced").contains(['<', '>']), "{block:?}");
}

fn envelope(context: Context, body: &Bytes, headers: serde_json::Map<String, Value>) -> Envelope {
    let (body, body_encoding) = encode_body(body);
    let at = Timestamp::from_seconds(1_790_000_000);
    Envelope {
        webhook: true,
        source: "github".to_owned(),
        integration_id: "acme".to_owned(),
        event_type: "github.issues".to_owned(),
        idempotency_key: None,
        timestamp: at.as_seconds(),
        headers,
        body,
        body_encoding: body_encoding.to_owned(),
        event_id: EventId::new(at, [1; 10]),
        run_id: RunId::new(at, [2; 10]),
        attempt: 1,
        agent: "triage".to_owned(),
        context,
        events: Vec::new(),
        resumed: None,
    }
}
