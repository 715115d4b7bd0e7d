//! The ledger over time, without waiting for it.

use super::*;
use crate::config::Receiver;
use crate::notify::flight::{InFlight, Sent};
use crate::notify::message::State;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds)
}

fn receiver(id: &str) -> Notification {
    Notification {
        name: id.to_owned(),
        id: id.to_owned(),
        on: Topic::ALL.to_vec(),
        sources: Vec::new(),
        agents: Vec::new(),
        receiver: Receiver::Command(vec!["true".to_owned()]),
        every: Duration::from_secs(600),
    }
}

fn report(on: Topic, ended: bool, subject: &str, seconds: i64) -> Report {
    let (agent, source) = match on {
        Topic::DeadLetter => (Some(subject.to_owned()), Some("acme".to_owned())),
        _ => (None, Some(subject.to_owned())),
    };
    let text = format!("{subject} at {seconds}");
    Report { on, ended, agent, source, run: None, text, at: at(seconds), of_notification: false }
}

fn due(ledger: &mut Ledger, seconds: i64) -> Vec<(Key, Message)> {
    ledger.due(at(seconds), &BTreeSet::new(), "http://gateway")
}

/// Sends what is due and has it taken; count, state and text of each.
fn take(ledger: &mut Ledger, seconds: i64) -> Vec<(u64, State, String)> {
    let due = due(ledger, seconds);
    due.iter().for_each(|(key, _)| ledger.delivered(key, Duration::from_secs(600), at(seconds)));
    due.into_iter().map(|(_, message)| (message.data.count, message.data.state, message.data.text)).collect()
}

#[test]
fn the_first_of_a_cause_is_told_at_once_and_the_rest_together_after_the_window() {
    let (mut ledger, all) = (Ledger::default(), [receiver("a")]);
    ledger.add(&report(Topic::DeadLetter, false, "triage", 0), &all);
    assert_eq!(take(&mut ledger, 0), [(1, State::Problem, "triage at 0".to_owned())]);
    (1..=499).for_each(|second| ledger.add(&report(Topic::DeadLetter, false, "triage", second), &all));
    assert_eq!(take(&mut ledger, 599), []);
    let told = take(&mut ledger, 600);
    assert_eq!((told.len(), told[0].0), (1, 499));
    assert!(told[0].2.contains("499 runs") && told[0].2.ends_with("triage at 499"), "{told:?}");
    assert_eq!(take(&mut ledger, 5000), []);
    assert!(ledger.entries.is_empty(), "nothing is left of a cause that is over");
}

#[test]
fn causes_do_not_wait_for_each_other_but_a_receiver_gets_one_message_at_a_time() {
    let (mut ledger, all) = (Ledger::default(), [receiver("a"), receiver("b")]);
    ledger.add(&report(Topic::DeadLetter, false, "one", 0), &all);
    ledger.add(&report(Topic::DeadLetter, false, "two", 0), &all);
    let first = due(&mut ledger, 0);
    assert_eq!(first.len(), 2, "one a receiver");
    let busy: BTreeSet<String> = ["a".to_owned(), "b".to_owned()].into();
    assert_eq!(ledger.due(at(0), &busy, ""), []);
    assert_eq!(ledger.next_due(&busy), None);
    first.iter().for_each(|(key, _)| ledger.delivered(key, Duration::from_secs(600), at(1)));
    assert_eq!(take(&mut ledger, 1).len(), 2);
}

#[test]
fn a_message_keeps_its_id_and_content_over_its_tries_and_more_gathers_behind_it() {
    let (mut ledger, all) = (Ledger::default(), [receiver("a")]);
    ledger.add(&report(Topic::DeadLetter, false, "triage", 0), &all);
    let first = due(&mut ledger, 0);
    ledger.failed(&first[0].0, at(0), 7);
    ledger.add(&report(Topic::DeadLetter, false, "triage", 1), &all);
    let notes = ledger.changes().0;
    let mut again = Ledger::load(&notes, &all);
    assert_eq!(due(&mut again, 10), first, "also after a restart");
    again.delivered(&first[0].0, Duration::from_secs(600), at(10));
    assert_eq!(take(&mut again, 610).len(), 1);
    assert_eq!(notes.len(), 1, "one entry, whatever happens");
}

