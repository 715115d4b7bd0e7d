//! Providers from outside: what is known of each, who is ignored, and what is rung.

use doorbell_client::Answer;
use doorbell_core::provider::{Key, Unsent, built_in, encode_hex, find_sample};
use doorbell_core::secret::Secret;

use crate::senders;
use crate::support::{ONE_SOURCE, Project, issue, sample, sign, wait_until};

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
        let text = text.split("\nDeclared as\n").next().unwrap().to_owned();
        assert!(
            shown.status.success() && text.contains("Set up") && text.contains("[webhooks.acme]"),
            "{name}: {text}"
        );
        assert!(!text.contains("{url}") && !text.contains("{secret}"), "{name}: {text}");
    }
    let tested = project.json(&["providers", "test"]);
    assert!(tested["failed"] == 0 && tested["tests"].as_array().unwrap().len() > 10, "{tested}");
    let misspelt = project.run(&["providers", "show", "githb"]);
    assert_eq!(misspelt.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&misspelt.stderr).contains("did you mean `github`?"), "{misspelt:?}");
    let types = project.json(&["creds", "types"]);
    let types = types["types"].as_array().unwrap();
    assert!(types.iter().any(|one| one["type"] == "github_webhook_secret" && one["usedBy"] == "github"), "{types:?}");
}

