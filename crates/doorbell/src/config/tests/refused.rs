//! What does not load.

use proptest::prelude::*;

use super::{AGENT, GATEWAY, Project, agent, gateway};

#[test]
fn every_planned_key_is_said_to_be_not_supported_yet() {
    let check = |key: &str, project: Project| {
        let problems = project.problems();
        assert!(problems.contains(&format!("`{key}` is not supported yet")), "{key}: {problems}");
    };
    check("postgres", gateway("[store]\nurl = \"postgres://db\""));
    check("session", agent(&format!("{AGENT}session = 1")));
}

#[test]
fn what_is_wrong_with_a_source_hides_nothing_else() {
    let source = "[webhooks.both]\ntype = \"generic\"\ncredential = 5\nalgorithm = \"md5\"\ndedup = \"maybe\"\n\
                  rate_limit = \"100\"\nignore_senders = 5\n";
    let trigger = "[[webhooks]]\nsource = \"both\"\naction = [\"x\"]\n[[webhooks]]\nsource = \"bth\"\nevent = [\"x\"]\nevents = [\"y\"]\n";
    let problems = gateway(source).file("agents/a/config.toml", trigger).problems();
    for wrong in [
        "credential = 5",
        "algorithm = \"md5\"",
        "dedup = \"maybe\"",
        "rate_limit = \"100\"",
        "ignore_senders = 5",
        "unknown key `action`",
        "no source \"bth\"",
        "unknown key `event`",
    ] {
        assert!(problems.contains(wrong), "{wrong}: {problems}");
    }
}

#[test]
fn proxies_are_addresses_and_networks() {
    for (value, message, help) in [
        ("1", "expected a list of addresses", ""),
        ("[\"nginx\"]", "\"nginx\" is not an IP address or network", "names of hosts are not looked up"),
        ("[\"10.0.0.0/33\"]", "is not an IP address or network", "10.0.0.0/8"),
        ("[\"10.1.2.3/8\"]", "is an address inside of a network", "the network is \"10.0.0.0/8\""),
    ] {
        let problems = gateway(&format!("[gateway]\ntrusted_proxies = {value}")).problems();
        assert!(problems.contains(message) && problems.contains(help), "{value}: {problems}");
    }
}

#[test]
fn tls_needs_two_files_that_fit_together() {
    let with = |text: &str| gateway(&format!("[gateway.tls]\n{text}")).certificate("a.pem", "a.key");
    for (project, message, help) in [
        (with("certificate = \"a.pem\""), "[gateway.tls] needs a `key`", "key = "),
        (with("certificate = \"none.pem\"\nkey = \"a.key\""), "No such file", "both files are PEM"),
        (with("certificate = \"a.key\"\nkey = \"a.key\""), "BEGIN CERTIFICATE", "fullchain.pem"),
        (with("certificate = \"a.pem\"\nkey = \"a.pem\""), "BEGIN PRIVATE KEY", "privkey.pem"),
        (with("cert = \"a.pem\"\nkey = \"a.key\""), "unknown key `cert`", "did you mean `certificate`?"),
        (
            with("certificate = \"a.pem\"\nkey = \"b.key\"").certificate("b.pem", "b.key"),
            "b.key cannot be used",
            "the key that the certificate was made for",
        ),
        (gateway("[gateway]\ntls = true"), "expected a table", "[gateway.tls]"),
    ] {
        let problems = project.problems();
        assert!(problems.contains(message) && problems.contains(help), "{message}: {problems}");
        assert!(!problems.contains("KEY-----\n"), "{problems}");
    }
}

