//! Agents that are declared through the API: shown, declared, changed, removed.
//!
//! A change takes its turn with reloads: it is read with the files in force, stored, and then put in force as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use doorbell_client::api;
use doorbell_core::provider::encode_hex;
use serde_json::{Map, Value};

use super::{Error, agents};
use crate::app::{App, Caller, Notice, Reload, Snapshot, Turn, note_declared};
use crate::clock;
use crate::config::{ACCOUNT, Config, Declaration, Declared, Flaw};
use crate::dispatch::Dispatcher;
use crate::store::{self, RunQuery};

/// The largest definition, in bytes of JSON.
const LARGEST: usize = 256 * 1024;
/// Agents that can be declared.
const MOST: usize = 1000;
/// The same of one account.
const MOST_OF_ACCOUNT: usize = 200;
/// Names of agents that an account may take, over time: they stay its own.
const MOST_NAMES: usize = 5000;
/// What a key of an agent may not change: it would hear of what its owner did not give it, or start others.
const OWNERS: [&str; 5] = ["webhooks", "runtime", "mayCall", "may_call", ACCOUNT];

/// A change that is asked for.
#[derive(Debug)]
pub struct Change<'a> {
    /// The agent.
    pub agent: &'a str,
    /// Who asks.
    pub caller: &'a Caller,
    /// `If-Match`: what is declared of it must have one of these etags.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`: what is declared of it must have none of these etags; `*`: nothing may be declared.
    pub if_none_match: Option<&'a str>,
}

/// One agent, with what was declared of it.
///
/// # Errors
/// If there is none, or not for this caller.
pub fn show(app: &App, dispatcher: &Dispatcher, caller: &Caller, name: &str) -> Result<api::AgentDetail, Error> {
    let in_force = app.current();
    let agent = agents::find(app, dispatcher, &in_force, caller, name).ok_or(Error::NotFound("agent"))?;
    let declared = in_force.config.declared.get(name);
    let declaration = declared.map(|declared| {
        let Declaration { definition, created_by, created_at, updated_by, updated_at } = declared.declaration.clone();
        api::Declaration {
            etag: etag(&definition),
            definition: if caller.is_owner() { definition } else { without_path(definition) },
            created_by,
            created_at: created_at.to_string(),
            updated_by,
            updated_at: updated_at.to_string(),
            warnings: declared.warnings.clone(),
        }
    });
    Ok(api::AgentDetail { agent, declaration })
}

/// Declares an agent as a whole; whether there was none. The same declaration again changes nothing.
///
/// # Errors
/// If the caller may not, it is a file's, its etag is another one, or anything is wrong with it.
pub async fn declare(
    app: &App,
    dispatcher: &Dispatcher,
    change: Change<'_>,
    definition: Map<String, Value>,
) -> Result<(api::AgentDetail, bool), Error> {
    let mut whole = Map::new();
    merge(&mut whole, definition);
    let created = put(app, &change, |_| Ok(whole)).await?;
    Ok((show(app, dispatcher, change.caller, change.agent)?, created))
}

/// Changes some keys of what is declared, as a JSON merge patch (RFC 7396).
///
/// # Errors
/// As [`declare`], and if nothing is declared.
pub async fn amend(
    app: &App,
    dispatcher: &Dispatcher,
    change: Change<'_>,
    changes: Map<String, Value>,
) -> Result<api::AgentDetail, Error> {
    let merged = |before: Option<&Map<String, Value>>| {
        let mut whole = before.ok_or(Error::NotFound("agent"))?.clone();
        merge(&mut whole, changes);
        Ok(whole)
    };
    put(app, &change, merged).await?;
    show(app, dispatcher, change.caller, change.agent)
}

