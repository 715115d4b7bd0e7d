//! `doorbell creds`: secrets, which are typed in or piped in and never shown.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use doorbell_core::provider::Provider;
use doorbell_core::secret::Secret;
use doorbell_core::source::{NamedKey, Source};

use super::completions;
use super::consent;
use super::context::{self, Context};
use super::doctor;
use super::failure::{self, Exit, Failure};
use super::output::{self, Table, escape_terminal};
use super::providers::all_of;
use crate::config::{Credentials, nearest, presets, without_line_end};

/// Manage credentials: secrets by type and instance, kept outside of projects
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(super) struct CredsArgs {
    #[command(subcommand)]
    command: CredsCommand,
}

const EXAMPLES: &str = "\
Examples:
  doorbell creds add github_webhook_secret:acme
  printenv TOKEN | doorbell creds add github_token --stdin
  doorbell creds ls";

#[derive(Debug, Subcommand)]
enum CredsCommand {
    Add(AddArgs),
    Ls(LsArgs),
    Rm(RmArgs),
    Types(TypesArgs),
}

/// Keep a secret: asked for on the terminal, or read from standard input, so that no history and no process list has it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell creds add github_webhook_secret:acme\n  \
    printenv TOKEN | doorbell creds add github_token --stdin")]
struct AddArgs {
    /// Its type and instance (without one: `default`), e.g. `github_webhook_secret:acme`
    #[arg(value_name = "TYPE[:INSTANCE]")]
    name: Name,
    /// Which field of it [default: the one that the type's provider signs with, else `secret`]
    #[arg(long)]
    field: Option<String>,
    /// Read it from standard input; one line end at its end is not part of it
    #[arg(long)]
    stdin: bool,
}

/// List credentials, without the secrets
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell creds ls --json")]
struct LsArgs {}

/// Remove a credential, or one field of it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell creds rm github_webhook_secret:acme --yes")]
struct RmArgs {
    /// Its type and instance (without one: `default`)
    #[arg(value_name = "TYPE[:INSTANCE]", add = completions::credentials())]
    name: Name,
    /// Only this field
    #[arg(long)]
    field: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// List the types that providers verify with
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell creds types")]
struct TypesArgs {}

/// A type and an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    kind: String,
    instance: String,
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, instance) = text.split_once(':').unwrap_or((text, "default"));
        if kind.is_empty() || instance.is_empty() {
            return Err("not a TYPE or TYPE:INSTANCE like github_webhook_secret:acme".to_owned());
        }
        Ok(Self { kind: kind.to_owned(), instance: instance.to_owned() })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.instance)
    }
}

pub(super) fn run(context: &Context, args: CredsArgs) -> anyhow::Result<()> {
    match args.command {
        CredsCommand::Add(args) => add(context, &args),
        CredsCommand::Ls(LsArgs {}) => list(context),
        CredsCommand::Rm(args) => remove(context, &args),
        CredsCommand::Types(TypesArgs {}) => types(context),
    }
}

fn add(context: &Context, args: &AddArgs) -> anyhow::Result<()> {
    let all = all_of(context);
    let field = args.field.clone().unwrap_or_else(|| field_of(&all, &args.name.kind));
    let secret = if args.stdin { read_stdin()? } else { ask(&format!("{} ({field})", args.name))? };
    check(&all, &args.name.kind, &field, &secret)?;
    let Name { kind, instance } = &args.name;
    let credentials = context::credentials();
    let before = credentials.find(kind, instance, &field)?.map(|(_, origin)| origin);
    let path = credentials.add(kind, instance, &field, &secret).map_err(refused)?;
    let kept = if before.is_some_and(|origin| Path::new(&origin) == path) { "replaced" } else { "kept" };
    let in_force = credentials.find(kind, instance, &field)?.map(|(_, origin)| origin);
    if let Some(other) = in_force.filter(|origin| Path::new(origin) != path) {
        output::note(format!("warning: {} comes first and hides it", escape_terminal(&other)));
    }
    if let Some(meant) = misspelled(&all, kind) {
        output::note(format!(
            "warning: `{kind}` is no type that Doorbell knows: did you mean `{meant}`? `doorbell creds rm {}` removes this one",
            args.name
        ));
    }
    if let Some(odd) = doctor::looks_cut(kind, secret.expose()) {
        output::note(format!("warning: it {odd}"));
    }
    if context.json {
        return output::json(&serde_json::json!({"type": kind, "instance": instance, "field": field, "path": path}));
    }
    Ok(output::line(format!("{kept} {} ({field}) in {}", args.name, escape_terminal(&path.to_string_lossy())))?)
}

/// Types that neither a provider nor a preset has, and who uses them.
const OTHERS: [(&str, &str); 2] =
    [("github_token", "agents that check out a repository"), ("notification_secret", "notifications")];

