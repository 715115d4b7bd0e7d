//! Every route, in groups: its path, who carries it out, and what the document says that the handler's types do not.
// tidy: allow long file: a table, one entry a route

use doorbell_client::api as types;
use http::{Method, StatusCode};
use serde_json::Value;

use super::route::{ANY_KEY, CHANGERS, OWNERS, Route, group};
use super::{api, audit, ingest, leases, mcp, once, pages, stream, waits};

const IF_MATCH: &str = "Only if what is there has one of these `ETag`s; else 412.";
const IF_NONE_MATCH: &str = "`*`: only if nothing is declared of it yet; else 412.";
const LAST_EVENT_ID: &str = "The id of the last message that was seen: what came since is sent first.";

/// What is done with events.
fn events() -> Vec<Route> {
    group(
        "events",
        vec![
            Route::get(("/v1/events", "listEvents", "Events, newest first"), api::list_events),
            Route::get(
                ("/v1/events/stream", "streamActivity", "What happens, as it happens: server-sent events"),
                stream::stream_activity,
            )
            .stream::<types::Activity>()
            .header("Last-Event-ID", LAST_EVENT_ID)
            .refuses(&["cursor_pruned", "too_many_streams"]),
            show_event(),
            Route::delete(
                ("/v1/events/{id}", "forgetEvent", "Removes for good what an event and its runs said"),
                api::forget_event,
            )
            .by(OWNERS)
            .refuses(&["runs_unfinished", "folder_stays"]),
            event_body(),
            Route::get(
                ("/v1/events/{id}/explain", "explainEvent", "Why an event started what it started, and nothing else"),
                api::explain_event,
            ),
            Route::post(
                ("/v1/events/{id}/replay", "replayEvent", "Carries an event out once more"),
                once::once(api::replay_event, &[]),
            )
            .by(OWNERS)
            .refuses(&["forgotten"]),
            Route::post(
                ("/v1/triggers/test", "testTrigger", "What a trigger says to stored events; starts nothing"),
                api::test_trigger,
            )
            .by(&["owner", "viewer"]),
        ],
    )
}

fn show_event() -> Route {
    Route::get(("/v1/events/{id}", "getEvent", "An event with outcomes and headers"), api::show_event).by_lease()
}

fn event_body() -> Route {
    Route::get(("/v1/events/{id}/body", "getEventBody", "The body of an event, byte for byte"), api::event_body)
        .by_lease()
        .content(StatusCode::OK, "application/octet-stream")
        .refuses(&["forgotten"])
}

/// Many events that are carried out once more.
fn replays() -> Vec<Route> {
    group(
        "replays",
        vec![
            Route::get(("/v1/replays", "listReplays", "Replays, newest first"), api::list_replays).by(OWNERS),
            Route::post(
                (
                    "/v1/replays",
                    "startReplay",
                    "Carries out once more all events that a filter finds, or says how many",
                ),
                once::once(api::replay_events, &[]),
            )
            .by(OWNERS)
            .json::<types::ReplayPreview>(StatusCode::OK)
            .json::<types::Replay>(StatusCode::ACCEPTED),
            Route::get(("/v1/replays/{id}", "getReplay", "A replay"), api::show_replay).by(OWNERS),
            Route::post(("/v1/replays/{id}/cancel", "cancelReplay", "Ends a replay"), api::cancel_replay)
                .by(OWNERS)
                .refuses(&["replay_over"]),
        ],
    )
}

