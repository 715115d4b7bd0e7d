//! Traces: one tree from a delivery to every try, whatever happens in between.

use crate::collector::{Collector, Span, attribute, hex};
use crate::support::{Gateway, ONE_SOURCE, Project, fresh_id, sample, sample_as, wait_for, wait_until, with_header};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"\n";

/// Spans are sent soon, so that nobody waits for them.
fn serve(project: &Project, collector: &Collector) -> Gateway {
    project.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")])
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn context_of(span: &Span) -> String {
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

#[tokio::test]
async fn a_delivery_its_tries_and_its_redelivery_can_be_followed() {
    let collector = Collector::start();
    let project = Project::new(ONE_SOURCE);
    let retry = format!("{ANY}[retries]\nattempts = 2\nbackoff = {{ initial = \"1s\", jitter = false }}\n");
    project.agent("triage", &retry, "echo $TRACEPARENT; test $DOORBELL_ATTEMPT = 2");
    let gateway = serve(&project, &collector);
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let id = fresh_id();
    let receipt = gateway.ring(with_header(sample_as("issues.opened", &id), "traceparent", theirs)).await;
    gateway.in_state(&receipt.runs[0], "waiting").await;
    // The second try is carried out by another process.
    assert_eq!(gateway.terminate(), Some(0));
    let gateway = serve(&project, &collector);
    gateway.finished(&receipt.runs[0]).await;
    let stdout = gateway.stdout(&receipt.runs[0]).await;
    gateway.ring(sample_as("issues.opened", &id)).await;
    let spans = collector.wait("the spans of both deliveries", |spans| {
        (named(spans, "delivery").len() == 2 && named(spans, "attempt").len() == 2).then(|| spans.to_vec())
    });

    let deliveries = named(&spans, "delivery");
    let is_duplicate = |span: &&&Span| attribute(span, "doorbell.duplicate").as_deref() == Some("true");
    let redelivery = *deliveries.iter().find(is_duplicate).unwrap();
    let first = *deliveries.iter().find(|span| !is_duplicate(span)).unwrap();
    assert!(first.parent_span_id.is_empty() && redelivery.parent_span_id.is_empty(), "each begins a trace");
    assert_ne!(first.trace_id, redelivery.trace_id);
    for delivery in [first, redelivery] {
        assert_eq!(attribute(delivery, "doorbell.event.id").as_ref(), Some(&receipt.delivery_id));
        assert_eq!(attribute(delivery, "http.response.status_code").as_deref(), Some("200"));
        let steps = spans.iter().filter(|span| span.parent_span_id == delivery.span_id && span.name != "attempt");
        let mut steps: Vec<_> = steps.collect();
        steps.sort_by_key(|span| span.start_time_unix_nano);
        let names: Vec<_> = steps.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["receive", "verify", "match", "store"]);
        assert!(steps.windows(2).all(|pair| pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano));
        assert!(steps.iter().all(|step| step.trace_id == delivery.trace_id));
        assert!(steps.last().unwrap().end_time_unix_nano <= delivery.end_time_unix_nano);
    }
    let linked: Vec<_> = first.links.iter().map(|link| hex(&link.trace_id)).collect();
    assert_eq!(linked, ["0af7651916cd43dd8448eb211c80319c"], "the sender's trace is linked, not taken over");
    assert!(redelivery.links.is_empty());

    let mut attempts = named(&spans, "attempt");
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    for (attempt, number) in attempts.iter().zip(["1", "2"]) {
        assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&first.trace_id, &first.span_id));
        assert_eq!(attribute(attempt, "doorbell.attempt").as_deref(), Some(number));
        assert_eq!(attribute(attempt, "doorbell.run.id").as_ref(), Some(&receipt.runs[0]));
    }
    let ends: Vec<_> = attempts.iter().map(|span| attribute(span, "doorbell.ended").unwrap()).collect();
    assert_eq!(ends, ["failed", "succeeded"]);
    let in_error: Vec<_> = attempts.iter().map(|span| span.status.as_ref().map_or(0, |status| status.code)).collect();
    assert_eq!(in_error, [2, 0]);
    let handed: Vec<_> = attempts.iter().map(|span| context_of(span)).collect();
    assert_eq!(stdout.lines().collect::<Vec<_>>(), handed, "the agent goes on with the trace");
    assert!(collector.services().iter().all(|service| service == "doorbell"));
}

