//! What came to a webhook, and whether anything would.

use doorbell_client::{Answer, Sender, api};
use doorbell_core::event::event_type;
use doorbell_core::id::OfEvent;
use doorbell_core::provider::{Key, Provider, Sample, Unsent, find_sample};
use doorbell_core::time::Timestamp;

use super::super::{Error, page_size, view_rejection};
use super::{find, require_manager, require_seer};
use crate::app::{App, Caller};
use crate::clock;
use crate::store::{EventQuery, StoredEvent};

/// What came to a webhook, newest first: accepted, delivered again, refused.
///
/// # Errors
/// If there is no such webhook for this caller, or the store is unavailable.
pub async fn deliveries(
    app: &App,
    caller: &Caller,
    agent: &str,
    id: &str,
    limit: Option<usize>,
) -> Result<api::DeliveryList, Error> {
    let stored = app.store.webhooks().await?;
    require_seer(app, caller, agent, &stored)?;
    let source = find(app, caller, &stored, agent, id)?.webhook.id.to_string();
    let limit = page_size(limit)?;
    let query = EventQuery { source: Some(source.clone()), limit, ..EventQuery::default() };
    let events = app.store.events(query).await?;
    let rejected = app.store.rejections(Some(source), limit).await?.into_iter().map(view_rejection);
    let mut all: Vec<api::Delivery> = events.iter().flat_map(view_event).chain(rejected).collect();
    all.sort_by(|a, b| b.at.cmp(&a.at));
    all.truncate(limit);
    Ok(api::DeliveryList { deliveries: all })
}

/// An entry for the first delivery of an event, and one for all further ones of it: only how many they were is kept.
fn view_event(event: &StoredEvent) -> impl Iterator<Item = api::Delivery> {
    let entry = |status: &str, repeated| api::Delivery {
        at: event.received_at.to_string(),
        source: event.source.clone(),
        status: status.to_owned(),
        event_id: Some(event.id.to_string()),
        event_type: Some(event_type(&event.provider, &event.event, event.action.as_deref())),
        repeated,
        code: None,
        detail: None,
        remote: None,
    };
    let again = (event.duplicates > 0).then(|| entry("duplicate", event.duplicates));
    again.into_iter().chain([entry("accepted", 0)])
}

/// Sends a webhook a signed sample over HTTP, as its provider would, and says what became of it. It starts the agent.
///
/// # Errors
/// If there is no such webhook for this caller, it is not active, or nobody but its provider can sign for it.
pub async fn test(
    app: &App,
    caller: &Caller,
    agent: &str,
    id: &str,
    wish: api::WebhookTest,
) -> Result<api::WebhookTested, Error> {
    let stored = app.store.webhooks().await?;
    require_manager(app, caller, agent, &stored)?;
    let webhook = &find(app, caller, &stored, agent, id)?.webhook;
    let (name, in_force) = (webhook.id.to_string(), app.current());
    let Some(hook) = in_force.hooks.get(&name) else {
        let detail = format!("it is not active: `doorbell webhooks activate {agent} {name}` has it take deliveries");
        return Err(Error::Conflict("webhook_inactive", detail));
    };
    if let Some(why) = &hook.locked {
        return Err(Error::Locked(why.clone()));
    }
    let source = in_force.config.sources.get(&name).ok_or(Error::NotFound("webhook"))?;
    let provider = source.provider();
    // The newest secret stands first.
    let key = source.keys().first().map(|named| &named.key).filter(|key| can_sign(provider, key));
    let Some(key) = key else {
        let detail = format!("only {} can sign for it: have it send a test itself", provider.guide().title);
        return Err(Error::Conflict("cannot_sign", detail));
    };
    let sample = sample_of(provider, wish.event.as_deref())?;
    let began = clock::now();
    let (delivery, path) = (clock::new_id::<OfEvent>().to_string(), hook.path());
    let url = format!("{}{path}", app.public_url(&in_force));
    let unsent = Unsent { url: &url, ..Unsent::new(&sample.event, sample.body.to_string(), &delivery, began) };
    let signed = provider.sign(Some(key), unsent);
    let sent = async { Sender::new(&format!("{}{path}", app.local_url()))?.post(&signed.headers, signed.body).await };
    let sent = sent.await.map_err(|error| Error::Conflict("not_reached", error.to_string()))?;
    let mut tested = api::WebhookTested {
        webhook_id: name.clone(),
        event: sample.event.to_string(),
        status: sent.status,
        accepted: (200..300).contains(&sent.status),
        delivery_id: None,
        event_type: None,
        runs: Vec::new(),
        code: None,
        detail: None,
    };
    // Its protocol may want another answer than ours: what was stored says it.
    match sent.answer {
        Answer::Other(_) if tested.accepted => say_stored(app, &name, began, &mut tested).await?,
        answer => say_answered(answer, &mut tested),
    }
    Ok(tested)
}

fn sample_of<'p>(provider: &'p dyn Provider, event: Option<&str>) -> Result<&'p Sample, Error> {
    let samples = provider.samples();
    let found = event.map_or_else(|| samples.first(), |event| find_sample(samples, event));
    found.ok_or_else(|| {
        let names: Vec<&str> = samples.iter().map(|sample| &*sample.event).collect();
        Error::Invalid(format!("`event`: the samples of {} are {}", provider.name(), names.join(", ")))
    })
}

fn say_answered(answer: Answer, tested: &mut api::WebhookTested) {
    match answer {
        Answer::Receipt(receipt) => {
            tested.delivery_id = Some(receipt.delivery_id);
            tested.event_type = Some(receipt.event);
            tested.runs = receipt.runs;
        }
        Answer::Problem(problem) => {
            tested.code = Some(problem.code);
            tested.detail = Some(problem.detail);
        }
        Answer::Other(text) => tested.detail = Some(text),
    }
}

/// Whether a secret can make signatures, and not only verify them.
fn can_sign(provider: &dyn Provider, key: &Key) -> bool {
    provider.signing_field().is_none() || key.signature(&[b"test"]).is_some()
}

async fn say_stored(app: &App, source: &str, since: Timestamp, tested: &mut api::WebhookTested) -> Result<(), Error> {
    let query = EventQuery { source: Some(source.to_owned()), since: Some(since), limit: 1, ..EventQuery::default() };
    if let Some(event) = app.store.events(query).await?.into_iter().next() {
        let outcomes = app.store.outcomes(event.id).await?;
        tested.runs = outcomes.into_iter().filter_map(|outcome| outcome.run).map(|run| run.to_string()).collect();
        tested.event_type = Some(event_type(&event.provider, &event.event, event.action.as_deref()));
        tested.delivery_id = Some(event.id.to_string());
    }
    Ok(())
}
