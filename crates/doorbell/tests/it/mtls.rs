//! Agents behind a URL that ask for a certificate, and whose own is of a private authority.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, crypto};

use crate::support::{ONE_SOURCE, Project, read_request, sample, wait_until};

/// An authority of the test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    /// A certificate for `name` with its key.
    fn certify(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn give(&self, project: &Project, name: &str) -> String {
        let (certificate, key) = self.certify(name);
        let folder = "credentials/http_agent_certificate/acme";
        project.write(&format!("{folder}/certificate"), &certificate.pem());
        project.write(&format!("{folder}/key"), &key.serialize_pem());
        key.serialize_pem()
    }
}

/// Gives a project a client certificate and an authority.
pub(crate) fn certify(project: &Project) {
    let authority = Authority::new();
    authority.give(project, "gateway");
    project.write("credentials/http_agent_ca/acme/certificate", &authority.pem);
}

/// A server that lets in only who shows a certificate of the authority; it answers 204. What it was shown.
fn start(authority: &Authority) -> (u16, Arc<Mutex<Vec<Vec<u8>>>>) {
    let (certificate, key) = authority.certify("localhost");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(vec![certificate.der().clone()], key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let shown = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let seen = Arc::clone(&shown);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            answer(StreamOwned::new(connection, stream), &seen);
        }
    });
    (port, shown)
}

/// One request to a connection.
fn answer(stream: StreamOwned<ServerConnection, std::net::TcpStream>, seen: &Mutex<Vec<Vec<u8>>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    read_request(&mut reader)?;
    let stream = reader.get_mut();
    seen.lock().unwrap().push(stream.conn.peer_certificates()?.first()?.to_vec());
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

#[tokio::test]
async fn an_agent_is_shown_the_certificate_that_is_stored_now_and_its_own_is_checked() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (port, shown) = start(&ours);
    let project = Project::new(ONE_SOURCE);
    project.credential("http_agent_secret", "acme", "a secret");
    let key = ours.give(&project, "gateway");
    project.write("credentials/http_agent_ca/acme/certificate", &ours.pem);
    let agent = |more: &str| {
        format!(
            "[[webhooks]]\nsource = \"acme\"\n[retries]\nattempts = 1\n[runtime]\ntype = \"http\"\ncredential = \"acme\"\n\
             url = \"https://localhost:{port}/\"\n{more}"
        )
    };
    project.write("agents/triage/config.toml", &agent("client_certificate = \"acme\"\nca = \"acme\"\n"));
    let gateway = project.serve();
    let ended = async || {
        let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
        gateway.finished(&run).await.run
    };
    let run = ended().await;
    assert_eq!(run.state, "succeeded", "{run:?}");
    // Another one: the next run shows it, without a restart.
    ours.give(&project, "gateway");
    wait_until("the reload", async || {
        project.read("gateway.log").contains("http_agent_certificate:acme changed").then_some(())
    })
    .await;
    assert_eq!(ended().await.state, "succeeded");
    let shown = shown.lock().unwrap().clone();
    assert!(shown.len() == 2 && shown[0] != shown[1]);
    // One of somebody else's authority is not let in.
    let before = gateway.client.stats().await.unwrap().config.unwrap().generation;
    theirs.give(&project, "gateway");
    wait_until("the reload", async || {
        (gateway.client.stats().await.unwrap().config.unwrap().generation > before).then_some(())
    })
    .await;
    let run = ended().await;
    assert!(run.state == "failed" && run.reason.as_deref().unwrap().contains("no answer"), "{run:?}");
    // Without `ca`, the server's own certificate is nobody's.
    project.write("agents/triage/config.toml", &agent("client_certificate = \"acme\"\n"));
    wait_until("the reload", async || {
        project.read("gateway.log").contains("triage changed (runtime.ca)").then_some(())
    })
    .await;
    let run = ended().await;
    assert!(run.state == "failed" && run.reason.as_deref().unwrap().contains("no answer"), "{run:?}");
    assert_eq!(gateway.terminate(), Some(0));
    let said = [project.read("gateway.log"), String::from_utf8(project.run(&["config"]).stdout).unwrap()].concat();
    assert!(!said.contains(key.lines().nth(1).unwrap()), "no key is in a log");
}

#[test]
fn what_is_no_certificate_is_refused_when_it_is_read() {
    let authority = Authority::new();
    let project = Project::new(ONE_SOURCE);
    project.credential("http_agent_secret", "acme", "a secret");
    let agent = |url: &str| {
        format!(
            "[[webhooks]]\nsource = \"acme\"\n[runtime]\ntype = \"http\"\ncredential = \"acme\"\nurl = \"{url}\"\n\
             client_certificate = \"acme\"\n"
        )
    };
    let said = |url: &str| {
        project.write("agents/triage/config.toml", &agent(url));
        let output = project.run(&["config"]);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (_, missing) = said("https://localhost/");
    assert!(missing.contains("no credential http_agent_certificate:acme with a field `certificate`"), "{missing}");
    let key = authority.give(&project, "gateway");
    assert!(said("https://localhost/").0);
    let (_, plain) = said("http://localhost/");
    assert!(plain.contains("certificates are for https:// URLs"), "{plain}");
    project.write("credentials/http_agent_certificate/acme/certificate", &authority.certify("other").0.pem());
    let (good, mixed) = said("https://localhost/");
    assert!(!good && mixed.contains("the key is the certificate's own"), "{mixed}");
    project.write("credentials/http_agent_certificate/acme/certificate", "hunter2");
    let (good, wrong) = said("https://localhost/");
    assert!(!good && !wrong.contains("hunter2") && !wrong.contains(key.lines().nth(1).unwrap()), "{wrong}");
}
