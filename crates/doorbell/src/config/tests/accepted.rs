//! What loads, and as what.

use std::time::Duration;

use doorbell_core::retry::Backoff;
use doorbell_core::run::{OnLost, Policy};
use doorbell_core::source::Dedup;

use super::super::layers::DEFAULTS;
use super::super::{PromptChannel, WhenFull};
use super::{AGENT, GATEWAY, Project, SECRET, agent, gateway};

#[test]
fn an_empty_file_is_a_project_of_defaults() {
    let config = gateway("").load().unwrap();
    assert_eq!(config.gateway.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.gateway.public_url, None);
    assert_eq!(config.gateway.max_body, 25 << 20);
    assert_eq!(config.gateway.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.store_url, "sqlite:.doorbell/doorbell.db");
    assert_eq!(config.retention, Some(Duration::from_secs(30 * 24 * 60 * 60)));
    assert!(config.sources.is_empty() && config.agents.is_empty() && config.warnings.is_empty());
    assert!(config.settings.iter().all(|setting| setting.origin == "default"));
}

#[test]
fn an_agent_gets_the_defaults_of_the_core() {
    let config = Project::small().load().unwrap();
    let agent = &config.agents["triage"];
    assert_eq!((agent.scale, agent.work_queue_size, agent.when_full), (1, 100, WhenFull::DropOldest));
    assert_eq!(agent.timeout, Duration::from_secs(3600));
    assert_eq!(agent.retries, Policy::default());
    assert_eq!(agent.retries.backoff, Backoff::default());
    assert_eq!(agent.runtime.command().unwrap().command, ["true"]);
    assert_eq!(
        (agent.runtime.command().unwrap().prompt, &agent.runtime.command().unwrap().cwd),
        (PromptChannel::Stdin, &None)
    );
    assert!(agent.instructions.is_none() && agent.params.as_object().unwrap().is_empty());
    assert_eq!(config.sources["acme-github"].keys()[0].instance, "acme");
}

/// Every key of the reference is known and its examples load: they are the lines `#key`, `#[table]`.
#[test]
fn the_reference_loads_with_all_its_examples() {
    let is_example = |line: &str| {
        let rest = line.strip_prefix('#').unwrap_or_default();
        // Which users there are is the machine's, and who may become them.
        let is_ours = !rest.starts_with("run_as");
        is_ours && (rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_alphabetic()))
    };
    let uncommented = |text: &str| -> String {
        text.lines()
            .map(|line| if is_example(line) { &line[1..] } else { line })
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let (project, agent) = DEFAULTS.split_once("# ----").unwrap();
    let project = uncommented(project);
    let config = Project::new()
        .credential("github_token/acme/token", "ghp")
        .credential("notification_secret/ops/secret", "s")
        .credential("standard_webhook_secret/billing/secret", "whsec_c2VjcmV0")
        .certificate("tls/fullchain.pem", "tls/privkey.pem")
        .file("config.toml", project)
        .file("agents/triage/config.toml", uncommented(&format!("# {agent}")))
        .load()
        .unwrap();
    assert_eq!(config.sources.len(), 3);
    assert_eq!(config.notifications.len(), 1);
    let agent = &config.agents["triage"];
    assert_eq!(agent.triggers[0].clauses.len(), 10);
    assert_eq!(agent.runtime.command().unwrap().credentials[0].0, "GITHUB_TOKEN");
    let paths: Vec<&str> = config.settings.iter().map(|setting| setting.path.as_str()).collect();
    for path in ["gateway.public_url", "webhooks.lab.event_header", "agents.triage.runtime.env.REPO"] {
        assert!(paths.contains(&path), "{path}");
    }
}

