//! Presets: what they become, and what is refused.

use super::super::{PromptChannel, ResultFormat, presets};
use super::{AGENT, Project, agent, gateway};

const TRIGGER: &str = "[[webhooks]]\nsource = \"acme-github\"\n";

fn with(runtime: &str) -> Project {
    agent(&format!("{TRIGGER}[runtime]\n{runtime}"))
}

fn setting(project: &Project, path: &str) -> Option<(String, String)> {
    let config = project.load().unwrap();
    let setting = config.settings.into_iter().find(|setting| setting.path == format!("agents.triage.runtime.{path}"));
    setting.map(|setting| (setting.value, setting.origin))
}

#[test]
fn every_preset_loads_by_its_name_alone() {
    for preset in presets() {
        let config = with(&format!("preset = \"{}\"", preset.name)).load().unwrap();
        let runtime = &config.agents["triage"].runtime.command().unwrap();
        assert_eq!(Some(runtime.command[0].as_str()), preset.program(), "{}", preset.name);
        let is_script = matches!(preset.name.as_str(), "python" | "shell");
        assert_eq!(runtime.result.is_none(), is_script, "{}", preset.name);
        assert!(!runtime.command.iter().any(|word| word.contains(['{', '}'])), "{:?}", runtime.command);
    }
}

#[test]
fn its_keys_are_shown_with_where_they_come_from() {
    let project = with("preset = \"codex\"\nargs = [\"--model\", \"gpt-6\"]\nprompt = \"file\"");
    let from_preset = |value: &str| Some((value.to_owned(), "preset codex".to_owned()));
    let own = |value: &str, line: u32| Some((value.to_owned(), format!("agents/triage/config.toml:{line}")));
    assert_eq!(setting(&project, "preset"), own("\"codex\"", 4));
    assert_eq!(setting(&project, "args"), own("[\"--model\", \"gpt-6\"]", 5));
    assert_eq!(setting(&project, "prompt"), own("\"file\"", 6));
    let command = "[\"codex\", \"exec\", \"--json\", \"--skip-git-repo-check\", \"-c\", \"sandbox_mode=read-only\", \
                   \"--model\", \"gpt-6\", \"-\"]";
    assert_eq!(setting(&project, "command"), from_preset(command));
    assert_eq!(setting(&project, "result.failed"), from_preset("\"/error\""));
    assert_eq!(setting(&project, "credentials"), None);
    assert_eq!(project.load().unwrap().agents["triage"].runtime.command().unwrap().prompt, PromptChannel::File);
}

#[test]
fn its_credential_is_given_if_it_is_stored_and_another_one_if_that_is_said() {
    let names = |project: Project| -> Vec<String> {
        let config = project.load().unwrap();
        config.agents["triage"].runtime.command().unwrap().credentials.iter().map(|(name, _)| name.clone()).collect()
    };
    let stored = |runtime: &str| with(runtime).credential("anthropic_api_key/default/secret", "sk-1");
    assert_eq!(names(with("preset = \"claude\"")), Vec::<String>::new());
    assert_eq!(names(stored("preset = \"claude\"")), ["ANTHROPIC_API_KEY"]);
    assert_eq!(names(stored("preset = \"claude\"\ncredentials = []")), Vec::<String>::new());
    assert_eq!(
        names(stored("preset = \"claude\"\ncredentials = [\"key:a\"]").credential("key/a/secret", "k")),
        ["KEY"]
    );
    let blank = with("preset = \"claude\"").credential("anthropic_api_key/default/secret", " ").problems();
    assert!(blank.contains("anthropic_api_key:default") && blank.contains("preset claude"), "{blank}");
}

#[test]
fn keys_beside_it_win_variables_are_added_and_a_rule_is_replaced_as_a_whole() {
    let project =
        with("preset = \"claude\"\ncommand = [\"mine\"]\nresult = { format = \"text\" }\nenv = { A = \"b\" }");
    let config = project.load().unwrap();
    let runtime = config.agents["triage"].runtime.command().unwrap();
    assert_eq!(runtime.command, ["mine"]);
    let rule = runtime.result.clone().unwrap();
    assert_eq!((rule.format, rule.path, rule.failed.len()), (ResultFormat::Text, None, 0));
    assert_eq!(runtime.env.keys().collect::<Vec<_>>(), ["A", "DISABLE_AUTOUPDATER"]);
}

