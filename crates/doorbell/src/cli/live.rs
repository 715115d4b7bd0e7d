//! What happens in a gateway, line by line as it happens: for `dev` and `demo`.

use std::collections::{BTreeSet, HashMap};
use std::io;

use doorbell_client::Client;
use doorbell_client::api::{self, Activity};

use super::output::{self, escape_terminal, line, wrap};
use super::time::Clock;
use crate::clock;

/// Says what happens.
#[derive(Debug)]
pub(super) struct Live {
    /// Asked why an event matched.
    client: Client,
    /// One object a line, instead of what people read.
    json: bool,
    /// The agents of runs that are not over.
    agents: HashMap<String, String>,
    /// Those of them whose tries were said to have started.
    started: HashMap<String, u32>,
    /// The newest runs whose end was said.
    ended: BTreeSet<String>,
}

impl Live {
    pub(super) fn new(client: Client, json: bool) -> Self {
        Self { client, json, agents: HashMap::new(), started: HashMap::new(), ended: BTreeSet::new() }
    }

    /// Says one thing that happened.
    pub(super) async fn say(&mut self, activity: &Activity) -> anyhow::Result<()> {
        if self.json {
            return output::json_line(activity);
        }
        Ok(self.describe(activity).await?)
    }

    async fn describe(&mut self, activity: &Activity) -> io::Result<()> {
        match activity {
            Activity::Event { event } => {
                say_event(event)?;
                // Without an answer, the outcomes say enough.
                let why = self.client.explain(&event.id).await;
                say_matches(event, &why.map(|why| why.verdicts).unwrap_or_default())
            }
            Activity::Duplicate { event } => say(
                "again",
                &event.received_at,
                &format!("{} {}: delivered again, {} in all", event.event_type, event.id, event.duplicates),
            ),
            Activity::Rejected { delivery } => {
                let code = delivery.code.as_deref().unwrap_or_default();
                let detail = delivery.detail.as_deref().unwrap_or_default();
                let more = match delivery.repeated {
                    0 => String::new(),
                    n => format!(" (and {n} more)"),
                };
                say("rejected", &delivery.at, &format!("{} {code}: {detail}{more}", delivery.source))
            }
            Activity::Run { run } => self.say_run(run),
            Activity::Config { reload } => say_reload(reload),
            Activity::Log { run_id, line: log } => {
                let whose = self.whose(run_id).await;
                say(&format!("  {}", log.stream), &log.at, &format!("{whose}  {}", log.text))
            }
        }
    }

    /// Whose line of a log it is: the agent, and as much of the run's id as tells its runs apart.
    async fn whose(&mut self, run_id: &str) -> String {
        if !self.agents.contains_key(run_id)
            && let Ok(detail) = self.client.run(run_id).await
        {
            if self.ended.contains(run_id) {
                return tag(&detail.run.agent, run_id);
            }
            self.agents.insert(run_id.to_owned(), detail.run.agent);
        }
        tag(self.agents.get(run_id).map_or("?", String::as_str), run_id)
    }

    fn say_run(&mut self, run: &api::Run) -> io::Result<()> {
        // A run that waits again has begun before; it waits since now.
        let waits_again = run.finished_at.is_none() && run.state != "running" && run.started_at.is_some();
        let now = waits_again.then(|| clock::now().to_string());
        let at = now.as_ref().or(run.finished_at.as_ref()).or(run.started_at.as_ref()).unwrap_or(&run.created_at);
        if run.finished_at.is_none() && !self.agents.contains_key(&run.id) {
            self.agents.insert(run.id.clone(), run.agent.clone());
        }
        if run.state == "running" {
            if self.started.insert(run.id.clone(), run.attempt) != Some(run.attempt) {
                let again = if run.attempt > 1 { format!(", try {}", run.attempt) } else { String::new() };
                say("started", at, &format!("{} {}{again}", run.agent, run.id))?;
            }
            return Ok(());
        }
        if run.finished_at.is_some() && !self.ends(&run.id) {
            return Ok(());
        }
        let reason = run.reason.as_deref().filter(|reason| *reason != run.state);
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        say(&run.state, at, &format!("{} {}{reason}", run.agent, run.id))?;
        match &run.result {
            Some(result) => say("result", at, &result.to_string()),
            None => Ok(()),
        }
    }

    /// Forgets a run that is over, but for its end. Whether that was not said yet.
    fn ends(&mut self, run_id: &str) -> bool {
        self.agents.remove(run_id);
        self.started.remove(run_id);
        let first = self.ended.insert(run_id.to_owned());
        // Ids are in the order of time, so the first is the oldest.
        if self.ended.len() > MOST_ENDED {
            self.ended.pop_first();
        }
        first
    }
}