/// What is done with runs.
fn runs() -> Vec<Route> {
    group(
        "runs",
        vec![
            Route::get(("/v1/runs", "listRuns", "Runs, newest first, without their results"), api::list_runs),
            Route::get(
                ("/v1/runs/dead-letters", "listDeadLetters", "Dead letters by agent and cause"),
                api::list_dead_letters,
            ),
            Route::post(("/v1/runs/cancel", "cancelRuns", "Ends all runs that a filter finds"), api::cancel_runs)
                .by(CHANGERS),
            Route::post(
                ("/v1/runs/release", "releaseRuns", "Lets all runs go on that a filter finds"),
                api::release_runs,
            )
            .by(CHANGERS),
            Route::post(
                ("/v1/runs/retry", "retryRuns", "Queues all runs once more that a filter finds"),
                api::retry_runs,
            )
            .by(CHANGERS),
            show_run(),
            Route::get(
                (
                    "/v1/runs/{id}/logs",
                    "getRunLog",
                    "The log of a run; with `follow=true` as it grows: server-sent events",
                ),
                stream::run_log,
            )
            .json::<types::Log>(StatusCode::OK)
            .stream::<stream::LogMessage>()
            .header("Last-Event-ID", LAST_EVENT_ID)
            .refuses(&["too_many_streams"]),
            Route::post(("/v1/runs/{id}/cancel", "cancelRun", "Ends a run"), api::cancel_run).by(CHANGERS),
            Route::post(
                ("/v1/runs/{id}/release", "releaseRun", "Lets a run go on that is held or waits for its next try"),
                api::release_run,
            )
            .by(CHANGERS)
            .refuses(&["not_held", "agent_missing", "agent_paused"]),
            Route::post(("/v1/runs/{id}/retry", "retryRun", "Queues a run once more that ended badly"), api::retry_run)
                .by(CHANGERS)
                .refuses(&["not_failed", "overtaken", "forgotten", "agent_missing"]),
            Route::post(("/v1/runs/{id}/answer", "answerRun", "Answers what a run asks"), waits::answer)
                .by(OWNERS)
                .refuses(&["not_asking", "agent_missing"]),
        ],
    )
}

fn show_run() -> Route {
    Route::get(("/v1/runs/{id}", "getRun", "A run with its tries and its result"), api::show_run).by_lease()
}

/// Agents and their pauses.
fn agents() -> Vec<Route> {
    group(
        "agents",
        vec![
            Route::get(("/v1/agents", "listAgents", "Agents by name"), api::list_agents),
            Route::get(("/v1/agents/{name}", "getAgent", "An agent, and what was declared of it"), api::show_agent)
                .json::<types::AgentDetail>(StatusCode::OK),
            Route::put(
                ("/v1/agents/{name}", "declareAgent", "Declares an agent; the same again changes nothing"),
                api::declare_agent,
            )
            .by(CHANGERS)
            .json::<types::AgentDetail>(StatusCode::OK)
            .json::<types::AgentDetail>(StatusCode::CREATED)
            .header("If-Match", IF_MATCH)
            .header("If-None-Match", IF_NONE_MATCH)
            .refuses(&["managed_by_file", "too_many_agents", "precondition_failed", "invalid_agent"]),
            Route::patch(
                (
                    "/v1/agents/{name}",
                    "amendAgent",
                    "Changes some keys of a declaration: a JSON merge patch (RFC 7396)",
                ),
                api::amend_agent,
            )
            .by(CHANGERS)
            .json::<types::AgentDetail>(StatusCode::OK)
            .header("If-Match", IF_MATCH)
            .refuses(&["managed_by_file", "precondition_failed", "invalid_agent"]),
            Route::delete(
                ("/v1/agents/{name}", "removeAgent", "Takes a declaration back; runs that wait are held"),
                api::remove_agent,
            )
            .by(OWNERS)
            .header("If-Match", IF_MATCH)
            .refuses(&["managed_by_file", "precondition_failed"]),
            run_agent(),
            Route::post(("/v1/agents/{name}/pause", "pauseAgent", "Holds what an agent has to do"), api::pause_agent)
                .by(CHANGERS),
            Route::post(("/v1/agents/{name}/resume", "resumeAgent", "Lets an agent go on"), api::resume_agent)
                .by(CHANGERS)
                .refuses(&["not_paused"]),
            Route::post(("/v1/pause", "pauseAll", "Holds what all agents have to do"), api::pause_all).by(OWNERS),
            Route::post(("/v1/resume", "resumeAll", "Lets all agents go on"), api::resume_all)
                .by(OWNERS)
                .refuses(&["not_paused"]),
        ],
    )
}

