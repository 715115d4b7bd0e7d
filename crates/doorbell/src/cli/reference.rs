//! `doorbell reference`: the references in `docs/reference`, made from the program itself.

use clap::{Args, CommandFactory, ValueEnum};

use super::failure::Failure;
use super::output;
use super::providers::about::About;
use crate::{config, http, mcp, telemetry};

/// Print a page of the reference, as it stands in the docs
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell reference config")]
pub(super) struct ReferenceArgs {
    /// Which page
    page: Page,
    /// Of `providers`: the provider; none for the index
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    /// Every command.
    Cli,
    /// Every configuration key.
    Config,
    /// Every preset.
    Presets,
    /// Every metric.
    Metrics,
    /// Every tool of the MCP server.
    Mcp,
    /// Every call of the REST API: its OpenAPI document.
    Openapi,
    /// Every code of an error.
    Errors,
    /// Every provider that is built in, or one of them.
    Providers,
}

pub(super) fn run(args: &ReferenceArgs) -> anyhow::Result<()> {
    let page = match args.page {
        Page::Cli => commands(),
        Page::Config => configuration(),
        Page::Presets => presets(),
        Page::Metrics => metrics(),
        Page::Mcp => mcp::reference(),
        Page::Openapi => serde_json::to_string_pretty(&http::openapi())?,
        Page::Errors => http::errors_reference(),
        Page::Providers => providers(args.name.as_deref())?,
    };
    Ok(output::line(page.trim_end())?)
}

fn configuration() -> String {
    format!(
        "# Configuration\n\nEvery key with its default, as the program has it built in. How the files, the environment \
         and flags go over each other: [the guide](../guide.md#a-project).\n\n```toml\n{}```\n",
        config::DEFAULTS
    )
}

fn presets() -> String {
    let mut page = "# Presets\n\nWhat `preset = \"…\"` in `[runtime]` stands for, as the program has it built in. Traps, logins and safety of each \
                    tool: [agents](../agents.md).\n\n| preset | for | its credential | lets it change files | checked |\n|---|---|---|---|---|\n"
        .to_owned();
    for preset in config::presets() {
        let credential = preset.credential.as_ref().map_or_else(String::new, |kind| format!("`{kind}`"));
        let act = preset.act.as_ref().map(|act| format!("`{act}`"));
        let act = act.or_else(|| preset.remark.clone()).unwrap_or_default();
        page.push_str(&format!(
            "| `{}` | {} | {credential} | {act} | {} |\n",
            preset.name, preset.title, preset.checked
        ));
    }
    page.push_str(&format!("\n```toml\n{}```\n", config::PRESETS));
    page
}

fn metrics() -> String {
    let mut page = METRICS.to_owned();
    for metric in telemetry::describe_metrics() {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        page.push_str(&format!("| `{}` | {} | {labels} | {} |\n", metric.name, metric.kind, metric.help));
    }
    page
}

/// A provider's page, or the index.
fn providers(name: Option<&str>) -> anyhow::Result<String> {
    let mut all: Vec<About> = config::providers().iter().map(About::new).collect();
    all.sort_by(|a, b| a.name().cmp(b.name()));
    if let Some(name) = name {
        let found = all.iter().find(|about| about.name() == name);
        let missing = || Failure::usage(format!("there is no provider `{name}`"));
        return Ok(found.ok_or_else(missing)?.to_markdown());
    }
    let rows = all.iter().map(About::to_row).collect::<Vec<_>>().join("\n");
    Ok(format!("{PROVIDERS}{rows}\n"))
}

const PROVIDERS: &str = include_str!("reference/providers.txt");

const METRICS: &str = include_str!("reference/metrics.txt");

fn commands() -> String {
    let mut page = "# Commands\n".to_owned();
    let mut command = super::Args::command().term_width(100);
    command.build();
    describe(&mut command, "doorbell", &mut page);
    page
}

fn describe(command: &mut clap::Command, path: &str, page: &mut String) {
    let help = command.render_long_help().to_string();
    let lines = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    page.push_str(&format!("\n## {path}\n\n```text\n{}\n```\n", lines.trim_end()));
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        describe(sub, &path, page);
    }
}