#[test]
fn an_end_is_told_to_whoever_was_told_of_the_problem() {
    let (mut ledger, all) = (Ledger::default(), [receiver("a")]);
    ledger.add(&report(Topic::Silent, true, "acme", 0), &all);
    assert_eq!(take(&mut ledger, 0), [], "nobody knew of a problem");
    ledger.add(&report(Topic::Silent, false, "acme", 1), &all);
    assert_eq!(take(&mut ledger, 1).len(), 1);
    let mut ledger = Ledger::load(&ledger.changes().0, &all);
    ledger.add(&report(Topic::Silent, true, "acme", 2), &all);
    assert_eq!(take(&mut ledger, 700), [(0, State::Resolved, "acme at 2".to_owned())]);
    assert_eq!(take(&mut ledger, 2000), []);
}

#[test]
fn a_shorter_every_counts_for_what_gathers_already() {
    let (mut ledger, mut all) = (Ledger::default(), [receiver("a")]);
    ledger.add(&report(Topic::DeadLetter, false, "triage", 0), &all);
    assert_eq!(take(&mut ledger, 0).len(), 1);
    ledger.add(&report(Topic::DeadLetter, false, "triage", 1), &all);
    assert_eq!(ledger.waiting("a"), 1, "it gathers");
    all[0].every = Duration::from_secs(30);
    let mut ledger = Ledger::load(&ledger.changes().0, &all);
    assert_eq!(ledger.next_due(&BTreeSet::new()), Some(at(30)), "also after a restart");
    all[0].every = Duration::from_secs(60);
    ledger.keep_only(&all);
    assert_eq!(take(&mut ledger, 59), []);
    assert_eq!(take(&mut ledger, 60).len(), 1);
    assert_eq!(ledger.waiting("a"), 0);
}

#[test]
fn what_a_receiver_does_not_want_any_more_is_forgotten() {
    let (mut ledger, mut all) = (Ledger::default(), [receiver("a")]);
    ledger.add(&report(Topic::Silent, false, "acme", 0), &all);
    ledger.stored();
    all[0].on = vec![Topic::DeadLetter];
    ledger.keep_only(&all);
    assert_eq!(ledger.changes(), (Vec::new(), vec!["message/a/silent/acme".to_owned()]));
}

#[test]
fn filters_and_loops_decide_who_is_told() {
    let only = |sources: &[&str], agents: &[&str]| {
        let read = |text: &&str| doorbell_core::pattern::Pattern::new(*text).ok();
        let (sources, agents) = (sources.iter().filter_map(read), agents.iter().filter_map(read));
        Notification { sources: sources.collect(), agents: agents.collect(), ..receiver("a") }
    };
    let letter = report(Topic::DeadLetter, false, "triage", 0);
    assert!(letter.is_for(&only(&[], &[])) && letter.is_for(&only(&["ac*"], &["triage"])));
    assert!(!letter.is_for(&only(&["other"], &[])) && !letter.is_for(&only(&[], &["other"])));
    let silent = report(Topic::Silent, false, "acme", 0);
    assert!(silent.is_for(&only(&[], &["triage"])), "it has no agent");
    let own = Report { of_notification: true, ..letter };
    assert!(own.is_for(&receiver("a")));
    assert!(!own.is_for(&Notification { receiver: Receiver::Agent("ops".to_owned()), ..receiver("a") }));
}

#[tokio::test]
async fn a_message_whose_sending_panics_is_tried_again_later_and_holds_up_no_other() {
    let (mut ledger, all) = (Ledger::default(), [receiver("a"), receiver("b")]);
    ledger.add(&report(Topic::DeadLetter, false, "one", 0), &all);
    let mut flight = InFlight::default();
    for (n, (key, message)) in due(&mut ledger, 0).into_iter().enumerate() {
        let notification = all.iter().find(|one| one.id == key.receiver).unwrap().clone();
        let sending = async move { if n == 0 { panic!("for the test") } else { std::future::pending().await } };
        flight.send(Sent { key, message, notification }, sending);
    }
    assert_eq!(flight.busy().len(), 2);
    let (sent, said) = flight.next().await.unwrap();
    assert!(said.is_err());
    ledger.failed(&sent.key, at(0), 1);
    assert_eq!(flight.busy(), BTreeSet::from(["b".to_owned()]), "the other one is still on its way");
    assert!(ledger.next_due(&flight.busy()).unwrap() > at(0), "not at once");
    assert_eq!(due(&mut ledger, 0).len(), 1, "the one that was not tried");
    assert_eq!(due(&mut ledger, 5).len(), 2, "and in time that one again");
}
