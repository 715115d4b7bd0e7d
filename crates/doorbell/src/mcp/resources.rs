//! Resources: events and runs, read by their URI.

use rmcp::model::{ErrorData, ReadResourceResponse, ReadResourceResult, ResourceContents, ResourceTemplate};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::Desk;
use super::bounds::brief;
use super::tool::told;
use super::tools::{events, runs};
use crate::ops::Error;

const EVENTS: &str = "doorbell://events/";
const RUNS: &str = "doorbell://runs/";
const JSON: &str = "application/json";

/// Lines of its log that are read with a run.
const LINES: usize = 100;

/// What there is to read.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let template = |uri: &str, name: &str, title: &str, description: &str| {
        ResourceTemplate::new(format!("{uri}{{id}}"), name)
            .with_title(title)
            .with_description(description)
            .with_mime_type(JSON)
    };
    vec![
        template(
            EVENTS,
            "event",
            "Event",
            "An event with its headers, outcomes and the beginning of its body, as events_get reads it.",
        ),
        template(
            RUNS,
            "run",
            "Run",
            "A run with its tries, its result and the end of its log, as runs_get and runs_logs read it.",
        ),
    ]
}

/// A run with the end of its log.
#[derive(Debug, Serialize, JsonSchema)]
struct WithLog {
    #[serde(flatten)]
    run: runs::Read,
    log: runs::Log,
}

/// What a URI names, as JSON.
pub(super) async fn read(desk: Desk, uri: &str) -> Result<ReadResourceResponse, ErrorData> {
    let read = if let Some(id) = uri.strip_prefix(EVENTS) {
        events::read_begin(&desk, id).await.map(|event| json!(event))
    } else if let Some(id) = uri.strip_prefix(RUNS) {
        read_run(&desk, id).await.map(|run| json!(run))
    } else {
        let detail = format!("`{}` is none of {EVENTS}{{id}} and {RUNS}{{id}}", brief(uri));
        return Err(ErrorData::resource_not_found(detail, None));
    };
    match read {
        Ok(json) => {
            let contents = ResourceContents::text(json.to_string(), uri).with_mime_type(JSON);
            Ok(ReadResourceResult::new(vec![contents]).into())
        }
        Err(error) => {
            let (code, detail) = told(&error);
            let data = Some(json!({ "code": code }));
            Err(match error {
                Error::NotFound(_) | Error::Gone(..) => ErrorData::resource_not_found(detail, data),
                Error::Store(_) => ErrorData::internal_error(detail, data),
                _ => ErrorData::invalid_params(detail, data),
            })
        }
    }
}

async fn read_run(desk: &Desk, id: &str) -> Result<WithLog, Error> {
    let run = runs::read(desk, id, 0).await?;
    Ok(WithLog { run, log: runs::read_log(desk, id, None, Some(LINES)).await? })
}
