//! What messages of SNS say, and the JSON that AWS's own services put into them.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::delivery::Delivery;
use crate::event::Context;
use crate::provider::paths::{Found, Paths};
use crate::provider::{Reading, Unreadable, is_name, proof};

pub(super) const SUBSCRIPTION: &str = "subscription_confirmation";

/// The topic of the samples, which is replaced by the source's.
pub(super) const SAMPLE_TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:acme-alarms";

static MESSAGE: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/title",
        "/AlarmName",
        "/AlarmDescription",
        "/NewStateValue",
        "/NewStateReason",
        "/Region",
        "/detail-type",
        "/source",
        "/account",
        "/region",
        "/detail/state",
        "/Records/0/eventName",
        "/Records/0/eventSource",
        "/Records/0/s3/bucket/name",
        "/Records/0/s3/object/key",
        "/notificationType",
        "/eventType",
        "/mail/subject",
        "/subject",
        "/url",
    ])
});

/// Reads a delivery.
pub(super) fn read(delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
    let text = proof::object_text(delivery)?;
    let found = proof::find_in(&super::PATHS, text)?;
    let event = match found.text("/Type").as_deref() {
        Some("Notification") => "notification",
        Some("SubscriptionConfirmation") => SUBSCRIPTION,
        Some("UnsubscribeConfirmation") => "unsubscribe_confirmation",
        _ => return Err(Unreadable::broken("the body has no `Type` of SNS")),
    };
    let delivery_id = found.text("/MessageId").map_or_else(|| proof::content_id([text.as_bytes()]), Cow::into_owned);
    let context = describe(event, &found);
    Ok(vec![Reading { context, delivery_id: Some(delivery_id), handshake: event != "notification" }])
}

fn describe(event: &str, found: &Found<'_, '_>) -> Context {
    let mut context = Context::default();
    let topic = found.text("/TopicArn");
    let subject = found.text("/Subject");
    let message = found.text("/Message");
    context.set("event", event);
    let name = topic.as_deref().and_then(|topic| topic.rsplit(':').next()).map(str::to_owned);
    context.set_some("topic", topic);
    context.set_some("topic_name", name);
    context.set_some("subject", subject.clone());
    let inner = message.as_deref().filter(|text| proof::is_object(text)).and_then(|text| MESSAGE.find(text).ok());
    match &inner {
        Some(inner) => of_service(inner, subject, &mut context),
        None => context.set_some("title", subject.or_else(|| headline(message.as_deref()))),
    }
    context.set_some("body", message);
    context
}

/// What a service of AWS says about itself: CloudWatch, EventBridge, S3, SES.
fn of_service(inner: &Found<'_, '_>, subject: Option<Cow<'_, str>>, context: &mut Context) {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| inner.id(pointer));
    let title = first(&["/title", "/AlarmName", "/detail-type", "/mail/subject", "/subject"]);
    let happened = ["/NewStateValue", "/Records/0/eventName", "/detail-type", "/notificationType", "/eventType"];
    let happened = first(&happened).filter(|happened| is_name(happened));
    context.set_some("title", title.or(subject).or(happened.clone()));
    context.set_some("action", happened);
    context.set_some("state", first(&["/NewStateValue", "/detail/state"]));
    context.set_some("reason", first(&["/NewStateReason"]));
    context.set_some("description", first(&["/AlarmDescription"]));
    context.set_some("service", first(&["/source", "/Records/0/eventSource"]));
    context.set_some("region", first(&["/Region", "/region"]));
    context.set_some("account", first(&["/account"]));
    context.set_some("bucket", first(&["/Records/0/s3/bucket/name"]));
    context.set_some("key", first(&["/Records/0/s3/object/key"]));
    context.set_some("url", first(&["/url"]));
}

/// The first line of a text.
fn headline(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.and_then(|text| text.lines().next()).filter(|line| !line.is_empty()).map(Cow::Borrowed)
}
