//! What the system says about changes in folders.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::config::Survey;

/// How long a file that is open for writing is waited for after the last change to it.
const LONGEST_SAVE: Duration = Duration::from_secs(60);
/// The same for one that was only made: it may be a link to a finished one, which nobody closes.
const LONGEST_START: Duration = Duration::from_secs(5);

/// What of the project's folder itself concerns us. It may hold much else, such as a log that grows all the time.
const OF_THE_PROJECT: [&str; 3] = ["config.toml", "agents", "providers"];

/// Watches folders, not files: an editor puts a new file in place of the old one.
#[derive(Debug)]
pub(super) struct Watcher {
    heard: Arc<Heard>,
    system: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    failed: bool,
}

#[derive(Debug)]
struct Heard {
    root: PathBuf,
    bell: Notify,
    /// Files that were made or written to and not closed yet, with how long they are waited for.
    open: Mutex<HashMap<PathBuf, Instant>>,
}

impl Watcher {
    /// Watches nothing yet. `root` is the project's folder.
    pub(super) fn new(root: &Path) -> Self {
        let heard = Heard { root: root.to_owned(), bell: Notify::new(), open: Mutex::default() };
        Self { heard: Arc::new(heard), system: None, watched: BTreeSet::new(), failed: false }
    }

    /// Watches exactly these. One that is watched already is watched again: it may be another of the same name.
    pub(super) fn watch(&mut self, folders: &BTreeSet<PathBuf>) {
        let watched = std::mem::replace(&mut self.watched, folders.clone());
        let Some(system) = self.begin() else { return };
        let mut failure = None;
        for gone in watched.difference(folders) {
            // It may be gone from the disk, too.
            let _ = system.unwatch(gone);
        }
        for folder in folders {
            match system.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => failure = Some(error),
            }
        }
        self.note(failure);
    }

    /// Watches nothing any more.
    pub(super) fn stop(&mut self) {
        self.system = None;
        self.watched.clear();
        self.heard.open().clear();
    }

    /// Waits until something may have changed.
    pub(super) async fn hint(&self) {
        self.heard.bell.notified().await;
    }

    /// Whether it watches all that it was told to.
    pub(super) fn hints(&self) -> bool {
        self.system.is_some() && !self.failed
    }

    /// Whether somebody has one of these files open who wrote to it.
    pub(super) fn is_being_written(&self, files: &Survey) -> bool {
        let mut open = self.heard.open();
        let now = Instant::now();
        open.retain(|_, until| *until > now);
        open.keys().any(|path| files.has(path))
    }

    fn begin(&mut self) -> Option<&mut RecommendedWatcher> {
        if self.system.is_none() {
            let heard = Arc::clone(&self.heard);
            match notify::recommended_watcher(move |event| heard.hear(event)) {
                Ok(system) => self.system = Some(system),
                Err(error) => self.note(Some(error)),
            }
        }
        self.system.as_mut()
    }

    /// Says once that watching fails.
    fn note(&mut self, failure: Option<notify::Error>) {
        if let Some(error) = &failure
            && !self.failed
        {
            tracing::warn!(%error, "config.watch_failed: saved changes are looked for every second instead");
        }
        self.failed = failure.is_some();
    }
}

impl Heard {
    fn hear(&self, event: notify::Result<Event>) {
        if let Ok(event) = &event {
            if event.need_rescan() {
                // Events were lost, the closing of a file may be among them.
                self.open().clear();
            } else if !self.concerns(event) {
                return;
            }
            let mut open = self.open();
            for path in &event.paths {
                let until = |wait| Instant::now() + wait;
                match event.kind {
                    EventKind::Modify(ModifyKind::Data(_)) => open.insert(path.clone(), until(LONGEST_SAVE)),
                    EventKind::Create(_) if is_plain_file(path) => open.insert(path.clone(), until(LONGEST_START)),
                    EventKind::Modify(ModifyKind::Metadata(_)) => None,
                    _ => open.remove(path),
                };
            }
        }
        self.bell.notify_one();
    }

    /// Reading a file changes nothing, and we do it ourselves.
    fn concerns(&self, event: &Event) -> bool {
        let only_read = match event.kind {
            EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
            _ => false,
        };
        let another = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            path.parent() == Some(&self.root) && !OF_THE_PROJECT.contains(&name) && !name.starts_with("..")
        };
        !only_read && (event.paths.is_empty() || !event.paths.iter().all(another))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is a file, not a link to one.
fn is_plain_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}
