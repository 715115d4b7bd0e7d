//! Defaults < file < environment < flags, and where each value came from.

use super::{GATEWAY, Project, gateway};

fn setting(project: &Project, path: &str) -> (String, String) {
    let settings = project.load().unwrap().settings;
    let setting = settings.into_iter().find(|setting| setting.path == path).unwrap();
    (setting.value, setting.origin)
}

fn pair(value: &str, origin: &str) -> (String, String) {
    (value.to_owned(), origin.to_owned())
}

#[test]
fn flags_go_over_the_environment_over_the_file_over_the_defaults() {
    let listen = "gateway.listen";
    let project = gateway("");
    assert_eq!(setting(&project, listen), pair("\"127.0.0.1:8080\"", "default"));
    let project = project.file("config.toml", "# mine\n[gateway]\nlisten = \"127.0.0.1:1\"\n");
    assert_eq!(setting(&project, listen), pair("\"127.0.0.1:1\"", "config.toml:3"));
    let project = project.var("DOORBELL_GATEWAY__LISTEN", "127.0.0.1:2");
    assert_eq!(setting(&project, listen), pair("\"127.0.0.1:2\"", "env DOORBELL_GATEWAY__LISTEN"));
    let project = project.flag(listen, "127.0.0.1:3");
    assert_eq!(setting(&project, listen), pair("\"127.0.0.1:3\"", "flag --listen"));
    assert_eq!(project.load().unwrap().gateway.listen.port(), 3);
}

#[test]
fn the_environment_reaches_nested_values_of_every_type() {
    let config = Project::small()
        .var("DOORBELL_STORE__URL", "sqlite:x.db")
        .var("DOORBELL_GATEWAY__PUBLIC_URL", "\"https://hooks.example.com/in/\"")
        .var("DOORBELL_GATEWAY__MAX_BODY", "2048")
        .var("DOORBELL_DEFAULTS__SCALE", "3")
        .var("DOORBELL_DEFAULTS__TIMEOUT", "90s")
        .var("DOORBELL_DEFAULTS__RETRIES__BACKOFF__JITTER", "false")
        .var("DOORBELL_DEFAULTS__RETRIES__BACKOFF__FACTOR", "3")
        .load()
        .unwrap();
    assert_eq!(config.store_url, "sqlite:x.db");
    assert_eq!(config.gateway.public_url.as_deref(), Some("https://hooks.example.com/in"));
    assert_eq!(config.gateway.max_body, 2048);
    let agent = &config.agents["triage"];
    assert_eq!((agent.scale, agent.timeout.as_secs()), (3, 90));
    assert_eq!((agent.retries.backoff.jitter, agent.retries.backoff.factor), (false, 3.0));
    let scale = config.settings.iter().find(|setting| setting.path == "agents.triage.scale").unwrap();
    assert_eq!((scale.value.as_str(), scale.origin.as_str()), ("3", "env DOORBELL_DEFAULTS__SCALE"));
}

#[test]
fn variables_of_other_purposes_are_left_alone_and_those_with_one_underscore_are_warned_of() {
    let mut project = gateway(GATEWAY);
    for name in ["URL", "TOKEN", "LOG", "RUN_ID", "CREDENTIALS_DIR", "GATEWAYS", "WEBHOOKS__A__TYPE"] {
        project = project.var(&format!("DOORBELL_{name}"), "1");
    }
    assert!(project.load().unwrap().warnings.is_empty());
    let warnings = project.var("DOORBELL_GATEWAY_LISTEN", "1").load().unwrap().warnings;
    assert_eq!(
        warnings,
        ["env DOORBELL_GATEWAY_LISTEN: nothing reads it; with two underscores, DOORBELL_GATEWAY__… sets a value"]
    );
}

#[test]
fn wrong_variables_and_flags_are_errors_that_say_where_they_are() {
    let problems = gateway("")
        .var("DOORBELL_GATEWAY__LISTN", "127.0.0.1:1")
        .var("DOORBELL_DEFAULTS__RETRIES__ATEMPTS", "1")
        .var("DOORBELL_STORE__RETENTION", "1 day")
        .var("DOORBELL_DEFAULTS__SCALE", "many")
        .flag("gateway.listen", "nowhere")
        .problems();
    for text in [
        "unknown variable `DOORBELL_GATEWAY__LISTN`",
        "did you mean `DOORBELL_GATEWAY__LISTEN`?",
        "did you mean `DOORBELL_DEFAULTS__RETRIES__ATTEMPTS`?",
        "\"1 day\" is not a duration",
        "expected an integer such as `1`, found a string",
        "--listen=nowhere",
    ] {
        assert!(problems.contains(text), "{text} in {problems}");
    }
}
