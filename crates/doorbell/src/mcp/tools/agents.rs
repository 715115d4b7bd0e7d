//! Agents: listed, started, paused; sources; what is going on.

use doorbell_client::api;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::app::Paused;
use crate::mcp::Desk;
use crate::mcp::tool::Effect::{Reads, Sets, Starts};
use crate::mcp::tool::Tool;
use crate::ops::starts::Once;
use crate::ops::{self, Error};

pub(in crate::mcp) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            ("agents_list", "List agents", Reads),
            "Lists the agents: how each is carried out, how many runs at once, the sources it listens to, its schedules, and whether it is \
             paused. An agent with `scale` 0 is disabled.",
            list,
        ),
        Tool::new(("agents_get", "Read an agent", Reads), "Reads one agent.", get),
        Tool::new(
            ("agents_run", "Start an agent", Starts),
            "Starts an agent by hand, with a prompt, data, or both. Answers the run: follow it with runs_get and runs_logs. With an \
             `idempotencyKey`, asking again gives the same run. A run's token may start the agents that its own agent `may_call`.",
            run,
        ),
        Tool::new(
            ("agents_pause", "Pause an agent", Sets),
            "Holds what an agent has to do until it is resumed: events are still taken and nothing is lost, but none of its runs starts. Runs \
             that are going on go on.",
            pause,
        ),
        Tool::new(
            ("agents_resume", "Resume an agent", Sets),
            "Ends the pause of an agent: what was held goes on, all at once or at a rate.",
            resume,
        ),
        Tool::new(
            ("sources_list", "List sources", Reads),
            "Lists the sources of events: provider, the URL that senders post to, whether signatures are verified, and what each secret verified.",
            sources,
        ),
        Tool::new(
            ("stats", "See what is going on", Reads),
            "Counts what is going on: runs of each agent by state, since when the oldest waits, pauses and throttles, events and deliveries, \
             whether the saved configuration is in force.",
            stats,
        ),
    ]
}

/// Nothing to say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// An agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Its name.
    agent: String,
}

async fn list(desk: Desk, _: Nothing) -> Result<api::AgentList, Error> {
    Ok(ops::agents::list(&desk.app, &desk.dispatcher, &desk.caller))
}

async fn get(desk: Desk, named: Named) -> Result<api::Agent, Error> {
    ops::agents::get(&desk.app, &desk.dispatcher, &desk.caller, &named.agent)
}

/// What is asked of which agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ask {
    /// Its name.
    agent: String,
    /// What is asked of it, in words.
    prompt: Option<String>,
    /// Data for it: any JSON.
    #[serde(default)]
    input: Value,
    /// Whoever asks again with the same one gets the same run: 1 to 200 characters.
    idempotency_key: Option<String>,
}

async fn run(desk: Desk, ask: Ask) -> Result<api::StartedRun, Error> {
    let wish = api::NewRun { prompt: ask.prompt, input: ask.input };
    let key = ask.idempotency_key.as_deref();
    let once = key.map(|key| Once { whose: &desk.whose, key });
    ops::starts::run(&desk.app, &desk.dispatcher, &desk.caller, &ask.agent, wish, once).await
}

/// Which agent, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Hold {
    /// Its name.
    agent: String,
    /// Why, for those who wonder.
    why: Option<String>,
}

async fn pause(desk: Desk, hold: Hold) -> Result<api::Pause, Error> {
    let wish = api::NewPause { why: hold.why };
    ops::pauses::pause(&desk.app, &desk.dispatcher, &desk.caller, Paused::Agent(hold.agent), wish).await
}

/// Which agent, and how fast.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GoOn {
    /// Its name.
    agent: String,
    /// How fast what was held goes on, such as 10/1m; without it all at once.
    rate: Option<String>,
}

async fn resume(desk: Desk, go_on: GoOn) -> Result<api::Resumed, Error> {
    let wish = api::NewResume { rate: go_on.rate };
    ops::pauses::resume(&desk.app, &desk.dispatcher, &desk.caller, Paused::Agent(go_on.agent), wish).await
}

async fn sources(desk: Desk, _: Nothing) -> Result<api::SourceList, Error> {
    Ok(ops::agents::sources(&desk.app, &desk.caller))
}

async fn stats(desk: Desk, _: Nothing) -> Result<api::Stats, Error> {
    ops::stats::get(&desk.app, &desk.dispatcher, &desk.caller).await
}
