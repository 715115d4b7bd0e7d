//! Every provider that is built in, as a sender: what it signs, and what others make of that.

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::provider::generic::{Generic, GenericOptions};
use doorbell_core::provider::{Key, Provider, Unsent, built_in};
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::support::{Gateway, Project, fresh_id};

/// What senders call, for the protocols that sign it.
pub const PUBLIC_URL: &str = "https://hooks.example.com";

/// Secrets of the forms that protocols ask for; each provider takes the first that it accepts.
const SECRETS: [&str; 3] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
    "arn:aws:sns:eu-central-1:123456789012:orders",
    "1b2c3d4e5f60718293a4b5c6d7e8f9000112233445566778899aabbccddeeff0",
];

/// Others of the same forms.
const OTHER_SECRETS: [&str; 3] = [
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDC2FVsBQIhrs=",
    "arn:aws:sns:eu-central-1:123456789012:invoices",
    "0fe1dec3bca59687786a5b4c3d2e1f0fe1dec3bca59687786a5b4c3d2e1f0fe1",
];

/// A provider with a secret.
#[derive(Debug)]
pub struct Played {
    pub provider: Arc<dyn Provider>,
    pub secret: String,
    /// What signs; none where only the maker can.
    pub key: Option<Key>,
    /// What somebody else signs with.
    pub strangers_key: Option<Key>,
}

/// A request to a source.
#[derive(Debug, Clone)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Every provider, with a secret of its form.
pub fn all() -> Vec<Played> {
    let generic: Arc<dyn Provider> = Arc::new(Generic::new(GenericOptions::default()).unwrap());
    built_in().into_iter().chain([generic]).map(Played::new).collect()
}

impl Played {
    fn new(provider: Arc<dyn Provider>) -> Self {
        let accepted = |secret: &&&str| provider.prepare(&Secret::new(**secret)).is_ok();
        // A protocol of key pairs: the public half is what the source has.
        if provider.signing_field().is_some() && provider.prepare(&Secret::new(SECRETS[0])).is_err() {
            let pair = provider.prepare_signing(&Secret::new(SECRETS[2])).unwrap();
            let secret = doorbell_core::provider::encode_hex(pair.public().unwrap());
            let strangers_key = provider.prepare_signing(&Secret::new(OTHER_SECRETS[2])).ok();
            return Self { provider, secret, key: Some(pair), strangers_key };
        }
        let secret = SECRETS.iter().find(accepted).unwrap().to_string();
        let key = |secret: &str| provider.prepare(&Secret::new(secret)).ok();
        let stranger = OTHER_SECRETS.iter().find(accepted).unwrap();
        Self { key: key(&secret), strangers_key: key(stranger), secret, provider }
    }

    pub fn name(&self) -> &str {
        self.provider.name()
    }

    /// Its secret as a credential of a project, with the private half where it is a pair.
    pub fn keep_secrets(&self, project: &Project, instance: &str) {
        let credential = self.provider.credential();
        project.write(&format!("credentials/{}/{instance}/{}", credential.name, credential.field), &self.secret);
        if let (Some(field), Some(Key::Ed25519Pair(_))) = (self.provider.signing_field(), &self.key) {
            project.write(&format!("credentials/{}/{instance}/{field}", credential.name), SECRETS[2]);
        }
    }

    /// The path of its source, which has its name.
    pub fn path(&self) -> String {
        format!("/v1/webhooks/{0}/{0}", self.name())
    }

    /// The event of its first sample, and its body.
    pub fn sample(&self) -> (String, Bytes) {
        let sample = self.provider.samples().first().unwrap_or_else(|| panic!("{} has no sample", self.name()));
        (sample.event.to_string(), Bytes::from(sample.body.to_string()))
    }

    /// Its first sample, signed now.
    pub fn genuine(&self) -> Request {
        let (event, body) = self.sample();
        self.signed(self.key.as_ref(), &event, body, doorbell::clock::now())
    }

    /// Any body, signed with any key at any time.
    pub fn signed(&self, key: Option<&Key>, event: &str, body: impl Into<Bytes>, now: Timestamp) -> Request {
        let (id, url) = (fresh_id(), format!("{PUBLIC_URL}{}", self.path()));
        let unsent = Unsent { event, body: body.into(), delivery_id: &id, now, url: &url };
        let signed = self.provider.sign(key, unsent);
        let mut headers = HeaderMap::new();
        for (name, value) in &signed.headers {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        Request { headers, body: signed.body }
    }

    /// The headers that are there only where there is a key: what proves the sender.
    pub fn proofs(&self) -> Vec<HeaderName> {
        let (event, body) = self.sample();
        let unsigned = self.signed(None, &event, body, doorbell::clock::now()).headers;
        self.genuine().headers.keys().filter(|name| !unsigned.contains_key(*name)).cloned().collect()
    }

    /// Whether changing the body is not seen: a token was shown, and nothing was signed.
    pub fn shows_a_token(&self) -> bool {
        let is_secret = |name: &HeaderName| self.provider.secret_headers().iter().any(|secret| secret == name.as_str());
        matches!(self.key, Some(Key::Token(_))) && self.proofs().iter().any(is_secret)
    }
}

/// A project with a source for each of them, by its name.
pub fn project(played: &[Played]) -> Project {
    let sources =
        played.iter().map(|played| format!("[webhooks.{0}]\ntype = \"{0}\"\ncredential = \"tests\"\n", played.name()));
    let project =
        Project::new(&format!("public_url = \"{PUBLIC_URL}\"\nmax_body = \"25MiB\"\n{}", sources.collect::<String>()));
    played.iter().for_each(|played| played.keep_secrets(&project, "tests"));
    project
}

/// The status for a body of this size, which is announced and not sent: who sends it all may find the connection closed before
/// the answer is read.
pub async fn announce(gateway: &Gateway, path: &str, size: usize) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = gateway.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    std::str::from_utf8(&status[9..]).unwrap().parse().unwrap()
}

/// Sends a request, and answers its status with its `code`, if it is a problem.
pub async fn send(gateway: &Gateway, path: &str, request: Request) -> (u16, Option<String>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = client.post(format!("{}{path}", gateway.url)).headers(request.headers).body(request.body).send().await;
    let answer = sent.unwrap();
    let (status, problem) = (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap_or_default());
    (status, problem["code"].as_str().map(str::to_owned))
}
