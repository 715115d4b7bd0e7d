//! How the URL of an agent is asked where TLS takes more than usual: `client_certificate` and `ca`.

use std::sync::Arc;

use doorbell_client::{Outbound, Tls};
use doorbell_core::secret::Secret;

use super::document::{Node, Table};
use super::http_runtime::named;
use super::problem::{Findings, Problem};
use super::runtime::Surroundings;
use super::sources::note;

/// The type of a certificate that is shown: its fields are `certificate` and `key`.
const IDENTITY: &str = "http_agent_certificate";
/// The type of authorities that are trusted: its field is `certificate`.
const AUTHORITY: &str = "http_agent_ca";

/// Connections of the agent's own; none if it is asked as everybody is.
pub(super) fn connections(
    table: &Table,
    url: &str,
    around: Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Arc<Outbound>> {
    let keys: Vec<&Node> = ["client_certificate", "ca"].into_iter().filter_map(|key| table.get(key)).collect();
    let Some(first) = keys.first() else {
        return around.is_declared.then(|| Arc::new(Outbound::in_public()));
    };
    if !url.starts_with("https://") {
        findings.problem(Problem::at(&first.place, "certificates are for https:// URLs"));
        return None;
    }
    let before = findings.problems.len();
    let mut field = |key: &str, kind, field| {
        let node = table.get(key)?;
        findings.take(pem(node, kind, field, around)).map(|(secret, found)| {
            note(&found.0, field, &found.1, around.credentials, findings);
            secret
        })
    };
    let certificate = field("client_certificate", IDENTITY, "certificate");
    let key = field("client_certificate", IDENTITY, "key");
    let authorities = field("ca", AUTHORITY, "certificate");
    if findings.problems.len() > before {
        return None;
    }
    let identity =
        certificate.as_ref().zip(key.as_ref()).map(|(certificate, key)| (certificate.expose(), key.expose()));
    let tls = Tls { identity, authorities: authorities.as_ref().map(Secret::expose) };
    let made = Outbound::with_tls(url, tls, around.is_declared);
    let problem =
        |why| Problem::at(&first.place, format!("what is stored cannot be used as certificate and key: {why}"));
    findings
        .take(made.map(Arc::new).map_err(|why| problem(why).help("each is PEM, and the key is the certificate's own")))
}

/// One field of a credential with its name and where it came from.
fn pem(node: &Node, kind: &str, field: &str, around: Surroundings<'_>) -> Result<(Secret, (String, String)), Problem> {
    let text = node.text("the instance of a credential such as \"acme\"").map_err(Problem::hidden)?;
    let Some((kind, instance)) = named(&text, kind).filter(|(named, _)| *named == kind) else {
        let what = format!("not the name of an instance of `{kind}`");
        return Err(Problem::at(&node.place, what).help("PEM is named here, never written").hidden());
    };
    let name = format!("{kind}:{instance}");
    let add = format!("`doorbell creds add {name} --field {field} --stdin < {field}.pem` keeps it");
    match around.credentials.find(kind, instance, field) {
        Ok(Some((secret, _))) if secret.is_blank() => {
            Err(Problem::at(&node.place, format!("the field `{field}` of the credential {name} is empty")).help(add))
        }
        Ok(Some((secret, origin))) => Ok((secret, (name, origin))),
        Ok(None) => Err(Problem::at(&node.place, format!("no credential {name} with a field `{field}`")).help(add)),
        Err(error) => Err(Problem::at(&node.place, format!("cannot read the credential {name}: {error}"))),
    }
}