#[test]
fn a_certificate_is_issued_for_public_names_to_those_who_agree() {
    let with = |text: &str| gateway(&format!("[gateway.tls.acme]\n{text}"));
    let agreed = |text: &str| with(&format!("agree_to_terms = true\n{text}"));
    for (project, message, help) in [
        (with("names = [\"a.example\"]"), "are to be agreed to", "agree_to_terms = true"),
        (with("names = [\"a.example\"]\nagree_to_terms = false"), "letsencrypt.org", "agree_to_terms = true"),
        (agreed(""), "needs `names`", "names = "),
        (agreed("names = []"), "needs `names`", "names = "),
        (agreed("names = [\"*.example.com\"]"), "no authority issues", "without a `*`"),
        (agreed("names = [\"10.0.0.1\"]"), "no authority issues", "a public name"),
        (agreed("names = [\"a.example\"]\ncontact = \"me\""), "is not an address", "ops@example.com"),
        (agreed("names = [\"a.example\"]\ndirectory = \"http://a\""), "https://", "directory"),
        (agreed("domains = [\"a.example\"]"), "unknown key `domains`", "did you mean `names`?"),
        (
            gateway(
                "[gateway]\nhot_reload = false\n[gateway.tls.acme]\nnames = [\"a.example\"]\nagree_to_terms = true",
            ),
            "put in force like a saved file",
            "hot_reload",
        ),
        (
            gateway("[gateway.tls]\nkey = \"a\"\n[gateway.tls.acme]\nnames = [\"a.example\"]\nagree_to_terms = true"),
            "do not go together",
            "either files",
        ),
    ] {
        let problems = project.problems();
        assert!(problems.contains(message) && problems.contains(help), "{message}: {problems}");
    }
}

#[test]
fn names_of_hosts_have_neither_port_nor_pattern() {
    for host in ["a:80", "https://a", "*.example.com", "", "a/b", "u@a"] {
        let problems = gateway(&format!("[gateway]\nallowed_hosts = [{host:?}]")).problems();
        assert!(problems.contains("is not the name of a host"), "{host}: {problems}");
    }
}

#[test]
fn limits_are_rates_or_off() {
    for (project, message, help) in [
        (gateway(&format!("{GATEWAY}rate_limit = 100")), "expected a rate such as \"100/1m\"", ""),
        (gateway(&format!("{GATEWAY}rate_limit = \"100/m\"")), "is not a duration", "for example \"100/1m\""),
        (gateway("[gateway]\nkey_rate_limit = \"0/1m\""), "how many is 1 to 10000", "\"off\" sets no limit"),
        (gateway("[gateway]\nhook_rate_limit = \"5\""), "is not a rate", "\"off\" sets no limit"),
        (gateway("[gateway]\nfailure_limit = \"none\""), "is not a rate", "\"off\" sets no limit"),
    ] {
        let problems = project.problems();
        assert!(problems.contains(message) && problems.contains(help), "{message}: {problems}");
    }
}

#[test]
fn an_agent_that_may_call_itself_is_refused_where_it_says_so() {
    let problems = agent(&format!("may_call = [\"fixer\", \"triage\"]\n{AGENT}")).problems();
    assert!(problems.contains("`triage` cannot call itself"), "{problems}");
    assert!(problems.contains("config.toml:1:22"), "{problems}");
}

#[test]
fn a_source_or_a_provider_of_the_project_is_not_named_as_what_doorbell_makes_itself() {
    for name in ["doorbell", "schedule", "manual", "agent"] {
        let source = gateway(&format!("[webhooks.{name}]\ntype = \"generic\"\nallow_unsigned = true\n")).problems();
        assert!(source.contains(&format!("{name:?} cannot be the name of a source")), "{source}");
        assert!(source.contains("could not be told from those that came"), "{source}");
        let provider = gateway(GATEWAY).file(&format!("providers/{name}.toml"), "").problems();
        assert!(provider.contains(&format!("{name:?} cannot be the name of a provider")), "{provider}");
    }
}

#[test]
fn flow_control_that_cannot_be_is_refused_with_an_example() {
    for (line, message) in [
        ("when_busy = \"wait\"", "expected \"queue\" or \"skip\" or \"replace\" or \"attach\", found \"wait\""),
        ("debounce = \"30s\"", "expected a table, found a string"),
        ("debounce = { max_wait = \"5m\" }", "`debounce` needs a `window`"),
        ("debounce = { window = \"30s\", wait = \"5m\" }", "unknown key `wait`"),
        ("debounce = { window = \"30s\", max_wait = \"5s\" }", "a burst cannot wait for 30s and for 5s at most"),
        ("max_per_key = 10", "expected a rate such as \"10/1h\", found an integer"),
        ("max_per_key = \"10\"", "\"10\" is not a rate: write how many, `/`, and a time"),
        ("throttle = \"0/1m\"", "how many is 1 to 10000"),
        ("throttle = \"3/1 minute\"", "is not a duration"),
        ("throttle = \"3/8d\"", "the time is up to 7d"),
        ("priority = 1001", "1001 is out of range"),
    ] {
        let problems = agent(&AGENT.replace("[runtime]", &format!("{line}\n[runtime]"))).problems();
        assert!(problems.contains(message), "{line}: {problems}");
        let problems = gateway(&format!("[defaults]\n{line}")).problems();
        assert!(problems.contains(message), "{line} in [defaults]: {problems}");
    }
}

