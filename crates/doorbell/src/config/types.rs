//! The types that sources can have: the providers that are built in, `generic`, and those of the project.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use doorbell_core::provider::generic::{Generic, GenericOptions};
use doorbell_core::provider::{Provider, built_in};

use super::names;

/// The type that is built from the keys of its source.
pub(super) const GENERIC: &str = "generic";

/// Every type but `generic`, by name.
#[derive(Debug, Clone)]
pub(super) struct Types {
    built_in: Vec<Arc<dyn Provider>>,
    own: BTreeMap<String, Arc<dyn Provider>>,
    /// Names of providers of the project whose files cannot be read.
    unread: BTreeSet<String>,
}

/// What a type means.
#[derive(Debug, Clone)]
pub(super) enum Type {
    /// Built from the source's keys.
    Generic,
    /// Known as it is.
    Known(Arc<dyn Provider>),
}

impl Types {
    /// Those that are built in.
    pub(super) fn new() -> Self {
        Self { built_in: built_in(), own: BTreeMap::new(), unread: BTreeSet::new() }
    }

    /// Adds a provider of the project.
    ///
    /// # Errors
    /// What already has its name.
    pub(super) fn add(&mut self, provider: Arc<dyn Provider>) -> Result<(), String> {
        let names = std::iter::once(provider.name()).chain(provider.aliases().iter().map(AsRef::as_ref));
        for name in names {
            match self.find(name) {
                Some(Type::Generic) => return Err(format!("`{name}` is a type that is built in")),
                Some(Type::Known(known)) if self.own.contains_key(known.name()) => {
                    return Err(format!("`{name}` is a name of another provider of this project"));
                }
                Some(Type::Known(known)) => return Err(format!("`{name}` is built in ({})", known.guide().title)),
                None => {}
            }
        }
        self.own.insert(provider.name().to_owned(), provider);
        Ok(())
    }

    /// Notes a provider of the project whose file cannot be read, so that nothing more is said of its sources.
    pub(super) fn miss(&mut self, name: &str) {
        self.unread.insert(name.to_owned());
    }

    /// Whether it was missed.
    pub(super) fn is_missed(&self, name: &str) -> bool {
        self.unread.contains(name)
    }

    /// What a type means; none if nothing has that name.
    pub(super) fn find(&self, name: &str) -> Option<Type> {
        if name == GENERIC {
            return Some(Type::Generic);
        }
        self.all().find(|provider| is_named(provider.as_ref(), name)).map(|provider| Type::Known(Arc::clone(provider)))
    }

    /// The type that was probably meant.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        let all: Vec<&str> = self.all().flat_map(|provider| names_of(provider.as_ref())).chain([GENERIC]).collect();
        names::nearest(name, all).map(str::to_owned)
    }

    /// The names of all types, for a sentence.
    pub(super) fn list(&self) -> String {
        let mut all: Vec<&str> = self.all().map(|provider| provider.name()).chain([GENERIC]).collect();
        all.sort_unstable();
        names::list(all)
    }

    /// Those that sign a time, for a sentence.
    pub(super) fn list_with_time(&self) -> String {
        let mut all: Vec<&str> =
            self.all().filter(|provider| provider.tolerance().is_some()).map(|provider| provider.name()).collect();
        all.sort_unstable();
        names::list(all)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.built_in.iter().chain(self.own.values())
    }
}

/// Whether a provider has this name or another one that it goes by.
pub fn is_named(provider: &dyn Provider, name: &str) -> bool {
    names_of(provider).any(|known| known == name)
}

fn names_of(provider: &dyn Provider) -> impl Iterator<Item = &str> {
    std::iter::once(provider.name()).chain(provider.aliases().iter().map(AsRef::as_ref))
}

/// Every provider that a source can have without a file of the project, as its type alone makes it.
pub fn providers() -> Vec<Arc<dyn Provider>> {
    let generic = Generic::new(GenericOptions::default()).map(|generic| Arc::new(generic) as Arc<dyn Provider>);
    built_in().into_iter().chain(generic).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_providers_share_a_name_and_every_credential_has_one_form() {
        let all = providers();
        let mut seen = BTreeSet::new();
        for name in all.iter().flat_map(|provider| names_of(provider.as_ref())) {
            assert!(names::is_name(name) && seen.insert(name.to_owned()), "{name}");
        }
        for provider in &all {
            let credential = provider.credential();
            assert!(names::is_name(&credential.name) && names::is_name(&credential.field), "{}", provider.name());
        }
    }
}