fn run_agent() -> Route {
    Route::post(("/v1/agents/{name}/run", "runAgent", "Starts an agent"), api::run_agent)
        .status(StatusCode::ACCEPTED)
        .by(&["owner", "agent", "run"])
        .by_lease()
        .header("Idempotency-Key", once::SAID)
        .refuses(&[
            "agent_disabled",
            "queue_full",
            "not_started",
            "call_cycle",
            "call_too_deep",
            "idempotency_mismatch",
        ])
}

/// Where events come from.
fn sources() -> Vec<Route> {
    group(
        "sources",
        vec![
            Route::get(("/v1/sources", "listSources", "Sources by name"), api::list_sources),
            Route::get(
                (
                    "/v1/sources/{name}/deliveries",
                    "listDeliveries",
                    "What came to a source, accepted and refused, newest first",
                ),
                api::list_deliveries,
            ),
            Route::get(
                (
                    "/v1/sources/{name}/captured",
                    "getCapturedSecret",
                    "The secrets that a sender showed when it was set up",
                ),
                api::captured_secret,
            )
            .by(OWNERS),
            Route::delete(
                ("/v1/sources/{name}/captured", "forgetCapturedSecret", "Forgets them"),
                api::forget_captured_secret,
            )
            .by(OWNERS)
            .status(StatusCode::NO_CONTENT),
            Route::post(
                ("/v1/sources/{name}/pause", "pauseSource", "Takes what comes and holds the runs that it would start"),
                api::pause_source,
            )
            .by(OWNERS),
            Route::post(("/v1/sources/{name}/resume", "resumeSource", "Lets them go on"), api::resume_source)
                .by(OWNERS)
                .refuses(&["not_paused"]),
        ],
    )
}

/// Webhooks that are made at run time.
// tidy: allow long function: a table
fn webhooks() -> Vec<Route> {
    let changers: &[&str] = &["owner", "agent", "run"];
    let locked = &["master_key_unavailable"];
    group(
        "webhooks",
        vec![
            Route::get(
                (
                    "/v1/agents/{name}/webhooks",
                    "listWebhooks",
                    "The webhooks of an agent, oldest first, never a secret",
                ),
                api::list_webhooks,
            ),
            Route::post(
                ("/v1/agents/{name}/webhooks", "createWebhook", "Makes a webhook; its secret is shown this once"),
                once::once(api::create_webhook, &["signingSecret"]),
            )
            .status(StatusCode::CREATED)
            .by(changers)
            .refuses(&["too_many_webhooks"])
            .refuses(locked),
            Route::delete(
                (
                    "/v1/agents/{name}/webhooks/{id}",
                    "deactivateWebhook",
                    "Deactivates a webhook: its URL answers with 404 from then on",
                ),
                api::delete_webhook,
            )
            .by(changers),
            Route::post(
                ("/v1/agents/{name}/webhooks/{id}/activate", "activateWebhook", "Lets it take deliveries again"),
                api::activate_webhook,
            )
            .by(changers)
            .refuses(&["too_many_webhooks"]),
            Route::post(
                (
                    "/v1/agents/{name}/webhooks/{id}/rotate",
                    "rotateWebhook",
                    "Replaces its secret; the new one is shown this once",
                ),
                once::once(api::rotate_webhook, &["signingSecret"]),
            )
            .by(changers)
            .refuses(&["overlap_full"])
            .refuses(locked),
            Route::get(
                (
                    "/v1/agents/{name}/webhooks/{id}/deliveries",
                    "listWebhookDeliveries",
                    "What came to it, newest first",
                ),
                api::webhook_deliveries,
            ),
            Route::post(
                ("/v1/agents/{name}/webhooks/{id}/test", "testWebhook", "Sends it a signed sample"),
                api::test_webhook,
            )
            .by(changers)
            .refuses(&["webhook_inactive", "cannot_sign", "not_reached"])
            .refuses(locked),
            Route::post(("/v1/secrets/rekey", "rekey", "Seals all stored secrets with a new master key"), api::rekey)
                .by(OWNERS)
                .refuses(locked),
            Route::patch(
                ("/agents/{name}", "setOwnWebhook", "Sets an agent's own webhook; a secret is shown when it is made"),
                api::set_own_webhook,
            )
            .by(changers)
            .refuses(&["overlap_full"])
            .refuses(locked),
            Route::get(
                (
                    "/agents/{name}/executions/{id}",
                    "getExecution",
                    "A run, as whoever started it over the agent's own webhook asks for it",
                ),
                api::show_execution,
            ),
        ],
    )
}

