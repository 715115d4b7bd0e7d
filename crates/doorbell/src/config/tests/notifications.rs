//! `[[notifications]]`.

use super::{AGENT, GATEWAY, Project};
use crate::config::{Receiver, Topic};

const RUNTIME: &str = "[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n";

/// One notification; the agent `ops` has nothing else that starts it.
fn project(notification: &str) -> Project {
    let config = format!("{GATEWAY}[[notifications]]\n{notification}\n");
    Project::new()
        .credential("notification_secret/ops/secret", "whsec_c2VjcmV0\n")
        .credential("notification_secret/bad/secret", "whsec_!")
        .file("config.toml", config)
        .file("agents/triage/config.toml", AGENT)
        .file("agents/ops/config.toml", RUNTIME)
}

#[test]
fn an_agent_that_only_notifications_start_loads_and_everything_is_told_unless_said_otherwise() {
    let told = project("to = { agent = \"ops\" }").load().unwrap().notifications.remove(0);
    assert_eq!((told.name.as_str(), told.every.as_secs()), ("agent ops", 600));
    assert_eq!(told.on, Topic::ALL);
}

#[test]
fn a_secret_of_standard_webhooks_is_decoded_and_the_path_of_a_url_is_not_in_its_name() {
    let text = "to = { url = \"https://chat.example.com/T0/secret\", credential = \"ops\" }\n\
                [[notifications]]\nto = { agent = \"ops\" }";
    let told = project(text).load().unwrap().notifications.remove(0);
    assert_eq!(told.name, "url https://chat.example.com");
    let Receiver::Url { secret, .. } = &told.receiver else { panic!("{told:?}") };
    assert_eq!(secret.expose(), b"secret");
}

#[test]
fn receivers_that_are_named_twice_are_kept_apart() {
    let twice = "to = { agent = \"ops\" }\n[[notifications]]\non = \"silent\"\nto = { agent = \"ops\" }";
    let told = project(twice).load().unwrap().notifications;
    assert_ne!(told[0].id, told[1].id);
}

#[test]
fn what_is_wrong_says_what_to_do() {
    for (notification, wanted) in [
        ("on = [\"silent\"]", "needs a `to`"),
        ("to = {}", "names one of `command`, `url` and `agent`"),
        ("to = { agent = \"ops\", command = [\"x\"] }", "names one of"),
        ("to = { agent = \"opz\" }", "did you mean `ops`?"),
        ("to = { command = \"notify me\" }", "never one string"),
        ("to = { command = [\"x\"], credential = \"ops\" }", "signs what is sent to a `url`"),
        ("to = { url = \"https://a.example\" }", "needs a `credential`"),
        ("to = { url = \"https://a.example\", credential = \"nope\" }", "no credential notification_secret:nope"),
        ("to = { url = \"https://a.example\", credential = \"nope\" }", "creds add notification_secret:nope`"),
        ("to = { url = \"https://a.example\", credential = \"bad\" }", "not base64 after `whsec_`"),
        ("to = { url = \"https://me:pw@a.example\", credential = \"ops\" }", "not a URL"),
        ("to = { url = \"ftp://a.example\", credential = \"ops\" }", "not a URL"),
        ("to = { agent = \"ops\" }\non = [\"dead_leter\"]", "did you mean \"dead_letter\"?"),
        ("to = { agent = \"ops\" }\non = []", "an empty list tells nothing"),
        ("to = { agent = \"ops\" }\nsources = [\"acme\"]", "there is no source `acme`"),
        ("to = { agent = \"ops\" }\nagents = [\"triag\"]", "did you mean `triage`?"),
        ("to = { agent = \"ops\" }\nevery = \"10ms\"", "too short"),
        ("to = { agent = \"ops\" }\nurl = \"x\"", "it stands in `to`"),
    ] {
        let problems = project(notification).problems();
        assert!(problems.contains(wanted), "{notification}: {problems}");
        assert!(!problems.contains("me:pw"), "{problems}");
    }
}

#[test]
fn an_empty_list_is_told_beside_other_problems() {
    let problems = project("to = { agent = \"ops\" }\non = []\nagents = []\nevery = \"10ms\"").problems();
    for wanted in ["an empty list tells nothing", "without `agents`, it is all of them", "too short"] {
        assert!(problems.contains(wanted), "{problems}");
    }
}

#[test]
fn the_secret_path_of_a_url_is_in_nothing_that_is_shown() {
    let url = "https://hooks.chat.example.com/services/T0/B0/hunter2";
    let both =
        format!("to = {{ url = \"{url}\", credential = \"ops\" }}\n[[notifications]]\nto = {{ agent = \"ops\" }}");
    let told = project(&both).load().unwrap();
    let shown = told.settings.iter().find(|setting| setting.path == "notifications[0].to.url").unwrap();
    assert_eq!(shown.value, "\"https://hooks.chat.example.com\" (the rest is hidden)");
    for slip in [
        format!("to = {{ url = \"{url}\", credentail = \"ops\" }}"),
        format!("to = {{ url = \"{url}\", credential = \"nope\" }}"),
        format!("to = {{ url = \"{url}, credential = \"ops\" }}"),
        format!("to = {{ url = {url}, credential = \"ops\" }}"),
        format!("to = {{ url = [\"{url}\"], credential = \"ops\" }}"),
        format!("to.url = \"{url}\"\nto.credential = 1"),
        format!("url = \"{url}\""),
        format!("[notifications.to]\nURL = \"{url}\""),
    ] {
        let problems = project(&slip).problems();
        assert!(!problems.contains("hunter2") && problems.contains("config.toml:"), "{slip}: {problems}");
    }
}
