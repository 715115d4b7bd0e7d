//! `doorbell providers`: who can send, how each is set up, and whether what is known of it holds together.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use doorbell_core::provider::Provider;
use doorbell_core::provider::declared;

use self::about::About;
use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{self, Table};
use crate::config::{is_named, nearest, providers, read_provider};

pub(super) mod about;
mod check;

/// List the providers that sources can have, show how one is set up, or test one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ProvidersArgs {
    #[command(subcommand)]
    command: Option<ProvidersCommand>,
}

const EXAMPLES: &str = "\
Examples:
  doorbell providers
  doorbell providers show github
  doorbell providers test";

#[derive(Debug, Subcommand)]
enum ProvidersCommand {
    Show(ShowArgs),
    Test(TestArgs),
}

/// Show a provider: how its webhook is set up, its credential, filters and samples
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell providers show github")]
struct ShowArgs {
    /// The provider's name, as the `type` of a source has it
    #[arg(add = completions::provider_names())]
    name: String,
}

/// Sign every sample of a provider, verify it, see that it is refused when it was changed, and read it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell providers test\n  doorbell providers test providers/acme-ci.toml")]
struct TestArgs {
    /// The provider's name, or a file that declares one [default: all of them]
    #[arg(value_name = "NAME|FILE", add = completions::provider_names())]
    which: Option<String>,
}

pub(super) fn run(context: &Context, args: ProvidersArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => list(context)?,
        Some(ProvidersCommand::Show(args)) => show(context, &args.name)?,
        Some(ProvidersCommand::Test(args)) => return test(context, args.which.as_deref()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Every provider: those that are built in, and the project's own, if there is a project that loads.
pub(super) fn all_of(context: &Context) -> Vec<Arc<dyn Provider>> {
    let own = context.config().map(|config| config.providers).unwrap_or_default();
    providers().into_iter().chain(own.into_values().map(|own| own.provider)).collect()
}

/// The provider that a name means.
fn find(context: &Context, name: &str) -> anyhow::Result<Arc<dyn Provider>> {
    let all = all_of(context);
    if let Some(found) = all.iter().find(|provider| is_named(provider.as_ref(), name)) {
        return Ok(Arc::clone(found));
    }
    let missing =
        Failure::new(Exit::NotFound, format!("there is no provider `{name}` (`doorbell providers` lists them)"));
    let aliases = all.iter().flat_map(|provider| provider.aliases()).map(AsRef::as_ref);
    Err(match nearest(name, all.iter().map(|provider| provider.name()).chain(aliases)) {
        Some(meant) => missing.hint(format!("did you mean `{meant}`?")),
        None => missing,
    }
    .into())
}

fn list(context: &Context) -> anyhow::Result<()> {
    let mut all: Vec<About> = all_of(context).iter().map(About::new).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    if context.json {
        return output::json(&serde_json::json!({"providers": all}));
    }
    let mut table = Table::new(&["TYPE", "FOR", "CREDENTIAL", "SIGNS A TIME", "FILTERS"]).wrapping_last();
    for about in &all {
        table.row([
            about.name.as_str(),
            &about.title,
            &about.credential_in_words(),
            if about.tolerance_seconds.is_some() { "yes" } else { "no" },
            &about.filters.iter().map(|filter| filter.name.as_str()).collect::<Vec<_>>().join(", "),
        ]);
    }
    Ok(table.print()?)
}

fn show(context: &Context, name: &str) -> anyhow::Result<()> {
    let provider = find(context, name)?;
    let about = About::new(&provider);
    let own = context.config().ok().and_then(|config| config.providers.get(provider.name()).cloned());
    let shipped = declared::shipped().into_iter().find(|(name, _)| *name == provider.name());
    let declared = own.map(|own| own.text).or_else(|| shipped.map(|(_, text)| text.to_owned()));
    if context.json {
        let mut shown = serde_json::to_value(&about)?;
        shown["declaration"] = serde_json::to_value(declared)?;
        return output::json(&shown);
    }
    output::line(output::escape_text(about.to_text().trim_end()))?;
    if let Some(text) = declared {
        output::line(format!("\nDeclared as\n\n{}", output::escape_text(text.trim_end())))?;
    }
    Ok(())
}

/// The provider that a file declares.
fn read(file: &str) -> anyhow::Result<Arc<dyn Provider>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok(read_provider(file, &text)?.provider)
}

fn test(context: &Context, which: Option<&str>) -> anyhow::Result<ExitCode> {
    let chosen = match which {
        None => all_of(context),
        Some(file) if file.ends_with(".toml") => vec![read(file)?],
        Some(name) => vec![find(context, name)?],
    };
    let built_in = providers();
    let is_built_in = |name: &str| built_in.iter().any(|provider| provider.name() == name);
    let reports: Vec<check::Report> =
        chosen.iter().flat_map(|provider| check::samples(provider, is_built_in(provider.name()))).collect();
    let failed = reports.iter().filter(|report| report.problem.is_some()).count();
    if context.json {
        output::json(&serde_json::json!({"tests": reports, "failed": failed}))?;
    } else {
        let mut table = Table::new(&["TYPE", "SAMPLE", "READ AS", "RESULT"]).wrapping_last();
        for report in &reports {
            let result = report.problem.as_deref().or(report.skipped.as_deref()).unwrap_or("ok");
            table.row([report.provider.as_str(), &report.sample, &report.events.join(", "), result]);
        }
        table.print()?;
        output::note(match failed {
            0 => format!("{} samples, all as they should be", reports.len()),
            failed => format!("error: {failed} of {} samples are not as they should be", reports.len()),
        });
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
