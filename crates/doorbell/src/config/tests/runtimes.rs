//! Agents that are no command of this machine.

use super::{Project, agent};
use crate::config::WhenFull;

const HTTP: &str = "[[webhooks]]\nsource = \"acme-github\"\n[runtime]\ntype = \"http\"\nurl = \"https://agents.example.com/secret-path\"\n\
                    credential = \"acme\"\n";

fn http(rest: &str) -> Project {
    let project = agent(&format!("{HTTP}{rest}")).credential("http_agent_secret/acme/secret", "whsec_c2VjcmV0");
    project.credential("agent_token/acme/token", "hunter2")
}

#[test]
fn an_agent_behind_a_url_is_tried_five_times_unless_somebody_says_otherwise() {
    for (rest, attempts) in [("", 5), ("[retries]\non_lost = \"fail\"", 5), ("[retries]\nattempts = 1", 1)] {
        assert_eq!(http(rest).load().unwrap().agents["triage"].retries.attempts, attempts, "{rest}");
    }
    let config = http("").load().unwrap();
    let shown = config.settings.iter().find(|setting| setting.path == "agents.triage.retries.attempts").unwrap();
    assert_eq!((shown.value.as_str(), shown.origin.as_str()), ("5", "default"));
    let project = http("").var("DOORBELL_DEFAULTS__RETRIES__ATTEMPTS", "2");
    assert_eq!(project.load().unwrap().agents["triage"].retries.attempts, 2);
}

#[test]
fn neither_the_path_of_its_url_nor_its_secrets_are_shown() {
    let project = http(
        "[runtime.headers]\nAuthorization = { credential = \"agent_token:acme\", prefix = \"Bearer \" }\nX-Api-Key = \"hunter3\"",
    );
    let config = project.load().unwrap();
    let crate::config::Runtime::Http(runtime) = &config.agents["triage"].runtime else { panic!() };
    let header = |name: &str| &runtime.headers.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!(header("authorization").expose(), b"Bearer hunter2");
    assert_eq!(header("x-api-key").expose(), b"hunter3");
    assert_eq!(runtime.secret.expose(), b"secret");
    let shown = format!("{:?}{runtime:?}", config.settings).replace(&runtime.url, "");
    for secret in ["secret-path", "hunter2", "hunter3", "c2VjcmV0"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    let wrong = http("urk = \"https://agents.example.com/other-path\"\n").problems();
    assert!(wrong.contains("unknown key `urk`") && !wrong.contains("other-path"), "{wrong}");
}

#[test]
fn an_agent_behind_a_url_that_cannot_be_asked_is_refused_with_advice() {
    for (file, message, help) in [
        (HTTP.replace("url =", "#"), "needs a `url`", "https://agents.example.com"),
        (HTTP.replace("credential =", "#"), "needs a `credential`", "doorbell creds add http_agent_secret:triage"),
        (HTTP.replace("https:", "ftp:"), "not a URL that can be asked", "https:// or http://"),
        (HTTP.replace("\"acme\"\n", "\"none\"\n"), "no credential http_agent_secret:none", "creds add"),
        (format!("{HTTP}command = [\"x\"]"), "unknown key `command`", "it is for type = \"command\""),
        (format!("{HTTP}headers = {{ webhook-id = \"x\" }}"), "`webhook-id` cannot be a header", "agents/triage"),
        (format!("{HTTP}headers = {{ X = {{ credential = \"no:no\" }} }}"), "no credential no:no", "creds add no:no"),
        (format!("{HTTP}headers = {{ X = {{ prefix = \"x\" }} }}"), "has a `credential`", "Bearer"),
    ] {
        let project = agent(&file).credential("http_agent_secret/acme/secret", "x");
        let problems = project.problems();
        assert!(problems.contains(message) && problems.contains(help), "{file}: {problems}");
    }
}

#[test]
fn an_agent_with_workers_drops_nothing_unless_somebody_says_otherwise() {
    let file = "[[webhooks]]\nsource = \"acme-github\"\n[runtime]\ntype = \"worker\"\n";
    let config = agent(file).load().unwrap();
    let triage = &config.agents["triage"];
    assert!(triage.runtime.is_worker());
    assert_eq!((triage.when_full, triage.retries.attempts), (WhenFull::Grow, 1));
    let config = agent(&format!("when_full = \"reject\"\n{file}")).load().unwrap();
    assert_eq!(config.agents["triage"].when_full, WhenFull::Reject);
    let problems = agent(&format!("{file}url = \"https://example.com\"")).problems();
    assert!(problems.contains("unknown key `url`") && problems.contains("a worker asks Doorbell"), "{problems}");
}
