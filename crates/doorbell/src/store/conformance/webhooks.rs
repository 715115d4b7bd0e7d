//! Webhooks that are made at run time.

use std::time::Duration;

use doorbell_core::id::WebhookId;
use doorbell_core::run::State;

use super::*;
use crate::store::{Resealed, SealedSecret, SecretUse, StoredWebhook, Webhook, WebhookChange};

every_store_keeps!(
    a_webhook_is_kept_with_its_secrets_the_newest_first,
    an_earlier_secret_never_verifies_longer_than_before_and_goes_when_it_has_ended,
    a_secret_is_sealed_anew_unless_it_was_changed_meanwhile,
    an_inactive_webhook_goes_for_a_new_one_and_an_active_one_never,
    an_agent_has_one_webhook_of_its_own,
    runs_that_are_not_over_are_counted_by_their_source,
);

fn id(n: u8) -> WebhookId {
    WebhookId::new(at(i64::from(n)), [n; 10])
}

fn webhook(n: u8) -> Webhook {
    Webhook {
        id: id(n),
        account: None,
        agent: "triage".to_owned(),
        name: format!("webhook {n}"),
        provider: "github".to_owned(),
        own: None,
        active: true,
        created_by: "user".to_owned(),
        created_at: at(i64::from(n)),
        updated_at: at(i64::from(n)),
    }
}

fn sealed(n: u8) -> SealedSecret {
    SealedSecret { id: [n; 16], master: "one".to_owned(), sealed: vec![n; 40] }
}

async fn put(store: &dyn Store, webhook: Webhook, secret: Option<(SealedSecret, Timestamp)>) {
    store.put_webhook(WebhookChange { webhook, secret, instead_of: Vec::new() }).await.unwrap();
}

async fn secrets(store: &dyn Store) -> Vec<(u32, [u8; 16], Option<Timestamp>)> {
    let stored = store.webhooks().await.unwrap().remove(0);
    stored.secrets.into_iter().map(|one| (one.number, one.secret.id, one.until)).collect()
}

async fn a_webhook_is_kept_with_its_secrets_the_newest_first(store: Arc<dyn Store>) {
    assert!(store.webhooks().await.unwrap().is_empty());
    put(store.as_ref(), webhook(2), Some((sealed(1), at(2)))).await;
    put(store.as_ref(), webhook(1), None).await;
    let later = Webhook { updated_at: at(10), active: false, ..webhook(2) };
    put(store.as_ref(), later.clone(), Some((sealed(2), at(20)))).await;
    let stored = store.webhooks().await.unwrap();
    assert_eq!(stored[0], StoredWebhook { webhook: webhook(1), secrets: Vec::new() }, "the oldest first");
    assert_eq!(stored[1].webhook, later);
    let found: Vec<_> = stored[1].secrets.iter().map(|one| (one.number, one.secret.clone(), one.until)).collect();
    assert_eq!(found, [(2, sealed(2), None), (1, sealed(1), Some(at(20)))]);
}

async fn an_earlier_secret_never_verifies_longer_than_before_and_goes_when_it_has_ended(store: Arc<dyn Store>) {
    let at_time = |seconds| Webhook { updated_at: at(seconds), ..webhook(1) };
    put(store.as_ref(), at_time(0), Some((sealed(1), at(0)))).await;
    put(store.as_ref(), at_time(10), Some((sealed(2), at(20)))).await;
    put(store.as_ref(), at_time(11), Some((sealed(3), at(100)))).await;
    let all = secrets(store.as_ref()).await;
    assert_eq!(all, [(3, [3; 16], None), (2, [2; 16], Some(at(100))), (1, [1; 16], Some(at(20)))]);
    put(store.as_ref(), at_time(20), Some((sealed(4), at(50)))).await;
    let all = secrets(store.as_ref()).await;
    assert_eq!(all, [(4, [4; 16], None), (3, [3; 16], Some(at(50))), (2, [2; 16], Some(at(50)))]);
    put(store.as_ref(), at_time(21), Some((sealed(5), at(21)))).await;
    assert_eq!(secrets(store.as_ref()).await, [(5, [5; 16], None)], "none of them overlaps");
}

async fn a_secret_is_sealed_anew_unless_it_was_changed_meanwhile(store: Arc<dyn Store>) {
    put(store.as_ref(), webhook(1), Some((sealed(1), at(0)))).await;
    let anew = SealedSecret { master: "two".to_owned(), sealed: vec![9; 40], ..sealed(1) };
    let gone = SealedSecret { id: [7; 16], ..anew.clone() };
    let both = [anew.clone(), gone].map(|secret| Resealed { was: "one".to_owned(), secret });
    assert_eq!(store.reseal_secrets(both.to_vec()).await.unwrap(), 1);
    assert_eq!(store.reseal_secrets(both.to_vec()).await.unwrap(), 0, "it is sealed with another key by now");
    assert_eq!(store.webhooks().await.unwrap()[0].secrets[0].secret, anew);
}

async fn an_inactive_webhook_goes_for_a_new_one_and_an_active_one_never(store: Arc<dyn Store>) {
    put(store.as_ref(), Webhook { active: false, ..webhook(1) }, Some((sealed(1), at(0)))).await;
    put(store.as_ref(), webhook(2), None).await;
    let used = |n| SecretUse { source: id(n).to_string(), credential: "1".to_owned(), deliveries: 1, last_at: at(1) };
    store.add_secret_uses(vec![used(1), used(2)]).await.unwrap();
    let change = WebhookChange { webhook: webhook(3), secret: None, instead_of: vec![id(1), id(2)] };
    store.put_webhook(change).await.unwrap();
    let left: Vec<_> = store.webhooks().await.unwrap().into_iter().map(|one| one.webhook.id).collect();
    assert_eq!(left, [id(2), id(3)]);
    assert_eq!(store.secret_uses().await.unwrap(), [used(2)], "nothing is remembered of one that is gone");
}

async fn an_agent_has_one_webhook_of_its_own(store: Arc<dyn Store>) {
    let own = |n| Webhook { own: Some("bearer".to_owned()), ..webhook(n) };
    put(store.as_ref(), own(1), None).await;
    let second = WebhookChange { webhook: own(2), secret: None, instead_of: Vec::new() };
    assert!(store.put_webhook(second).await.is_err());
    put(store.as_ref(), Webhook { own: Some("hmac".to_owned()), ..webhook(1) }, None).await;
    assert_eq!(store.webhooks().await.unwrap().len(), 1);
}

async fn runs_that_are_not_over_are_counted_by_their_source(store: Arc<dyn Store>) {
    for n in 1..=4 {
        accept(store.as_ref(), starting("a", n)).await;
    }
    let elsewhere = NewEvent { source: "other".to_owned(), ..starting("a", 5) };
    accept(store.as_ref(), elsewhere).await;
    let count = async |most| store.unfinished("a".to_owned(), "acme-github".to_owned(), most).await.unwrap();
    assert_eq!((count(10).await, count(3).await), (4, 3));
    claim(store.as_ref(), "a", &[lease(1)]).await;
    assert_eq!(count(10).await, 4, "a running one is not over");
    let until = at(100).after(Duration::from_secs(1));
    assert!(store.finish(Finish { at: until, ..finish(run_id(1), lease(1), State::Failed) }).await.unwrap());
    assert_eq!(count(10).await, 3);
}