/// The type that was probably meant. Agents may be given credentials of any type, so that none is wrong.
fn misspelled(all: &[Arc<dyn Provider>], kind: &str) -> Option<String> {
    let mut known: Vec<String> = all.iter().map(|provider| provider.credential().name.into_owned()).collect();
    known.extend(presets().iter().filter_map(|preset| preset.credential.clone()));
    known.extend(OTHERS.map(|(kind, _)| kind.to_owned()));
    if let Some(provider) = all.iter().find(|provider| provider.name() == kind) {
        return Some(provider.credential().name.into_owned()).filter(|name| name != kind);
    }
    // Another provider's secret may differ in few letters: gitlab, github.
    let is_known = known.iter().any(|name| name == kind);
    let close = |name: &str| strsim::damerau_levenshtein(name, kind) <= 3;
    let meant = nearest(kind, known.iter().map(String::as_str)).filter(|name| !is_known && close(name));
    meant.map(str::to_owned)
}

/// The field that the provider of this type signs with.
fn field_of(all: &[Arc<dyn Provider>], kind: &str) -> String {
    let types = all.iter().map(|provider| provider.credential());
    let field = types.filter(|credential| credential.name == kind).map(|credential| credential.field).next();
    field.map_or_else(|| "secret".to_owned(), |field| field.into_owned())
}

/// A secret that its provider cannot use is refused here, not when the gateway starts.
fn check(all: &[Arc<dyn Provider>], kind: &str, field: &str, secret: &Secret) -> anyhow::Result<()> {
    if secret.is_blank() {
        return Err(Failure::usage("the secret is empty").into());
    }
    for provider in all {
        let credential = provider.credential();
        if credential.name == kind && credential.field == field {
            provider.prepare(secret).map_err(|error| Failure::usage(format!("the secret {error}")))?;
        }
        if credential.name == kind && provider.signing_field() == Some(field) {
            provider.prepare_signing(secret).map_err(|error| Failure::usage(format!("the key {error}")))?;
        }
    }
    Ok(())
}

pub(super) fn read_stdin() -> anyhow::Result<Secret> {
    const MOST: u64 = 1 << 20;
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MOST).read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(without_line_end(&bytes))
}

pub(super) fn ask(what: &str) -> anyhow::Result<Secret> {
    if !std::io::stdin().is_terminal() {
        let message = "there is no terminal to ask for the secret on";
        return Err(Failure::usage(message).hint("pipe it in with --stdin; it is never an argument").into());
    }
    let what = escape_terminal(what);
    let prompt =
        inquire::Password::new(&what).without_confirmation().with_display_mode(inquire::PasswordDisplayMode::Masked);
    Ok(Secret::new(prompt.prompt().map_err(failure::given_up)?))
}

fn list(context: &Context) -> anyhow::Result<()> {
    let found = context::credentials().list()?;
    if context.json {
        let found = found.iter().map(|entry| {
            serde_json::json!({"type": entry.kind, "instance": entry.instance, "field": entry.field, "origin": entry.origin})
        });
        return output::json(&serde_json::json!({"credentials": found.collect::<Vec<_>>()}));
    }
    if found.is_empty() {
        output::note("no credentials: `doorbell creds add TYPE:INSTANCE` keeps one");
        return Ok(());
    }
    let mut table = Table::new(&["TYPE", "INSTANCE", "FIELD", "FROM"]).wrapping_last();
    found.iter().for_each(|entry| table.row([&entry.kind, &entry.instance, &entry.field, &entry.origin]));
    table.print()?;
    for entry in found.iter().filter(|entry| entry.too_open) {
        let place = escape_terminal(&entry.origin).into_owned();
        output::note(format!("warning: other users of this machine may read {place}: chmod 600 it"));
    }
    Ok(())
}

fn remove(context: &Context, args: &RmArgs) -> anyhow::Result<()> {
    let credentials = context::credentials();
    let what = match &args.field {
        Some(field) => format!("{} ({field})", args.name),
        None => args.name.to_string(),
    };
    if let Some(source) = in_use(context, &args.name) {
        let message = format!("the source `{source}` verifies with {}", args.name);
        let hint = "take it out of config.toml first: a running gateway refuses a configuration whose secret is missing, and goes on with what it has";
        return Err(Failure::new(Exit::Failed, message).hint(hint).into());
    }
    let unasked = format!("there is no terminal to ask on whether to remove {what}");
    let question = format!("Remove {}? Whoever uses it has it no more.", escape_terminal(&what));
    consent::demand(args.yes, unasked, &question)?;
    let removed = remove_from(&credentials, &args.name, args.field.as_deref()).map_err(refused)?;
    if removed.is_empty() {
        let failure = Failure::new(Exit::NotFound, format!("there is no credential {what} in the home folder"));
        return Err(failure.hint("`doorbell creds ls` says where each one is").into());
    }
    if context.json {
        return output::json(&serde_json::json!({"removed": removed}));
    }
    Ok(output::line(escape_terminal(&format!("removed {what}")))?)
}

/// A source of this project that verifies with the credential. None is known where there is no project, or it cannot be read.
fn in_use(context: &Context, name: &Name) -> Option<String> {
    let config = context.config().ok()?;
    let uses = |source: &Source| {
        let is_named = |key: &NamedKey| key.instance == name.instance;
        source.provider().credential().name == name.kind && source.keys().iter().any(is_named)
    };
    config.sources.values().find(|source| uses(source)).map(|source| source.name().to_owned())
}

