//! Another user: how a command is carried out as somebody else of this machine (`run_as`).
//!
//! Between the start of a process and its program nothing of ours can run there, so such a command is started by way of
//! this program itself (`doorbell step-down`). That becomes the user for good, looks whether the user gets where the command
//! is to run, and turns into the command. Why it did not, it leaves in a file of the run's folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use doorbell_core::run::Outcome;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::prctl;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{AccessFlags, Gid, Uid, access, getresuid, setgroups, setresgid, setresuid, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities};

use crate::users::User;

/// The argument by which this program is asked to become a user and then a command.
pub const STEP_DOWN: &str = "step-down";
/// The exit code of one that did not become its command.
pub(super) const NOT_STARTED: u8 = 126;
/// This program itself, also after its file was replaced.
const OURSELVES: &str = "/proc/self/exe";

/// What becomes of a process that steps down.
#[derive(Debug)]
pub struct Step {
    /// The user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All its groups.
    pub groups: Vec<u32>,
    /// What the user must get to.
    pub reach: PathBuf,
    /// Where the command runs.
    pub cwd: PathBuf,
    /// The file for what went wrong; none: it is only looked whether the command could start, and told on standard output.
    pub report: Option<PathBuf>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// Becomes a user, and then a command. Comes back only if that did not work, or if it was only to be looked at.
pub fn step_down(step: &Step) -> ExitCode {
    // Opened by who we still are: the user may not get there, which is one of the things to be told.
    let folder = step.report.as_deref().and_then(Path::parent).map(open_folder);
    let Err(fault) = descend(step) else { return ExitCode::SUCCESS };
    let line = fault.line();
    let _ = match (folder, step.report.as_deref().and_then(Path::file_name)) {
        (Some(Ok(folder)), Some(name)) => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let made = openat(folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
            made.map_err(io::Error::from).and_then(|made| io::Write::write_all(&mut File::from(made), line.as_bytes()))
        }
        _ => io::Write::write_all(&mut io::stdout(), line.as_bytes()),
    };
    ExitCode::from(NOT_STARTED)
}

/// Closed when this turns into another program.
fn open_folder(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn descend(step: &Step) -> Result<(), Fault> {
    become_user(step).map_err(Fault::at(Stage::Become))?;
    access(&step.reach, AccessFlags::F_OK).map_err(Fault::at(Stage::Reach))?;
    nix::unistd::chdir(&step.cwd).map_err(Fault::at(Stage::Enter))?;
    let (program, arguments) = step.command.split_first().ok_or(Fault { stage: Stage::Start, errno: Errno::EINVAL })?;
    if step.report.is_none() {
        return access(program.as_os_str(), AccessFlags::X_OK).map_err(Fault::at(Stage::Start));
    }
    let error = Command::new(program).args(arguments).exec();
    Err(Fault { stage: Stage::Start, errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()) })
}

/// For good: there is no way back, and no program that it starts gets more rights than it has (as `sudo` would).
fn become_user(step: &Step) -> nix::Result<()> {
    // A pipe is opened anew by who writes to `/dev/stderr`, and is its owner's.
    let (uid, gid) = (Some(step.uid), Some(step.gid));
    let is_pipe = |found: nix::Result<nix::sys::stat::FileStat>| {
        found.is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
    };
    if is_pipe(fstat(io::stdin())) {
        let _ = fchown(io::stdin(), uid, gid);
    }
    if is_pipe(fstat(io::stdout())) {
        let _ = fchown(io::stdout(), uid, gid);
    }
    if is_pipe(fstat(io::stderr())) {
        let _ = fchown(io::stderr(), uid, gid);
    }
    let groups: Vec<Gid> = step.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(step.uid), Gid::from_raw(step.gid));
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // They go with root's number, but not with that of another user who held them.
    let none = CapabilitySet::empty();
    clear_ambient_capability_set().map_err(errno)?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).map_err(errno)?;
    prctl::set_no_new_privs()?;
    let now = getresuid()?;
    let all = [now.real, now.effective, now.saved];
    if all.iter().any(|one| *one != uid) || setuid(Uid::from_raw(0)).is_ok() {
        return Err(Errno::EPERM);
    }
    Ok(())
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// What did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To become the user.
    Become,
    /// To get to the run's folder.
    Reach,
    /// To enter the folder of the command.
    Enter,
    /// To start the program.
    Start,
}

const STAGES: [(Stage, &str); 4] =
    [(Stage::Become, "become"), (Stage::Reach, "reach"), (Stage::Enter, "enter"), (Stage::Start, "start")];

/// Why a process did not become its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    stage: Stage,
    errno: Errno,
}

/// Where a command was to run, for telling why it did not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) user: &'a User,
    /// The folder that the user could not get to.
    pub(super) reach: &'a Path,
    pub(super) cwd: &'a Path,
}

