//! `doorbell backup`: a copy of everything, whether the gateway runs or not.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use doorbell_client::api::NewCopy;
use doorbell_client::probe;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::context::{Context, running};
use super::failure::{Exit, Failure};
use super::output::{self, escape_terminal};
use super::time::Clock;
use crate::gateway::STATE_FOLDER;
use crate::http::INSTANCE;
use crate::runtime::identify;
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
/// When a copy has not grown for this long, the gateway is asked whether it lives.
const STALL: Duration = Duration::from_secs(10);
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the name of an unfinished copy ends with, after the number of the process that makes it.
const PART: &str = ".part";

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
    check(&file, &root, &database, args.force)?;
    let mut terminated = signal(SignalKind::terminate())?;
    let part = Part::make(&file)?;
    let copied = tokio::select! {
        copied = copy(context, &database, &part) => copied?,
        _ = async { tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminated.recv() => {} } } => {
            drop(part);
            // A copy on another thread could not be waited for.
            std::process::exit(Exit::Failed as i32);
        }
    };
    check(&file, &root, &database, args.force)?;
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

fn check(file: &Path, root: &Path, database: &Path, force: bool) -> anyhow::Result<()> {
    let same = |other: &Path| matches!((file.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(database) {
        return Err(Failure::usage(format!("{} is the database itself", file.display())).into());
    }
    if is_state(file, root, database) {
        let hint = "without a name it goes to .doorbell/backups; anywhere outside of .doorbell is fine, too";
        return Err(Failure::usage(format!("{} is where the gateway keeps its state", file.display()))
            .hint(hint)
            .into());
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

/// Whether a gateway lives on what is there, or would be.
fn is_state(file: &Path, root: &Path, database: &Path) -> bool {
    let Some(folder) = file.parent().and_then(|folder| folder.canonicalize().ok()) else { return false };
    let state = root.join(STATE_FOLDER).canonicalize();
    if state.is_ok_and(|state| folder.starts_with(&state) && !folder.starts_with(state.join("backups"))) {
        return true;
    }
    // It may have been put elsewhere.
    let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let beside = |end: &str| {
        let mut path = database.clone().into_os_string();
        path.push(end);
        file.file_name().is_some_and(|name| folder.join(name) == Path::new(&path))
    };
    ["-wal", "-shm", "-journal", ".lock"].into_iter().any(beside)
}

/// The file while it is being written; removed when dropped.
#[derive(Debug)]
struct Part(PathBuf);

impl Part {
    fn make(file: &Path) -> anyhow::Result<Self> {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = file.with_file_name(format!(".{name}.{}{PART}", std::process::id()));
        remove_left(path.parent().unwrap_or(Path::new("/")));
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

/// Removes the unfinished copies in a folder whose processes are gone: nobody else will.
fn remove_left(folder: &Path) {
    let process_of = |name: &str| name.strip_prefix('.')?.strip_suffix(PART)?.rsplit_once('.')?.1.parse::<i32>().ok();
    // Where processes cannot be seen, all seem to be gone.
    let sees = i32::try_from(std::process::id()).is_ok_and(|own| identify(own).is_some());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|_| sees) {
        let process = entry.file_name().to_str().and_then(process_of);
        if process.is_some_and(|process| process > 0 && identify(process).is_none())
            && is_copy(&entry.path())
            && std::fs::remove_file(entry.path()).is_ok()
        {
            let path = entry.path();
            output::note(escape_terminal(&format!("removed {}, which a killed backup left", path.display())));
        }
    }
}

/// Whether it is what a backup makes, as far as it came: others may name their files alike.
fn is_copy(path: &Path) -> bool {
    let is_private = |found: std::fs::Metadata| found.is_file() && found.mode() & 0o077 == 0;
    let mut begin = Vec::new();
    path.symlink_metadata().is_ok_and(is_private)
        && File::open(path).is_ok_and(|file| file.take(16).read_to_end(&mut begin).is_ok())
        && (begin == b"SQLite format 3\0" || begin.iter().all(|byte| *byte == 0))
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
    let health = format!("{}/healthz", context.gateway_url()?);
    let (mut bytes, mut grown) = (0, Instant::now());
    loop {
        tokio::select! {
            answer = &mut asked => return answer.map(drop),
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = part.0.metadata().map_or(0, |found| found.len());
        bar.set_position(now);
        if now != bytes {
            (bytes, grown) = (now, Instant::now());
        } else if grown.elapsed() >= STALL {
            if probe(&health, INSTANCE, PATIENCE).await.is_err() {
                let message = "the gateway hangs: it does not answer, and the copy does not grow";
                let hint =
                    "`doorbell doctor` says more; once the gateway is ended, `doorbell backup` makes a copy without it";
                return Err(Failure::new(Exit::Unreachable, message).hint(hint).into());
            }
            grown = Instant::now();
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
