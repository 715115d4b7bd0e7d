//! Which source is rung.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbell_core::source::Source;

use crate::cli::failure::{Exit, Failure};
use crate::config::is_named;

/// The source of `provider` that `to` means: its name, a URL that ends with its name, or the only one there is. `provider` may be
/// the name of a source, too, where there is no source of that type, or several.
pub(super) fn choose<'a>(
    sources: &'a BTreeMap<String, Arc<Source>>,
    provider: &str,
    to: Option<&str>,
) -> Result<&'a Arc<Source>, Failure> {
    let mut fitting = sources.values().filter(|source| is_named(source.provider(), provider));
    let named = to.map(|to| if is_url(to) { last_segment(to) } else { to });
    if let Some(source) = fitting.clone().find(|source| named == Some(source.name())) {
        return Ok(source);
    }
    let of_that_name = || sources.get(provider).filter(|source| to.is_none_or(|to| is_url(to) || to == source.name()));
    if let (false, Some(source)) = (fitting.clone().count() == 1, of_that_name()) {
        return Ok(source);
    }
    if let Some(name) = to.filter(|to| !is_url(to)) {
        return Err(not_found(sources, provider, name));
    }
    let Some(first) = fitting.next() else {
        let message = format!("this project has no source of type `{provider}`, and none of that name");
        return Err(Failure::new(Exit::NotFound, message).hint(known(sources)));
    };
    let others = fitting.map(|source| source.name()).collect::<Vec<_>>();
    if others.is_empty() {
        return Ok(first);
    }
    let names = std::iter::once(first.name()).chain(others).collect::<Vec<_>>().join(", ");
    Err(Failure::usage(format!("several sources are of type `{provider}`: {names}")).hint("choose one with --to"))
}

/// Whether `--to` names a URL, not a source.
pub(super) fn is_url(to: &str) -> bool {
    to.contains("://")
}

fn last_segment(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn not_found(sources: &BTreeMap<String, Arc<Source>>, provider: &str, name: &str) -> Failure {
    match sources.get(name) {
        Some(source) => {
            let kind = source.provider().name();
            let failure = Failure::usage(format!("source `{name}` is of type `{kind}`, not `{provider}`"));
            failure.hint(format!("`doorbell ring {kind} EVENT --to {name}` rings it"))
        }
        None => Failure::new(Exit::NotFound, format!("this project has no source `{name}`")).hint(known(sources)),
    }
}

fn known(sources: &BTreeMap<String, Arc<Source>>) -> String {
    if sources.is_empty() {
        return "it has no sources at all: add a [webhooks.<name>] to config.toml".to_owned();
    }
    let names = sources.values().map(|source| format!("{} ({})", source.name(), source.provider().name()));
    let names = names.collect::<Vec<_>>().join(", ");
    let first = sources.keys().next().map_or("", String::as_str);
    format!("it has {names}: `doorbell ring {first} EVENT` rings one")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use doorbell_core::provider::Provider;
    use doorbell_core::provider::generic::{Generic, GenericOptions};
    use doorbell_core::provider::github::Github;
    use doorbell_core::source::Dedup;

    fn sources(list: &[(&str, &str)]) -> BTreeMap<String, Arc<Source>> {
        let provider = |kind: &str| -> Arc<dyn Provider> {
            match kind {
                "github" => Arc::new(Github),
                _ => Arc::new(Generic::new(GenericOptions::default()).unwrap()),
            }
        };
        let source = |name: &str, kind| Source::new(name, provider(kind), Vec::new(), true, Dedup::Id).unwrap();
        list.iter().map(|(name, kind)| ((*name).to_owned(), Arc::new(source(name, kind)))).collect()
    }

    #[test]
    fn the_only_source_of_a_provider_is_meant() {
        let sources = sources(&[("acme", "github"), ("lab", "generic")]);
        assert_eq!(choose(&sources, "github", None).unwrap().name(), "acme");
        let elsewhere = choose(&sources, "github", Some("https://hooks.example.com/in"));
        assert_eq!(elsewhere.unwrap().name(), "acme", "its key signs for another URL, too");
    }

    #[test]
    fn a_source_is_meant_by_its_own_name_where_there_is_none_of_that_type() {
        let both = sources(&[("shop", "generic"), ("lab", "generic"), ("acme", "github")]);
        assert_eq!(choose(&both, "shop", None).unwrap().name(), "shop");
        assert_eq!(choose(&both, "shop", Some("https://hooks.example.com/in")).unwrap().name(), "shop");
        let failure = choose(&both, "shpo", None).unwrap_err();
        assert!(failure.hint_text().contains("`doorbell ring acme EVENT`"), "{failure:?}");
        let types_first = sources(&[("github", "generic"), ("acme", "github")]);
        assert_eq!(choose(&types_first, "github", None).unwrap().name(), "acme");
    }

    #[test]
    fn of_several_sources_one_must_be_chosen() {
        let sources = sources(&[("acme", "github"), ("other", "github")]);
        let error = choose(&sources, "github", None).unwrap_err();
        assert_eq!((error.exit, error.to_string().contains("acme, other")), (Exit::Usage, true));
        assert_eq!(choose(&sources, "github", Some("other")).unwrap().name(), "other");
        let url = "http://127.0.0.1:8080/v1/webhooks/github/other/?x=1";
        assert_eq!(choose(&sources, "github", Some(url)).unwrap().name(), "other", "a URL that ends with its name");
        assert!(choose(&sources, "github", Some("http://127.0.0.1:8080/webhooks/github")).is_err());
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let sources = sources(&[("lab", "generic")]);
        assert_eq!(choose(&sources, "github", None).unwrap_err().exit, Exit::NotFound);
        assert_eq!(choose(&sources, "generic", Some("acme")).unwrap_err().exit, Exit::NotFound);
        let wrong_type = choose(&sources, "github", Some("lab")).unwrap_err();
        assert_eq!(wrong_type.to_string(), "source `lab` is of type `generic`, not `github`");
    }
}