#[tokio::test]
async fn a_refused_delivery_shows_where_and_why() {
    let collector = Collector::start();
    let project = Project::new(ONE_SOURCE);
    let gateway = serve(&project, &collector);
    let mut forged = sample("issues.opened");
    forged.body = b"{}".to_vec().into();
    gateway.send("/v1/webhooks/github/acme", forged).await;
    let spans = collector.wait("the delivery", |spans| (!named(spans, "delivery").is_empty()).then(|| spans.to_vec()));
    let delivery = named(&spans, "delivery")[0];
    assert_eq!(attribute(delivery, "error.type").as_deref(), Some("signature_mismatch"));
    assert_eq!(attribute(delivery, "http.response.status_code").as_deref(), Some("401"));
    assert!(named(&spans, "store").is_empty());
    assert_eq!(named(&spans, "verify").len(), 1);
}

#[tokio::test]
async fn a_try_that_was_lost_is_told_by_the_gateway_that_found_it() {
    let collector = Collector::start();
    let project = Project::new(ONE_SOURCE);
    let retries = format!("{ANY}[retries]\non_lost = \"fail\"\n");
    project.agent("triage", &retries, "echo up; while true; do sleep 1; done");
    let gateway = serve(&project, &collector);
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    wait_until("the agent to be up", async || (gateway.stdout(&run).await == "up").then_some(())).await;
    let delivery = collector.wait("the delivery", |spans| named(spans, "delivery").first().map(|span| (*span).clone()));
    gateway.kill();
    let gateway = serve(&project, &collector);
    gateway.finished(&run).await;
    let lost = collector.wait("the lost try", |spans| named(spans, "attempt").first().map(|span| (*span).clone()));
    assert_eq!((lost.trace_id, lost.parent_span_id), (delivery.trace_id, delivery.span_id));
    assert_eq!(attribute(&Span { attributes: lost.attributes, ..Span::default() }, "doorbell.ended").unwrap(), "lost");
}

#[tokio::test]
async fn what_is_not_sampled_is_not_sent_and_the_agent_is_told() {
    let collector = Collector::start();
    let project = Project::new(&format!("{ONE_SOURCE}[telemetry]\notlp_endpoint = \"{}\"\n", collector.url));
    project.agent("triage", ANY, "echo $TRACEPARENT");
    let gateway = project.serve_with(&[("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_BSP_SCHEDULE_DELAY", "50")]);
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.finished(&run).await;
    assert!(gateway.stdout(&run).await.ends_with("-00"));
    // Whatever was to be sent would be sent when it ends.
    assert_eq!(gateway.terminate(), Some(0));
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn the_configured_collector_gets_what_is_left_when_the_gateway_ends() {
    let collector = Collector::start();
    let project = Project::new(&format!("{ONE_SOURCE}[telemetry]\notlp_endpoint = \"{}/\"\n", collector.url));
    project.agent("triage", ANY, "echo ${TRACEPARENT:-none}");
    let gateway = project.serve_with(&[("OTEL_BSP_SCHEDULE_DELAY", "600000"), ("OTEL_SERVICE_NAME", "front-door")]);
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.finished(&run).await;
    assert!(collector.spans().is_empty());
    assert_eq!(gateway.terminate(), Some(0));
    assert_eq!(named(&collector.spans(), "attempt").len(), 1);
    assert_eq!(collector.services(), ["front-door"]);
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "echo ${TRACEPARENT:-none}");
    let gateway =
        project.serve_with(&[("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:1")]);
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.finished(&run).await;
    assert_eq!(gateway.stdout(&run).await, "none");
}

#[tokio::test]
async fn a_collector_that_is_down_is_said_once_and_holds_nothing_up() {
    // Bound and closed again: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let project = Project::new(ONE_SOURCE);
    let endpoint = format!("http://{free}");
    let gateway = project.serve_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
    ]);
    let failed = async |least: u64| {
        wait_until("exports to fail", async || {
            let text = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
            let line = text.lines().find(|line| line.starts_with("doorbell_trace_spans_total{outcome=\"failed\"}"));
            let count: u64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            (count >= least).then_some(count)
        })
        .await
    };
    // More than fit into its queue.
    for _ in 0..40 {
        gateway.ring(sample("issues.opened")).await;
    }
    let before = failed(1).await;
    gateway.ring(sample("issues.opened")).await;
    failed(before + 1).await;
    assert_eq!(gateway.terminate(), Some(0));
    let said = wait_for("the log", || {
        let log = project.read("gateway.log");
        log.contains("gateway.closed").then(|| log.matches("traces.not_exported").count())
    });
    assert_eq!(said, 1);
}