impl Fault {
    fn at(stage: Stage) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { stage, errno }
    }

    fn line(&self) -> String {
        let name = STAGES.iter().find(|(stage, _)| *stage == self.stage).map_or("", |(_, name)| name);
        format!("{name} {}\n", self.errno as i32)
    }

    /// Whoever is carried out can write such a line, too: it says nothing but these words.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (name, errno) = text.trim_end().split_once(' ')?;
        let (stage, _) = STAGES.iter().find(|(_, known)| *known == name)?;
        Some(Self { stage: *stage, errno: Errno::from_raw(errno.parse().ok()?) })
    }

    /// What an attempt came to by it. `explain` tells why a program does not start.
    pub(super) fn outcome(&self, place: Place<'_>, explain: impl FnOnce(&io::Error) -> Outcome) -> Outcome {
        let (Place { user, reach, cwd }, error) = (place, io::Error::from(self.errno));
        let (name, reach, cwd) = (&user.name, reach.display(), cwd.display());
        match self.stage {
            // As many processes as it may have, for now.
            Stage::Become if self.errno == Errno::EAGAIN => {
                Outcome::TryAgain(format!("nothing can be started as the user `{name}` now: {error}"))
            }
            Stage::Become => Outcome::Failed(format!(
                "nothing can be started as the user `{name}` (`run_as`): {error}; `doorbell doctor` looks into it"
            )),
            Stage::Reach => Outcome::Failed(format!(
                "the user `{name}` (`run_as`) cannot get to {reach}: {error}: the folders above it must let it pass \
                 (`chmod o+x`), or the project must be elsewhere, such as in /srv"
            )),
            Stage::Enter => Outcome::Failed(format!(
                "the user `{name}` (`run_as`) may not enter the folder {cwd}: {error}: open it to that user, or change \
                 `[runtime] cwd`"
            )),
            Stage::Start => match explain(&error) {
                Outcome::Failed(why) => Outcome::Failed(format!("as the user `{name}` (`run_as`): {why}")),
                // What is read here the command could have written, so its tries are counted.
                Outcome::NotStarted(why) => Outcome::TryAgain(why),
                other => other,
            },
        }
    }
}

/// How this program is started to carry a command out as a user: what follows is the command. `report`: see [`Step`].
pub(super) fn by_way(user: &User, reach: &Path, cwd: &Path, report: Option<&Path>) -> Command {
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    let ids = [("--uid", user.uid.to_string()), ("--gid", user.gid.to_string()), ("--groups", groups.join(","))];
    let mut command = Command::new(OURSELVES);
    command.arg0("doorbell").arg(STEP_DOWN).args(ids.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    command.arg("--reach").arg(reach).arg("--cwd").arg(cwd);
    if let Some(report) = report {
        command.arg("--report").arg(report);
    }
    // Its own place is one that every user may be in.
    command.arg("--").current_dir("/");
    command
}

/// Whether a user of `run_as` gets to the project's state (`reach`) and to `cwd`, and may start the program: tried, without
/// starting it.
///
/// # Errors
/// Why not, in words for people.
pub fn look_as(user: &User, reach: &Path, cwd: Option<&Path>, program: &OsStr) -> Result<(), String> {
    let cwd = cwd.unwrap_or(Path::new("/"));
    let output = by_way(user, reach, cwd, None).arg(program).output();
    let output = output.map_err(|error| format!("it cannot be tried: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let Some(fault) = Fault::read(&String::from_utf8_lossy(&output.stdout)) else {
        return Err(format!("it cannot be tried: {}", output.status));
    };
    let named = Path::new(program).display();
    let place = Place { user, reach, cwd };
    match fault.outcome(place, |error| Outcome::Failed(format!("`{named}` may not be executed: {error}"))) {
        Outcome::Failed(why) | Outcome::TryAgain(why) => Err(why),
        other => Err(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_went_wrong_is_read_as_it_was_written_and_nothing_else_is() {
        for (stage, _) in STAGES {
            let fault = Fault { stage, errno: Errno::EACCES };
            assert_eq!(Fault::read(&fault.line()), Some(fault));
        }
        for text in ["", "start", "start x", "leave 13", "the disk is full: pay here 13"] {
            assert_eq!(Fault::read(text), None, "{text}");
        }
    }

    #[test]
    fn who_has_too_many_processes_is_tried_again_and_who_may_not_is_told_why() {
        let user = User {
            name: "agent".to_owned(),
            uid: 7,
            gid: 7,
            groups: vec![7],
            home: "/".into(),
            shell: "/bin/sh".into(),
        };
        let place = Place { user: &user, reach: Path::new("/srv/x"), cwd: Path::new("/srv/app") };
        let outcome = |stage, errno| {
            Fault { stage, errno }.outcome(place, |error| Outcome::Failed(format!("`a` cannot start: {error}")))
        };
        assert!(matches!(outcome(Stage::Become, Errno::EAGAIN), Outcome::TryAgain(_)));
        for (stage, says) in
            [(Stage::Become, "run_as"), (Stage::Reach, "/srv/x"), (Stage::Enter, "/srv/app"), (Stage::Start, "`a`")]
        {
            let Outcome::Failed(why) = outcome(stage, Errno::EACCES) else { panic!("{stage:?}") };
            assert!(why.contains("`agent`") && why.contains(says), "{why}");
        }
    }
}
