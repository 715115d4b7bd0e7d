//! A certificate that the gateway orders itself, from an authority of this test that asks for a proof as real ones do.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Gateway, ONE_SOURCE, Project, wait_for, wait_until};
use crate::tls::{NAME, address, deliver, visitor};

/// The DER of the extension's id, `id-pe-acmeIdentifier`.
const ACME_IDENTIFIER: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f];
const TOKEN: &str = "a-token-of-the-authority";

/// What the authority knows.
#[derive(Default)]
struct Known {
    /// Where it finds the gateway, whose name it does not look up.
    gateway: Option<SocketAddr>,
    thumbprint: String,
    accounts: usize,
    orders: usize,
    order: &'static str,
    chain: String,
    /// Until the end of which year what it issues is good.
    until: i32,
    contact: Value,
}

struct Authority {
    known: Mutex<Known>,
    url: String,
    ca: CertificateParams,
    key: KeyPair,
}

impl Authority {
    /// One that listens, and whose root certificate is in the project.
    async fn start(project: &Project) -> Arc<Self> {
        let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        project.write("ca.pem", &ca.self_signed(&key).unwrap().pem());
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&own, &Issuer::from_params(&ca, &key)).unwrap();
        let secret = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
        let server =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![leaf.der().clone()], secret)
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let known = Mutex::new(Known { until: 2999, ..Known::default() });
        let authority = Arc::new(Self { known, url, ca, key });
        let (serving, acceptor) = (Arc::clone(&authority), tokio_rustls::TlsAcceptor::from(Arc::new(server)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (serving, acceptor) = (Arc::clone(&serving), acceptor.clone());
                tokio::spawn(async move { serving.talk(acceptor.accept(stream).await.unwrap()).await });
            }
        });
        authority
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// Accounts and orders so far.
    fn count(&self) -> (usize, usize) {
        let known = self.known();
        (known.accounts, known.orders)
    }

    async fn talk(&self, mut stream: tokio_rustls::server::TlsStream<TcpStream>) {
        let mut read = Vec::new();
        loop {
            let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
                continue;
            };
            let head = String::from_utf8(read[..end].to_vec()).unwrap().to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            while read.len() < end + 4 + length {
                stream.read_buf(&mut read).await.unwrap();
            }
            let body = read[end + 4..end + 4 + length].to_vec();
            read.drain(..end + 4 + length);
            let path = head.split_whitespace().nth(1).unwrap().to_owned();
            let (status, location, answer) = self.answer(&path, &body).await;
            let location = location.map(|path| format!("location: {}{path}\r\n", self.url)).unwrap_or_default();
            // An answer to HEAD has no body, and may not announce one that a client would wait for.
            let answer = if head.starts_with("head") { String::new() } else { answer };
            let said = format!(
                "HTTP/1.1 {status} Said\r\nreplay-nonce: n\r\ncontent-type: application/json\r\n{location}content-length: \
                 {}\r\n\r\n{answer}",
                answer.len()
            );
            stream.write_all(said.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    }

    async fn answer(&self, path: &str, body: &[u8]) -> (u16, Option<&'static str>, String) {
        let url = |path: &str| format!("{}{path}", self.url);
        let part = |name: &str| -> Value {
            let envelope: Value = serde_json::from_slice(body).unwrap();
            let text = BASE64_URL_SAFE_NO_PAD.decode(envelope[name].as_str().unwrap()).unwrap();
            serde_json::from_slice(&text).unwrap_or_default()
        };
        let order = |known: &Known| {
            let mut order = json!({ "status": known.order, "identifiers": [{ "type": "dns", "value": NAME }],
                "authorizations": [url("/authz")], "finalize": url("/finalize") });
            if known.order == "valid" {
                order["certificate"] = url("/certificate").into();
            }
            order.to_string()
        };
        match path {
            "/directory" => {
                let directory =
                    json!({ "newNonce": url("/nonce"), "newAccount": url("/account"), "newOrder": url("/new") });
                (200, None, directory.to_string())
            }
            "/account" => {
                let jwk = part("protected")["jwk"].clone();
                let member = |name: &str| jwk[name].as_str().unwrap().to_owned();
                let canonical = format!(
                    r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#,
                    member("crv"),
                    member("kty"),
                    member("x"),
                    member("y")
                );
                let wish = part("payload");
                assert_eq!(wish["termsOfServiceAgreed"], true);
                let mut known = self.known();
                known.contact = wish["contact"].clone();
                known.accounts += 1;
                known.thumbprint = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
                (201, Some("/account/1"), json!({ "status": "valid" }).to_string())
            }
            "/new" => {
                assert_eq!(part("payload")["identifiers"][0]["value"], NAME);
                let mut known = self.known();
                known.orders += 1;
                known.order = "pending";
                (201, Some("/order"), order(&known))
            }
            "/order" => (200, None, order(&self.known())),
            "/authz" | "/challenge" => {
                if path == "/challenge" {
                    let proved = self.is_proved().await;
                    self.known().order = if proved { "ready" } else { "invalid" };
                }
                let status = match self.known().order {
                    "pending" => "pending",
                    "invalid" => "invalid",
                    _ => "valid",
                };
                let mut challenge =
                    json!({ "type": "tls-alpn-01", "url": url("/challenge"), "token": TOKEN, "status": status });
                if status == "invalid" {
                    challenge["error"] =
                        json!({ "type": "urn:ietf:params:acme:error:connection", "detail": "nobody there" });
                }
                let identifier = json!({ "type": "dns", "value": NAME });
                let authorization = json!({ "identifier": identifier, "status": status, "challenges": [challenge] });
                (200, None, if path == "/authz" { authorization } else { challenge }.to_string())
            }
            "/finalize" => {
                let request = BASE64_URL_SAFE_NO_PAD.decode(part("payload")["csr"].as_str().unwrap()).unwrap();
                let mut request =
                    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request)).unwrap();
                let mut known = self.known();
                request.params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                request.params.not_after = rcgen::date_time_ymd(known.until, 12, 31);
                known.chain = request.signed_by(&Issuer::from_params(&self.ca, &self.key)).unwrap().pem();
                known.order = "valid";
                (200, None, order(&known))
            }
            "/certificate" => (200, None, self.known().chain.clone()),
            _ => (200, None, String::new()),
        }
    }

    /// Whether the gateway shows, by the name and to nobody else, what only the account can know.
    async fn is_proved(&self) -> bool {
        let thumbprint = self.known().thumbprint.clone();
        let gateway = self.known().gateway;
        let Some(gateway) = gateway else { return false };
        let mut client =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anything))
                .with_no_client_auth();
        client.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = TcpStream::connect(gateway).await.unwrap();
        let stream = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap();
        let connection = stream.get_ref().1;
        let shown = connection.peer_certificates().unwrap()[0].to_vec();
        let expected = digest(&SHA256, format!("{TOKEN}.{thumbprint}").as_bytes());
        let has = |bytes: &[u8]| shown.windows(bytes.len()).any(|window| window == bytes);
        connection.alpn_protocol() == Some(b"acme-tls/1") && has(&ACME_IDENTIFIER) && has(expected.as_ref())
    }
}

