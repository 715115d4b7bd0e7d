//! `[telemetry]` and the standard variables of OpenTelemetry.

use super::{Project, gateway};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

fn traces_url(project: &Project) -> Option<String> {
    project.load().unwrap().telemetry.traces_url
}

fn configured(endpoint: &str) -> Project {
    gateway(&format!("[telemetry]\notlp_endpoint = \"{endpoint}\"\n"))
}

#[test]
fn nothing_is_traced_unless_a_collector_is_named() {
    assert_eq!(traces_url(&gateway("")), None);
    assert_eq!(traces_url(&configured("")), None);
    assert_eq!(traces_url(&gateway("").var(ENDPOINT, "")), None, "empty is not set");
    // What only tunes traces is nobody's business while there are none.
    assert_eq!(traces_url(&gateway("").var("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")), None);
}

#[test]
fn traces_go_to_the_collector_that_is_named_last() {
    let project = configured("http://127.0.0.1:4318/");
    assert_eq!(traces_url(&project).as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
    let project = project.var("DOORBELL_TELEMETRY__OTLP_ENDPOINT", "https://own.example.com");
    assert_eq!(traces_url(&project).as_deref(), Some("https://own.example.com/v1/traces"));
    let project = project.var(ENDPOINT, "https://all.example.com/otlp");
    assert_eq!(traces_url(&project).as_deref(), Some("https://all.example.com/otlp/v1/traces"));
    let project = project.var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example.com/x");
    assert_eq!(traces_url(&project).as_deref(), Some("https://traces.example.com/x"), "as it is");
    assert_eq!(traces_url(&project.var("OTEL_SDK_DISABLED", "TRUE")), None);
    assert_eq!(traces_url(&configured("http://a").var("OTEL_TRACES_EXPORTER", "none")), None);
}

#[test]
fn what_cannot_be_done_is_said_before_the_start() {
    let on = || configured("http://127.0.0.1:4318");
    for (project, message, help) in [
        (configured("collector:4317"), "not the URL of a collector", "http://127.0.0.1:4318"),
        (configured("http://me:hunter2@collector"), "not the URL of a collector", "OTEL_EXPORTER_OTLP_HEADERS"),
        (configured("http://"), "not the URL of a collector", "http://127.0.0.1:4318"),
        (on().var(ENDPOINT, "collector:4317"), "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL", "http://127.0.0.1:4318"),
        (on().var("OTEL_TRACES_EXPORTER", "zipkin"), "OTEL_TRACES_EXPORTER", "`otlp` or `none`"),
        (on().var("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "OTEL_EXPORTER_OTLP_PROTOCOL", "`http/protobuf`"),
        (on().var("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), "OTEL_EXPORTER_OTLP_COMPRESSION", "unset it"),
        (on().var("OTEL_TRACES_SAMPLER", "xray"), "OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        (on().var("OTEL_TRACES_SAMPLER", "traceidratio"), "OTEL_TRACES_SAMPLER_ARG", "0.1"),
        (
            on().var("OTEL_TRACES_SAMPLER", "traceidratio").var("OTEL_TRACES_SAMPLER_ARG", "10"),
            "OTEL_TRACES_SAMPLER_ARG",
            "0.1",
        ),
    ] {
        let problems = project.problems();
        assert!(problems.contains(message) && problems.contains(help), "{message}: {problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
    let tuned = on().var("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").var("OTEL_TRACES_SAMPLER_ARG", "0.5");
    assert!(tuned.load().is_ok());
}
