//! `doorbell secrets`: the master key of the secrets that the database holds.

use clap::{Args, Subcommand};
use doorbell_client::api::{Rekey, Rekeyed};

use super::consent;
use super::context::Context;
use super::failure::Failure;
use super::keys::{NobodyThere, nobody_there, open};
use super::output::{self, escape_terminal};
use crate::gateway::STATE_FOLDER;
use crate::ops;
use crate::vault::Vault;

/// Manage the master key of the secrets in the database
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = "Example:\n  doorbell secrets rekey")]
pub(super) struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    Rekey(RekeyArgs),
}

/// Seal all secrets in the database with a new master key, whether the gateway runs or not
///
/// The key is in .doorbell/master.key, or in DOORBELL_MASTER_KEY. Of a variable with several keys (with a comma between
/// them) the first seals and all of them open: set it to NEW,OLD, start the gateway again, rekey, then take OLD out. If it is
/// stopped half-way, nothing is lost: run it again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell secrets rekey\n  doorbell secrets rekey --lost")]
struct RekeyArgs {
    /// The earlier master key is lost for good: go on with a new one. Webhooks whose secrets stay closed must be rotated
    #[arg(long)]
    lost: bool,
    /// Do not ask on a terminal
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(context: &Context, args: SecretsArgs) -> anyhow::Result<()> {
    let SecretsCommand::Rekey(RekeyArgs { lost, yes }) = args.command;
    let question = match lost {
        true => "Give the earlier master key up for good? Webhooks whose secrets stay closed must be rotated.",
        false => "Seal all secrets with a new master key? A copy of the earlier one opens them no more.",
    };
    consent::ask(yes, question)?;
    let asked = async { anyhow::Ok(context.client()?.rekey(&Rekey { lost }).await?) }.await;
    let done = match nobody_there(context, asked)? {
        Ok(done) => done,
        Err(NobodyThere) => offline(context, lost).await?,
    };
    if context.json {
        return output::json(&done);
    }
    say(&done)
}

async fn offline(context: &Context, lost: bool) -> anyhow::Result<Rekeyed> {
    let root = context.root()?;
    let (config, store) = open(&root).await?;
    let vault = Vault::open(&root.join(STATE_FOLDER), config.origin.master_key().as_deref())?;
    match ops::secrets::rekey_stored(store.as_ref(), &vault, lost).await {
        Ok(done) => {
            ops::audit::note_offline(store.as_ref(), "POST /v1/secrets/rekey", "").await?;
            Ok(done)
        }
        Err(ops::Error::Locked(detail)) => Err(Failure::usage(detail).into()),
        Err(error) => Err(error.into()),
    }
}

fn say(done: &Rekeyed) -> anyhow::Result<()> {
    let origin = escape_terminal(&done.origin);
    output::line(format!(
        "{} secrets are sealed anew; the master key is {} ({origin})",
        done.resealed, done.master_key
    ))?;
    if done.unreadable > 0 {
        output::note(format!(
            "warning: {} secrets cannot be opened by any key, and stay as they are: their webhooks answer with 503 until the \
             right key is back, or they are rotated",
            done.unreadable
        ));
    }
    if let Some(file) = &done.unused_file {
        output::note(format!("{} is not used any more: remove it", escape_terminal(file)));
    }
    Ok(())
}
