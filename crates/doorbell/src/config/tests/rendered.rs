//! Errors as people see them, to the character.

use super::{AGENT, GATEWAY, Project, agent, gateway};

#[track_caller]
fn assert_shows(project: &Project, expected: &str) {
    assert_eq!(project.problems(), expected.trim_matches('\n'));
}

#[test]
fn a_file_that_is_not_toml() {
    assert_shows(
        &Project::small().file("config.toml", "[webhooks"),
        r#"
error: not TOML: unclosed table, expected `]`
 --> config.toml:1:10
  |
1 | [webhooks
  |          ^
"#,
    );
}

#[test]
fn several_mistakes_of_one_table_at_once() {
    assert_shows(
        &gateway("[gateway]\nlisten = \":80\"\nlisten_on = 1\n"),
        r#"
error: ":80" is not an IP address and a port
 --> config.toml:2:10
  |
2 | listen = ":80"
  |          ^^^^^
  |
  = help: "127.0.0.1:80" is for this machine only, "0.0.0.0:80" for every network

error: unknown key `listen_on`
 --> config.toml:3:1
  |
3 | listen_on = 1
  | ^^^^^^^^^
  |
  = help: did you mean `listen`?

2 problems
"#,
    );
}

#[test]
fn a_source_that_anybody_could_use() {
    assert_shows(
        &gateway("[webhooks.lab]\ntype = \"generic\"\n"),
        r#"
error: source `lab` has no signing secret: name a `credential`, or say `allow_unsigned = true` to let anybody start its agents
 --> config.toml:1:1
  |
1 | [webhooks.lab]
  | ^^^^^^^^^^^^^^
"#,
    );
}

#[test]
fn a_credential_that_is_missing() {
    assert_shows(
        &gateway(&GATEWAY.replace("\"acme\"", "[\"new\", \"acme\"]")),
        r#"
error: no credential github_webhook_secret:new
 --> config.toml:3:15
  |
3 | credential = ["new", "acme"]
  |               ^^^^^
  |
  = help: `doorbell creds add github_webhook_secret:new` keeps it
  = help: looked for it in
          env DOORBELL_CREDENTIAL_GITHUB_WEBHOOK_SECRET__NEW__SECRET
          TMP/home/.doorbell/credentials/github_webhook_secret/new/secret
"#,
    );
}

#[test]
fn a_filter_that_the_provider_does_not_have() {
    assert_shows(
        &agent(&AGENT.replace("[runtime]", "repo = [\"acme/app\"]\n[runtime]")),
        r#"
error: unknown key `repo`
 --> agents/triage/config.toml:3:1
  |
3 | repo = ["acme/app"]
  | ^^^^
  |
  = help: did you mean `repos`?
"#,
    );
}

#[test]
fn a_source_that_is_not_declared() {
    assert_shows(
        &agent(&AGENT.replace("acme-github", "acme-gihtub")),
        r#"
error: no source "acme-gihtub"
 --> agents/triage/config.toml:2:10
  |
2 | source = "acme-gihtub"
  |          ^^^^^^^^^^^^^
  |
  = help: did you mean `acme-github`?
  = help: the sources are `acme-github`
"#,
    );
}

#[test]
fn a_command_as_one_string() {
    assert_shows(
        &agent(&AGENT.replace("[\"true\"]", "\"claude -p\"")),
        r#"
error: a command is a list, never one string: no shell reads it
 --> agents/triage/config.toml:5:11
  |
5 | command = "claude -p"
  |           ^^^^^^^^^^^
  |
  = help: command = ["claude", "-p"]
"#,
    );
}

#[test]
fn an_agent_without_a_runtime() {
    assert_shows(
        &agent("[[webhooks]]\nsource = \"acme-github\"\ndebounce = 'true'\n"),
        r#"
error: agent `triage` has no [runtime]: how it is carried out
 --> agents/triage/config.toml:1:1
  |
1 | [[webhooks]]
  | ^
  |
  = help: with a preset (`claude`, `codex`, `gemini`, `opencode`, `aider`, `goose`, `cursor`, `copilot`, `amp`, `qwen`, `python`, `shell`):
              [runtime]
              preset = "claude"
          with a command of your own:
              [runtime]
              type = "command"
              command = ["./agent", "--fast"]
              cwd = "."    # the project; without it, a new folder for each run
          behind a URL:
              [runtime]
              type = "http"
              url = "https://agents.example.com/triage"
              credential = "triage"    # what it is sent is signed with it

error: expected a table, found a string
 --> agents/triage/config.toml:3:12
  |
3 | debounce = 'true'
  |            ^^^^^^
  |
  = help: debounce = { window = "30s", max_wait = "5m" }

2 problems
"#,
    );
}

#[test]
fn a_template_that_cannot_be_read() {
    assert_shows(
        &Project::small().file("agents/triage/SKILL.md", "---\nname: x\n---\nHello\n{% if %}\n"),
        r#"
error: the template cannot be read: syntax error: unexpected end of block
 --> agents/triage/SKILL.md:5:1
  |
5 | {% if %}
  | ^^^^^^^^
  |
  = help: text between {{ and }} or {% and %} is a template; {% raw %}…{% endraw %} shows it as it is
"#,
    );
}

#[test]
fn a_variable_with_a_wrong_value() {
    assert_shows(
        &Project::small().var("DOORBELL_DEFAULTS__TIMEOUT", "soon"),
        r#"
error: "soon" is not a duration: write a whole number and ms, s, m, h, d or w
 |
 | DOORBELL_DEFAULTS__TIMEOUT=soon
 |                            ^^^^
 |
 = help: for example "30s", "15m" or "1h"
"#,
    );
}

#[test]
fn a_line_that_may_hold_a_secret_is_not_shown() {
    assert_shows(
        &agent(&format!("{AGENT}env = {{ TOKEN = 1 }}")),
        r#"
error: expected a string, which may be a template, found an integer
--> agents/triage/config.toml:6:17
"#,
    );
}

#[test]
fn every_file_is_reported_in_order() {
    assert_shows(
        &Project::new()
            .file("config.toml", "[store]\nretention = \"1y\"\n[defaults]\ntimeout = 3")
            .file("agents/b/config.toml", "scale = -1\n[runtime]\ntype = \"wurker\"\n")
            .file("agents/a/SKILL.md", ""),
        r#"
error: "1y" is not a duration: write a whole number and ms, s, m, h, d or w
 --> config.toml:2:13
  |
2 | retention = "1y"
  |             ^^^^
  |
  = help: for example "30s", "15m" or "1h"
  = help: "off" keeps everything

error: expected a duration such as "15m", found an integer
 --> config.toml:4:11
  |
4 | timeout = 3
  |           ^
  |
  = help: if these are seconds: "3s"

error: agent `a` has no config.toml
--> agents/a
 = help: it says what starts the agent, and how

error: -1 is out of range: 0 to 10000 can be
 --> agents/b/config.toml:1:9
  |
1 | scale = -1
  |         ^^

error: expected "command" or "http" or "worker", found "wurker"
 --> agents/b/config.toml:3:8
  |
3 | type = "wurker"
  |        ^^^^^^^^
  |
  = help: did you mean "worker"?

5 problems
"#,
    );
}

#[test]
fn a_folder_without_a_project() {
    assert_shows(
        &Project::new(),
        r#"
error: no config.toml in TMP/project: `doorbell init` makes a project
"#,
    );
}

#[test]
fn colors_are_for_terminals_only() {
    let problems = gateway("x = 1").load().unwrap_err();
    assert!(problems.render(true).contains('\u{1b}') && !problems.render(false).contains('\u{1b}'));
}

#[test]
fn what_a_file_says_cannot_fool_the_terminal() {
    let shown = gateway("\"a\\u001b[31m\" = 1\n[gateway]\nlisten = \"\\u001b[31m\u{202e}\"").problems();
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown:?}");
}
