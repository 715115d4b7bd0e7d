//! `doorbell backup`: a copy of everything, whether the gateway runs or not.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use doorbell_client::api::NewCopy;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::context::{Context, running};
use super::failure::{Exit, Failure};
use super::output::{self, escape_terminal};
use super::time::Clock;
use crate::gateway::STATE_FOLDER;
use crate::store::{self, Copied};
use crate::{clock, files};

/// Copy the project's database to a file, checked, while the gateway runs or not
///
/// Events come in and agents run meanwhile; the copy shows the moment it was finished. Runs that were not over then are
/// held in the copy, so that a gateway that is started on it does not start again what may have ended since.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BackupArgs {
    /// Where to [default: a file named after the time, in .doorbell/backups]
    file: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  doorbell backup
  doorbell backup /mnt/backups/doorbell.db --force";

/// How often the growing copy is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn run(context: &Context, args: BackupArgs) -> anyhow::Result<()> {
    if !context.asks_the_project() {
        let message = "a backup is made where the gateway runs: its file is on that machine";
        return Err(Failure::usage(message).hint("run it there, in the project's folder, without --url").into());
    }
    let root = context.root()?;
    // A mistake in the configuration, which the gateway does not take over, must not keep anybody from a copy.
    let store = match running(&root) {
        Ok(address) if !address.store.is_empty() => address.store,
        _ => context.config()?.store_url,
    };
    let database = store::database_file(&store, &root)?;
    let file = target(&root, &args)?;
    check(&file, &database, args.force)?;
    let part = Part::make(&file)?;
    let copied = tokio::select! {
        copied = copy(context, &database, &part) => copied?,
        _ = tokio::signal::ctrl_c() => {
            drop(part);
            // A copy on another thread could not be waited for.
            std::process::exit(Exit::Failed as i32);
        }
    };
    check(&file, &database, args.force)?;
    part.become_file(&file).with_context(|| format!("cannot make {}", file.display()))?;
    tell(context, &file, &database, &copied)
}

fn target(root: &Path, args: &BackupArgs) -> anyhow::Result<PathBuf> {
    let name = || format!("doorbell-{}.db", clock::now().to_string().replace([':', '-'], "").replace(".", "-"));
    let file = match &args.file {
        None => {
            let folder = root.join(STATE_FOLDER).join("backups");
            files::make_private_folder(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            folder.join(name())
        }
        Some(folder) if folder.is_dir() => folder.join(name()),
        Some(file) => file.clone(),
    };
    Ok(std::path::absolute(file)?)
}

fn check(file: &Path, database: &Path, force: bool) -> anyhow::Result<()> {
    let same = |other: &Path| matches!((file.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(database) {
        return Err(Failure::usage(format!("{} is the database itself", file.display())).into());
    }
    if file.is_dir() {
        return Err(Failure::usage(format!("{} is a folder", file.display())).into());
    }
    if !force && file.symlink_metadata().is_ok() {
        let message = format!("{} is there already", file.display());
        return Err(Failure::new(Exit::Failed, message).hint("--force writes over it").into());
    }
    Ok(())
}

/// The file while it is being written; removed when dropped.
#[derive(Debug)]
struct Part(PathBuf);

impl Part {
    fn make(file: &Path) -> anyhow::Result<Self> {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = file.with_file_name(format!(".{name}.{}.part", std::process::id()));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self(path))
    }

    fn become_file(self, file: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.0, file)?;
        // The name lasts, too.
        file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already, if it became the file.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Copies and checks, with a progress bar.
async fn copy(context: &Context, database: &Path, part: &Part) -> anyhow::Result<Copied> {
    let bar = ProgressBar::new(database.metadata().map_or(0, |found| found.len()));
    bar.set_style(ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}")?);
    let (source, file, shown) = (database.to_owned(), part.0.clone(), bar.clone());
    let unused = tokio::task::spawn_blocking(move || {
        store::copy_unused(&source, &file, |copied, all| {
            shown.set_length(all);
            shown.set_position(copied);
        })
    });
    if unused.await??.is_none() {
        ask_gateway(context, part, &bar).await?;
    }
    bar.set_style(ProgressStyle::with_template("{spinner} checking the copy  {elapsed}")?);
    bar.enable_steady_tick(LOOK);
    let file = part.0.clone();
    let copied = tokio::task::spawn_blocking(move || store::seal_copy(&file, clock::now())).await??;
    bar.finish_and_clear();
    Ok(copied)
}

/// Has the gateway that uses the database copy it, and watches the copy grow.
async fn ask_gateway(context: &Context, part: &Part, bar: &ProgressBar) -> anyhow::Result<()> {
    let file = part.0.to_str().ok_or_else(|| Failure::usage("the file's path is not text"))?;
    let wish = NewCopy { file: file.to_owned() };
    let asked = async {
        let client = context.client().context("the database is in use, and no gateway can be asked for a copy")?;
        Ok::<_, anyhow::Error>(client.copy_store(&wish).await?)
    };
    tokio::pin!(asked);
    loop {
        tokio::select! {
            answer = &mut asked => return answer.map(drop),
            () = tokio::time::sleep(LOOK) => bar.set_position(part.0.metadata().map_or(0, |found| found.len())),
        }
    }
}

fn tell(context: &Context, file: &Path, database: &Path, copied: &Copied) -> anyhow::Result<()> {
    let Copied { bytes, held, newest } = copied;
    if context.json {
        let newest = newest.map(|(id, at)| json!({"id": id.to_string(), "receivedAt": at.to_string()}));
        return output::json(&json!({"file": file, "bytes": bytes, "heldRuns": held, "newestEvent": newest}));
    }
    let newest = newest.map_or_else(
        || "it has no events".to_owned(),
        |(id, at)| format!("its newest event is {id}, received {}", Clock::here().show(&at.to_string())),
    );
    let size = indicatif::HumanBytes(*bytes);
    output::line(escape_terminal(&format!("{}: {size}, checked; {newest}", file.display())))?;
    if *held > 0 {
        output::note(format!("{held} runs that were not over are held in it"));
    }
    let database = database.display();
    output::note(escape_terminal(&format!(
        "to restore: stop the gateway, move {database}* away, copy the file to {database}, start the gateway"
    )));
    Ok(())
}