#[test]
fn a_script_is_the_one_in_the_agents_folder() {
    let project = with("preset = \"python\"");
    let script = project.root().join("agents/triage/agent.py").display().to_string();
    assert_eq!(
        project.load().unwrap().agents["triage"].runtime.command().unwrap().command,
        ["python3".to_owned(), script]
    );
}

#[test]
fn the_defaults_may_have_one_which_an_agent_replaces_as_a_whole() {
    let defaults = format!("{}[defaults.runtime]\npreset = \"claude\"\n", super::GATEWAY);
    let project = Project::new().file("config.toml", &defaults).file("agents/triage/config.toml", TRIGGER);
    assert_eq!(project.load().unwrap().agents["triage"].runtime.command().unwrap().command[0], "claude");
    let project = Project::new().file("config.toml", &defaults).file("agents/triage/config.toml", AGENT);
    let config = project.load().unwrap();
    let runtime = config.agents["triage"].runtime.command().unwrap();
    assert!(runtime.command == ["true"] && runtime.result.is_none() && runtime.env.is_empty());
    let by_variable = Project::new()
        .file("config.toml", super::GATEWAY)
        .file("agents/triage/config.toml", TRIGGER)
        .var("DOORBELL_DEFAULTS__RUNTIME__PRESET", "shell");
    assert_eq!(by_variable.load().unwrap().agents["triage"].runtime.command().unwrap().command[0], "sh");
    let unused = gateway("[defaults.runtime]\npreset = \"cluade\"").problems();
    assert!(unused.contains("did you mean \"claude\"?"), "{unused}");
}

#[test]
fn what_is_no_preset_or_no_rule_is_refused_with_advice() {
    for (runtime, message, help) in [
        ("preset = \"cluade\"", "no preset \"cluade\"", "did you mean \"claude\"?"),
        ("preset = \"vim\"", "no preset \"vim\"", "`claude`, `codex`"),
        ("preset = 1", "expected the name of a preset", "found an integer"),
        ("preset = \"claude\"\nargs = \"--fast\"", "expected a list such as", "found a string"),
        ("preset = \"claude\"\nargs = [1]", "expected a string in this list", "found an integer"),
        ("preset = \"claude\"\nargs = []\ncommand = [\"x\"]", "`command` replaces that", "the end of `command`"),
        ("type = \"command\"\ncommand = [\"x\"]\nargs = [\"y\"]", "there is none", "one list"),
        ("preset = \"claude\"\ntype = \"http\"", "a preset starts a program", "without `type`"),
        ("preset = \"shell\"\nresult = \"stdout\"", "expected a table", "result = { from = \"stdout\""),
        ("preset = \"shell\"\nresult = { form = \"x\" }", "unknown key `form`", "did you mean `from`?"),
        ("preset = \"shell\"\nresult = { from = \"stderr\" }", "\"stdout\" or \"file\"", "found \"stderr\""),
        ("preset = \"shell\"\nresult = { format = \"jason\" }", "found \"jason\"", "did you mean \"json\"?"),
        ("preset = \"shell\"\nresult = { path = \"a.b\" }", "not a JSON pointer", "\"/a/b\" is the field"),
        ("preset = \"shell\"\nresult = { reason = [\"x\"] }", "not a JSON pointer", "begins with `/`"),
        ("preset = \"shell\"\nresult = { failed = \"\" }", "an empty text", "everything"),
        ("preset = \"shell\"\nresult = { needs = \"x\" }", "`needs` is for format = \"text\"", "needs"),
        ("preset = \"shell\"\nresult = { only = { \"/a\" = 1 } }", "`only` is for format = \"jsonl\"", "only"),
        ("preset = \"shell\"\nresult = { format = \"text\", path = \"/a\" }", "is for format = \"json\" or", "path"),
        (
            "preset = \"shell\"\nresult = { format = \"text\", failed = \"/a\" }",
            "no places to point to",
            "a line begins",
        ),
        (
            "preset = \"shell\"\nresult = { format = \"jsonl\", only = { a = [1] } }",
            "a line is told by strings",
            "not a JSON pointer",
        ),
    ] {
        let problems = with(runtime).problems();
        assert!(problems.contains(message) && problems.contains(help), "{runtime}: {problems}");
    }
    let problems = with("preset = \"cluade\"").load().unwrap_err();
    assert_eq!(problems.count(), 1, "{problems}");
}