/// The example on each provider's page, word by word, is a project whose agent runs when the sample that it names is rung.
#[tokio::test]
async fn the_example_of_every_provider_works_word_by_word() {
    let listed = Project::new("").json(&["providers"]);
    for played in senders::all() {
        let name = played.name();
        let page = Project::new("").run(&["reference", "providers", name]);
        let page = String::from_utf8(page.stdout).unwrap();
        let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let (config, agent) = example.split_once("# agents/triage/config.toml\n").unwrap();
        let project = Project::new(config);
        played.keep_secrets(&project, "acme");
        project.write("agents/triage/config.toml", agent);
        let gateway = project.serve();
        let shown = listed["providers"].as_array().unwrap().iter().find(|shown| shown["name"] == name).unwrap();
        let sample = shown["samples"].as_array().unwrap().iter().find(|sample| sample["handshake"] == false).unwrap();
        let sample = sample["event"].as_str().unwrap();
        let rung = project.run(&["ring", name, sample]);
        let said = String::from_utf8_lossy(&rung.stderr).into_owned();
        if said.contains("can sign") {
            continue;
        }
        assert!(rung.status.success(), "{name}: {rung:?}");
        let runs = gateway.runs().await;
        // HubSpot's has two events in one body.
        assert!(!runs.is_empty(), "{name} {sample}: {rung:?}");
        for run in runs {
            assert_eq!(gateway.finished(&run.id).await.run.state, "succeeded", "{name}");
        }
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
    let nobody = project.run(&["sources", "captured", "acmee"]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(said.contains("no source `acmee`") && said.contains("did you mean `acme`?"), "{said}");
    assert_eq!(project.run(&["sources", "show", "nobody"]).status.code(), Some(3));
}

/// What somebody does to set a webhook of Notion up.
#[tokio::test]
async fn the_secret_that_notion_shows_becomes_the_credential() {
    let project = Project::new("[webhooks.wiki]\ntype = \"notion\"\ncredential = \"wiki\"\n");
    project.credential("notion_webhook_secret", "wiki", "some text until then");
    let gateway = project.serve();
    let notion = built_in().into_iter().find(|provider| provider.name() == "notion").unwrap();
    let key = notion.prepare(&Secret::new("secret_abc")).unwrap();
    let body = r#"{"verification_token":"secret_abc"}"#;
    let shown = notion.sign(Some(&key), Unsent::new("page.created", body, "1", doorbell::clock::now()));
    let sent = gateway.sender("/v1/webhooks/notion/wiki").post(&shown.headers, shown.body).await.unwrap();
    assert_eq!(sent.status, 200, "{sent:?}");
    let said = String::from_utf8(project.run(&["sources", "captured", "wiki"]).stdout).unwrap();
    assert!(said.contains("| doorbell creds add notion_webhook_secret:wiki --stdin"), "{said}");
    let waits = || String::from_utf8_lossy(&project.run(&["sources"]).stderr).contains("captured secret waits");
    assert!(waits());
    assert!(!project.run(&["ring", "notion", "page.created"]).stdout.is_empty());
    let secret = project.run(&["sources", "captured", "wiki", "--secret"]);
    assert_eq!(secret.stdout, b"secret_abc\n");
    project.credential("notion_webhook_secret", "wiki", "secret_abc");
    let page = find_sample(notion.samples(), "page.created").unwrap();
    wait_until("the secret to verify", async || {
        let unsent = Unsent::new("page.created", page.body.to_string(), "2", doorbell::clock::now());
        let signed = notion.sign(Some(&key), unsent);
        matches!(gateway.send("/v1/webhooks/notion/wiki", signed).await, Answer::Receipt(_)).then_some(())
    })
    .await;
    // It is set up: what a stranger shows from now on is answered, and not kept.
    let strangers = notion.prepare(&Secret::new("secret_of_somebody")).unwrap();
    let body = r#"{"verification_token":"secret_of_somebody"}"#;
    let late = notion.sign(Some(&strangers), Unsent::new("page.created", body, "3", doorbell::clock::now()));
    let sent = gateway.sender("/v1/webhooks/notion/wiki").post(&late.headers, late.body).await.unwrap();
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_eq!(project.run(&["sources", "captured", "wiki", "--secret"]).stdout, b"secret_abc\n");
    assert!(!waits());
    project.log_with("has verified deliveries already");
    assert!(project.run(&["sources", "captured", "wiki", "--forget"]).status.success());
    assert_eq!(project.run(&["sources", "captured", "wiki"]).status.code(), Some(3));
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!project.read("gateway.log").contains("secret_abc"), "it is in no log");
}

/// Every provider's samples, signed and rung at a gateway that has a public name; what only its maker can sign is said to be so.
#[tokio::test]
async fn every_sample_of_every_provider_can_be_rung() {
    let all = senders::all();
    let project = senders::project(&all);
    let tested = project.json(&["providers", "test"]);
    let tested = tested["tests"].as_array().unwrap();
    let gateway = project.serve();
    let (mut seen, mut unsigned) = (0, Vec::new());
    for played in &all {
        let name = played.name();
        for sample in played.provider.samples() {
            let event = sample.event.as_ref();
            let of = |test: &&serde_json::Value| test["provider"] == name && test["sample"] == event;
            let read = &tested.iter().find(of).unwrap()["events"];
            let rung = project.run(&["ring", name, event, "--json"]);
            let said = String::from_utf8_lossy(&rung.stderr).into_owned();
            if said.contains("can sign") {
                assert!(!rung.status.success(), "{name} {event}: {said}");
                let refused = project.run(&["ring", name, event, "--unsigned"]);
                assert!(refused.status.success(), "{name} {event}: {refused:?}");
                unsigned.push(name);
            } else {
                assert!(rung.status.success(), "{name} {event} ({read}): {rung:?}");
                seen += 1;
            }
        }
    }
    unsigned.sort_unstable();
    unsigned.dedup();
    assert_eq!(unsigned, ["paypal", "sns"], "nobody but their makers has the key");
    assert!(seen > 150, "{seen}");
    // A secret of each of the others verified something.
    let uses = gateway.client.sources().await.unwrap().sources;
    let idle = uses.iter().filter(|source| source.credential_uses[0].deliveries == 0);
    assert_eq!(idle.map(|source| source.name.as_str()).collect::<Vec<_>>(), unsigned);
}

/// Protocols that sign the URL sign the public one, whatever the gateway is reached by.
#[tokio::test]
async fn the_public_url_is_what_is_signed() {
    let project = Project::new(
        "public_url = \"https://hooks.example.com\"\n[webhooks.phone]\ntype = \"twilio\"\ncredential = \"acme\"\n\
         [webhooks.crm]\ntype = \"hubspot\"\ncredential = \"acme\"\n",
    );
    let listed = project.json(&["providers"]);
    for name in ["twilio", "hubspot"] {
        let provider = listed["providers"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        let credential = &provider["credential"];
        let (kind, field) = (credential["type"].as_str().unwrap(), credential["field"].as_str().unwrap());
        project.write(&format!("credentials/{kind}/acme/{field}"), "12345678901234567890123456789012");
    }
    let _gateway = project.serve();
    for name in ["twilio", "hubspot"] {
        let provider = listed["providers"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        for sample in provider["samples"].as_array().unwrap() {
            let event = sample["event"].as_str().unwrap();
            let rung = project.run(&["ring", name, event]);
            assert!(rung.status.success(), "{name} {event}: {rung:?}");
            assert!(project.run(&["ring", name, event, "--tamper"]).status.success(), "{name} {event}");
        }
    }
}

#[tokio::test]
async fn a_provider_whose_key_only_verifies_is_rung_with_a_test_key() {
    let project = Project::new("[webhooks.bot]\ntype = \"discord\"\ncredential = \"acme\"\n");
    let pair = Key::ed25519_pair(&[7; 32]).unwrap();
    project.write("credentials/discord_bot/acme/public_key", &encode_hex(pair.public().unwrap()));
    project.agent("deploys", "[[webhooks]]\nsource = \"bot\"\ncommands = [\"deploy\"]", "true");
    let _gateway = project.serve();
    let nobody = project.run(&["ring", "discord", "application_command.deploy"]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(
        !nobody.status.success() && said.contains("doorbell creds add discord_bot:acme --field private_key"),
        "{said}"
    );
    project.write("credentials/discord_bot/acme/private_key", &encode_hex(&[7; 32]));
    let rung = project.json(&["ring", "discord", "application_command.deploy"]);
    assert_eq!(rung["body"], r#"{"type":5}"#, "its protocol's own answer: {rung}");
    assert_eq!(rung["receipt"]["event"], "discord.application_command.deploy", "{rung}");
    assert_eq!(rung["receipt"]["runs"].as_array().unwrap().len(), 1, "{rung}");
    let by_name = String::from_utf8(project.run(&["ring", "bot", "application_command.deploy"]).stdout).unwrap();
    assert!(by_name.contains("accepted as evt_") && by_name.contains("started run_"), "{by_name}");
    for wrong in ["--tamper", "--stale", "--unsigned"] {
        let refused = project.run(&["ring", "discord", "application_command.deploy", wrong]);
        assert!(refused.status.success(), "{wrong}: {refused:?}");
    }
}

#[tokio::test]
async fn a_challenge_of_x_is_answered_with_the_key() {
    let project = Project::new("[webhooks.x]\ntype = \"x\"\ncredential = \"acme\"\n");
    let listed = project.json(&["providers"]);
    let twitter = listed["providers"].as_array().unwrap().iter().find(|one| one["name"] == "twitter").unwrap();
    let credential = &twitter["credential"];
    let (kind, field) = (credential["type"].as_str().unwrap(), credential["field"].as_str().unwrap());
    project.write(&format!("credentials/{kind}/acme/{field}"), "consumer secret");
    let gateway = project.serve();
    for path in ["/v1/webhooks/twitter/x", "/v1/webhooks/x/x", "/webhooks/x"] {
        let answer = reqwest::get(format!("{}{path}?crc_token=abc", gateway.url)).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        assert!(answer.text().await.unwrap().starts_with(r#"{"response_token":"sha256="#));
        assert_eq!(reqwest::get(format!("{}{path}", gateway.url)).await.unwrap().status().as_u16(), 401);
    }
    assert_eq!(gateway.client.events(&doorbell_client::EventQuery::default()).await.unwrap().events, []);
}
