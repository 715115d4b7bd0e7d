//! TLS: the gateway shows its own certificate, and takes renewed ones over.

use std::net::SocketAddr;

use doorbell_client::{Answer, api};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_for, wait_until};

pub const NAME: &str = "hooks.example.com";
const TLS: &str = "public_url = \"https://hooks.example.com\"\n[gateway.tls]\ncertificate = \"tls/cert.pem\"\nkey = \
                   \"tls/key.pem\"\n";

/// A certificate that is good until the end of a year, and its key; the first is also what makes it trusted.
fn certificate(until: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(until, 12, 31);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn install(project: &Project, (certificate, key): &(String, String)) {
    project.write("tls/key.pem", key);
    project.write("tls/cert.pem", certificate);
}

fn project(config: &str, shown: &(String, String)) -> Project {
    let project = Project::new(&format!("{config}{TLS}{ONE_SOURCE}"));
    install(&project, shown);
    project
}

/// Where the gateway speaks TLS.
pub fn address(project: &Project) -> SocketAddr {
    wait_for("the gateway to say where it listens", || {
        let log = project.read("gateway.log");
        let line = log.lines().rfind(|line| line.contains("gateway.started"))?;
        line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
    })
}

/// Somebody who trusts this certificate, and finds the gateway under its name.
pub fn visitor(address: SocketAddr, trusted: &(String, String)) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(trusted.0.as_bytes()).unwrap();
    let visitor = reqwest::Client::builder().tls_certs_only([root]).resolve(NAME, address).no_proxy();
    visitor.build().unwrap()
}

pub async fn deliver(visitor: &reqwest::Client, address: SocketAddr) -> Result<api::Receipt, String> {
    let signed = sample("issues.opened");
    let url = format!("https://{NAME}:{}/webhooks/github", address.port());
    let asked = signed.headers.iter().fold(visitor.post(url), |asked, (name, value)| asked.header(name, value));
    let answer = asked.body(signed.body).send().await.map_err(|error| format!("{error:?}"))?;
    answer.json().await.map_err(|error| error.to_string())
}

async fn reload_error(gateway: &Gateway) -> Option<String> {
    gateway.client.stats().await.unwrap().config.unwrap().error
}

#[tokio::test]
async fn senders_come_by_tls_and_this_machine_without() {
    let shown = certificate(2100);
    let project = project("", &shown);
    let gateway = project.serve();
    let address = address(&project);
    let visitor = visitor(address, &shown);
    assert!(!deliver(&visitor, address).await.unwrap().duplicate);
    // The API is there, too, for whoever has a key; a host that is not its own is refused as everywhere.
    let stats = format!("https://{NAME}:{}/v1/stats", address.port());
    assert_eq!(visitor.get(&stats).bearer_auth(&gateway.key).send().await.unwrap().status(), 200);
    assert_eq!(visitor.get(&stats).send().await.unwrap().status(), 401);
    // Commands and agents of this machine need no certificate.
    assert!(gateway.url.starts_with("http://127.0.0.1:"), "{}", gateway.url);
    assert_eq!(project.json(&["events"])["events"].as_array().unwrap().len(), 1);
    assert!(matches!(gateway.send("/webhooks/github", sample("issues.opened")).await, Answer::Receipt(_)));
    assert!(project.run(&["ring", "github", "issues.opened"]).status.success());
    let stranger = reqwest::Client::builder().resolve(NAME, address).no_proxy().build().unwrap();
    assert!(deliver(&stranger, address).await.is_err(), "it trusts nobody that is not known");
}

#[tokio::test]
async fn whoever_speaks_plain_http_to_it_is_told_to_use_https() {
    let project = project("", &certificate(2100));
    let _gateway = project.serve();
    let mut stream = TcpStream::connect(address(&project)).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("tls_required"), "{answer}");
    // One that says nothing, or nonsense, is let go.
    for said in [b"".as_slice(), &[0x16, 3, 1], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        let mut stream = TcpStream::connect(address(&project)).await.unwrap();
        stream.write_all(said).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_dropping_who_is_connected() {
    let (old, new) = (certificate(2100), certificate(2101));
    let project = project("", &old);
    let gateway = project.serve();
    let address = address(&project);
    let connected = visitor(address, &old);
    deliver(&connected, address).await.unwrap();
    // What cannot be used leaves the old one in force, and says why.
    project.write("tls/cert.pem", "renewed by somebody in a hurry");
    let refused = wait_until("the refusal", async || reload_error(&gateway).await).await;
    assert!(refused.contains("cert.pem") && refused.contains("BEGIN CERTIFICATE"), "{refused}");
    deliver(&visitor(address, &old), address).await.unwrap();
    project.write("tls/cert.pem", &new.0);
    let refused = wait_until("another refusal", async || {
        reload_error(&gateway).await.filter(|error| error.contains("key.pem cannot be used"))
    })
    .await;
    assert!(refused.contains("the key that the certificate was made for"), "{refused}");
    assert!(!refused.contains("PRIVATE"), "{refused}");
    project.write("tls/key.pem", &new.1);
    wait_until("the new one", async || deliver(&visitor(address, &new), address).await.ok()).await;
    assert_eq!(reload_error(&gateway).await, None);
    assert!(deliver(&visitor(address, &old), address).await.is_err());
    // The connection from before is still the same one: a new one would not be trusted.
    deliver(&connected, address).await.unwrap();
    project.log_with("the certificate of [gateway.tls] was renewed");
}

#[tokio::test]
async fn the_end_of_a_certificate_is_seen_before_it_comes() {
    let project = project("", &certificate(2000));
    let gateway = project.serve();
    let metrics = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("doorbell_tls_certificate_expires_timestamp_seconds 978220800"), "{metrics}");
    let findings = project.run(&["doctor", "--json"]);
    let text = String::from_utf8_lossy(&findings.stdout).into_owned();
    assert!(text.contains("cert.pem expired on 2000-12-31"), "{text}");
}

#[tokio::test]
async fn management_on_loopback_stays_plain() {
    let shown = certificate(2100);
    let project = project("admin_listen = \"127.0.0.1:0\"\n", &shown);
    let gateway = project.serve();
    assert_eq!(gateway.client.stats().await.unwrap().events, Some(0));
    let visitor = visitor(address(&project), &shown);
    assert!(!deliver(&visitor, address(&project)).await.unwrap().duplicate);
    let stats = format!("https://{NAME}:{}/v1/stats", address(&project).port());
    assert_eq!(visitor.get(stats).bearer_auth(&gateway.key).send().await.unwrap().status(), 404);
    assert!(project.run(&["ring", "github", "issues.opened"]).status.success());
}

#[test]
fn files_that_cannot_be_used_are_refused_with_what_is_wrong() {
    let (one, other) = (certificate(2100), certificate(2100));
    let refused = |project: &Project| {
        let output = project.run(&["config"]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let project = project("", &one);
    assert!(project.run(&["config"]).status.success());
    project.write("tls/key.pem", &other.1);
    assert!(refused(&project).contains("the key that the certificate was made for"));
    project.write("tls/key.pem", &one.0);
    assert!(refused(&project).contains("BEGIN PRIVATE KEY"));
    std::fs::remove_file(project.path("tls/key.pem")).unwrap();
    assert!(refused(&project).contains("No such file"));
    let half = Project::new("[gateway.tls]\ncertificate = \"a\"\n");
    assert!(refused(&half).contains("[gateway.tls] needs a `key`"));
}