/// Runs that are carried out elsewhere.
fn workers() -> Vec<Route> {
    let poll = Route::post(("/v1/worker/poll", "pollRuns", "Waits for runs of a worker's agents"), leases::poll)
        .by(CHANGERS)
        .refuses(&["not_found", "no_workers", "agent_out_of_force"]);
    let mut all = vec![poll];
    all.extend(told());
    group("workers", all)
}

/// What whoever has the lease of a run tells of it.
fn told() -> Vec<Route> {
    let carriers: &[&str] = &["owner", "agent", "run"];
    let of_lease = |route: Route| route.by(carriers).refuses(&["lease_lost"]);
    vec![
        of_lease(Route::post(
            ("/v1/runs/{id}", "endRun", "How a run ended: with an `error` badly, else well"),
            leases::end_run,
        )),
        of_lease(Route::post(("/v1/runs/{id}/complete", "completeRun", "A run is done"), leases::complete_run)),
        of_lease(Route::post(("/v1/runs/{id}/fail", "failRun", "A run failed"), leases::fail_run)),
        of_lease(Route::post(("/v1/runs/{id}/heartbeat", "heartbeat", "Keeps a lease"), leases::heartbeat)),
        of_lease(Route::post(
            ("/v1/runs/{id}/logs", "appendLog", "Adds lines to the log of a run"),
            leases::append_lines,
        )),
        of_lease(Route::post(("/v1/runs/{id}/sleep", "sleepRun", "Gives a run back until a time"), waits::sleep)),
        of_lease(Route::post(
            ("/v1/runs/{id}/wait", "waitRun", "Gives a run back until an event, or the end of another run"),
            waits::wait,
        )),
        of_lease(Route::post(("/v1/runs/{id}/ask", "askRun", "Gives a run back until a person answers"), waits::ask)),
        of_lease(Route::get(
            ("/v1/runs/{id}/steps/{key}", "getStep", "What a step of a run came to"),
            waits::show_step,
        )),
        of_lease(Route::put(
            ("/v1/runs/{id}/steps/{key}", "putStep", "Keeps what a step came to, once"),
            waits::put_step,
        ))
        .refuses(&["step_differs", "steps_full"]),
    ]
}

/// Keys, and the gateway itself.
fn gateway() -> Vec<Route> {
    group(
        "gateway",
        vec![
            Route::get(("/v1/keys", "listKeys", "API keys, oldest first, never a secret"), api::list_keys).by(OWNERS),
            Route::post(
                ("/v1/keys", "createKey", "Makes an API key, and shows it this once"),
                once::once(api::create_key, &["key"]),
            )
            .status(StatusCode::CREATED)
            .by(OWNERS),
            Route::delete(("/v1/keys/{id}", "removeKey", "Removes an API key"), api::remove_key).by(OWNERS),
            Route::get(("/v1/stats", "getStats", "What is going on, in numbers"), api::stats),
            Route::post(
                ("/v1/notifications/test", "testNotifications", "Sends a sample to everybody who is told of problems"),
                api::test_notifications,
            )
            .by(OWNERS),
            Route::post(
                ("/v1/backup", "copyStore", "Copies the store into a file of the gateway's machine"),
                api::copy_store,
            )
            .by(OWNERS)
            .refuses(&["copy_failed"]),
            Route::any(
                ("/mcp", "mcp", "The same operations as tools for agents: the Model Context Protocol"),
                mcp::answer,
            )
            .by(ANY_KEY)
            .body("A message of JSON-RPC.")
            .json::<Value>(StatusCode::OK)
            .json::<Value>(StatusCode::BAD_REQUEST)
            .empty(StatusCode::ACCEPTED)
            .refuses(&[
                "invalid_request",
                "not_from_here",
                "not_acceptable",
                "body_too_large",
                "content_type",
                "mcp_failed",
            ]),
            Route::get(("/v1/audit", "listAudit", "Changes that were asked for, newest first"), audit::list).by(OWNERS),
            Route::get(
                ("/v1/audit/export", "exportAudit", "All of them, each as JSON on a line of its own"),
                audit::export,
            )
            .by(OWNERS)
            .content(StatusCode::OK, "application/x-ndjson"),
        ],
    )
}

