//! Providers from outside: what is known of each, who is ignored, and what is rung.

use doorbell_client::Answer;

use crate::support::{ONE_SOURCE, Project, issue, sample, sign};

#[test]
fn every_provider_is_listed_shown_and_tested() {
    let project = Project::new("");
    let listed = project.json(&["providers"]);
    let names: Vec<&str> =
        listed["providers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"github") && names.contains(&"generic") && names.is_sorted(), "{names:?}");
    for name in &names {
        let shown = project.run(&["providers", "show", name]);
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(
            shown.status.success() && text.contains("Set up") && text.contains("[webhooks.acme]"),
            "{name}: {text}"
        );
        assert!(!text.contains("{url}") && !text.contains("{secret}"), "{name}: {text}");
    }
    let tested = project.json(&["providers", "test"]);
    assert!(tested["failed"] == 0 && tested["tests"].as_array().unwrap().len() > 10, "{tested}");
    assert_eq!(project.run(&["providers", "show", "githb"]).status.code(), Some(3));
    let types = project.json(&["creds", "types"]);
    let types = types["types"].as_array().unwrap();
    assert!(types.iter().any(|one| one["type"] == "github_webhook_secret" && one["usedBy"] == "github"), "{types:?}");
}

/// The example of each provider is a project.
#[test]
fn the_example_of_every_provider_loads() {
    let listed = Project::new("").json(&["providers"]);
    for provider in listed["providers"].as_array().unwrap() {
        let name = provider["name"].as_str().unwrap();
        let page = Project::new("").run(&["reference", "providers", name]);
        let page = String::from_utf8(page.stdout).unwrap();
        let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let (config, agent) = example.split_once("# agents/triage/config.toml\n").unwrap();
        // Secrets are of many forms, and this is about the rest.
        let config = config.replace("credential = \"acme\"", "allow_unsigned = true");
        let project = Project::new(&config);
        project.write(
            "agents/triage/config.toml",
            &format!("{agent}[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n"),
        );
        let output = project.run(&["config"]);
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

#[tokio::test]
async fn what_an_ignored_sender_causes_is_stored_and_starts_nothing() {
    let project = Project::new(&format!("{ONE_SOURCE}ignore_senders = [\"my-bot\"]\n"));
    project.agent("triage", "[[webhooks]]\nsource = \"acme\"\nevents = [\"issues\"]", "true");
    project.agent("pushes", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "true");
    let gateway = project.serve();
    let mut body: serde_json::Value = serde_json::from_slice(&issue("by the bot").body).unwrap();
    body["sender"]["login"] = "my-bot".into();
    let delivery = sign("issues.opened", body.to_string(), "1");
    let receipt = gateway.ring(delivery.clone()).await;
    assert!(receipt.runs.is_empty(), "{receipt:?}");
    let again = gateway.ring(delivery).await;
    assert!(again.duplicate && again.runs.is_empty(), "{again:?}");
    let why = project.json(&["why", &receipt.delivery_id]);
    let outcomes = why["event"]["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.len(), 1, "only an agent that wants it has an outcome: {why}");
    assert_eq!((&outcomes[0]["agent"], &outcomes[0]["outcome"]), (&"triage".into(), &"skipped".into()));
    assert_eq!(outcomes[0]["reason"], "source `acme` ignores what `my-bot` causes");
    let said = String::from_utf8(project.run(&["why", &receipt.delivery_id]).stdout).unwrap();
    assert!(said.contains("ignores what `my-bot` causes"), "{said}");
    assert_eq!(gateway.ring(issue("by somebody else")).await.runs.len(), 1);
    let shown = String::from_utf8(project.run(&["sources", "show", "acme"]).stdout).unwrap();
    assert!(shown.contains("my-bot") && shown.contains("/v1/webhooks/github/acme"), "{shown}");
}

#[tokio::test]
async fn a_method_that_is_not_taken_is_answered_with_those_that_are() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let answer = reqwest::get(format!("{}/webhooks/github", gateway.url)).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()), (405, "POST"));
    let nobody = reqwest::get(format!("{}/v1/webhooks/github/other", gateway.url)).await.unwrap();
    assert_eq!(nobody.status().as_u16(), 404);
}

#[tokio::test]
async fn there_is_no_captured_secret_where_none_was_shown() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    assert!(matches!(gateway.send("/v1/webhooks/github/acme", sample("ping")).await, Answer::Receipt(_)));
    let captured = project.run(&["sources", "captured", "acme"]);
    assert_eq!(captured.status.code(), Some(3), "{captured:?}");
    assert_eq!(project.run(&["sources", "show", "nobody"]).status.code(), Some(3));
}

/// Every provider's samples, rung at a gateway that has a public name: what can be signed here is taken.
#[tokio::test]
async fn every_sample_of_every_provider_can_be_rung() {
    let listed = Project::new("").json(&["providers"]);
    let all = listed["providers"].as_array().unwrap();
    let tested = Project::new("").json(&["providers", "test"]);
    let tested = tested["tests"].as_array().unwrap();
    let names: Vec<&str> = all.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let sources = names.iter().map(|name| format!("[webhooks.{name}]\ntype = \"{name}\"\nallow_unsigned = true\n"));
    let project = Project::new(&format!("public_url = \"https://hooks.example.com\"\n{}", sources.collect::<String>()));
    let _gateway = project.serve();
    let mut seen = 0;
    for provider in all {
        let name = provider["name"].as_str().unwrap();
        for sample in provider["samples"].as_array().unwrap() {
            let event = sample["event"].as_str().unwrap();
            let of = |test: &&serde_json::Value| test["provider"] == name && test["sample"] == event;
            let read = &tested.iter().find(of).unwrap()["events"];
            let rung = project.run(&["ring", name, event, "--json"]);
            assert!(rung.status.success(), "{name} {event} ({read}): {rung:?}");
            seen += 1;
        }
    }
    assert!(seen > 10);
}
