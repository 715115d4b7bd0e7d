//! `providers/<name>.toml`: providers of the project's own, declared as data.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use doorbell_core::event::is_own;
use doorbell_core::provider::Provider;
use doorbell_core::provider::declared::{Declared, Definition};

use super::document::parse;
use super::files;
use super::names::{NAME_RULE, OWN_RULE, is_name};
use super::problem::{Findings, Layer, Place, Problem, Problems, Text};
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

/// Keys of triggers that are no filters.
const TAKEN: [&str; 8] = ["source", "where", "key", "debounce", "when_busy", "max_per_key", "throttle", "priority"];

/// Reads `providers/`.
pub(super) fn read(root: &Path, findings: &mut Findings) -> Own {
    let mut own = Own { providers: BTreeMap::new(), types: Types::new() };
    for file in findings.take(files::names_in(root, "providers")).unwrap_or_default() {
        let path = format!("providers/{file}");
        let Some(name) = file.strip_suffix(".toml") else { continue };
        match read_one(root, &path, name, &mut own.types) {
            Ok(read) => {
                findings.setting(format!("providers.{name}"), title(&read), path);
                own.providers.insert(name.to_owned(), read);
            }
            Err(problems) => {
                own.types.miss(name);
                problems.into_iter().for_each(|problem| findings.problem(problem));
            }
        }
    }
    own
}

fn title(own: &OwnProvider) -> String {
    toml_edit::Value::from(own.provider.guide().title.as_ref()).to_string().trim().to_owned()
}

fn read_one(root: &Path, path: &str, name: &str, types: &mut Types) -> Result<OwnProvider, Vec<Problem>> {
    if !is_name(name) {
        let message = format!("{name:?} cannot be the name of a provider");
        return Err(vec![Problem::at(&Place::path(path), message).help(NAME_RULE)]);
    }
    if is_own(name) {
        let message = format!("{name:?} cannot be the name of a provider");
        return Err(vec![Problem::at(&Place::path(path), message).help(OWN_RULE)]);
    }
    let text = files::read(root, path).map_err(|problem| vec![problem])?;
    let provider: Arc<dyn Provider> = Arc::new(Declared::new(definition(&text)?));
    let named = parse(&text).ok().and_then(|table| table.entry("name").map(|entry| entry.place.clone()));
    let place = named.unwrap_or_else(|| Place::path(path));
    if provider.name() != name {
        let problem = Problem::at(&place, format!("the file of `{}` is named {path}", provider.name()));
        return Err(vec![
            problem.help(format!("name the file providers/{}.toml, or the provider `{name}`", provider.name())),
        ]);
    }
    if let Some(filter) = provider.filters().iter().find(|filter| TAKEN.contains(&filter.name.as_ref())) {
        let message = format!("`{}` cannot be a filter: triggers have a key of that name", filter.name);
        return Err(vec![Problem::at(&Place::path(path), message)]);
    }
    types.add(Arc::clone(&provider)).map_err(|why| {
        vec![Problem::at(&place, why).help("choose another name: what is built in cannot be replaced")]
    })?;
    Ok(OwnProvider { provider, text: text.text.clone() })
}

fn definition(text: &Arc<Text>) -> Result<Definition, Vec<Problem>> {
    Definition::parse(&text.text).map_err(|problems| {
        let problem = |invalid: doorbell_core::provider::declared::InvalidDefinition| {
            let place = invalid.span.map_or_else(|| Place::path(&text.name), |span| Place::new(text, span));
            let problem = Problem::at(&place, invalid.message);
            match invalid.help {
                Some(help) => problem.help(help),
                None => problem,
            }
        };
        problems.into_iter().map(problem).collect()
    })
}

/// A provider that is declared in a text, which `name` names in messages.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_provider(name: &str, text: &str) -> Result<OwnProvider, Problems> {
    let text = Arc::new(Text { layer: Layer::File, name: name.to_owned(), text: text.to_owned() });
    let definition = definition(&text).map_err(Problems::new)?;
    Ok(OwnProvider { provider: Arc::new(Declared::new(definition)), text: text.text.clone() })
}