/// What anybody may ask under whatever name the gateway has.
pub(super) fn ready() -> Vec<Route> {
    group(
        "gateway",
        vec![
            Route::get(
                (
                    "/readyz",
                    "isReady",
                    "Whether deliveries are taken: the store can be reached, and the gateway does not shut down",
                ),
                api::readyz,
            )
            .refuses(&["closing"]),
        ],
    )
}

/// What anybody may ask of the gateway, on either address.
pub(super) fn open() -> Vec<Route> {
    let mut all =
        vec![Route::get(("/healthz", "isHealthy", "Whether the gateway runs, and which start of it"), api::healthz)];
    all.extend(pages::errors());
    group("gateway", all)
}

/// What senders reach.
fn deliveries() -> Vec<Route> {
    const BODY: &str = "As the provider sends it: JSON, a form, anything. The signature is of the bytes.";
    let taken = |route: Route| route.json::<types::Receipt>(StatusCode::OK);
    let greeted = |route: Route| route.content(StatusCode::OK, "text/plain");
    let own = Route::any(
        ("/agents/{name}/webhook", "startByWebhook", "Starts an agent by its own webhook"),
        ingest::by_agent,
    )
    .json::<types::Success<types::StartedExecution>>(StatusCode::OK)
    .body("The input of the run.")
    .refuses(&["not_started", "rate_limited", "too_many_executions"]);
    let get = Method::GET;
    let all = vec![
        taken(Route::any(
            (
                "/webhooks/{provider}",
                "deliverToProvider",
                "A delivery to all sources of a provider whose secret verifies it",
            ),
            ingest::by_provider,
        ))
        .body(BODY),
        greeted(Route::also(
            get.clone(),
            ("/webhooks/{provider}", "greetProvider", "A handshake, of providers that ask by GET"),
            ingest::by_provider,
        )),
        taken(Route::any(
            ("/v1/webhooks/{provider}/{source}", "deliverToSource", "A delivery to one source"),
            ingest::by_source,
        ))
        .body(BODY),
        greeted(Route::also(
            get,
            ("/v1/webhooks/{provider}/{source}", "greetSource", "A handshake, of providers that ask by GET"),
            ingest::by_source,
        )),
        taken(Route::any(
            ("/v1/hooks/{id}", "deliverToWebhook", "A delivery to a webhook that was made at run time"),
            ingest::by_hook,
        ))
        .body(BODY),
        own,
    ];
    let answered_in_their_words = |route: Route| {
        let route = route.content(StatusCode::OK, "text/xml").empty(StatusCode::NO_CONTENT);
        let route = route.content(StatusCode::ACCEPTED, "text/plain");
        let route = route.refuses(&["not_found", "method_not_allowed", "signature_missing", "signature_mismatch"]);
        let route = route.refuses(&["timestamp_out_of_range", "body_unreadable", "body_broken", "body_too_slow"]);
        let route = route.refuses(&["body_too_large", "content_encoding", "content_type", "too_many_secrets"]);
        let route = route.refuses(&["certificate_unavailable", "secret_not_kept", "secret_unavailable"]);
        let route =
            route.refuses(&["store_unavailable", "over_budget", "closing", "rate_limited", "too_many_failures"]);
        route.refuses_as(StatusCode::TOO_MANY_REQUESTS, "queue_full")
    };
    group("deliveries", all.into_iter().map(answered_in_their_words).collect())
}