/// Removes what is declared of an agent: its runs that wait are held, as when the folder of an agent is removed.
///
/// # Errors
/// If the caller may not, there is none, it is a file's, or its etag is another one.
pub async fn remove(app: &App, change: Change<'_>) -> Result<api::RemovedAgent, Error> {
    check_caller(app, &change).await?;
    if matches!(change.caller, Caller::Agent(_)) {
        return Err(Error::NotAllowed("a key of an agent may not remove it: an owner does"));
    }
    let turn = app.in_force.turn().await;
    let old = app.current();
    let mut declarations = old.config.declarations();
    let Some(before) = declarations.remove(change.agent) else {
        return Err(refuse_file(&old.config, change.agent).err().unwrap_or(Error::NotFound("agent")));
    };
    check_etag(&change, Some(&before.definition))?;
    let config = read(app, &old, declarations).await?;
    let what = format!("agent {} is not declared any more", change.agent);
    put_in_force(app, &turn, config, note_declared(change.agent, None), what).await?;
    tracing::info!(agent = change.agent, by = change.caller.name(), "agent.declaration_removed");
    Ok(api::RemovedAgent { name: change.agent.to_owned(), removed_at: clock::now().to_string() })
}

/// Puts what `make` makes of what was declared in its place. Whether there was nothing.
async fn put(
    app: &App,
    change: &Change<'_>,
    make: impl FnOnce(Option<&Map<String, Value>>) -> Result<Map<String, Value>, Error>,
) -> Result<bool, Error> {
    check_caller(app, change).await?;
    let turn = app.in_force.turn().await;
    // It may have become somebody else's meanwhile.
    check_caller(app, change).await?;
    let old = app.current();
    refuse_file(&old.config, change.agent)?;
    let before = old.config.declared.get(change.agent).map(|declared| &declared.declaration);
    let said = before.map(|before| &before.definition);
    check_etag(change, said)?;
    let mut definition = make(said)?;
    set_account(app, change, &mut definition)?;
    check_owners(change.caller, said, &definition)?;
    let of_account = |declared: &&Declared| declared.declaration.definition.get(ACCOUNT) == definition.get(ACCOUNT);
    let (all, own) = (old.config.declared.len(), old.config.declared.values().filter(of_account).count());
    let too_many = all >= MOST || (definition.contains_key(ACCOUNT) && own >= MOST_OF_ACCOUNT);
    check_size(&definition, before.is_none() && too_many)?;
    if said == Some(&definition) && old.config.is_declared(change.agent) {
        return Ok(false);
    }
    let (by, now) = (change.caller.name(), clock::now());
    let (created_by, created_at) =
        before.map_or_else(|| (by.clone(), now), |before| (before.created_by.clone(), before.created_at));
    let declaration = Declaration { definition, created_by, created_at, updated_by: by.clone(), updated_at: now };
    let mut declarations = old.config.declarations();
    declarations.insert(change.agent.to_owned(), declaration.clone());
    let config = read(app, &old, declarations).await?;
    let flaws = config.declared.get(change.agent).map(|declared| declared.flaws.clone()).unwrap_or_default();
    if !flaws.is_empty() {
        return Err(Error::Flawed(flaws));
    }
    let created = before.is_none();
    let what = format!("agent {} was declared by {by}", change.agent);
    put_in_force(app, &turn, config, note_declared(change.agent, Some(&declaration)), what).await?;
    tracing::info!(agent = change.agent, by, created, "agent.declared");
    Ok(created)
}

/// Reads declarations with the files in force.
async fn read(app: &App, old: &Arc<Snapshot>, declarations: BTreeMap<String, Declaration>) -> Result<Config, Error> {
    let old = Arc::clone(old);
    let accounts = Arc::clone(&app.accounts);
    let work = move || old.base.clone().with_declared(declarations, |name| accounts.owner_of(name));
    let read = tokio::task::spawn_blocking(work).await;
    read.map_err(|error| Error::Store(store::Error::Unavailable(Box::new(error))))
}

/// First durable, then in force.
async fn put_in_force(
    app: &App,
    turn: &Turn<'_>,
    base: Config,
    notes: store::Notes,
    what: String,
) -> Result<(), Error> {
    let snapshot = app.prepare(base, turn).await?;
    app.store.note(notes).await?;
    let snapshot = app.in_force.amend(snapshot);
    let (generation, at) = (snapshot.generation, snapshot.loaded_at);
    app.activity.tell(|| Notice::Config(Arc::new(Reload { generation, at, changes: vec![what], error: None })));
    Ok(())
}

