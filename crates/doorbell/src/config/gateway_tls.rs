//! `[gateway.tls]`: the certificate that the gateway shows, and its key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doorbell_core::time::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use super::credentials::is_too_open;
use super::document::{Keys, Node, Table};
use super::gateway_acme::{self, Acme, Validity};
use super::origin::Survey;
use super::problem::{Findings, Problem};

const KEYS: Keys<'static> = Keys {
    known: &["certificate", "key", "acme"],
    planned: &[],
    hints: &[("cert", "did you mean `certificate`?"), ("private_key", "did you mean `key`?")],
};

const EXAMPLE: &str = "[gateway.tls]\ncertificate = \"tls/fullchain.pem\"\nkey = \"tls/privkey.pem\"";

/// What is spoken: the newest version that both sides know.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the certificate is, and who issues it.
#[derive(Clone)]
pub struct Tls {
    /// Its file, absolute.
    pub certificate: PathBuf,
    /// The key's file, absolute.
    pub key: PathBuf,
    /// The authority that is asked for it; none: somebody puts the files there.
    pub acme: Option<Acme>,
    /// The certificate; none: it is not issued yet.
    pub shown: Option<Shown>,
}

/// A certificate with its key, ready to be shown.
#[derive(Clone)]
pub struct Shown {
    /// When it is good, and for what.
    pub validity: Validity,
    /// What connections are accepted with.
    pub server: Arc<ServerConfig>,
    /// The certificate, to tell it from another one.
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// Whether the same certificate is shown.
    pub fn shows_the_same(&self, other: &Self) -> bool {
        let certificate = |tls: &Self| tls.shown.as_ref().map(|shown| shown.certificate.clone());
        certificate(self) == certificate(other)
    }

    /// When the certificate expires; none, if there is none yet.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.shown.as_ref().map(|shown| shown.validity.until)
    }

    /// Whether the files are the same, and from the same authority.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.certificate, &self.key, &self.acme) == (&other.certificate, &other.key, &other.acme)
    }
}

/// The file, below the state's folder, in which an authority's certificate is kept, with its key.
const ISSUED: &str = ".doorbell/acme/certificate.pem";

/// Reads `[gateway.tls]` with the files that it names; notes in `survey` how those stand.
pub(super) fn read(
    root: &Path,
    table: &Table,
    public_url: Option<&str>,
    survey: &mut Survey,
    findings: &mut Findings,
) -> Option<Tls> {
    let node = table.get("tls")?.clone();
    let table = findings.take(node.into_table(EXAMPLE))?;
    table.check(findings, KEYS);
    if let Some(node) = table.get("acme") {
        return issued(root, &table, node, public_url, survey, findings);
    }
    let mut file = |key: &str| {
        let Some(node) = table.get(key) else {
            findings.problem(Problem::at(&table.place, format!("[gateway.tls] needs a `{key}`")).help(EXAMPLE));
            return None;
        };
        let path = root.join(findings.take(node.text("a path such as \"tls/fullchain.pem\""))?);
        survey.named(&path);
        Some((node, path))
    };
    let (certificate, key) = (file("certificate"), file("key"));
    let ((certificate_node, certificate), (key_node, key)) = (certificate?, key?);
    let chain = findings.take(chain(certificate_node, &certificate));
    let secret = findings.take(secret(key_node, &key));
    if is_too_open(&key) {
        let warning = format!("{} can be read by other users of this machine: `chmod 600` it", key.display());
        findings.warn(&key_node.place, warning);
    }
    let (chain, secret) = (chain?, secret?);
    let shown = chain.first()?.clone();
    let validity = findings.take(validity(certificate_node, &certificate, &shown));
    let server = findings.take(server(key_node, &key, chain, secret));
    let shown = Shown { validity: validity?, server: Arc::new(server?), certificate: shown };
    Some(Tls { certificate, key, acme: None, shown: Some(shown) })
}

/// Reads `[gateway.tls.acme]`, with what was issued already.
fn issued(
    root: &Path,
    table: &Table,
    node: &Node,
    public_url: Option<&str>,
    survey: &mut Survey,
    findings: &mut Findings,
) -> Option<Tls> {
    for key in ["certificate", "key"] {
        if let Some(entry) = table.entry(key) {
            let problem = Problem::at(&entry.place, format!("`{key}` and `acme` do not go together"));
            findings.problem(
                problem.help("either files that somebody else renews, or an authority that is asked for them"),
            );
        }
    }
    let acme = findings.take(node.clone().into_table(gateway_acme::EXAMPLE))?;
    let acme = gateway_acme::read(&acme, public_url, findings)?;
    let file = root.join(ISSUED);
    survey.named(&file);
    let read = || {
        let (chain, secret) = (chain(node, &file)?, secret(node, &file)?);
        let certificate = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let validity = validity(node, &file, &certificate)?;
        Ok::<_, Problem>(Shown { validity, server: Arc::new(server(node, &file, chain, secret)?), certificate })
    };
    // What cannot be used is not asked of anybody else, but issued again.
    let shown = file.exists().then(read).and_then(Result::ok);
    Some(Tls { certificate: file.clone(), key: file, acme: Some(acme), shown })
}

fn chain(node: &Node, file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let unread = |error| unread(node, file, &error, "-----BEGIN CERTIFICATE-----");
    let read = CertificateDer::pem_file_iter(file).map_err(unread)?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    match chain.is_empty() {
        false => Ok(chain),
        true => Err(unread(rustls_pki_types::pem::Error::NoItemsFound)),
    }
}

fn secret(node: &Node, file: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let read = PrivateKeyDer::from_pem_file(file);
    read.map_err(|error| unread(node, file, &error, "-----BEGIN PRIVATE KEY-----"))
}

/// Nothing that is in the file is shown: it may be the key.
fn unread(node: &Node, file: &Path, error: &rustls_pki_types::pem::Error, expected: &str) -> Problem {
    use rustls_pki_types::pem::Error;
    let said = match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => format!("there is no {expected:?} in it"),
        _ => "it is not PEM".to_owned(),
    };
    let problem = Problem::at(&node.place, format!("cannot read {}: {said}", file.display()));
    problem
        .help("both files are PEM, as certbot's fullchain.pem and privkey.pem are; relative paths begin at the project")
}

fn validity(node: &Node, file: &Path, certificate: &CertificateDer<'_>) -> Result<Validity, Problem> {
    let read = x509_parser::parse_x509_certificate(certificate);
    let read = read.map_err(|_| Problem::at(&node.place, format!("what {} has is no certificate", file.display())))?.1;
    let (from, until) = (read.validity().not_before.timestamp(), read.validity().not_after.timestamp());
    let names = read.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok(Validity { from: Timestamp::from_seconds(from), until: Timestamp::from_seconds(until), names: names.collect() })
}

fn server(
    node: &Node,
    key: &Path,
    chain: Vec<CertificateDer<'static>>,
    secret: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Problem> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let made = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
    let mut server = made.map_err(|error| {
        let problem = Problem::at(&node.place, format!("the key in {} cannot be used: {error}", key.display()));
        problem.help("it must be the key that the certificate was made for")
    })?;
    server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(server)
}
