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
    let mut again = Ledger::load(&notes, &all, at(1));
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
    let mut ledger = Ledger::load(&ledger.changes().0, &all, at(1));
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
    let mut ledger = Ledger::load(&ledger.changes().0, &all, at(1));
    assert_eq!(ledger.next_due(&BTreeSet::new()), Some(at(30)), "also after a restart");
    all[0].every = Duration::from_secs(60);
    ledger.keep_only(&all, at(1));
    assert_eq!(take(&mut ledger, 59), []);
    assert_eq!(take(&mut ledger, 60).len(), 1);
    assert_eq!(ledger.waiting("a"), 0);
}

#[test]
fn what_a_receiver_does_not_want_any_more_is_forgotten() {
    let (mut ledger, mut all) = (Ledger::default(), [receiver("a")]);
    ledger.keep_only(&all, at(0));
    ledger.add(&report(Topic::Silent, false, "acme", 0), &all);
    ledger.stored();
    all[0].on = vec![Topic::DeadLetter];
    ledger.keep_only(&all, at(1));
    assert_eq!(ledger.changes().1, ["message/a/silent/acme"]);
}

/// A ledger of these receivers that is stored, and read again for others.
fn read_again(ledger: &mut Ledger, before: &[Notification], after: &[Notification], seconds: i64) -> Ledger {
    ledger.keep_only(before, at(0));
    Ledger::load(&ledger.changes().0, after, at(seconds))
}

/// Who is told what.
fn told_to(ledger: &mut Ledger, seconds: i64) -> Vec<(String, String)> {
    due(ledger, seconds).into_iter().map(|(key, message)| (key.receiver, message.data.text)).collect()
}

#[test]
fn what_waits_for_a_receiver_that_was_corrected_goes_to_the_one_in_its_place_whether_the_gateway_runs_or_not() {
    let (before, after) = ([receiver("a"), receiver("b")], [receiver("a"), receiver("corrected")]);
    for restarted in [false, true] {
        let mut ledger = Ledger::default();
        ledger.keep_only(&before, at(0));
        ledger.add(&report(Topic::DeadLetter, false, "triage", 0), &before);
        let tried = due(&mut ledger, 0);
        ledger.add(&report(Topic::DeadLetter, false, "triage", 1), &before);
        tried.iter().for_each(|(key, _)| ledger.failed(key, at(1), 7));
        match restarted {
            true => ledger = Ledger::load(&ledger.changes().0, &after, at(1)),
            false => ledger.keep_only(&after, at(1)),
        }
        assert_eq!((ledger.waiting("a"), ledger.waiting("b"), ledger.waiting("corrected")), (2, 0, 2));
        let mut sent = due(&mut ledger, 1);
        assert_eq!(sent.len(), 1, "at once, whatever the one before waited for");
        let (key, message) = sent.remove(0);
        assert_eq!((key.receiver.as_str(), &message), ("corrected", &tried[1].1), "under the id that it had");
        ledger.delivered(&key, Duration::from_secs(600), at(1));
        assert!(ledger.changes().1.iter().all(|key| key.contains("/b/")), "{:?}", ledger.changes());
    }
}

#[test]
fn who_was_told_already_is_not_told_again_for_one_that_is_gone_but_who_is_new_to_a_topic_is() {
    let only = |id: &str, on: &[Topic]| Notification { on: on.to_vec(), ..receiver(id) };
    let before = [receiver("a"), receiver("b"), only("c", &[Topic::Store])];
    let mut ledger = Ledger::default();
    ledger.add(&report(Topic::DeadLetter, false, "triage", 0), &before[..1]);
    let mut again = read_again(&mut ledger, &before, &before[1..], 1);
    assert_eq!(told_to(&mut again, 1), []);
    let mut again = read_again(&mut ledger, &before, &[receiver("b"), receiver("c")], 1);
    assert_eq!(told_to(&mut again, 1), [("c".to_owned(), "triage at 0".to_owned())]);
    let others =
        Notification { agents: doorbell_core::pattern::Pattern::new("other").into_iter().collect(), ..receiver("d") };
    let mut again = read_again(&mut ledger, &before, &[receiver("b"), others], 1);
    assert_eq!(told_to(&mut again, 1), [], "its filters count");
}

#[test]
fn one_that_takes_the_place_of_two_is_told_of_each_dead_letter_and_of_the_end_of_a_problem() {
    let before = [receiver("a"), receiver("b")];
    let mut ledger = Ledger::default();
    for (second, one) in (0..).zip(&before) {
        ledger.add(&report(Topic::DeadLetter, false, "triage", second), std::slice::from_ref(one));
    }
    ledger.add(&report(Topic::Store, false, "", 0), &before);
    let after = [receiver("c")];
    let mut ledger = read_again(&mut ledger, &before, &after, 10);
    let mut told: Vec<String> =
        (10..20).flat_map(|second| take(&mut ledger, second)).map(|(_, _, text)| text).collect();
    told.sort();
    assert_eq!(told, [" at 0", "triage at 0", "triage at 1"]);
    let corrected = [receiver("d")];
    ledger.keep_only(&corrected, at(20));
    ledger.add(&report(Topic::Store, true, "", 21), &corrected);
    assert_eq!(take(&mut ledger, 700), [(0, State::Resolved, " at 21".to_owned())]);
    assert_eq!(take(&mut ledger, 2000), []);
    assert!(ledger.entries.is_empty());
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
