//! `doorbell keys`: who may do what.

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};
use doorbell_client::api::{CreatedKey, Key, KeyList, NewKey, RemovedKey};

use super::completions;
use super::consent;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::known;
use super::output::{self, Table, escape_terminal};
use super::time::Clock;
use crate::app::{Accounts, load_declared};
use crate::config::{self, Config, Environment, parse_duration};
use crate::gateway::STATE_FOLDER;
use crate::store::Store;
use crate::{files, ops, store};

/// Manage API keys
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

const EXAMPLES: &str = "\
Examples:
  doorbell keys create --name ci --role viewer
  doorbell keys ls
  doorbell keys rm key_01K…";

#[derive(Debug, Subcommand)]
enum KeysCommand {
    Create(CreateArgs),
    Ls(LsArgs),
    Rm(RmArgs),
}

/// Make an API key; it is shown once, and never again
#[derive(Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
struct CreateArgs {
    /// A label, to know it by
    #[arg(long)]
    name: String,
    /// What it may: an owner everything (of its account), a viewer look, an agent look after itself
    #[arg(long, value_parser = ["owner", "viewer", "agent"])]
    role: String,
    /// The agent that the key belongs to, for role `agent`
    #[arg(long, required_if_eq("role", "agent"), add = completions::agents())]
    agent: Option<String>,
    /// The account that the key belongs to, for the other roles [default: that of who asks, or the gateway's]
    #[arg(long, conflicts_with = "agent")]
    account: Option<String>,
    /// After how long it ends by itself, e.g. `30d` [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_life)]
    expires: Option<String>,
}

