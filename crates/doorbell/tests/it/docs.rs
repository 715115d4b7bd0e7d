//! The documents: what they show works, and what is generated is what the program says.

use std::path::{Path, PathBuf};

use doorbell_client::Answer;

use crate::support::{Background, ONE_SOURCE, Project, issue, sample, wait_for, without_header};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

/// The fenced blocks of a language.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            blocks.push(lines.by_ref().take_while(|line| line.trim() != "```").collect::<Vec<_>>().join("\n"));
        }
    }
    blocks
}

#[test]
fn generated_references_are_what_the_program_says() {
    let project = Project::new("");
    let pages = [
        ("cli", "reference/cli.md"),
        ("config", "reference/config.md"),
        ("presets", "reference/presets.md"),
        ("metrics", "metrics.md"),
        ("mcp", "reference/mcp.md"),
        ("openapi", "reference/openapi.json"),
        ("errors", "errors.md"),
    ];
    for (page, file) in pages {
        let output = project.run(&["reference", page]);
        let generated = String::from_utf8(output.stdout).unwrap();
        check(&format!("docs/{file}"), &generated);
    }
}

/// A page that is generated is as it was written; with `UPDATE_DOCS` it is written.
pub(crate) fn check(file: &str, generated: &str) {
    let file = repository().join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, generated).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(written, generated, "run the tests once with UPDATE_DOCS=1 and look at the difference");
}

#[test]
fn every_provider_has_its_page() {
    let project = Project::new("");
    let said = |args: &[&str]| String::from_utf8(project.run(args).stdout).unwrap();
    let folder = repository().join("docs/providers");
    let mut pages = vec![("README.md".to_owned(), said(&["reference", "providers"]))];
    for provider in project.json(&["providers"])["providers"].as_array().unwrap() {
        let name = provider["name"].as_str().unwrap();
        pages.push((format!("{name}.md"), said(&["reference", "providers", name])));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(page, text)| std::fs::write(folder.join(page), text).unwrap());
    }
    for (page, generated) in &pages {
        let written = std::fs::read_to_string(folder.join(page)).unwrap_or_default();
        assert_eq!(&written, generated, "run the tests once with UPDATE_DOCS=1 and look at the difference");
    }
    let written = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(written, pages.len(), "a page in docs/providers is of no provider");
}