/// Whoever asks for a proof takes any certificate, and looks at it.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn project() -> (Project, Arc<Authority>) {
    let project = Project::new("");
    let authority = Authority::start(&project).await;
    // A port that is known before the gateway asks for its certificate.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    authority.known().gateway = Some(free);
    let config = format!(
        "[gateway]\nlisten = \"{free}\"\npublic_url = \"https://{NAME}\"\n[gateway.tls.acme]\ncontact = \
         \"ops@example.com\"\nagree_to_terms = true\ndirectory = \"{}/directory\"\n{ONE_SOURCE}",
        authority.url
    );
    project.write("config.toml", &config);
    (project, authority)
}

fn serve(project: &Project) -> Gateway {
    let root = project.path("ca.pem").display().to_string();
    project.serve_with(&[("SSL_CERT_FILE", &root)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_ordered_proved_kept_and_renewed_in_time() {
    let (project, authority) = project().await;
    let trusted = (project.read("ca.pem"), String::new());
    // The first one is nearly over: its year is, and it began long ago.
    authority.known().until = 2026;
    let gateway = serve(&project);
    let there = address(&project);
    let visitor = visitor(there, &trusted);
    let receipt = wait_until("the certificate", async || deliver(&visitor, there).await.ok()).await;
    assert_eq!(receipt.event, "github.issues.opened");
    assert_eq!(authority.count(), (1, 1));
    assert_eq!(authority.known().contact, json!(["mailto:ops@example.com"]));
    for file in ["certificate.pem", "account.json"] {
        let mode = std::fs::metadata(project.path(".doorbell/acme").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let secret = project.read(".doorbell/acme/certificate.pem");
    let secret = secret.lines().nth(1).unwrap();
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!project.read("gateway.log").contains(secret), "the key is nobody's");

    // Another start shows what there is, and orders another one by the same account.
    authority.known().until = 2999;
    let gateway = serve(&project);
    wait_for("another one", || (authority.known().orders == 2).then_some(()));
    wait_for("it to be in force", || (project.read("gateway.log").matches("was renewed").count() == 2).then_some(()));
    assert!(deliver(&visitor, there).await.is_ok());
    assert_eq!(gateway.terminate(), Some(0));

    // One that is good for long is left alone.
    let gateway = serve(&project);
    assert!(deliver(&visitor, there).await.is_ok());
    assert_eq!(authority.count(), (1, 2));
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_cannot_reach_the_gateway_is_told_of_and_nothing_else_suffers() {
    let (project, authority) = project().await;
    authority.known().gateway = None;
    let gateway = serve(&project);
    wait_for("it to fail", || project.read("gateway.log").contains("acme.failed").then_some(()));
    let log = project.read("gateway.log");
    assert!(log.contains("nobody there") && log.contains("port 443") && log.contains(NAME), "{log}");
    let trusted = (project.read("ca.pem"), String::new());
    assert!(
        deliver(&visitor(address(&project), &trusted), address(&project)).await.is_err(),
        "there is no certificate"
    );
    gateway.client.stats().await.unwrap();
    let doctor = String::from_utf8(project.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("none is issued yet"), "{doctor}");
}
