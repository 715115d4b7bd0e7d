//! `providers/<name>.toml`: providers of the project's own, declared as data.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use doorbell_core::provider::Provider;

use super::files;
use super::problem::{Findings, Place, Problem};
use super::types::Types;

/// A provider of the project: a file in `providers/`.
#[derive(Debug, Clone)]
pub struct OwnProvider {
    /// What it declares.
    pub provider: Arc<dyn Provider>,
    /// The file's text.
    pub text: String,
}

/// The providers of a project.
#[derive(Debug)]
pub(super) struct Own {
    /// By name.
    pub(super) providers: BTreeMap<String, OwnProvider>,
    /// All types, these among them.
    pub(super) types: Types,
}

/// Reads `providers/`.
pub(super) fn read(root: &Path, findings: &mut Findings) -> Own {
    let own = Own { providers: BTreeMap::new(), types: Types::new() };
    let names = findings.take(files::names_in(root, "providers")).unwrap_or_default();
    for name in names.iter().filter(|name| name.ends_with(".toml")) {
        let place = Place::path(format!("providers/{name}"));
        findings.problem(Problem::at(&place, "`providers/` is not supported yet"));
    }
    own
}