/// Every TOML example that names its file is put into a project with the sources and credentials it speaks of.
#[test]
fn configuration_examples_load() {
    let mut seen = 0;
    for document in [
        "README.md",
        "docs/guide.md",
        "docs/agents.md",
        "docs/http-agents.md",
        "docs/workers.md",
        "docs/troubleshooting.md",
    ] {
        let sources = "[webhooks.github]\ntype = \"github\"\ncredential = \"acme\"\n\
                       [webhooks.acme-github]\ntype = \"github\"\ncredential = \"acme\"\n";
        for block in blocks(&read(document), "toml") {
            let Some(file) = block.lines().next().and_then(|line| line.strip_prefix("# ")).map(str::to_owned) else {
                continue;
            };
            let is_project = file == "config.toml";
            let project = Project::new(if is_project { &block } else { sources });
            for instance in ["new", "old"] {
                project.credential("github_webhook_secret", instance, "x");
            }
            project.credential("generic_webhook_secret", "deploys", "x");
            project.credential("standard_webhook_secret", "billing", "whsec_c2VjcmV0");
            project.credential("http_agent_secret", "triage", "whsec_c2VjcmV0");
            if block.contains("client_certificate") {
                crate::mtls::certify(&project);
            }
            for kind in ["anthropic_api_key", "github_token", "agent_token"] {
                project.credential(kind, "acme", "x").credential(kind, "default", "x");
            }
            // The projects of tests begin with a [gateway] of their own.
            if !is_project || block.contains("[gateway]") {
                project.write(&file, &block);
            }
            let output = project.run(&["config"]);
            assert!(output.status.success(), "{document}: {file}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("empty for each run"), "{document}: {file} cannot work as it is written: {said}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} examples were found");
}

/// Every line of the guide's conditions is one.
#[test]
fn conditions_are_read() {
    let lines = blocks(&read("docs/guide.md"), "cel").join("\n");
    for line in lines.lines() {
        let read = doorbell_core::condition::Expression::condition(line);
        assert!(read.is_ok(), "{line}: {read:?}");
    }
    assert!(lines.lines().count() > 5);
}

#[test]
fn every_preset_has_a_section_of_its_own() {
    let listed = String::from_utf8(Project::new("").run(&["reference", "presets"]).stdout).unwrap();
    let presets: Vec<&str> = listed.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(presets.len() >= 12, "{presets:?}");
    let (guide, mut acting) = (read("docs/agents.md"), 0);
    for row in presets {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let preset = cells[1].trim_matches('`');
        let is_about = |part: &&str| part.lines().next().is_some_and(|title| title.ends_with(&format!(": `{preset}`")));
        let section = guide.split("\n## ").find(is_about);
        let section = section.unwrap_or_else(|| panic!("docs/agents.md has no section that ends with `{preset}`"));
        // What lets it change files, if that is a line of `[runtime]`.
        if let Some(act) = cells[4].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) {
            assert!(section.contains(act), "its section does not show `{act}`");
            acting += 1;
        }
    }
    assert!(acting >= 8, "{acting}");
}

/// The README's first agent, word by word: every command of it, in its order.
#[test]
fn the_readme_can_be_followed_word_by_word() {
    let readme = read("README.md");
    let commands: Vec<String> = blocks(&readme, "sh")
        .join("\n")
        .lines()
        .map(|line| line.split('#').next().unwrap().trim().to_owned())
        .collect();
    let doorbell = commands.iter().filter_map(|line| line.strip_prefix("doorbell "));
    let all: Vec<Vec<&str>> = doorbell.map(|line| line.split_whitespace().collect()).collect();
    assert!(all.len() >= 7, "{all:?}");
    let outer = Project::new("");
    // What `claude` does with these arguments, and what it insists on.
    outer.program(
        "claude",
        "[ \"$*\" = '--print --output-format json --permission-mode dontAsk' ] || exit 97
         grep -q 'A new issue was opened' || exit 98
         echo '{\"type\":\"result\",\"is_error\":false,\"result\":\"A bug; the label is bug.\"}'",
    );
    let init = outer.run(&all[0]);
    assert_eq!(all[0][0], "init");
    assert!(init.status.success(), "{init:?}");
    let folder = all[0][1];
    let at = |args: &[&str]| outer.doorbell(&[args, &["--project", folder]].concat()).output().unwrap();
    let _dev = Background::start(outer.doorbell(&["dev", "--listen", "127.0.0.1:0", "--project", folder]));
    wait_for("the gateway", || outer.path(&format!("{folder}/.doorbell/gateway.json")).exists().then_some(()));
    for args in all.iter().skip(1).filter(|args| args[0] != "dev") {
        let id = |list: &str, field: &str| {
            let listed: serde_json::Value = serde_json::from_slice(&at(&[list, "--json"]).stdout).unwrap();
            listed[list][0][field].as_str().unwrap().to_owned()
        };
        let args: Vec<String> = args
            .iter()
            .map(|arg| match *arg {
                "RUN" => id("runs", "id"),
                "EVENT" => id("events", "id"),
                other => other.to_owned(),
            })
            .collect();
        let output = at(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    let run: serde_json::Value = serde_json::from_slice(&at(&["runs", "--json"]).stdout).unwrap();
    let run = run["runs"][0]["id"].as_str().unwrap();
    let run = wait_for("the run to end", || {
        let run: serde_json::Value = serde_json::from_slice(&at(&["runs", "show", run, "--json"]).stdout).unwrap();
        run["finishedAt"].is_string().then_some(run)
    });
    assert!(run["state"] == "succeeded" && run["result"] == "A bug; the label is bug.", "{run}");
}

/// Every command of the troubleshooting guide, in a project to which something came.
#[tokio::test]
async fn the_commands_of_the_troubleshooting_guide_work() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", "[[webhooks]]\nsource = \"acme\"", "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    gateway.finished(&receipt.runs[0]).await;
    let unsigned = without_header(issue("unsigned"), "x-hub-signature-256");
    assert!(matches!(gateway.send("/v1/webhooks/github/acme", unsigned).await, Answer::Problem(p) if p.status == 401));
    let url = format!("{}/v1/webhooks/github/acme", gateway.url);
    let text = blocks(&read("docs/troubleshooting.md"), "sh").join("\n");
    let lines = text.lines().map(|line| line.split('#').next().unwrap().trim());
    let mut seen = 0;
    for line in lines.filter_map(|line| line.strip_prefix("doorbell ")) {
        let args = line.split_whitespace().map(|word| match word {
            "EVENT" => receipt.delivery_id.as_str(),
            "RUN" => receipt.runs[0].as_str(),
            "URL" => url.as_str(),
            other => other,
        });
        let output = project.run(&args.collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {output:?}");
        seen += 1;
    }
    assert!(seen >= 15, "{seen}");
    let refused = project.run(&["sources", "deliveries", "acme", "--rejected"]);
    assert!(String::from_utf8_lossy(&refused.stdout).contains("signature_missing"), "{refused:?}");
}

/// What the files in `deploy/` name is there, and is what the program and the build have.
#[test]
fn deployment_files_name_what_is_there() {
    let unit = read("deploy/doorbell.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(words.remove(0), "/usr/bin/doorbell");
    let project = Project::new("");
    let help = project.run(&[words.as_slice(), &["--help"]].concat());
    assert!(help.status.success(), "{help:?}");
    assert!(!read("deploy/postinst").contains("\r"));

    let dockerfile = read("deploy/Dockerfile");
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(dockerfile.contains(&format!("FROM rust:{version}-")), "the toolchain is {version}");
    assert!(read("Cargo.toml").contains("[profile.dist]") && dockerfile.contains("--profile dist"));
    assert!(dockerfile.contains("/src/target/dist/doorbell"));
    let user = dockerfile.lines().rev().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && dockerfile.contains(&format!("--uid {user}")));
    for (name, value) in
        [("DOORBELL_GATEWAY__LISTEN", "0.0.0.0:8080"), ("DOORBELL_GATEWAY__ADMIN_LISTEN", "127.0.0.1:8081")]
    {
        let files = [dockerfile.as_str(), &read("deploy/compose.yaml")].concat();
        assert!(files.contains(name) && files.contains(value), "{name}");
        let output = project.doorbell(&["config", "gateway"]).env(name, value).output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(value), "{output:?}");
    }
    for word in read("deploy/compose.yaml").split_whitespace().filter(|word| word.starts_with("deploy/")) {
        assert!(repository().join(word.trim_end_matches(['}', ','])).is_file(), "{word}");
    }
}
