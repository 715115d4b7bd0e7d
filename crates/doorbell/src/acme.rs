//! A certificate from an authority that speaks ACME (RFC 8555): ordered, proved on `listen` (TLS-ALPN-01), renewed in time. The
//! only module that names the library of that protocol.
//!
//! What is issued becomes a file, and a reload puts it in force like one that somebody else renewed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;

use crate::app::{App, PROOF};
use crate::clock;
use crate::config::{Acme, Tls};
use crate::files;

/// How often it is looked whether the certificate is to be renewed.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// After how long it is tried again the first time; then twice as long each time. Authorities count failures: Let's Encrypt
/// takes five an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
/// After one was issued, as a reload may refuse to put it in force: Let's Encrypt issues the same certificate five times a week.
const RESPITE: Duration = Duration::from_secs(48 * 60 * 60);
/// How long an order may take in all, and how long it is asked after at each step.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(180));

/// Orders certificates for as long as what it answers is kept; none, if no authority is named.
pub fn start(app: &Arc<App>) -> Option<AbortOnDropHandle<()>> {
    let Tls { acme, certificate, .. } = app.current().config.gateway.tls.clone()?;
    // The library asks for it by itself; it is there already if something else did.
    let _ = aws_lc_rs::default_provider().install_default();
    let orderer = Orderer { app: Arc::clone(app), acme: acme?, file: certificate };
    Some(AbortOnDropHandle::new(tokio::spawn(orderer.run())))
}

/// Orders certificates.
struct Orderer {
    app: Arc<App>,
    acme: Acme,
    /// Where it puts them.
    file: PathBuf,
}

/// The account at an authority, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

impl Orderer {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let mut pause = LOOK;
            if self.wants_one() {
                let names = self.acme.names.join(", ");
                match self.obtain().await {
                    Ok(()) => {
                        tracing::info!(names, "acme.issued");
                        (failures, pause) = (0, RESPITE);
                    }
                    Err(error) => {
                        pause = (FIRST_PAUSE * 2u32.saturating_pow(failures)).min(LONGEST_PAUSE);
                        failures = (failures + 1).min(16);
                        let again_s = pause.as_secs();
                        tracing::error!(
                            names,
                            again_s,
                            error = format!("{error:#}"),
                            "acme.failed: `listen` must be reached \
                            from everywhere as port 443 of each name"
                        );
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn wants_one(&self) -> bool {
        let in_force = self.app.current();
        let shown = in_force.config.gateway.tls.as_ref().and_then(|tls| tls.shown.as_ref());
        shown.is_none_or(|shown| self.acme.wants_another(&shown.validity, clock::now()))
    }

    /// Has a certificate issued, and keeps it.
    async fn obtain(&self) -> anyhow::Result<()> {
        let issued = tokio::time::timeout(PATIENCE, self.order()).await;
        self.app.challenges.clear();
        let issued = issued.context("it took too long")??;
        files::write_private(&self.file, issued.as_bytes())
            .with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// A new key and the certificate for it, as one file has them.
    async fn order(&self) -> anyhow::Result<String> {
        let account = self.account().await.context("no account")?;
        let names: Vec<Identifier> = self.acme.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await.context("no order")?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.context("the authority takes no proof of the kind tls-alpn-01")?;
            let name = challenge.identifier().to_string();
            let proof = proof(&name, challenge.key_authorization().digest().as_ref())?;
            self.app.challenges.put(name, Arc::new(proof));
            challenge.set_ready().await?;
        }
        match order.poll_ready(&POLLING).await? {
            OrderStatus::Ready => {}
            _ => bail!("the proof was not accepted: {}", why(&mut order).await),
        }
        let key = order.finalize().await.context("the order was not carried out")?;
        let chain = order.poll_certificate(&POLLING).await.context("the order was not carried out")?;
        Ok(format!("{key}\n{chain}"))
    }

    /// The account that was made before, or another one.
    async fn account(&self) -> anyhow::Result<Account> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let file = folder.join("account.json");
        let kept = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        if let Some(kept) = kept.filter(|kept| kept.directory == self.acme.directory) {
            return Ok(Account::builder()?.from_credentials(kept.credentials).await?);
        }
        let contact: Vec<&str> = self.acme.contact.as_deref().into_iter().collect();
        let wish = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let directory = self.acme.directory.clone();
        let (account, credentials) = Account::builder()?.create(&wish, directory.clone(), None).await?;
        let kept = serde_json::to_vec(&Kept { directory, credentials })?;
        files::make_private_folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        files::write_private(&file, &kept).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(account)
    }
}

/// What is shown to prove a name: a certificate that nobody else would take, with what the authority said in it.
fn proof(name: &str, digest: &[u8]) -> anyhow::Result<ServerConfig> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let secret = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    // Not looked at by ourselves, as other certificates are: what the authority said must not be ignored by whoever reads it.
    let shown = CertifiedKey::new(vec![certificate.der().clone()], aws_lc_rs::sign::any_supported_type(&secret)?);
    let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    server.alpn_protocols = vec![PROOF.to_vec()];
    Ok(server)
}

/// What the authority says was wrong with the proofs.
async fn why(order: &mut Order) -> String {
    let mut said = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        if let Ok(state) = authorization.refresh().await {
            let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            said.extend(errors.map(|error| format!("{name}: {error}")));
        }
    }
    if said.is_empty() { "it does not say why".to_owned() } else { said.join("; ") }
}