#[test]
fn a_project_in_the_style_of_action_llama_loads_with_a_warning_for_each_key_that_means_nothing() {
    let project = Project::new()
        .credential("github_webhook_secret/MyOrg", "never looked at")
        .file(
            "config.toml",
            "workQueueSize = 7\n[models.sonnet]\nprovider = \"anthropic\"\nmodel = \"claude\"\n\
             [webhooks.my-github]\ntype = \"github\"\ncredential = \"acme\"\n\
             [webhooks.open]\ntype = \"generic\"\nallowUnsigned = true\n\
             [defaults.runtime]\ntype = \"command\"\ncommand = [\"claude\", \"-p\"]\n",
        )
        .file(
            "agents/dev/agent-config.toml",
            "models = [\"sonnet\"]\ncredentials = [\"github_token\"]\nscale = 2\n[hooks]\npre = [\"x\"]\n\
             [[webhooks]]\nsource = \"my-github\"\nevents = [\"issues\"]\nactions = [\"labeled\"]\norg = \"acme\"\n\
             labels = [\"agent\"]\nassignee = \"octocat\"\n[params]\nteam = \"platform\"\nsizes = [1, 2.5, true]\n",
        )
        .file(
            "agents/dev/SKILL.md",
            "---\nname: dev\ndescription: Develops\nlicense: MIT\n---\nYou are {{ agent.name }}.\n",
        );
    let config = project.load().unwrap();
    assert_eq!(
        config.warnings,
        [
            "config.toml:2: `models` means nothing here and is ignored: the agent's command chooses its model",
            "agents/dev/agent-config.toml:1: `models` means nothing here and is ignored: the agent's command chooses its model",
            "agents/dev/agent-config.toml:2: `credentials` means nothing here and is ignored: what a command gets is named in `credentials` of its [runtime]",
            "agents/dev/agent-config.toml:4: `hooks` means nothing here and is ignored: what runs before or after belongs into the agent's command",
        ]
    );
    let agent = &config.agents["dev"];
    assert_eq!((agent.work_queue_size, agent.scale), (7, 2));
    assert_eq!(agent.description.as_deref(), Some("Develops"));
    assert_eq!(agent.instructions.as_ref().unwrap().as_str(), "You are {{ agent.name }}.\n");
    assert_eq!(agent.params, serde_json::json!({"team": "platform", "sizes": [1, 2.5, true]}));
    let fields: Vec<&str> = agent.triggers[0].clauses.iter().map(|clause| clause.field.as_str()).collect();
    assert_eq!(fields, ["events", "actions", "org", "labels", "assignee"]);
    assert!(config.sources["open"].keys().is_empty());
}

#[test]
fn an_agents_own_keys_go_over_the_defaults_and_its_runtime_replaces_the_default_one() {
    let config = Project::new()
        .file(
            "config.toml",
            format!(
                "{GATEWAY}[defaults]\ntimeout = \"5m\"\nretries = {{ attempts = 4, on_lost = \"fail\" }}\n\
                 [defaults.runtime]\ntype = \"command\"\ncommand = [\"a\"]\nprompt = \"file\"\ncwd = \"x\"\n"
            ),
        )
        .file("agents/own/config.toml", format!("{AGENT}[retries]\nattempts = 2\nbackoff = {{ max = \"1m\" }}"))
        .file("agents/same/config.toml", "scale = 0")
        .load()
        .unwrap();
    let own = &config.agents["own"];
    assert_eq!((own.retries.attempts, own.retries.on_lost), (2, OnLost::Fail));
    assert_eq!((own.retries.backoff.max, own.retries.backoff.factor), (Duration::from_secs(60), 2.0));
    assert_eq!(
        (own.runtime.command().unwrap().command[0].as_str(), own.runtime.command().unwrap().prompt),
        ("true", PromptChannel::Stdin)
    );
    assert_eq!(own.timeout, Duration::from_secs(300));
    let same = &config.agents["same"];
    assert_eq!(
        (same.runtime.command().unwrap().command[0].as_str(), same.runtime.command().unwrap().prompt, same.scale),
        ("a", PromptChannel::File, 0)
    );
    assert_eq!(same.runtime.command().unwrap().cwd, Some(config.root.join("x")));
    assert_eq!(same.retries.attempts, 4);
}