async fn check_caller(app: &App, change: &Change<'_>) -> Result<(), Error> {
    let caller = change.caller;
    let may = caller.may_see(change.agent) || (caller.is_owner() && is_free(app, change.agent).await?);
    if !may {
        return Err(Error::NotFound("agent"));
    }
    match caller.changes() {
        true => Ok(()),
        false => Err(Error::NotAllowed("this key may not declare agents")),
    }
}

/// Whether a name is nobody's: no agent has it or had it, so that nobody is shown what another agent of this name did.
async fn is_free(app: &App, agent: &str) -> Result<bool, Error> {
    if app.accounts.knows_agent(agent) || app.current().config.declared.contains_key(agent) {
        return Ok(false);
    }
    let query = RunQuery { agents: Some(vec![agent.to_owned()]), limit: 1, ..RunQuery::default() };
    Ok(app.store.runs(query).await?.is_empty())
}

/// What an account's owner declares is that account's.
fn set_account(app: &App, change: &Change<'_>, definition: &mut Map<String, Value>) -> Result<(), Error> {
    let Caller::Account { account, .. } = change.caller else { return Ok(()) };
    if !account.has_agent(change.agent) && app.accounts.count_agents(&account.name) >= MOST_NAMES {
        let detail = format!(
            "an account may take {MOST_NAMES} names for agents, those of removed ones among them: use one again"
        );
        return Err(Error::Conflict("too_many_agents", detail));
    }
    let own = Value::String(account.name.clone());
    match definition.insert(ACCOUNT.to_owned(), own.clone()) {
        Some(other) if other != own => {
            let message = format!("this key declares agents of the account `{}` only", account.name);
            Err(Error::Flawed(vec![Flaw { field: ACCOUNT.to_owned(), message, help: None }]))
        }
        _ => Ok(()),
    }
}

/// A key of an agent says how its agent is carried out, not what it hears of and whom it may start.
fn check_owners(caller: &Caller, before: Option<&Map<String, Value>>, after: &Map<String, Value>) -> Result<(), Error> {
    let worker = serde_json::json!({ "type": "worker" });
    let of = |definition: Option<&Map<String, Value>>, key: &str| match definition.and_then(|all| all.get(key)).cloned()
    {
        Some(Value::Array(list)) if list.is_empty() => None,
        None if key == "runtime" && before.is_none() => Some(worker.clone()),
        value => value,
    };
    let changes = |key: &str| of(before, key) != of(Some(after), key);
    match caller {
        Caller::Agent(_) if OWNERS.into_iter().any(changes) => Err(Error::NotAllowed(
            "a key of an agent may not set its `webhooks`, `runtime`, `mayCall` and `account`: an owner's key declares these first",
        )),
        _ => Ok(()),
    }
}

fn refuse_file(config: &Config, agent: &str) -> Result<(), Error> {
    match config.agents.contains_key(agent) && !config.is_declared(agent) {
        true => {
            let what = format!("agent `{agent}` is managed by its files in agents/{agent}/: change it there");
            Err(Error::Conflict("managed_by_file", what))
        }
        false => Ok(()),
    }
}

fn check_size(definition: &Map<String, Value>, too_many: bool) -> Result<(), Error> {
    let flaw = |message: String| Err(Error::Flawed(vec![Flaw { field: String::new(), message, help: None }]));
    match serde_json::to_string(definition).map_or(usize::MAX, |text| text.len()) {
        _ if too_many => {
            Err(Error::Conflict("too_many_agents", "as many agents are declared as can be: remove some".to_owned()))
        }
        size if size > LARGEST => flaw(format!("the declaration has {size} bytes: {LARGEST} can be")),
        _ => Ok(()),
    }
}