fn parse_life(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

/// List the API keys, oldest first, without their secrets
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell keys ls --json")]
struct LsArgs {}

/// Remove an API key: it is refused at once, and what it has open ends
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell keys ls\n  doorbell keys rm key_01K…")]
struct RmArgs {
    /// The key's id (`doorbell keys ls`), not its secret
    #[arg(add = completions::keys())]
    id: String,
    /// Do not ask on a terminal
    #[arg(short, long)]
    yes: bool,
}

const CREATE_EXAMPLES: &str = "\
Examples:
  doorbell keys create --name ci --role viewer --expires 30d
  doorbell keys create --name platform-lead --role owner --account platform
  doorbell keys create --name triage --role agent --agent triage --json";

pub(super) async fn run(context: &Context, args: KeysArgs) -> anyhow::Result<()> {
    match args.command {
        KeysCommand::Create(args) => show_new(context, args).await,
        KeysCommand::Ls(LsArgs {}) => show_all(context).await,
        KeysCommand::Rm(args) => remove(context, &args).await,
    }
}

async fn show_new(
    context: &Context,
    CreateArgs { name, role, agent, account, expires }: CreateArgs,
) -> anyhow::Result<()> {
    if agent.is_some() && role != "agent" {
        return Err(Failure::usage("--agent goes with --role agent only").into());
    }
    let created = create(context, NewKey { name, role, agent, account, expires }).await?;
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

async fn show_all(context: &Context) -> anyhow::Result<()> {
    let list = list(context).await?;
    if context.json {
        return output::json(&list);
    }
    let clock = Clock::here();
    let mut table = Table::new(&["ID", "NAME", "ROLE", "OF", "MADE", "LAST USED", "EXPIRES"]);
    list.keys.iter().for_each(|key| table.row(row(key, &clock)));
    Ok(table.print()?)
}

fn row(key: &Key, clock: &Clock) -> [String; 7] {
    let of = key.agent.clone().or_else(|| Some(format!("account {}", key.account.as_ref()?)));
    let when = |at: &Option<String>, otherwise: &str| at.as_ref().map_or(otherwise.to_owned(), |at| clock.show(at));
    [
        key.key_id.clone(),
        key.name.clone(),
        key.role.clone(),
        of.unwrap_or_else(|| "-".to_owned()),
        clock.show(&key.created_at),
        when(&key.last_used_at, "never"),
        when(&key.expires_at, "-"),
    ]
}

async fn remove(context: &Context, args: &RmArgs) -> anyhow::Result<()> {
    let question = format!("Remove {}? Whoever uses it is refused at once.", escape_terminal(&args.id));
    consent::ask(args.yes, &question)?;
    let removed = remove_one(context, &args.id).await?;
    match context.json {
        true => output::json(&removed),
        false => Ok(output::line(escape_terminal(&format!("{} is removed", removed.key_id)))?),
    }
}

async fn create(context: &Context, wish: NewKey) -> anyhow::Result<CreatedKey> {
    let asked = async {
        let client = context.client()?;
        let created = client.create_key(&wish).await;
        if created.as_ref().is_err_and(|error| error.status() == Some(400)) {
            known::check_agent(&client, wish.agent.as_deref()).await?;
        }
        anyhow::Ok(created?)
    };
    match nobody_there(context, asked.await)? {
        Ok(created) => Ok(created),
        Err(NobodyThere) => {
            let (config, store) = open(&context.root()?).await?;
            let notes = store.notes("").await?;
            let declared = load_declared(&notes);
            let agents: Vec<&str> = config.agents.keys().chain(declared.keys()).map(String::as_str).collect();
            let is_missing = wish.agent.as_deref().is_some_and(|agent| !agents.contains(&agent));
            match ops::keys::make(store.as_ref(), wish, &agents, &Accounts::load(&notes)).await {
                Ok((_, created)) => {
                    ops::audit::note_offline(store.as_ref(), "POST /v1/keys", &created.key_id).await?;
                    Ok(created)
                }
                Err(ops::Error::Invalid(detail)) if is_missing => Err(Failure::new(Exit::NotFound, detail).into()),
                Err(ops::Error::Invalid(detail)) => Err(Failure::usage(detail).into()),
                Err(error) => Err(error.into()),
            }
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<KeyList> {
    let asked = async { anyhow::Ok(context.client()?.keys().await?) }.await;
    match nobody_there(context, asked)? {
        Ok(list) => Ok(list),
        Err(NobodyThere) => Ok(ops::keys::all(open(&context.root()?).await?.1.as_ref()).await?),
    }
}

async fn remove_one(context: &Context, id: &str) -> anyhow::Result<RemovedKey> {
    let missing = || Failure::missing("key", id, "doorbell keys ls");
    let asked = async { context.client()?.remove_key(id).await.map_err(missing()) }.await;
    match nobody_there(context, asked)? {
        Ok(removed) => Ok(removed),
        Err(NobodyThere) => {
            let (_, store) = open(&context.root()?).await?;
            match ops::keys::remove_from(store.as_ref(), id).await {
                Ok((_, removed)) => {
                    ops::audit::note_offline(store.as_ref(), "DELETE /v1/keys/{id}", id).await?;
                    Ok(removed)
                }
                Err(ops::Error::NotFound(_)) => {
                    let message = format!("there is no key {id} (`doorbell keys ls` lists them)");
                    Err(Failure::new(Exit::NotFound, message).into())
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// No gateway runs, so that the project's store is nobody's.
pub(super) struct NobodyThere;

/// What a gateway answered; or that the project's store is to be asked, because none runs.
pub(super) fn nobody_there<T>(context: &Context, asked: anyhow::Result<T>) -> anyhow::Result<Result<T, NobodyThere>> {
    match asked {
        Err(error) if context.asks_the_project() && is_nobody_there(&error) => Ok(Err(NobodyThere)),
        asked => asked.map(Ok),
    }
}

fn is_nobody_there(error: &anyhow::Error) -> bool {
    let unreachable = error.downcast_ref::<Failure>().is_some_and(|failure| failure.exit == Exit::Unreachable);
    let refused = error.downcast_ref::<doorbell_client::Error>().is_some_and(doorbell_client::Error::nobody_listens);
    unreachable || refused
}

/// The project's configuration and store.
pub(super) async fn open(root: &Path) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    let config = config::load(root, &Environment::read(), &[])?;
    files::make_private_folder(&root.join(STATE_FOLDER))?;
    let store = store::open(&config.store_url, root).await?;
    Ok((config, store))
}
