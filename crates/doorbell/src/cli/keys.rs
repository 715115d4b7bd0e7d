//! `doorbell keys`: who may do what.

use std::path::Path;

use clap::{Args, Subcommand};
use doorbell_client::api::{CreatedKey, NewKey};

use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{self, escape_terminal};
use crate::config::{self, Environment};
use crate::gateway::STATE_FOLDER;
use crate::{files, ops, store};

/// Manage API keys
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = "Example:\n  doorbell keys create --name ci --role viewer")]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    Create(CreateArgs),
}

/// Make an API key; it is shown once, and never again
#[derive(Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
struct CreateArgs {
    /// A label, to know it by
    #[arg(long)]
    name: String,
    /// What it may: an owner everything, a viewer look, an agent look after itself
    #[arg(long, value_parser = ["owner", "viewer", "agent"])]
    role: String,
    /// The agent that the key belongs to, for role `agent`
    #[arg(long, required_if_eq("role", "agent"), add = completions::agents())]
    agent: Option<String>,
}

const CREATE_EXAMPLES: &str = "\
Examples:
  doorbell keys create --name ci --role viewer
  doorbell keys create --name triage --role agent --agent triage --json";

pub(super) async fn run(context: &Context, args: KeysArgs) -> anyhow::Result<()> {
    let KeysCommand::Create(CreateArgs { name, role, agent }) = args.command;
    if agent.is_some() && role != "agent" {
        return Err(Failure::usage("--agent goes with --role agent only").into());
    }
    let created = create(context, NewKey { name, role, agent }).await?;
    if context.json {
        return output::json(&created);
    }
    output::note(format!(
        "{} ({}): keep the key, it is not shown again",
        escape_terminal(&created.key_id),
        created.role
    ));
    Ok(output::line(escape_terminal(&created.key))?)
}

async fn create(context: &Context, wish: NewKey) -> anyhow::Result<CreatedKey> {
    let asked = async { anyhow::Ok(context.client()?.create_key(&wish).await?) }.await;
    match asked {
        Err(error) if context.asks_the_project() && is_nobody_there(&error) => {
            create_offline(&context.root()?, wish).await
        }
        asked => asked,
    }
}

/// Whether no gateway runs, so that the store is nobody's.
fn is_nobody_there(error: &anyhow::Error) -> bool {
    let unreachable = error.downcast_ref::<Failure>().is_some_and(|failure| failure.exit == Exit::Unreachable);
    let refused = error.downcast_ref::<doorbell_client::Error>().is_some_and(doorbell_client::Error::nobody_listens);
    unreachable || refused
}

/// Makes the key in the project's store itself.
async fn create_offline(root: &Path, wish: NewKey) -> anyhow::Result<CreatedKey> {
    let config = config::load(root, &Environment::read(), &[])?;
    files::make_private_folder(&root.join(STATE_FOLDER))?;
    let store = store::open(&config.store_url, root).await?;
    let agents: Vec<&str> = config.agents.keys().map(String::as_str).collect();
    match ops::keys::make(store.as_ref(), wish, &agents).await {
        Ok((_, created)) => Ok(created),
        Err(ops::Error::Invalid(detail)) => Err(Failure::usage(detail).into()),
        Err(error) => Err(error.into()),
    }
}