fn check_etag(change: &Change<'_>, before: Option<&Map<String, Value>>) -> Result<(), Error> {
    let now = before.map(etag);
    let has =
        |listed: &str, now: &str| listed.split(',').any(|one| matches!(one.trim(), one if one == "*" || one == now));
    if let (Some(unwanted), Some(now)) = (change.if_none_match, &now)
        && has(unwanted, now)
    {
        return Err(Error::Precondition(format!("it is declared already: its etag is {now}")));
    }
    let Some(wanted) = change.if_match else { return Ok(()) };
    match now {
        Some(now) if has(wanted, &now) => Ok(()),
        Some(now) => {
            Err(Error::Precondition(format!("it was changed meanwhile: its etag is {now}; look, and ask again")))
        }
        None => Err(Error::Precondition("nothing is declared of this agent".to_owned())),
    }
}

/// The same for the same definition, so that nobody who declares the same again is told of a change.
fn etag(definition: &Map<String, Value>) -> String {
    let text = serde_json::to_string(definition).unwrap_or_default();
    format!("\"{}\"", encode_hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..16]))
}

/// Lays `upper` over `lower`; a `null` takes a key away.
fn merge(lower: &mut Map<String, Value>, upper: Map<String, Value>) {
    for (key, value) in upper {
        match value {
            Value::Null => drop(lower.remove(&key)),
            Value::Object(upper) => {
                let below = lower.entry(key).or_insert(Value::Null);
                let mut merged = match below.take() {
                    Value::Object(below) => below,
                    _ => Map::new(),
                };
                merge(&mut merged, upper);
                *below = Value::Object(merged);
            }
            value => drop(lower.insert(key, value)),
        }
    }
}

/// The path of a URL may be a secret.
fn without_path(mut definition: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::String(url)) = definition.get_mut("runtime").and_then(|runtime| runtime.get_mut("url")) {
        let end = url.find("://").and_then(|at| Some(at + 3 + url[at + 3..].find(['/', '?', '#'])?));
        url.truncate(end.unwrap_or(url.len()));
    }
    definition
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_laid_over_a_definition_wins_and_null_takes_away() {
        let mut whole = object(json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1]}));
        merge(&mut whole, object(json!({"a": null, "b": {"c": null, "x": {"y": null}}, "e": [2], "n": null})));
        assert_eq!(Value::Object(whole), json!({"b": {"d": 2, "x": {}}, "e": [2]}));
    }

    #[test]
    fn a_key_of_an_agent_sets_nothing_that_is_its_owners() {
        let caller = Caller::Agent("a".to_owned());
        let before = object(json!({"webhooks": [{"source": "acme"}], "runtime": {"type": "worker"}, "scale": 1}));
        let may =
            |before: Option<&Map<String, Value>>, after: Value| check_owners(&caller, before, &object(after)).is_ok();
        let mut after = Value::Object(before.clone());
        after["scale"] = json!(4);
        assert!(may(Some(&before), after.clone()) && !may(None, after.clone()));
        assert!(may(None, json!({"runtime": {"type": "worker"}, "schedule": "0 * * * *", "webhooks": []})));
        for (key, value) in [
            ("webhooks", json!([{"source": "acme"}, {"source": "other"}])),
            ("runtime", json!({"type": "http", "url": "https://example.com"})),
            ("mayCall", json!(["other"])),
            ("may_call", json!(["other"])),
        ] {
            let mut after = after.clone();
            after[key] = value;
            assert!(!may(Some(&before), after), "{key}");
        }
        assert!(!may(None, json!({"runtime": {"type": "http", "url": "https://example.com"}})));
    }

    #[test]
    fn of_a_url_others_see_where_it_leads_and_no_more() {
        let shown = |url: &str| without_path(object(json!({"runtime": {"url": url}})))["runtime"]["url"].clone();
        assert_eq!(shown("https://a.example/b/c?d"), "https://a.example");
        assert_eq!(shown("https://a.example?d"), "https://a.example");
        assert_eq!(shown("https://a.example"), "https://a.example");
    }
}