/// On the address for senders.
pub(super) fn for_senders() -> Vec<Route> {
    [deliveries(), open()].into_iter().flatten().collect()
}

/// On the address for everything else.
pub(super) fn for_management() -> Vec<Route> {
    [events(), replays(), runs(), agents(), sources(), webhooks(), workers(), gateway(), group("gateway", pages::api())]
        .into_iter()
        .flatten()
        .collect()
}

/// What agents behind a URL reach on the address for senders, by the token of their run.
pub(super) fn by_token() -> Vec<Route> {
    [told(), vec![show_run(), show_event(), event_body(), run_agent()]].into_iter().flatten().collect()
}

/// Metrics, by who may look.
pub(super) fn metrics(open: bool) -> Vec<Route> {
    const SAID: (&str, &str, &str) = (
        "/metrics",
        "getMetrics",
        "Metrics, as Prometheus reads them; without a key on loopback and on `admin_listen` only",
    );
    let route = if open { Route::get(SAID, api::metrics_for_all) } else { Route::get(SAID, api::metrics) };
    group("gateway", vec![route.content(StatusCode::OK, "application/openmetrics-text")])
}

/// All of them, as the document has them.
pub(super) fn all() -> Vec<Route> {
    let admin = for_management().into_iter().chain(ready()).chain(metrics(false));
    for_senders().into_iter().chain(admin).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn named(routes: Vec<Route>) -> BTreeSet<(String, String)> {
        routes.into_iter().map(|route| (route.method.as_str().to_lowercase(), route.path.to_owned())).collect()
    }

    #[test]
    fn every_route_of_every_address_is_in_the_document() {
        let document = crate::http::openapi();
        let operations = document["paths"].as_object().unwrap().iter().flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(|method| (method.clone(), path.clone()))
        });
        let documented: BTreeSet<(String, String)> = operations.collect();
        let served = [for_senders(), for_management(), ready(), by_token(), metrics(true), metrics(false)];
        let served = named(served.into_iter().flatten().collect());
        assert_eq!(served, documented);
        assert!(served.len() > 70, "{}", served.len());
    }

    /// Else one could be served without being in the table.
    #[test]
    fn only_a_route_of_the_table_puts_a_path_into_a_router() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
        let mut files = vec![folder.with_extension("rs")];
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
            let (inner, found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
            folders.extend(inner);
            files.extend(found);
        }
        let named =
            ["route(", "route_service(", "nest(", "nest_service(", "fallback_service("].map(|name| format!(".{name}"));
        for file in files.iter().filter(|file| !file.ends_with("http/route.rs") && !file.ends_with("http/server.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let found = named.iter().find(|name| code.contains(name.as_str()));
            assert!(found.is_none(), "{} serves a path past the table: {found:?}", file.display());
        }
        assert!(files.len() > 20);
    }

    #[test]
    fn what_is_said_of_a_route_is_said_of_each() {
        let all = all();
        let ids: BTreeSet<&str> = all.iter().map(|route| route.id).collect();
        assert_eq!(ids.len(), all.len(), "two routes have one id");
        for route in &all {
            assert!(!route.summary.is_empty() && !route.summary.ends_with('.') && !route.tag.is_empty(), "{route:?}");
        }
    }

    #[test]
    fn every_operation_names_its_success_and_no_reference_leads_nowhere() {
        let document = crate::http::openapi();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap();
                assert!(answers.keys().any(|status| status.starts_with('2')), "{method} {path}");
                let body = answers.iter().find(|(status, _)| status.starts_with('2')).unwrap().1;
                let described = body.get("content").is_some() || answers.contains_key("204");
                assert!(described, "{method} {path} does not say what it answers");
            }
        }
        let text = document.to_string();
        for (at, start) in text.match_indices("\"#/components/") {
            let name = text[at + start.len()..].split('"').next().unwrap();
            assert!(document.pointer(&format!("/components/{name}")).is_some(), "{name}");
        }
    }
}
