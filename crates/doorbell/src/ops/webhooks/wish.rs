//! Wishes for webhooks, checked.

use std::sync::Arc;

use doorbell_client::api;
use doorbell_core::provider::Provider;
use doorbell_core::secret::Secret;

use super::super::Error;
use crate::clock;
use crate::config::{Config, is_named, nearest};

/// The longest label, in characters.
const LONGEST_NAME: usize = 100;
/// The longest secret, in bytes.
const LONGEST_SECRET: usize = 4096;

/// What a webhook is to be.
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) secret: Secret,
    /// Whether the secret was made here, and is to be shown.
    pub(super) shown: bool,
}

/// Checks a wish, and makes the secret where none is given.
pub(super) fn check(config: &Config, wish: api::NewWebhook) -> Result<Checked, Error> {
    let name = wish.name.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        let detail = format!("`name` must have 1 to {LONGEST_NAME} characters, none of them a control character");
        return Err(Error::Invalid(detail));
    }
    let provider = find(config, wish.provider.as_deref().unwrap_or("generic"))?;
    let (secret, shown) = secret(provider.as_ref(), wish.secret)?;
    Ok(Checked { name: name.to_owned(), provider: provider.name().to_owned(), secret, shown })
}

/// A further secret for a webhook of this provider, and whether it is to be shown.
pub(super) fn secret_for(config: &Config, provider: &str, given: Option<String>) -> Result<(Secret, bool), Error> {
    secret(find(config, provider)?.as_ref(), given)
}

fn find(config: &Config, name: &str) -> Result<Arc<dyn Provider>, Error> {
    let all = config.all_providers();
    if let Some(found) = all.iter().find(|provider| is_named(provider.as_ref(), name)) {
        return Ok(Arc::clone(found));
    }
    let meant = nearest(name, all.iter().map(|provider| provider.name()));
    let meant = meant.map_or_else(String::new, |meant| format!(": did you mean `{meant}`?"));
    let hint = "`doorbell providers` lists them; any sender that signs its bodies works with `generic`";
    Err(Error::Invalid(format!("`provider`: there is no provider {name:?}{meant} ({hint})")))
}

fn secret(provider: &dyn Provider, given: Option<String>) -> Result<(Secret, bool), Error> {
    let (secret, shown) = match given {
        Some(text) if text.len() > LONGEST_SECRET => {
            return Err(Error::Invalid(format!("`secret` may have {LONGEST_SECRET} bytes")));
        }
        Some(text) => (Secret::new(text), false),
        None => (provider.make_secret(clock::random()).ok_or_else(|| missing(provider))?, true),
    };
    match provider.prepare(&secret) {
        Ok(_) => Ok((secret, shown)),
        Err(error) => Err(Error::Invalid(format!("`secret` {error}"))),
    }
}

/// Where the secret is found, as the provider's guide says it.
fn missing(provider: &dyn Provider) -> Error {
    let (guide, field) = (provider.guide(), provider.credential().field);
    let what = if field == "secret" { String::new() } else { format!(" (its {})", field.replace('_', " ")) };
    let place = place_of_secret(&guide.setup).map_or_else(String::new, |place| format!(" {place}."));
    Error::Invalid(format!(
        "`secret`{what} is missing: {} makes it, so give the one that it shows.{place} All steps: `doorbell providers show {}`",
        guide.title,
        provider.name()
    ))
}

/// The step of a guide that says where the secret is, up to the command that would keep it in a file.
fn place_of_secret(setup: &str) -> Option<String> {
    let end = setup.find("doorbell creds add {secret}")?;
    let before = &setup[..end];
    let begin = before.rfind("\n\n").max(starts_of_steps(before)).unwrap_or(0);
    let step = before[begin..].trim_start_matches(|c: char| c.is_whitespace() || c.is_ascii_digit() || c == '.');
    // The command stands in a code span, perhaps behind another one.
    let step = &step[..step.rfind('`')?];
    let words: Vec<&str> = step.split_whitespace().collect();
    let text = words.join(" ");
    let text = text.trim_end_matches(|c: char| c.is_whitespace() || [':', '(', ',', '.'].contains(&c));
    (!text.is_empty()).then(|| text.to_owned())
}

/// Where the last numbered step begins.
fn starts_of_steps(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut last = None;
    for line in text.split_inclusive('\n') {
        if line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok()) {
            last = Some(at);
        }
        at += line.len();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::providers;

    #[test]
    fn every_sender_that_makes_its_secret_says_where_it_is() {
        let all = providers();
        let asked: Vec<_> = all.iter().filter(|provider| provider.make_secret([7; 32]).is_none()).collect();
        assert!(asked.len() > 15 && asked.len() + 3 == all.len(), "{}", asked.len());
        for provider in asked {
            let Err(Error::Invalid(said)) = secret(provider.as_ref(), None) else { panic!("{}", provider.name()) };
            assert!(said.starts_with("`secret`") && said.contains("doorbell providers show"), "{said}");
            assert!(!said.contains("{secret}") && !said.contains("creds add"), "{said}");
            let place = place_of_secret(&provider.guide().setup);
            assert!(place.is_some_and(|place| place.len() > 15 && place.len() < 400), "{said}");
        }
    }

    #[test]
    fn a_secret_that_is_made_here_is_long_and_of_the_form_of_its_protocol() {
        for provider in providers().iter().filter(|provider| provider.make_secret([7; 32]).is_some()) {
            let (made, shown) = secret(provider.as_ref(), None).unwrap();
            assert!(shown && made.expose().len() >= 32 && provider.prepare(&made).is_ok(), "{}", provider.name());
        }
    }
}