#[test]
fn keys_of_others_and_typing_errors_are_refused_with_advice() {
    for (project, message, help) in [
        (gateway("[local]\nimage = 1"), "unknown key `local`", "the keys here are"),
        (gateway("[telemetry]\nendpoint = 1"), "unknown key `endpoint`", "did you mean `otlp_endpoint`?"),
        (gateway("[gatway]\nx = 1"), "unknown key `gatway`", "did you mean `gateway`?"),
        (gateway("[gateway]\nport = 1"), "unknown key `port`", "listen = \"127.0.0.1:8080\""),
        (gateway("hot_reload = false"), "unknown key `hot_reload`", "it stands in [gateway]"),
        (agent(&format!("harness = 1\n{AGENT}")), "unknown key `harness`", "the keys here are"),
        (agent(&format!("workQueSize = 1\n{AGENT}")), "unknown key `workQueSize`", "did you mean `work_queue_size`?"),
        (agent(&AGENT.replace("[runtime]", "repository = \"a/b\"\n[runtime]")), "unknown key `repository`", "`repos`?"),
        (
            agent(&AGENT.replace("[runtime]", "label = \"a\"\n[runtime]")),
            "unknown key `label`",
            "did you mean `labels`?",
        ),
        (agent(&format!("{AGENT}comand = 1")), "unknown key `comand`", "did you mean `command`?"),
        (agent(&format!("{AGENT}[retries]\nbackof = 1")), "unknown key `backof`", "did you mean `backoff`?"),
        (gateway(&format!("{GATEWAY}header = \"X\"")), "unknown key `header`", "only sources of type `generic`"),
        (
            gateway(&format!("{GATEWAY}tolerance = \"1m\"")),
            "unknown key `tolerance`",
            "`github` signs no time; these do: ",
        ),
        (gateway("[webhooks.a]\ntype = \"githb\""), "unknown type \"githb\"", "the types are `"),
        (gateway("[webhooks.a]\ntype = \"qqq\""), "unknown type \"qqq\"", "works with type = \"generic\""),
        (gateway(&format!("{GATEWAY}ignore_senders = [\" \"]")), "nobody is called that", "[\"my-bot\"]"),
        (gateway(&format!("{GATEWAY}ignore_senders = [\"*bot\"]")), "is no exact name", "belong into triggers"),
        (gateway("[webhooks.a]\ntype = \"githb\""), "unknown type \"githb\"", "did you mean `github`?"),
        (gateway("[[webhooks]]\ntype = \"github\""), "expected a table, found a list", "[webhooks.acme-github]"),
        (
            agent(&format!("{AGENT}sesion = 1")),
            "unknown key `sesion`",
            "if `session` is meant: it is not supported yet",
        ),
        (agent(&format!("maxWorkQueueSize = 1\nwork_queue_size = 2\n{AGENT}")), "another name of", "keep one"),
    ] {
        let problems = project.problems();
        assert!(problems.contains(message) && problems.contains(help), "{message} / {help}: {problems}");
        assert!(!help.contains("not supported") || !problems.contains("did you mean"), "{problems}");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_no_agent_that_is_silently_missing() {
    for (name, target) in [("round", "round"), ("gone", "no-such-folder")] {
        let project = agent(AGENT);
        std::os::unix::fs::symlink(target, project.root().join("agents").join(name)).unwrap();
        let problems = project.problems();
        assert!(problems.contains(&format!("cannot read agents/{name}: ")), "{problems}");
        assert!(problems.contains("point it at an agent's folder, or remove it"), "{problems}");
    }
}

#[test]
fn wrong_values_are_refused_with_what_is_expected() {
    let in_gateway = |text: &str| gateway(&format!("[gateway]\n{text}"));
    let in_agent = |text: &str| agent(&format!("{text}\n{AGENT}"));
    let in_standard =
        |text: &str| gateway(&format!("[webhooks.a]\ntype = \"standard\"\nallow_unsigned = true\n{text}"));
    let in_retries = |text: &str| agent(&format!("{AGENT}[retries]\n{text}"));
    let in_trigger = |text: &str| agent(&AGENT.replace("[runtime]", &format!("{text}\n[runtime]")));
    let in_runtime = |text: &str| agent(&format!("{AGENT}{text}"));
    for (project, message) in [
        (in_gateway("listen = \"localhost:80\""), "\"127.0.0.1:80\" is for this machine only"),
        (in_gateway("listen = 8080"), "expected an address such as \"127.0.0.1:8080\", found an integer"),
        (in_gateway("public_url = \"hooks.example.com\""), "not the URL of a gateway"),
        (in_gateway("public_url = \"https://a/?b\""), "not the URL of a gateway"),
        (in_gateway("max_body = \"25 MB\""), "is not a size"),
        (in_gateway("max_body = 12"), "12 bytes are out of range: 1024 to 1073741824"),
        (in_gateway("max_body = true"), "expected a size such as \"25MiB\", found a boolean"),
        (in_gateway("drain_timeout = 1.5"), "expected a duration such as \"15m\", found a float"),
        (gateway("gateway = 1"), "expected a table, found an integer"),
        (gateway("[store]\nurl = \"mysql://x\""), "not the URL of a store"),
        (gateway("[webhooks.A]\ntype = \"github\"\ncredential = \"acme\""), "\"A\" cannot be the name of a source"),
        (gateway("[webhooks.a]\ntype = \"github\""), "source `a` has no signing secret"),
        (gateway("[webhooks.a]\ncredential = \"acme\""), "a source needs a `type`"),
        (gateway(&format!("{GATEWAY}allow_unsigned = true")), "has both a `credential` and `allow_unsigned = true`"),
        (gateway("[webhooks.a]\ntype = \"github\"\ncredential = []"), "an empty list verifies nothing"),
        (gateway("[webhooks.a]\ntype = \"github\"\ncredential = [\"acme\", \"acme\"]"), "`acme` is named twice"),
        (gateway("[webhooks.a]\ntype = \"github\"\ncredential = \"x:acme\""), "takes credentials of type"),
        (
            gateway("[webhooks.a]\ntype = \"generic\"\nallow_unsigned = true\nheader = \"a b\""),
            "not the name of a header",
        ),
        (
            gateway("[webhooks.a]\ntype = \"generic\"\nallow_unsigned = true\nencoding = \"hax\""),
            "did you mean \"hex\"?",
        ),
        (in_standard("tolerance = 300"), "if these are seconds: \"300s\""),
        (in_standard("tolerance = \"0s\""), "\"0s\" is too short: 1s at least"),
        (in_standard("header = \"X\""), "only sources of type `generic` have it"),
        (in_agent("scale = 10001"), "10001 is out of range: 0 to 10000"),
        (in_agent("scale = \"2\""), "expected an integer such as `1`, found a string"),
        (in_agent("timeout = 900"), "if these are seconds: \"900s\""),
        (in_agent("timeout = \"0s\""), "\"0s\" is too short"),
        (in_agent("timeout = \"366d\""), "\"366d\" is too long: 365d at most"),
        (in_agent("timeout = \"15 minutes\""), "\"15 minutes\" is not a duration"),
        (in_agent("work_queue_size = 0"), "0 is too small: 1 at least"),
        (in_agent("when_full = \"drop\""), "\"drop_oldest\" or \"reject\" or \"grow\""),
        (in_agent("params = 1"), "expected a table, found an integer"),
        (in_retries("attempts = 0"), "0 is out of range: 1 to 100"),
        (in_retries("backoff = { factor = 0.5 }"), "0.5 is out of range: 1.0 to 100.0"),
        (in_retries("backoff = { factor = nan }"), "NaN is out of range"),
        (in_retries("backoff = { initial = \"1h\" }"), "the first wait (1h) is longer than the longest one (10m)"),
        (in_trigger("repos = []"), "an empty list of `repos` matches nothing"),
        (in_trigger("repos = [\"\"]"), "an empty pattern matches nothing"),
        (in_trigger("repos = [1.5]"), "expected a string in this list, found a float"),
        (agent(&AGENT.replace("source = \"acme-github\"", "")), "a trigger needs a `source`"),
        (agent(&AGENT.replace("acme-github", "acme-gitlab")), "did you mean `acme-github`?"),
        (agent(&AGENT.replace("acme-github", "other")), "the sources are `acme-github`"),
        (agent("[[webhooks]]\nsource = \"acme-github\""), "preset = \"claude\""),
        (agent(&AGENT.replace("[\"true\"]", "[]")), "a command begins with a program"),
        (agent(&AGENT.replace("[\"true\"]", "[\"a\\u0000\"]")), "NUL"),
        (agent(&AGENT.replace("type = \"command\"", "")), "a runtime needs a `type`"),
        (agent(&AGENT.replace("type = \"command\"", "type = \"comand\"")), "did you mean \"command\"?"),
        (in_runtime("cwd = \"~/app\""), "only shells know `~`"),
        (in_runtime("run_as = \"no-such-user\""), "there is no user \"no-such-user\" on this machine"),
        (in_runtime("run_as = \"root\""), "`root` may do everything"),
        (in_runtime("run_as = 1000"), "expected the name of a user such as \"agent\", found an integer"),
        (in_runtime("env = { \"A-B\" = \"x\" }"), "\"A-B\" cannot be the name of a variable"),
        (in_runtime("env = { DOORBELL_URL = \"x\" }"), "variables that begin with DOORBELL_ are set by Doorbell"),
        (in_runtime("env = { A = \"{{\" }"), "`A` is no template"),
        (in_runtime("env = { A = 1 }"), "expected a string, which may be a template, found an integer"),
        (in_runtime("credentials = [\"nope\"]"), "no credential nope:default"),
        (in_runtime("credentials = [\"../x\"]"), "not the name of a credential"),
        (
            in_runtime("credentials = [\"github_webhook_secret:acme\"]\nenv = { GITHUB_WEBHOOK_SECRET = \"\" }"),
            "`GITHUB_WEBHOOK_SECRET` is also set in `env`",
        ),
        (Project::small().file("agents/triage/agent-config.toml", AGENT), "has a config.toml, too"),
        (Project::small().file("agents/other/SKILL.md", ""), "agent `other` has no config.toml"),
        (Project::small().file("agents/A B/config.toml", AGENT), "\"A B\" cannot be the name of an agent"),
        (Project::small().file("agents/triage/SKILL.md", b"\n\xff"), "line 2 is not UTF-8"),
        (Project::small().file("agents/triage/SKILL.md", "---\nname: x\n"), "the front matter has no end"),
        (Project::small().file("config.toml", vec![b' '; (1 << 20) + 1]), "larger than 1 MiB"),
    ] {
        let problems = project.problems();
        assert!(problems.contains(message), "{message}: {problems}");
    }
}

#[test]
fn more_than_sixteen_sources_of_a_type_are_refused() {
    let sources = |count: usize| -> String {
        (0..count).map(|n| format!("[webhooks.s{n}]\ntype = \"generic\"\nallow_unsigned = true\n")).collect()
    };
    assert!(gateway(&sources(16)).load().is_ok());
    assert!(gateway(&sources(17)).problems().contains("more than 16 sources of type `generic`"));
}

#[test]
fn a_blank_secret_is_refused() {
    let problems = gateway(GATEWAY).credential("github_webhook_secret/acme/secret", " \n").problems();
    assert!(problems.contains("is empty: an empty secret would verify anybody's deliveries"), "{problems}");
    assert!(problems.contains("doorbell creds add github_webhook_secret:acme"), "{problems}");
}

#[test]
fn a_schedule_alone_starts_an_agent() {
    const REST: &str = "[runtime]\ntype = \"command\"\ncommand = [\"true\"]";
    let loaded = agent(&format!("schedule = \"* * * * *\"\n{REST}")).load().unwrap();
    assert_eq!(loaded.agents["triage"].schedules.len(), 1);
}

#[test]
fn all_that_is_wrong_with_a_schedule_and_a_trigger_is_told_at_once() {
    let keys = "[[schedules]]\ncron = \"0 9 * *\"\nmissed = \"twice\"\njitter = \"30 s\"\ntimezone = \"Berlin\"\n\
                [[webhooks]]\nsource = \"nowhere\"\nwhere = \"event.\"\nthrottle = \"often\"\n";
    let problems = agent(&format!("{keys}{}", AGENT)).problems();
    for message in
        ["has 4 fields", "\"twice\"", "30 s", "no time zone \"Berlin\"", "\"nowhere\"", "event.", "\"often\""]
    {
        assert!(problems.contains(message), "{message}: {problems}");
    }
    assert_eq!(problems.matches("error").count(), 7, "{problems}");
}

#[test]
fn an_unknown_time_zone_is_shown_where_it_stands_and_not_as_a_problem_of_the_expression() {
    let problems = agent(&format!("schedule = \"* * * * *\"\ntimezone = \"Berlin\"\n{}", AGENT)).problems();
    assert!(problems.contains("config.toml:2:") && problems.contains("Europe/Berlin"), "{problems}");
    assert!(!problems.contains("weekday"), "{problems}");
}

#[test]
fn schedules_that_mean_nothing_are_refused_with_advice() {
    for (keys, message, help) in [
        ("schedule = \"* * *\"", "has 3 fields", "30 9 * * 1-5"),
        ("schedule = \"0 0 31 2 *\"", "never comes", "30 9 * * 1-5"),
        ("schedule = 15", "expected a cron expression", "*/15 * * * *"),
        ("schedule = \"* * * * *\"\ntimezone = \"Europe/Berln\"", "no time zone", "IANA"),
        ("[[schedules]]\ntimezone = \"UTC\"", "a schedule needs a `cron`", "0 9 * * 1-5"),
        ("[[schedules]]\ncron = \"* * * * *\"\nmissed = \"never\"", "never", "once"),
        ("[[schedules]]\ncron = \"* * * * *\"\nevery = 1", "unknown key `every`", "the keys here are"),
        ("schedule = \"*  * * * *\"\n[[schedules]]\ncron = \"* * * * *\"", "has this schedule already", "remove one"),
    ] {
        let problems = agent(&format!("{keys}\n{}", AGENT)).problems();
        assert!(problems.contains(message) && problems.contains(help), "{keys}: {problems}");
    }
}

#[test]
fn what_a_broken_file_may_have_said_is_not_missed_elsewhere() {
    let project = Project::small().file("config.toml", "[webhooks").file("agents/x/config.toml", "timeout = 1");
    let problems = project.load().unwrap_err();
    assert_eq!(problems.count(), 2, "{problems}");
}

#[test]
fn deep_and_crowded_files_are_refused_and_not_all_of_them_is_shown() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]", vec!["a"; 100_000].join(".")),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("{} = 1", "k".repeat(500_000)),
        (0..20_000).map(|n| format!("k{n} = 1\n")).collect(),
    ] {
        assert!(gateway(&text).problems().len() < 50_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_makes_loading_panic(text: String, skill: String) {
        let project = gateway(&text).file("agents/a/config.toml", &text).file("agents/a/SKILL.md", &skill);
        let _ = project.load().map_err(|problems| (problems.render(true), problems.render(false)));
    }

    #[test]
    fn no_document_makes_loading_panic(
        lines in prop::collection::vec((
            "(\\[\\[?)?(gateway|store|defaults|webhooks|retries|runtime|backoff|type|command|env|source|repos|listen|timeout|a)(\\.(a|b|runtime|retries))?(\\]\\]?)?",
            "( = (1|\"\"|\"é\\{\\{\"|\"15m\"|true|\\[\\]|\\[\"a\", 1\\]|\\{\\}|\\{ a = 1 \\}|1979-05-27|nan|\"\\\\u0000\"))?",
        ), 0..8),
        variable in "(|[a-z_\\[\\]\"0-9= ]{0,8})",
    ) {
        let text: String = lines.iter().map(|(key, value)| format!("{key}{value}\n")).collect();
        let project = gateway(&text)
            .file("agents/a/config.toml", &text)
            .var("DOORBELL_GATEWAY__LISTEN", &variable)
            .var("DOORBELL_DEFAULTS__RUNTIME", &variable);
        let _ = project.load().map_err(|problems| (problems.render(true), problems.render(false)));
    }
}
