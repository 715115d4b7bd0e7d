//! The documents: what they show works, and what is generated is what the program says.

use std::path::{Path, PathBuf};

use crate::support::{Background, Project, wait_for};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
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
        ("cli", "reference/cli"),
        ("config", "reference/config"),
        ("presets", "reference/presets"),
        ("metrics", "metrics"),
    ];
    for (page, file) in pages {
        let output = project.run(&["reference", page]);
        let generated = String::from_utf8(output.stdout).unwrap();
        let file = repository().join(format!("docs/{file}.md"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &generated).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(written, generated, "run the tests once with UPDATE_DOCS=1 and look at the difference");
    }
}

/// Every TOML example that names its file is put into a project with the sources and credentials it speaks of.
#[test]
fn configuration_examples_load() {
    let mut seen = 0;
    for document in ["README.md", "docs/guide.md", "docs/agents.md"] {
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
            for kind in ["anthropic_api_key", "github_token"] {
                project.credential(kind, "acme", "x").credential(kind, "default", "x");
            }
            if !is_project {
                project.write(&file, &block);
            }
            let output = project.run(&["config"]);
            assert!(output.status.success(), "{document}: {file}: {output:?}");
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
    let presets: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(presets.len() >= 12, "{presets:?}");
    let guide = read("docs/agents.md");
    for preset in presets {
        let is_about = |line: &str| line.starts_with("## ") && line.ends_with(&format!(": `{preset}`"));
        assert!(guide.lines().any(is_about), "docs/agents.md has no section that ends with `{preset}`");
    }
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