#[test]
fn a_source_may_have_two_keys_and_name_them_in_full() {
    let config = Project::new()
        .credential("github_webhook_secret/new/secret", "other")
        .file(
            "config.toml",
            "[webhooks.a]\ntype = \"github\"\ncredential = [\"new\", \"github_webhook_secret:acme\"]\ndedup = \"id_or_body\"\n\
             [webhooks.b]\ntype = \"generic\"\nscheme = \"bearer\"\ncredential = \"b\"\n",
        )
        .var("DOORBELL_CREDENTIAL_GENERIC_WEBHOOK_SECRET__B__SECRET", "token")
        .load()
        .unwrap();
    let instances: Vec<&str> = config.sources["a"].keys().iter().map(|key| key.instance.as_str()).collect();
    assert_eq!((instances.as_slice(), config.sources["a"].dedup()), (["new", "acme"].as_slice(), Dedup::IdOrBody));
    let origin = |path: &str| config.settings.iter().find(|setting| setting.path == path).unwrap().clone();
    let setting = origin("credentials.generic_webhook_secret:b.secret");
    assert_eq!(setting.origin, "env DOORBELL_CREDENTIAL_GENERIC_WEBHOOK_SECRET__B__SECRET");
    assert_eq!(setting.value, "(hidden)");
}

#[test]
fn credentials_of_a_runtime_become_variables() {
    let text = AGENT.replace("command = ", "credentials = [\"github_token\", \"x-api:acme\"]\ncommand = ");
    let config = agent(&text)
        .credential("github_token/default/token", "one\n")
        .credential("x-api/acme/key", "two")
        .credential("x-api/acme/secret", "three\r\n")
        .load()
        .unwrap();
    let given = config.agents["triage"].runtime.command().unwrap().credentials.iter();
    let given: Vec<_> = given.map(|(name, secret)| (name.as_str(), secret.expose_str().unwrap())).collect();
    assert_eq!(given, [("GITHUB_TOKEN", "one"), ("X_API_KEY", "two"), ("X_API_SECRET", "three")]);
}

#[test]
fn calls_of_an_agent_that_no_file_has_are_warned_of() {
    let config = agent(&format!("may_call = [\"fixer\"]\n{AGENT}")).load().unwrap();
    assert_eq!(
        config.warnings,
        [
            "agents/triage/config.toml:1: there is no folder agents/fixer: calls of it are answered with 404 unless it is \
          declared through the API"
        ]
    );
    assert_eq!(config.agents["triage"].may_call, ["fixer"]);
}

#[test]
fn repositories_that_can_never_match_are_warned_of() {
    let text =
        AGENT.replace("[runtime]", "repos = [\"*\", \"acme/*\", \"**\", \"app\"]\nbranches = [\"*\"]\n[runtime]");
    let config = agent(&text).load().unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert_eq!(
        config.warnings[0],
        "agents/triage/config.toml:3: `*` in `repos` can never match: repositories are `owner/name`, and `*` stands \
         for anything but `/`; write `**`"
    );
    assert!(config.warnings[1].ends_with("or `*/app` for one of that name"), "{}", config.warnings[1]);
}

#[test]
fn a_template_in_a_command_is_warned_of() {
    let text = "[[webhooks]]\nsource = \"acme-github\"\n[runtime]\ntype = \"command\"\ncommand = [\"echo\", \"{{ event.source }}\"]\n";
    let config = agent(text).load().unwrap();
    assert!(config.warnings[0].contains("`{{ event.source }}` is handed on as it stands"), "{:?}", config.warnings);
}

