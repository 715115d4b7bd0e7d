//! Subscriptions of MCP Events.

use std::time::Duration;

use doorbell_core::id::{KeyId, SubscriptionId};
use doorbell_core::run::State;

use super::*;
use crate::store::{
    ApiKey, Followed, Forgetting, Pending, Resealed, SealedSecret, StoredSubscription, Subscription, SubscriptionChange,
};

every_store_keeps!(
    a_subscription_is_kept_with_its_secrets_for_as_long_as_its_key,
    a_refresh_leaves_a_subscription_where_it_is_and_another_one_of_its_id_begins_anew,
    what_a_subscription_wants_is_run_in_the_transaction_that_moves_it_on,
    an_event_is_delivered_once_to_a_subscription_and_again_to_who_comes_back,
    what_is_gone_or_forgotten_is_not_delivered,
    the_secret_of_a_subscription_is_sealed_anew_as_a_webhooks_is,
);

fn key(n: u8) -> KeyId {
    KeyId::from_bytes([n; 16])
}

fn id(n: u8) -> SubscriptionId {
    SubscriptionId::from_bytes([n; 16])
}

fn subscription(n: u8) -> Subscription {
    Subscription {
        id: id(n),
        key: key(1),
        source: "acme-github".to_owned(),
        arguments: "{}".to_owned(),
        url: format!("https://example.com/{n}"),
        created_at: at(i64::from(n)),
        verified_at: at(i64::from(n)),
        expires_at: at(1000),
        position: 0,
    }
}

fn sealed(n: u8) -> SealedSecret {
    SealedSecret { id: [n; 16], master: "one".to_owned(), sealed: vec![n; 40] }
}

async fn admit(store: &dyn Store) {
    let (name, role) = ("k".to_owned(), "owner".to_owned());
    let id = key(1);
    let hash = vec![1; 32];
    let key = ApiKey {
        id,
        name,
        role,
        agent: None,
        account: None,
        hash,
        created_at: at(0),
        expires_at: None,
        last_used_at: None,
    };
    store.put_key(key).await.unwrap();
}

async fn put(store: &dyn Store, subscription: Subscription, secret: Option<(SealedSecret, Timestamp)>) -> bool {
    store.put_subscription(SubscriptionChange { subscription, secret, now: at(5) }).await.unwrap()
}

fn followed(n: u8, position: i64, wanted: &[(i64, u32)]) -> Followed {
    let wanted = wanted.iter().map(|(event, run)| (*event, run_id(*run))).collect();
    Followed { id: id(n), created_at: at(i64::from(n)), position, wanted, now: at(50) }
}

async fn stored(store: &dyn Store) -> Vec<StoredSubscription> {
    store.subscriptions().await.unwrap()
}

async fn a_subscription_is_kept_with_its_secrets_for_as_long_as_its_key(store: Arc<dyn Store>) {
    assert!(!put(store.as_ref(), subscription(1), Some((sealed(1), at(0)))).await, "there is no such key");
    assert!(stored(store.as_ref()).await.is_empty());
    admit(store.as_ref()).await;
    assert!(put(store.as_ref(), subscription(2), Some((sealed(1), at(0)))).await);
    assert!(put(store.as_ref(), subscription(1), Some((sealed(2), at(0)))).await);
    assert!(put(store.as_ref(), subscription(2), Some((sealed(3), at(60)))).await);
    let all = stored(store.as_ref()).await;
    assert_eq!((&all[0].subscription, &all[1].subscription), (&subscription(1), &subscription(2)), "the oldest first");
    let secrets: Vec<_> = all[1].secrets.iter().map(|one| (one.secret.id, one.until)).collect();
    assert_eq!(secrets, [([3; 16], None), ([1; 16], Some(at(60)))]);
    assert!(store.webhooks().await.unwrap().is_empty(), "none of them is a webhook");
    assert_eq!(store.remove_subscriptions(vec![id(1), id(9)]).await.unwrap(), 1);
    assert!(store.remove_key(key(1)).await.unwrap());
    assert!(stored(store.as_ref()).await.is_empty());
}

async fn a_refresh_leaves_a_subscription_where_it_is_and_another_one_of_its_id_begins_anew(store: Arc<dyn Store>) {
    admit(store.as_ref()).await;
    put(store.as_ref(), Subscription { position: 3, ..subscription(1) }, Some((sealed(1), at(0)))).await;
    assert!(store.follow(followed(1, 7, &[])).await.unwrap());
    assert!(!store.follow(followed(1, 7, &[])).await.unwrap(), "it is as far already");
    put(store.as_ref(), Subscription { expires_at: at(2000), position: 3, ..subscription(1) }, None).await;
    let one = stored(store.as_ref()).await.remove(0);
    assert_eq!((one.subscription.position, one.subscription.expires_at, one.secrets.len()), (7, at(2000), 1));
    put(store.as_ref(), Subscription { created_at: at(80), position: 4, ..subscription(1) }, None).await;
    assert_eq!(stored(store.as_ref()).await[0].subscription.position, 4);
    assert!(!store.follow(followed(1, 9, &[])).await.unwrap(), "that was the one before it");
}

