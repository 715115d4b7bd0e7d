//! Traces: from a delivery through its steps to every try of the runs it made, sent by OTLP over HTTP.
//!
//! A `delivery` has a trace of its own, with the steps `receive`, `verify`, `match` and `store`. Its context is stored with
//! the runs, so that each `attempt` belongs to it, after a restart too, and is handed on to the agent. What a sender says
//! about its own trace is not to be trusted with ours, and so is only linked.
//!
//! While tracing is off, nothing of this does anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use doorbell_core::time::Timestamp;
use http::HeaderMap;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, TracerProvider as _,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter};
use prometheus_client::metrics::counter::Counter;

use crate::config::Telemetry;
use crate::store::{Finish, StoredRun};

/// How long what is left may take to be sent when the gateway closes.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// The traces of a gateway; off unless the configuration names a collector.
#[derive(Debug, Default)]
pub struct Traces(Option<On>);

#[derive(Debug)]
struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Begins to send traces, if the configuration says where to. Sampling, batches, headers, time-outs and the
    /// resource's attributes are set by the standard variables of OpenTelemetry. `exported` and `failed` count spans.
    ///
    /// # Errors
    /// If a standard variable asks for what this program does not have.
    pub fn start(telemetry: &Telemetry, (exported, failed): (Counter, Counter)) -> anyhow::Result<Self> {
        let Some(url) = &telemetry.traces_url else { return Ok(Self(None)) };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build()
            .context("cannot send traces: see the variables OTEL_EXPORTER_OTLP_…")?;
        let watched = Watched { exporter, failing: AtomicBool::new(false), exported, failed };
        let provider = SdkTracerProvider::builder().with_batch_exporter(watched).with_resource(resource()).build();
        let tracer = provider.tracer("doorbell");
        Ok(Self(Some(On { provider, tracer })))
    }

    /// Begins the trace of a delivery that `sources` could take.
    pub fn begin_delivery<'a>(&self, headers: &HeaderMap, sources: impl Iterator<Item = &'a str>) -> DeliveryTrace {
        let Some(On { tracer, .. }) = &self.0 else { return DeliveryTrace(None) };
        let theirs = headers.get("traceparent").and_then(|value| parse(value.to_str().ok()?));
        let links = theirs.map(|theirs| Link::new(theirs, Vec::new(), 0)).into_iter().collect();
        let sources = sources.map(|name| StringValue::from(name.to_owned())).collect();
        let span = SpanBuilder::from_name("delivery")
            .with_kind(SpanKind::Server)
            .with_links(links)
            .with_attributes([KeyValue::new("doorbell.sources", Value::Array(Array::String(sources)))])
            .start_with_context(tracer, &Context::new());
        DeliveryTrace(Some(Box::new(Traced { tracer: tracer.clone(), step: None, span })))
    }

    /// Begins the span of a run's running try, in the trace of the delivery that made the run.
    pub fn begin_attempt(&self, run: &StoredRun) -> AttemptTrace {
        let Some(On { tracer, .. }) = &self.0 else { return AttemptTrace(None) };
        let parent = run.trace.as_deref().and_then(parse);
        let around = parent.map(|parent| Context::new().with_remote_span_context(parent)).unwrap_or_default();
        let started = run.started_at.map_or_else(opentelemetry::time::now, system_time);
        let span = SpanBuilder::from_name("attempt")
            .with_kind(SpanKind::Consumer)
            .with_start_time(started)
            .with_attributes([
                KeyValue::new("doorbell.agent", run.agent.clone()),
                KeyValue::new("doorbell.run.id", run.id.to_string()),
                KeyValue::new("doorbell.event.id", run.event.to_string()),
                KeyValue::new("doorbell.event.type", run.event_type.clone()),
                KeyValue::new("doorbell.attempt", i64::from(run.attempt)),
            ])
            .start_with_context(tracer, &around);
        AttemptTrace(Some(span))
    }

    /// Sends what is left, for a few seconds at most.
    pub async fn close(&self) {
        let Some(On { provider, .. }) = &self.0 else { return };
        let provider = provider.clone();
        // It blocks, and what could not be sent has been said.
        let _ = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_EXPORT)).await;
    }
}

/// The trace of one delivery. It ends when it is dropped.
#[derive(Debug)]
pub struct DeliveryTrace(Option<Box<Traced>>);

#[derive(Debug)]
struct Traced {
    tracer: SdkTracer,
    /// Before the delivery's own span, so that it ends first.
    step: Option<Span>,
    span: Span,
}

impl DeliveryTrace {
    /// Ends the step before, and begins the next one.
    pub fn step(&mut self, name: &'static str) {
        let Some(traced) = &mut self.0 else { return };
        // In this order, so that they do not overlap.
        drop(traced.step.take());
        let parent = Context::new().with_remote_span_context(traced.span.span_context().clone());
        traced.step = Some(SpanBuilder::from_name(name).start_with_context(&traced.tracer, &parent));
    }

    /// What is stored with the runs.
    pub fn context(&self) -> Option<String> {
        self.0.as_ref().map(|traced| format_context(traced.span.span_context()))
    }