/// The fields that were there, and are removed.
fn remove_from(credentials: &Credentials, name: &Name, field: Option<&str>) -> io::Result<Vec<String>> {
    let Name { kind, instance } = name;
    let mut fields = match field {
        Some(field) => vec![field.to_owned()],
        None => credentials.fields(kind, instance)?,
    };
    let mut failed = Ok(());
    fields.retain(|field| {
        credentials.remove(kind, instance, field).unwrap_or_else(|error| {
            failed = Err(error);
            false
        })
    });
    failed.map(|()| fields)
}

/// What cannot be a name or a secret is a mistake in the arguments.
fn refused(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput => Failure::usage(error.to_string()).into(),
        _ => error.into(),
    }
}

fn types(context: &Context) -> anyhow::Result<()> {
    let types = types_of(&all_of(context));
    if context.json {
        let types = types.iter().map(
            |(kind, field, used_by)| serde_json::json!({"type": kind, "field": field, "usedBy": used_by.join(", ")}),
        );
        return output::json(&serde_json::json!({"types": types.collect::<Vec<_>>()}));
    }
    let mut table = Table::new(&["TYPE", "FIELD", "USED BY"]).wrapping_last();
    types.iter().for_each(|(kind, field, used_by)| table.row([kind.as_str(), field, &used_by.join(", ")]));
    Ok(table.print()?)
}

/// Types and fields with the providers that use them, in order. A field to ring with is used by `ring`.
fn types_of(all: &[Arc<dyn Provider>]) -> Vec<(String, String, Vec<String>)> {
    let mut used: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for provider in all {
        let credential = provider.credential();
        let mut add = |field: &str, by: String| {
            used.entry((credential.name.to_string(), field.to_owned())).or_default().push(by);
        };
        add(&credential.field, provider.name().to_owned());
        if let Some(field) = provider.signing_field() {
            add(field, format!("ring {}", provider.name()));
        }
    }
    for preset in presets() {
        if let Some(kind) = &preset.credential {
            used.entry((kind.clone(), "secret".to_owned())).or_default().push(format!("preset {}", preset.name));
        }
    }
    for (kind, by) in OTHERS {
        used.entry((kind.to_owned(), "secret".to_owned())).or_default().push(by.to_owned());
    }
    used.into_iter().map(|((kind, field), by)| (kind, field, by)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::providers;

    #[test]
    fn a_name_without_an_instance_is_the_default_one() {
        let name = |text: &str| text.parse::<Name>().map(|name| name.to_string());
        assert_eq!(name("github_token").unwrap(), "github_token:default");
        assert_eq!(name("github_webhook_secret:acme").unwrap(), "github_webhook_secret:acme");
        assert!(name(":acme").is_err() && name("github_token:").is_err() && name("").is_err());
    }

    #[test]
    fn one_line_end_is_not_part_of_a_piped_secret() {
        for (piped, secret) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc", "abc"), ("abc\n\n", "abc\n"), ("\n", "")]
        {
            assert_eq!(without_line_end(piped.as_bytes()).expose(), secret.as_bytes(), "{piped:?}");
        }
    }

    #[test]
    fn a_type_that_is_nearly_a_known_one_is_noticed() {
        let all = providers();
        for (kind, meant) in [
            ("github_webhok_secret", Some("github_webhook_secret")),
            ("github_webhook_secrets", Some("github_webhook_secret")),
            ("anthropic_api_kye", Some("anthropic_api_key")),
            ("github_webhook_secret", None),
            ("gitlab_webhook_secret", None),
            ("deploy_token", None),
            ("npm_token", None),
        ] {
            assert_eq!(misspelled(&all, kind).as_deref(), meant, "{kind}");
        }
    }

    #[test]
    fn removing_a_credential_removes_all_its_fields() {
        let home = tempfile::tempdir().unwrap();
        let credentials = Credentials::new(&[("HOME", home.path())].into_iter().collect());
        for field in ["token", "public_key"] {
            credentials.add("discord_bot", "acme", field, &Secret::new("x")).unwrap();
        }
        let name = "discord_bot:acme".parse::<Name>().unwrap();
        assert_eq!(remove_from(&credentials, &name, None).unwrap(), ["public_key", "token"]);
        assert_eq!(remove_from(&credentials, &name, Some("token")).unwrap(), [""; 0]);
        assert!(remove_from(&credentials, &"..:acme".parse::<Name>().unwrap(), None).is_err());
    }

    #[test]
    fn a_secret_that_its_provider_cannot_use_is_refused() {
        let all = providers();
        assert!(check(&all, "github_webhook_secret", "secret", &Secret::new(" ")).is_err());
        assert!(check(&all, "anything", "token", &Secret::new("")).is_err());
        assert!(check(&all, "github_webhook_secret", "secret", &Secret::new("x")).is_ok());
    }
}