#[test]
fn a_command_that_drops_the_arguments_of_its_preset_is_warned_of() {
    for (preset, mine, kept) in
        [("claude", "[\"/opt/claude\"]", "\"--print\""), ("python", "[\"/opt/python3\"]", "/agents/triage/agent.py\"")]
    {
        let text =
            format!("[[webhooks]]\nsource = \"acme-github\"\n[runtime]\npreset = \"{preset}\"\ncommand = {mine}\n");
        let warnings = agent(&text).load().unwrap().warnings;
        let start = format!("`command` replaces the whole list of preset `{preset}`");
        let told = warnings.iter().find(|warning| warning.contains(&start));
        assert!(told.is_some_and(|told| told.contains(kept)), "{warnings:?}");
    }
    let whole = "[[webhooks]]\nsource = \"acme-github\"\n[runtime]\npreset = \"claude\"\ncommand = [\"/opt/claude\", \"--print\"]\n";
    assert_eq!(agent(whole).load().unwrap().warnings, Vec::<String>::new());
}

#[test]
fn patterns_of_other_tools_are_warned_of() {
    let filters =
        "branches = [\"!main\", \"{main,dev}\", \"v[0-9]\", \"v?\", \"{x}/main\"]\nlabels = [\"[later]\", \"why?\"]\n";
    let config = agent(&AGENT.replace("[runtime]", &format!("{filters}[runtime]"))).load().unwrap();
    let expected = [("!main", "a condition can: `where`"), ("{main,dev}", "as a text of the list")];
    let expected =
        expected.into_iter().chain(["v[0-9]", "v?"].map(|text| (text, "only `*` and `**` stand for other text")));
    assert_eq!(config.warnings.len(), 4, "{:?}", config.warnings);
    for (warning, (text, why)) in config.warnings.iter().zip(expected) {
        assert!(warning.starts_with(&format!("agents/triage/config.toml:3: `{text}` in `branches`")), "{warning}");
        assert!(warning.contains(why), "{warning}");
    }
}

#[test]
fn events_that_nobody_sends_are_warned_of() {
    let events = ["isues", "Issues.opened", "issue_comments", "what.ever", "issues.opened", "pull_*", "*", "push"];
    let text = AGENT.replace("[runtime]", &format!("events = {events:?}\n[runtime]"));
    let warnings = agent(&text).load().unwrap().warnings;
    let start = "agents/triage/config.toml:3: ";
    assert_eq!(
        warnings,
        [
            format!("{start}`isues` in `events`: GitHub is not known to send `isues`; did you mean `issues`?"),
            format!("{start}`Issues.opened` in `events`: GitHub is not known to send `Issues`; did you mean `issues`?"),
            format!(
                "{start}`issue_comments` in `events`: GitHub is not known to send `issue_comments`; did you mean \
                 `issue_comment`?"
            ),
            format!("{start}`what.ever` in `events`: GitHub is not known to send `what`"),
        ]
    );
}

#[test]
fn misspelt_actions_are_warned_of_and_unknown_ones_are_not() {
    let filters = "events = [\"issues.openned\", \"issues.opened\", \"issues.brand_new\"]\n\
                   actions = [\"Closed\", \"label*\", \"brand_new\", \"closed\"]\n";
    let warnings = agent(&AGENT.replace("[runtime]", &format!("{filters}[runtime]"))).load().unwrap().warnings;
    let start = "agents/triage/config.toml:";
    assert_eq!(
        warnings,
        [
            format!(
                "{start}3: `issues.openned` in `events`: GitHub is not known to send `openned`; did you mean `opened`?"
            ),
            format!("{start}4: `Closed` in `actions`: GitHub is not known to send `Closed`; did you mean `closed`?"),
        ]
    );
    // Whoever makes such an event says what its action is.
    let filters = "events = [\"issues\", \"repository_dispatch\"]\nactions = [\"deploy\", \"release\", \"openned\"]\n";
    let config = agent(&AGENT.replace("[runtime]", &format!("{filters}[runtime]"))).load().unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_secret_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::small();
    let path = project.folder.path().join("home/.doorbell/credentials/github_webhook_secret/acme/secret");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = project.load().unwrap().warnings;
    assert_eq!(warnings, [format!("{} can be read by other users of this machine: `chmod 600` it", path.display())]);
}

