//! Stripe: `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=…]`, HMAC-SHA256 over `<t>.` and the body.
//!
//! The key is the endpoint's whole secret, `whsec_` included: it only looks like one of Standard Webhooks. While a secret is
//! rolled, Stripe signs with both, so any `v1` will do; other schemes (`v0` of test events) are passed over. Stripe's
//! own libraries bound the past only, and differ in which of two `t` they take: here both sides are bound, and a
//! second `t` is refused. (<https://docs.stripe.com/webhooks/signature>, and stripe-node's and stripe-python's source.)
//!
//! Two shapes arrive: snapshots (`"object":"event"`, with the object in `data.object`) and thin events
//! (`"object":"v2.core.event"`, with `related_object` to fetch).

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::hmac;

use super::paths::{Found, Paths};
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_hex, encode_hex, filter, is_name,
};
use crate::delivery::Delivery;
use crate::event::Context;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

const SIGNATURE: &str = "Stripe-Signature";

/// The most signatures of one header that are looked at: Stripe sends one for each secret, two while one is rolled.
const MOST_SIGNATURES: usize = 16;

/// Webhook endpoints and event destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripe {
    /// How far the signed time may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Stripe {
    /// With the window that Stripe's libraries have: five minutes.
    fn default() -> Self {
        Self { tolerance: Duration::from_secs(5 * 60) }
    }
}

static FILTERS: [FilterField; 4] = [
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("accounts", &[Cow::Borrowed("account")], &[]),
    filter("livemode", &[Cow::Borrowed("livemode")], &[]),
];

static SAMPLES: [Sample; 7] = [
    sample!("stripe", "payment_intent.succeeded", "a payment went through"),
    sample!("stripe", "charge.dispute.created", "a customer disputed a charge"),
    sample!("stripe", "checkout.session.completed", "a customer finished a checkout"),
    sample!("stripe", "customer.subscription.updated", "a subscription became past due"),
    sample!("stripe", "invoice.payment_failed", "an invoice could not be collected"),
    sample!("stripe", "invoice.paid", "an invoice of a connected account was paid"),
    sample!("stripe", "v1.billing.meter.error_report_triggered", "a thin event: a meter's usage could not be counted"),
];

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/id",
        "/type",
        "/account",
        "/context",
        "/livemode",
        "/api_version",
        "/reason/type",
        "/data/object/id",
        "/data/object/object",
        "/data/object/status",
        "/data/object/description",
        "/data/object/number",
        "/data/object/customer",
        "/data/object/customer_email",
        "/data/object/customer_details/email",
        "/data/object/receipt_email",
        "/data/object/email",
        "/data/object/amount",
        "/data/object/amount_due",
        "/data/object/amount_total",
        "/data/object/currency",
        "/data/object/reason",
        "/data/object/hosted_invoice_url",
        "/data/object/receipt_url",
        "/data/object/url",
        "/related_object/id",
        "/related_object/type",
        "/related_object/url",
    ])
});

