//! The world outside: a proxy that plays every host of the internet over real TLS, with an authority of its own. A gateway finds
//! it by the environment that operators of proxies know: `HTTPS_PROXY` and `SSL_CERT_FILE`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A request that reached the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// In full, as `https://host/path?query`.
    pub url: String,
    pub body: String,
}

type Answers = dyn Fn(&Seen) -> (u16, String) + Send + Sync;

/// The world outside, as long as it is not dropped.
#[derive(Debug)]
pub struct Outside {
    proxy: String,
    authority: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Outside {
    /// A world that answers each request as `answers` says. Its authority is written to `folder`.
    pub async fn start(folder: &Path, answers: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of the tests");
        let key = KeyPair::generate().unwrap();
        let authority = folder.join("authority.pem");
        std::fs::write(&authority, params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Arc::new(Issuer::new(params, key));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (record, answers): (_, Arc<Answers>) = (Arc::clone(&seen), Arc::new(answers));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (issuer, record, answers) = (Arc::clone(&issuer), Arc::clone(&record), Arc::clone(&answers));
                tokio::spawn(async move { tunnel(stream, &issuer, record, answers).await });
            }
        });
        Self { proxy, authority, seen, task }
    }

    /// What a gateway needs in its environment to find it.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let authority = self.authority.to_str().unwrap().to_owned();
        [("HTTPS_PROXY", self.proxy.clone()), ("NO_PROXY", String::new()), ("SSL_CERT_FILE", authority)]
    }

    /// What reached it so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// One connection to the proxy: `CONNECT host:443`, then TLS as that host.
async fn tunnel(
    mut stream: TcpStream,
    issuer: &Issuer<'static, KeyPair>,
    record: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Answers>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let host = head.strip_prefix("CONNECT ")?.split(':').next()?.to_owned();
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    let key = KeyPair::generate().ok()?;
    let certificate = CertificateParams::new(vec![host.clone()]).ok()?.signed_by(&key, issuer).ok()?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let config = config.with_no_client_auth().with_single_cert(chain, private).ok()?;
    let tls = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let (host, record, answers) = (host.clone(), Arc::clone(&record), Arc::clone(&answers));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let seen = Seen {
                method: parts.method.to_string(),
                url: format!("https://{host}{}", parts.uri),
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            let (status, text) = answers(&seen);
            record.lock().unwrap().push(seen);
            let answer = hyper::Response::builder().status(status).body(Full::new(Bytes::from(text))).unwrap();
            Ok::<_, Infallible>(answer)
        }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await.ok()
}

/// A signer with a certificate of its own for `name`, as SNS and PayPal have.
pub struct Signer {
    pub pem: String,
    key: aws_lc_rs::signature::RsaKeyPair,
}

impl Signer {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, key: aws_lc_rs::signature::RsaKeyPair::from_pkcs8(&key.serialize_der()).unwrap() }
    }

    /// A PKCS #1 signature with SHA-256, in base64.
    pub fn sign(&self, text: &str) -> String {
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        self.key.sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap();
        doorbell_core::provider::encode_base64(&signature)
    }
}
