//! `cargo xtask bench providers`: what it costs to verify and to read a delivery of 8 KiB, for every provider, against the bare
//! hash of the same bytes.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::generic::{Generic, GenericOptions};
use doorbell_core::provider::{Key, Provider, Unsent, built_in};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::verify::verify;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BODY: usize = 8 * 1024;
const ROUNDS: usize = 9;
const TIMES: u32 = 2_000;
const URL: &str = "https://hooks.example.com/v1/webhooks/x/x";

/// Secrets of the forms that protocols ask for; each provider takes the first that it accepts.
const SECRETS: [&str; 3] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
    "arn:aws:sns:eu-central-1:123456789012:orders",
    "1b2c3d4e5f60718293a4b5c6d7e8f9000112233445566778899aabbccddeeff0",
];

/// A provider with a genuine delivery of its own.
struct Measured {
    source: Arc<Source>,
    delivery: Arc<Delivery>,
}

/// The body of a sample, as it is sent, with so much text in it that it has the size.
fn padded(body: &str) -> String {
    let padding = "As people write them. ".repeat(BODY / 20);
    let missing = BODY.saturating_sub(body.len() + 12);
    match body.find('{') {
        Some(0 | 1) => {
            let (before, after) = body.split_at(body.find('{').unwrap() + 1);
            let comma = if after.trim_start().starts_with('}') { "" } else { "," };
            format!("{before}\"padding\":\"{}\"{comma}{after}", &padding[..missing.min(padding.len())])
        }
        _ => format!("{body}&padding={}", "x".repeat(missing)),
    }
}

/// None where nobody but the maker can sign.
fn prepare(provider: Arc<dyn Provider>) -> Option<Measured> {
    let (public, signing) = keys(provider.as_ref());
    let sample = provider.samples().first()?;
    let now = doorbell::clock::now();
    let unsent = |body| Unsent { event: &sample.event, body, delivery_id: "1", now, url: URL };
    let filled = provider.sign(Some(&signing), unsent(sample.body.to_string().into())).body;
    let body = padded(std::str::from_utf8(&filled).unwrap());
    let signed = provider.sign(Some(&signing), unsent(body.into()));
    let mut headers = HeaderMap::new();
    for (name, value) in &signed.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let url = URL.to_owned();
    let delivery =
        Delivery { method: Method::POST, url, headers, body: signed.body, received_at: now, certificate: None };
    let keys = vec![NamedKey { instance: "bench".to_owned(), key: public }];
    let source = Source::new("bench", provider, keys, false, Dedup::Id).unwrap();
    let (source, delivery) = (Arc::new(source), Arc::new(delivery));
    verify(&source, &delivery).is_ok().then_some(Measured { source, delivery })
}

/// What verifies, and what signs.
fn keys(provider: &dyn Provider) -> (Key, Key) {
    let key = SECRETS.iter().find_map(|secret| provider.prepare(&Secret::new(*secret)).ok()).unwrap();
    if provider.signing_field().is_none() || provider.prepare(&Secret::new(SECRETS[0])).is_ok() {
        return (key.clone(), key);
    }
    let pair = provider.prepare_signing(&Secret::new(SECRETS[2])).unwrap();
    let public = doorbell_core::provider::encode_hex(pair.public().unwrap());
    (provider.prepare(&Secret::new(public)).unwrap(), pair)
}

/// Microseconds of one call, the median of some rounds; bytes and allocations of one call.
fn measure(mut work: impl FnMut()) -> (f64, usize, usize) {
    let region = Region::new(ALLOCATOR);
    work();
    let allocated = region.change();
    let round = |_| {
        let begun = Instant::now();
        (0..TIMES).for_each(|_| work());
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
    };
    let time = support::median((0..ROUNDS).map(round).collect());
    (time, allocated.bytes_allocated, allocated.allocations)
}

fn main() {
    let generic: Arc<dyn Provider> = Arc::new(Generic::new(GenericOptions::default()).unwrap());
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"a secret of the benchmark");
    let bytes = vec![b'x'; BODY];
    let (bare, ..) = measure(|| _ = black_box(aws_lc_rs::hmac::sign(&key, black_box(&bytes))));
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for provider in built_in().into_iter().chain([generic]) {
        let name = provider.name().to_owned();
        let Some(Measured { source, delivery }) = prepare(provider) else {
            println!("{name}: only its maker can sign");
            continue;
        };
        let (proving, ..) = measure(|| drop(black_box(verify(&source, &delivery).unwrap())));
        let (all, allocated, count) = measure(|| {
            let verified = verify(&source, &delivery).unwrap();
            let read = Event::read(&verified).unwrap_or_else(|error| panic!("{name}: {error}"));
            drop(black_box(read));
        });
        let size = delivery.body.len();
        rows.push(vec![
            name.clone(),
            format!("{size} B"),
            format!("{proving:.1} µs"),
            format!("{:.1} µs", all - proving),
            format!("{:.2}", all / bare),
            format!("{allocated} B in {count}"),
        ]);
        figures.push(json!({"provider": name, "bodyBytes": size, "verifyMicros": proving, "readMicros": all - proving,
            "overHash": all / bare, "allocatedBytes": allocated, "allocations": count}));
    }
    println!("HMAC-SHA256 of {BODY} bytes alone: {bare:.1} µs\n");
    let titles = ["provider", "body", "verify", "read", "both over the bare hash", "allocated"];
    support::print_table(&titles, &rows);
    support::write_json("providers", &json!({"hashMicros": bare, "providers": figures}));
}