impl Provider for Stripe {
    fn name(&self) -> &str {
        "stripe"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Stripe"),
            setup: Cow::Borrowed(include_str!("../../guides/stripe.md")),
            identity: Cow::Borrowed(
                "The time and the body are signed together. The event's `id` in the body is the same when a delivery is \
                 sent again, each time with a new time and signature; a delivery whose time is further from now than \
                 `tolerance` is refused.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("stripe_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let (time, signatures) = parts_of(proof::header(delivery, SIGNATURE)?)?;
        let parts = [time.as_bytes(), b".", &delivery.body];
        let made_one = |named: &NamedKey| {
            let mac = named.key.mac(&parts);
            mac.is_some_and(|mac| signatures.iter().any(|one| super::key::equal(mac.as_ref(), one)))
        };
        let index = keys.iter().position(made_one).ok_or_else(|| proof::foreign(SIGNATURE))?;
        let name = format!("the `t` of {SIGNATURE}");
        proof::check_seconds(&name, time, delivery.received_at, self.tolerance)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let found = proof::find(&PATHS, delivery)?;
        let kind = found.text("/type").filter(|kind| is_name(kind));
        let kind = kind.ok_or_else(|| Unreadable::broken("the body has no `type`: it is not an event of Stripe"))?;
        let delivery_id = found.text("/id").map(Cow::into_owned);
        let delivery_id = delivery_id.unwrap_or_else(|| proof::content_id([&*delivery.body]));
        Ok(vec![Reading { context: describe(&kind, &found), delivery_id: Some(delivery_id), handshake: false }])
    }

    fn tolerance(&self) -> Option<Duration> {
        Some(self.tolerance)
    }

    fn with_tolerance(&self, tolerance: Duration) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(Self { tolerance }))
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let time = unsent.now.as_seconds().to_string();
        let body = proof::fresh(unsent.body, unsent.delivery_id);
        let mac = key.and_then(|key| key.mac(&[time.as_bytes(), b".", &body]));
        let headers = [
            ("User-Agent", always("Stripe/1.0 (+https://stripe.com/docs/webhooks)")),
            ("Accept", always("*/*; q=0.5, application/xml")),
            ("Content-Type", always("application/json; charset=utf-8")),
            (SIGNATURE, mac.map(|mac| format!("t={time},v1={}", encode_hex(mac.as_ref())))),
        ];
        proof::sent(headers, body)
    }
}

/// The time and the `v1` signatures of the header.
fn parts_of(header: &str) -> Result<(&str, Vec<Vec<u8>>), Rejection> {
    let mut time = None;
    let mut signatures = Vec::new();
    for (name, value) in header.split(',').filter_map(|part| part.split_once('=')) {
        match name {
            "t" if time.replace(value).is_some() => {
                return Err(Rejection::mismatch(format!("{SIGNATURE} has more than one `t`")));
            }
            "v1" if signatures.len() < MOST_SIGNATURES => signatures.extend(decode_hex(value)),
            _ => {}
        }
    }
    let time = time.ok_or_else(|| Rejection::mismatch(format!("{SIGNATURE} has no `t=` with a time")))?;
    match signatures.is_empty() {
        true => Err(Rejection::mismatch(format!("{SIGNATURE} has no `v1=` with the hex digits of a signature"))),
        false => Ok((time, signatures)),
    }
}

fn describe(kind: &str, found: &Found<'_, '_>) -> Context {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    let (event, action) = proof::split_name(kind);
    let mut context = Context::default();
    context.set("event", event);
    context.set_some("action", action);
    context.set("type", kind);
    context.set_some("account", first(&["/account", "/context"]));
    context.set_some("livemode", found.flag("/livemode"));
    context.set_some("api_version", found.text("/api_version"));
    context.set_some("object", first(&["/data/object/object", "/related_object/type"]));
    context.set_some("object_id", first(&["/data/object/id", "/related_object/id"]));
    context.set_some("title", first(&["/data/object/description", "/data/object/number"]));
    context
        .set_some("url", first(&["/data/object/hosted_invoice_url", "/data/object/receipt_url", "/data/object/url"]));
    context.set_some("related_url", found.text("/related_object/url"));
    context.set_some("state", found.text("/data/object/status"));
    context.set_some("reason", first(&["/data/object/reason", "/reason/type"]));
    context.set_some("customer", found.text("/data/object/customer"));
    let email = ["customer_email", "customer_details/email", "receipt_email", "email"];
    context.set_some("email", email.iter().find_map(|field| found.text(&format!("/data/object/{field}"))));
    let amount = ["amount_total", "amount_due", "amount"];
    context.set_some("amount", amount.iter().find_map(|field| found.number(&format!("/data/object/{field}"))));
    context.set_some("currency", found.text("/data/object/currency"));
    context
}
