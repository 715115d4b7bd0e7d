//! Providers of a project's own: a file in `providers/`.

use aws_lc_rs::hmac::HMAC_SHA256;
use doorbell_client::Answer;
use doorbell_core::provider::{Key, Signed, encode_hex};
use doorbell_core::secret::Secret;

use crate::support::{Project, wait_until};

const ACME: &str = r#"name = "acme-ci"
title = "Acme CI"

[[signature]]
scheme = "hmac"
header = "X-Acme-Signature"

[event]
from = "/kind"

[delivery]
id = "header:X-Acme-Id"

[context]
sender = "/by"
branch = "/branch"

[filters]
branches = "branch"

[headers]
X-Acme-Id = "{id}"

[[sample]]
event = "built"
about = "a build ended"
body = '''{"kind":"built","by":"robin","branch":"main"}'''
"#;

fn project() -> Project {
    let project = Project::new("[webhooks.ci]\ntype = \"acme-ci\"\ncredential = \"acme\"\n");
    project.write("providers/acme-ci.toml", &ACME.replace("[headers]\nX-Acme-Id = \"{id}\"\n\n", ""));
    project.credential("acme_ci_webhook_secret", "acme", "hush");
    project.agent("triage", "[[webhooks]]\nsource = \"ci\"\nevents = [\"built\"]\nbranches = [\"main\"]", "true");
    project
}

#[tokio::test]
async fn a_provider_that_is_a_file_takes_deliveries_and_is_taken_over_when_it_is_saved() {
    let project = project();
    let gateway = project.serve();
    let rung = project.json(&["ring", "acme-ci", "built"]);
    assert_eq!((&rung["event"], rung["runs"].as_array().unwrap().len()), (&"acme-ci.built".into(), 1), "{rung}");
    let refused = project.run(&["ring", "acme-ci", "built", "--tamper"]);
    assert!(refused.status.success(), "{refused:?}");
    let file = project.read("providers/acme-ci.toml").replace("from = \"/kind\"", "from = \"/by\"");
    project.write("providers/acme-ci.toml", &file);
    wait_until("the file to be taken over", async || {
        let config = gateway.client.stats().await.unwrap().config?;
        (config.generation == 2).then_some(())
    })
    .await;
    let other = r#"{"kind":"built","by":"sam","branch":"main"}"#;
    project.write("other.json", other);
    let rung = project.json(&["ring", "acme-ci", "built", "--file", "other.json"]);
    assert_eq!(rung["event"], "acme-ci.sam", "{rung}");
    // What is broken is refused, and what was in force stays.
    project.write("providers/acme-ci.toml", &file.replace("[[signature]]", "[[signatur]]"));
    wait_until("the file to be refused", async || {
        gateway.client.stats().await.unwrap().config?.error.filter(|error| error.contains("providers/acme-ci.toml"))
    })
    .await;
    let body = other.replace("sam", "kim");
    let key = Key::hmac(HMAC_SHA256, &Secret::new("hush")).unwrap();
    let signature = encode_hex(key.mac(&[body.as_bytes()]).unwrap().as_ref());
    let headers = vec![
        ("Content-Type".to_owned(), "application/json".to_owned()),
        ("X-Acme-Signature".to_owned(), signature),
        ("X-Acme-Id".to_owned(), "kim-1".to_owned()),
    ];
    let receipt = gateway.send("/v1/webhooks/acme-ci/ci", Signed { headers, body: body.into() }).await;
    assert!(matches!(&receipt, Answer::Receipt(receipt) if receipt.event == "acme-ci.kim"), "{receipt:?}");
    assert_eq!(gateway.client.stats().await.unwrap().config.unwrap().generation, 2);
}

#[test]
fn a_provider_that_is_a_file_is_listed_shown_and_tested() {
    let project = project();
    let listed = project.json(&["providers"]);
    assert!(listed["providers"].as_array().unwrap().iter().any(|one| one["name"] == "acme-ci"));
    let shown = String::from_utf8(project.run(&["providers", "show", "acme-ci"]).stdout).unwrap();
    assert!(shown.contains("Acme CI") && shown.contains("X-Acme-Signature"), "{shown}");
    for which in ["acme-ci", "providers/acme-ci.toml"] {
        let tested = project.json(&["providers", "test", which]);
        assert_eq!((&tested["failed"], &tested["tests"][0]["events"][0]), (&0.into(), &"acme-ci.built".into()));
    }
    // Samples are of the event that they say, and there are some, whatever proves the sender.
    let token = ACME.replace("scheme = \"hmac\"", "scheme = \"token\"");
    for (text, problem) in [
        (
            ACME.replace("event = \"built\"", "event = \"zork\""),
            "its `event` is `zork`, and it is read as acme-ci.built",
        ),
        (token.split("[[sample]]").next().unwrap().to_owned(), "it has no sample to test with"),
    ] {
        project.write("elsewhere.toml", &text);
        let tested = project.run(&["providers", "test", "elsewhere.toml", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&tested.stdout).unwrap();
        assert_eq!((tested.status.success(), &report["tests"][0]["problem"]), (false, &problem.into()), "{report}");
    }
    let types = project.json(&["creds", "types"]);
    assert!(types["types"].as_array().unwrap().iter().any(|one| one["type"] == "acme_ci_webhook_secret"));
    let settings = String::from_utf8(project.run(&["config"]).stdout).unwrap();
    assert!(settings.contains("providers.acme-ci"), "{settings}");
    // A file that is in no project.
    project.write("elsewhere.toml", &ACME.replace("[event]", "[evnt]"));
    let wrong = project.run(&["providers", "test", "elsewhere.toml"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("elsewhere.toml:") && said.contains("evnt"), "{said}");
}

#[test]
fn what_is_built_in_cannot_be_replaced_and_mistakes_point_into_the_file() {
    let project = Project::new("");
    for (file, text, said) in [
        ("github.toml", ACME.replace("acme-ci", "github"), "`github` is built in (GitHub)"),
        ("generic.toml", ACME.replace("acme-ci", "generic"), "`generic` is a type that is built in"),
        ("other.toml", ACME.to_owned(), "name the file providers/acme-ci.toml"),
        ("acme-ci.toml", ACME.replace("header = ", "haeder = "), "providers/acme-ci.toml:6"),
        ("acme-ci.toml", ACME.replace("branches = ", "where = "), "`where` cannot be a filter"),
        ("A B.toml", ACME.to_owned(), "cannot be the name of a provider"),
    ] {
        project.write(&format!("providers/{file}"), &text);
        let output = project.run(&["config"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(said), "{file}: {errors}");
        std::fs::remove_file(project.path("providers").join(file)).unwrap();
    }
    assert!(project.run(&["config"]).status.success());
}