    /// It was stored, or had been, as this event.
    pub fn accepted(mut self, event: &str, event_type: &str, duplicate: bool, runs: usize) {
        let Some(traced) = &mut self.0 else { return };
        traced.span.set_attributes([
            KeyValue::new("http.response.status_code", 200),
            KeyValue::new("doorbell.event.id", event.to_owned()),
            KeyValue::new("doorbell.event.type", event_type.to_owned()),
            KeyValue::new("doorbell.duplicate", duplicate),
            KeyValue::new("doorbell.runs", i64::try_from(runs).unwrap_or(i64::MAX)),
        ]);
    }

    /// It set a webhook up and was answered; nothing was stored.
    pub fn greeted(mut self, status: u16) {
        let Some(traced) = &mut self.0 else { return };
        traced.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    }

    /// It was refused.
    pub fn refused(mut self, status: u16, code: &'static str) {
        let Some(traced) = &mut self.0 else { return };
        traced.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        traced.span.set_attribute(KeyValue::new("error.type", code));
        // By OpenTelemetry's conventions a server's span is in error only if the server is.
        if status >= 500 {
            traced.span.set_status(Status::error(code));
        }
    }
}

/// The span of one try. It ends when it is dropped.
#[derive(Debug)]
pub struct AttemptTrace(Option<Span>);

impl AttemptTrace {
    /// The variable by which the agent goes on with the trace. There is never a state of it (`TRACESTATE`): the trace is ours.
    pub fn variable(&self) -> Option<(&'static str, String)> {
        self.0.as_ref().map(|span| ("TRACEPARENT", format_context(span.span_context())))
    }

    /// It ended so.
    pub fn ended(mut self, finish: &Finish) {
        let Some(span) = &mut self.0 else { return };
        let state = finish.transition.state;
        span.set_attribute(KeyValue::new("doorbell.ended", finish.ended.clone()));
        span.set_attribute(KeyValue::new("doorbell.state", state.as_str()));
        if let Some(code) = finish.exit_code {
            span.set_attribute(KeyValue::new("process.exit.code", i64::from(code)));
        }
        if !["succeeded", "waits"].contains(&finish.ended.as_str()) {
            span.set_status(Status::error(finish.transition.reason.clone()));
        }
        span.end_with_timestamp(system_time(finish.at));
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0))
}

/// A `traceparent`: <https://www.w3.org/TR/trace-context/#traceparent-header>.
fn format_context(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// Reads a `traceparent`; of a version after ours, what we know of it.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let mut hex = |length: usize| {
        let part = parts.next()?;
        let digits = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && digits).then_some(part)
    };
    let version = hex(2).filter(|version| *version != "ff")?;
    let trace = TraceId::from_hex(hex(32)?).ok()?;
    let span = SpanId::from_hex(hex(16)?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(hex(2)?, 16).ok()?) & TraceFlags::SAMPLED;
    if version == "00" && parts.next().is_some() {
        return None;
    }
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

/// Who sends the traces: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else this program.
fn resource() -> Resource {
    let said = Resource::builder().build();
    let name = said.get(&"service.name".into()).map(|name| name.to_string());
    // What the SDK makes up when nobody says.
    let unnamed = name.is_none_or(|name| name.starts_with("unknown_service"));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if unnamed { resource.with_service_name("doorbell").build() } else { resource.build() }
}

/// Counts what is sent, and says once that it cannot be, and once that it can again.
#[derive(Debug)]
struct Watched {
    exporter: opentelemetry_otlp::SpanExporter,
    failing: AtomicBool,
    exported: Counter,
    failed: Counter,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.exported.inc_by(spans);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces.exported_again");
                }
            }
            Err(error) => {
                self.failed.inc_by(spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "traces.not_exported: said once until it works again");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let text = format!("00-{TRACE}-b7ad6b7169203331-01");
        let context = parse(&text).unwrap();
        assert_eq!((context.trace_id().to_string().as_str(), context.is_sampled()), (TRACE, true));
        assert_eq!(format_context(&context), text);
        let later = parse(&format!("cc-{TRACE}-b7ad6b7169203331-01-what-the-future-will-be")).unwrap();
        assert_eq!(later, context);
        assert!(!parse(&format!("00-{TRACE}-b7ad6b7169203331-00")).unwrap().is_sampled());
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-äääääääääääääääää-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_sender_says_is_no_context_or_one_that_reads_back(
            text in "(00|01|ff|..)?-?[0-9a-fA-F]{0,33}-?[0-9a-f]{15,17}-?[0-9a-z]{0,3}.{0,4}",
            any in ".*",
        ) {
            for text in [&text, &any] {
                if let Some(context) = parse(text) {
                    assert!(context.is_valid() && context.is_remote());
                    assert_eq!(parse(&format_context(&context)).as_ref(), Some(&context), "{text}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_traced_while_tracing_is_off() {
        let traces = Traces::start(&Telemetry::default(), (Counter::default(), Counter::default())).unwrap();
        let mut delivery = traces.begin_delivery(&HeaderMap::new(), std::iter::once("acme"));
        delivery.step("verify");
        assert!(delivery.0.is_none());
        assert_eq!(delivery.context(), None);
    }
}