/// Runs whose end is remembered, so that it is said once.
const MOST_ENDED: usize = 1000;

fn say_reload(reload: &api::Reload) -> io::Result<()> {
    match &reload.error {
        None if reload.changes.is_empty() => say("config", &reload.at, "read again: it says what is in force"),
        None => reload.changes.iter().try_for_each(|change| say("config", &reload.at, change)),
        Some(error) => {
            say("config", &reload.at, "what is saved now cannot be used, so the earlier configuration stays:")?;
            error.lines().try_for_each(|problem| line(escape_terminal(problem)))
        }
    }
}

fn say_event(event: &api::Event) -> io::Result<()> {
    let at = &event.received_at;
    let subject = event.context.get("title").and_then(|title| title.as_str());
    let subject = subject.map(|title| format!(" “{title}”")).unwrap_or_default();
    say("received", at, &format!("{} on {}{subject} ({} bytes)", event.event_type, event.source, event.body_size))?;
    match &event.verified_by {
        Some(instance) => say("verified", at, &format!("signed with the secret of credential `{instance}`"))?,
        None => say("unsigned", at, "this source takes unsigned deliveries")?,
    }
    say("stored", at, &event.id)?;
    Ok(())
}

/// Which triggers matched, by which filters, and what came of it.
fn say_matches(event: &api::Event, verdicts: &[api::Verdict]) -> io::Result<()> {
    let at = &event.received_at;
    for verdict in verdicts.iter().filter(|verdict| verdict.matched) {
        let filters = verdict.clauses.iter().map(|clause| format!("{} = {}", clause.field, clause.wanted.join(" | ")));
        let filters = filters.collect::<Vec<_>>().join(", ");
        let filters = if filters.is_empty() { "it takes every event of the source".to_owned() } else { filters };
        say("matched", at, &format!("{} by trigger #{}: {filters}", verdict.agent, verdict.trigger + 1))?;
    }
    for outcome in event.outcomes.iter().filter(|outcome| outcome.outcome != "started") {
        let run = outcome.run_id.as_ref().map(|run| format!(" {run}")).unwrap_or_default();
        let reason = outcome.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        say(&outcome.outcome, at, &format!("{}{run}{reason}", outcome.agent))?;
    }
    if event.handshake {
        say("ping", at, handshake_proves(event.verified_by.is_some()))?;
    } else if event.outcomes.is_empty() {
        say("no agent", at, &format!("wanted it: `doorbell why {}` says why", event.id))?;
    }
    Ok(())
}

/// What a delivery says that a provider sends when a webhook is set up.
pub(super) fn handshake_proves(verified: bool) -> &'static str {
    if verified {
        "the sender reaches this gateway, and its signature is right"
    } else {
        "the sender reaches this gateway"
    }
}

/// An agent and the end of a run's id.
fn tag(agent: &str, run_id: &str) -> String {
    let (start, _) = run_id.char_indices().nth_back(5).unwrap_or_default();
    format!("{agent} …{}", &run_id[start..])
}

/// One line: when, what, and the rest.
pub(super) fn say(what: &str, at: &str, rest: &str) -> io::Result<()> {
    let start = format!("{}  {what:<10}  ", Clock::time_of_day(at));
    let width = output::terminal_width().map_or(usize::MAX, |width| width.saturating_sub(start.chars().count()));
    let indent = format!("\n{}", " ".repeat(start.chars().count()));
    line(format!("{start}{}", wrap(&escape_terminal(rest), width).join(&indent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_runs_does_not_grow_with_them() {
        let mut live = Live::new(Client::new("http://127.0.0.1:1", None).expect("a URL"), false);
        for n in 0..3 * MOST_ENDED {
            let run = format!("run_{n:08}");
            live.agents.insert(run.clone(), "triage".to_owned());
            live.started.insert(run.clone(), 1);
            assert!(live.ends(&run) && !live.ends(&run), "it is said once");
        }
        assert_eq!((live.agents.len(), live.started.len(), live.ended.len()), (0, 0, MOST_ENDED));
    }

    #[test]
    fn a_line_of_a_log_says_whose_it_is() {
        assert_eq!(tag("triage", "run_01K0000000000000000ABCDEF"), "triage …ABCDEF");
        assert_eq!(tag("triage", "run"), "triage …run", "whatever the id looks like");
    }
}