#[test]
fn nothing_that_is_shown_has_a_secret_in_it() {
    let text =
        AGENT.replace("command = ", "credentials = [\"github_token\"]\nenv = { API_KEY = \"hunter4\" }\ncommand = ");
    let project = agent(&text)
        .credential("github_token/default/token", "hunter3")
        .var("DOORBELL_TOKEN", "hunter5")
        .var("DOORBELL_STORE__URL", "sqlite://me:hunter6@there");
    let config = project.load().unwrap();
    let shown = format!("{:?} {:?} {:?} {:?}", config.settings, config.warnings, config.sources, project.environment());
    let shown = format!("{shown} {:?}", config.agents["triage"].runtime.command().unwrap().credentials);
    for secret in [SECRET, "hunter3", "hunter4", "hunter5", "hunter6"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let broken = project.file(
        "config.toml",
        "[store]\nx = \"postgres://me:hunter7@db\"\n[webhooks.a]\ntype = \"github\"\ncredential = \"Hunter8=\"\n",
    );
    let shown = broken.var("DOORBELL_STORE__URL", "postgres://me:hunter9@db").problems();
    assert!(["hunter", "Hunter"].iter().all(|secret| !shown.contains(secret)), "{shown}");
}

#[test]
fn things_are_kept_for_a_time_or_for_ever() {
    let retention = |text: &str| gateway(&format!("[store]\nretention = {text}"));
    assert_eq!(retention("\"90m\"").load().unwrap().retention, Some(Duration::from_secs(5400)));
    assert_eq!(retention("\"off\"").load().unwrap().retention, None);
    for (wrong, said) in [("30", "these are seconds"), ("\"0s\"", "too short"), ("\"2000d\"", "365d at most")] {
        let problems = retention(wrong).problems();
        assert!(problems.contains(said) && problems.contains("keeps everything"), "{wrong}: {problems}");
    }
}

#[test]
fn a_relative_command_without_a_cwd_is_warned_of() {
    let warnings = |runtime: &str| {
        agent(&format!("[[webhooks]]\nsource = \"acme-github\"\n[runtime]\ntype = \"command\"\n{runtime}"))
            .load()
            .unwrap()
            .warnings
    };
    for runtime in
        ["command = [\"./agent.sh\"]", "command = [\"bin/agent\", \"x\"]", "command = [\"sh\", \"agent.sh\"]"]
    {
        let warned = warnings(runtime);
        assert!(warned.len() == 1 && warned[0].contains("`cwd = \".\"`"), "{runtime}: {warned:?}");
    }
    for runtime in [
        "command = [\"./agent.sh\"]\ncwd = \".\"",
        "command = [\"/opt/agent.sh\"]",
        "command = [\"agent\", \"./x\"]",
        "command = [\"sh\", \"-c\", \"./agent.sh\"]",
    ] {
        assert_eq!(warnings(runtime), [""; 0], "{runtime}");
    }
}

#[test]
fn flags_and_numbers_in_filters_are_their_text() {
    for (filter, text) in [("livemode = true", "true"), ("livemode = [false]", "false"), ("accounts = [7]", "7")] {
        let trigger =
            format!("[[webhooks]]\nsource = \"shop\"\n{filter}\n[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n");
        let config = Project::new()
            .credential("stripe_webhook_secret/acme/secret", SECRET)
            .file("config.toml", "[webhooks.shop]\ntype = \"stripe\"\ncredential = \"acme\"\n")
            .file("agents/triage/config.toml", trigger)
            .load()
            .unwrap();
        assert_eq!(config.agents["triage"].triggers[0].clauses[0].any_of[0].as_str(), text, "{filter}");
    }
}
