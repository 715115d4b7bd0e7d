//! `[telemetry]`, and the standard variables of OpenTelemetry that say whether and where traces are sent.
//!
//! The variables: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> and
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>. Empty ones count as not set. Those that only tune
//! what is sent are read by OpenTelemetry's own library.

use super::document::{Keys, Node, Table};
use super::problem::{Findings, Problem};
use super::{Environment, Telemetry};

const KEYS: Keys<'static> = Keys {
    known: &["otlp_endpoint"],
    planned: &[],
    hints: &[("endpoint", "did you mean `otlp_endpoint`?"), ("otlp", "did you mean `otlp_endpoint`?")],
};

/// What a collector's URL is followed by for traces.
const PATH: &str = "/v1/traces";

const HELP: &str = "http:// or https://, a host and perhaps a path, e.g. http://127.0.0.1:4318; \
                    a key or password goes into OTEL_EXPORTER_OTLP_HEADERS";

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Reads `[telemetry]`; the standard variables go over it.
pub(super) fn read(table: &Table, environment: &Environment, findings: &mut Findings) -> Telemetry {
    table.check(findings, KEYS);
    table.settle(findings, "telemetry");
    let own = table.read(findings, "otlp_endpoint", endpoint);
    let said = |name: &str| environment.var(name).filter(|value| !value.trim().is_empty());
    if said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Telemetry::default();
    }
    match said("OTEL_TRACES_EXPORTER") {
        Some("none") => return Telemetry::default(),
        None | Some("otlp") => {}
        Some(_) => {
            let problem = "OTEL_TRACES_EXPORTER names an exporter that Doorbell does not have";
            findings.problem(Problem::anywhere(problem).help("set it to `otlp` or `none`, or unset it"));
        }
    }
    let variable = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        .into_iter()
        .find_map(|name| Some((name, said(name)?)));
    let traces_url = match variable {
        Some((name, url)) => match is_web(url) {
            // The one for traces is taken as it is.
            true if name.contains("TRACES") => Some(url.to_owned()),
            true => Some(under(url)),
            false => {
                let problem = Problem::anywhere(format!("{name} is not a URL of a collector"));
                findings.problem(problem.help(HELP));
                None
            }
        },
        None => own.flatten(),
    };
    if traces_url.is_some() {
        check_tuning(environment, findings);
    }
    Telemetry { traces_url }
}

/// What the library would pass over in silence, or only say when it is too late.
fn check_tuning(environment: &Environment, findings: &mut Findings) {
    let said = |name: &str| environment.var(name).filter(|value| !value.trim().is_empty());
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if said(name).is_some_and(|protocol| protocol != "http/protobuf") {
            let problem = Problem::anywhere(format!("{name} asks for a protocol that Doorbell does not speak"));
            findings.problem(problem.help("set it to `http/protobuf` (usually port 4318), or unset it"));
        }
    }
    for name in ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"] {
        if said(name).is_some_and(|compression| compression != "none") {
            let problem = Problem::anywhere(format!("{name} asks for a compression that Doorbell does not have"));
            findings.problem(problem.help("unset it, or set it to `none`"));
        }
    }
    let Some(sampler) = said("OTEL_TRACES_SAMPLER") else { return };
    if !SAMPLERS.contains(&sampler) {
        let problem = Problem::anywhere("OTEL_TRACES_SAMPLER names a sampler that Doorbell does not have");
        findings.problem(problem.help(format!("one of {}", SAMPLERS.join(", "))));
    } else if sampler.ends_with("traceidratio") {
        let ratio = said("OTEL_TRACES_SAMPLER_ARG").and_then(|ratio| ratio.parse::<f64>().ok());
        if !ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) {
            let problem = Problem::anywhere("OTEL_TRACES_SAMPLER_ARG is not a share of the traces");
            findings.problem(problem.help("a number from 0 to 1, e.g. 0.1 for every tenth"));
        }
    }
}

/// The URL of a collector, as that of its traces; none if the text is empty, which is how it is unset.
fn endpoint(node: &Node) -> Result<Option<String>, Problem> {
    let url = node.text("the URL of a collector such as \"http://127.0.0.1:4318\"")?;
    match url.as_str() {
        "" => Ok(None),
        url if is_web(url) => Ok(Some(under(url))),
        _ => Err(Problem::at(&node.place, "not the URL of a collector").help(HELP)),
    }
}

fn under(url: &str) -> String {
    format!("{}{PATH}", url.trim_end_matches('/'))
}

fn is_web(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|url| {
        let web = matches!(url.scheme_str(), Some("http" | "https"));
        // A password in it could get into the log with an error.
        web && url.authority().is_some_and(|at| !at.host().is_empty() && !at.as_str().contains('@'))
    })
}