async fn what_a_subscription_wants_is_run_in_the_transaction_that_moves_it_on(store: Arc<dyn Store>) {
    admit(store.as_ref()).await;
    put(store.as_ref(), subscription(1), None).await;
    accept(store.as_ref(), event(1)).await;
    accept(store.as_ref(), starting("a", 2)).await;
    assert_eq!(store.pending(id(1).to_string()).await.unwrap(), Pending::default());
    assert!(store.follow(followed(1, 2, &[(1, 11), (2, 12)])).await.unwrap());
    assert_eq!(store.pending(id(1).to_string()).await.unwrap(), Pending { runs: 2, oldest: Some(1) });
    let tallied = store.tallies().await.unwrap().runs;
    assert!(tallied.contains(&(id(1).to_string(), State::Queued, 2)), "{tallied:?}");
    let silent = crate::store::EventQuery { outcome: Some("none".to_owned()), limit: 9, ..Default::default() };
    assert!(store.events(silent).await.unwrap().is_empty(), "the first event has an outcome now");
    let outcomes = store.outcomes(event_id(2)).await.unwrap();
    let expected = [
        (id(1).to_string(), OutcomeKind::Started, Some(run_id(12))),
        ("a".to_owned(), OutcomeKind::Started, Some(run_id(2))),
    ];
    let mut found: Vec<_> = outcomes.into_iter().map(|one| (one.agent, one.kind, one.run)).collect();
    found.sort_by(|a, b| b.0.cmp(&a.0));
    assert_eq!(found, expected);
    let claimed = claim(store.as_ref(), &id(1).to_string(), &[lease(1)]).await;
    assert_eq!((claimed[0].run.id, claimed[0].event.id), (run_id(11), event_id(1)));
    let over = at(100).after(Duration::from_secs(1));
    assert!(store.finish(Finish { at: over, ..finish(run_id(11), lease(1), State::Succeeded) }).await.unwrap());
    assert_eq!(store.pending(id(1).to_string()).await.unwrap(), Pending { runs: 1, oldest: Some(2) });
    accept(store.as_ref(), starting("a", 3)).await;
    assert_eq!(state(store.as_ref(), 3).await, State::Queued, "the numbers of runs go on");
}

async fn an_event_is_delivered_once_to_a_subscription_and_again_to_who_comes_back(store: Arc<dyn Store>) {
    admit(store.as_ref()).await;
    put(store.as_ref(), subscription(1), None).await;
    accept(store.as_ref(), event(1)).await;
    accept(store.as_ref(), event(2)).await;
    store.follow(followed(1, 1, &[(1, 11)])).await.unwrap();
    store.follow(followed(1, 2, &[(1, 12), (2, 13)])).await.unwrap();
    assert!(store.run(run_id(12)).await.unwrap().is_none(), "it has an outcome");
    let back = Subscription { created_at: at(90), ..subscription(1) };
    put(store.as_ref(), back, None).await;
    let again = Followed { created_at: at(90), now: at(95), ..followed(1, 1, &[(1, 14)]) };
    assert!(store.follow(again).await.unwrap());
    assert_eq!(state(store.as_ref(), 14).await, State::Queued);
    assert_eq!(store.outcomes(event_id(1)).await.unwrap()[0].run, Some(run_id(14)));
}

async fn what_is_gone_or_forgotten_is_not_delivered(store: Arc<dyn Store>) {
    admit(store.as_ref()).await;
    put(store.as_ref(), subscription(1), None).await;
    accept(store.as_ref(), event(1)).await;
    assert!(matches!(store.forget(event_id(1), at(40)).await.unwrap(), Forgetting::Forgotten(_)));
    assert!(store.follow(followed(1, 9, &[(1, 11), (8, 12)])).await.unwrap());
    assert_eq!(store.pending(id(1).to_string()).await.unwrap(), Pending::default());
    assert_eq!(stored(store.as_ref()).await[0].subscription.position, 9);
}

async fn the_secret_of_a_subscription_is_sealed_anew_as_a_webhooks_is(store: Arc<dyn Store>) {
    admit(store.as_ref()).await;
    put(store.as_ref(), subscription(1), Some((sealed(1), at(0)))).await;
    let secret = SealedSecret { master: "two".to_owned(), sealed: vec![9; 40], ..sealed(1) };
    let anew = vec![Resealed { was: "one".to_owned(), secret: secret.clone() }];
    assert_eq!(store.reseal_secrets(anew).await.unwrap(), 1);
    assert_eq!(stored(store.as_ref()).await[0].secrets[0].secret, secret);
}
