//! The command of an attempt: its arguments, environment and files, and why it cannot start.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use doorbell_core::prompt;
use doorbell_core::run::Outcome;
use nix::errno::Errno;
use tokio::process::{Child, Command};

use super::Job;
use super::folder::Folder;
use super::lookup;
use super::orphans::{self, Own};
use super::user::{self, Fault, NOT_STARTED, Place};
use crate::config::{CommandRuntime, PromptChannel};
use crate::files;
use crate::users::User;

/// Bytes of one argument, at most: 32 pages with the NUL at its end (`MAX_ARG_STRLEN` of Linux).
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;

/// A command, ready to start.
#[derive(Debug)]
pub(super) struct Prepared {
    program: String,
    /// Where the program is, if it is named and was found.
    file: Option<PathBuf>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    cwd: PathBuf,
    /// Who it is carried out as; none: as who we are.
    user: Option<User>,
    /// What it gets on standard input.
    pub(super) input: Option<Vec<u8>>,
    /// The run's own folder.
    pub(super) folder: Folder,
}

/// Writes the files of an attempt and puts its command together. Blocks on the disk.
///
/// # Errors
/// What the attempt came to, if it cannot start.
pub(super) fn prepare(job: &Job) -> Result<Prepared, Outcome> {
    let runtime = &job.command;
    let Some((program, fixed)) = runtime.command.split_first() else {
        return Err(Outcome::Failed("`[runtime] command` is empty: name a program".to_owned()));
    };
    let why = |error: &io::Error| format!("cannot write the run's folder {}: {error}", job.folder.display());
    if let Some(parent) = job.folder.parent() {
        files::make_private_folder(parent).map_err(|error| Outcome::NotStarted(why(&error)))?;
    }
    let broken = |error: io::Error| match is_shortage(&error) {
        true => Outcome::NotStarted(why(&error)),
        // Whatever else is wrong there, an earlier try may have made.
        false => Outcome::TryAgain(why(&error)),
    };
    let folder = Folder::open(&job.folder, runtime.run_as.as_ref()).map_err(broken)?;
    let event = serde_json::to_vec(&job.envelope).map_err(|error| broken(error.into()))?;
    folder.write(&folder.event_file(), &event).map_err(broken)?;
    let prompt = prompt::build(job.agent.instructions.as_ref(), &job.envelope, &job.agent.params).map_err(|error| {
        let line = error.line.map(|line| format!(", line {line}")).unwrap_or_default();
        Outcome::Failed(format!("the prompt cannot be made from SKILL.md{line}: {error}"))
    })?;
    let mut arguments: Vec<OsString> = fixed.iter().map(OsString::from).collect();
    let mut input = None;
    match runtime.prompt {
        PromptChannel::Stdin => input = Some(prompt.into_bytes()),
        PromptChannel::Arg => arguments.push(argument(prompt)?.into()),
        PromptChannel::File => {
            folder.write(&folder.prompt_file(), prompt.as_bytes()).map_err(broken)?;
            arguments.push(folder.prompt_file().into());
        }
    }
    let environment = environment(job, &folder)?;
    let cwd = runtime.cwd.clone().unwrap_or_else(|| folder.path().to_owned());
    // A program that has to be looked for in a `PATH` of its own is started by a copy of this process (`fork`), which takes
    // the longer the more memory the gateway has. One whose place is known is not.
    let path = environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let file = path.and_then(|path| lookup::in_path(program, path));
    let user = runtime.run_as.clone();
    Ok(Prepared { program: program.clone(), file, arguments, environment, cwd, user, input, folder })
}

/// Whether the machine is short of something, for which no agent is to blame and which may be over later.
fn is_shortage(error: &io::Error) -> bool {
    use Errno::{EAGAIN, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS};
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    [EAGAIN, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS].contains(&errno)
}

/// A prompt as an argument.
fn argument(prompt: String) -> Result<String, Outcome> {
    let mut argument = without_nul(prompt);
    // It would be read as an option.
    if argument.starts_with('-') {
        argument.insert(0, ' ');
    }
    if argument.len() <= LONGEST_ARGUMENT {
        return Ok(argument);
    }
    Err(Outcome::Failed(format!(
        "the prompt has {} bytes, and an argument can have {LONGEST_ARGUMENT}: set `prompt = \"stdin\"` or \"file\"",
        argument.len()
    )))
}

/// Everything an agent gets in its environment; later entries win, so that nothing can take Doorbell's own over.
fn environment(job: &Job, folder: &Folder) -> Result<Vec<(OsString, OsString)>, Outcome> {
    let mut all: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &str, value: OsString| all.push((name.into(), value));
    let CommandRuntime { env, credentials, run_as, .. } = job.command.as_ref();
    // What is temporary to us may be closed to another user.
    let is_theirs = |name: &str| run_as.is_none() || name != "TMPDIR";
    job.inherited.iter().filter(|(name, _)| is_theirs(name)).for_each(|(name, value)| set(name, value.into()));
    if let Some(user) = run_as {
        let own = [("HOME", user.home.as_os_str()), ("SHELL", user.shell.as_os_str())];
        own.into_iter().for_each(|(name, value)| set(name, value.to_owned()));
        ["USER", "LOGNAME"].into_iter().for_each(|name| set(name, user.name.clone().into()));
    }
    for (name, template) in env {
        let value = template
            .render(&job.envelope, &job.agent.params)
            .map_err(|error| Outcome::Failed(format!("`env.{name}` cannot be made from its template: {error}")))?;
        set(name, without_nul(value).into());
    }
    for (name, secret) in credentials {
        if secret.expose().contains(&0) {
            let reason = "has a NUL byte in it, which no environment variable can hold: store it again";
            return Err(Outcome::Failed(format!("the credential for {name} {reason}")));
        }
        set(name, OsString::from_vec(secret.expose().to_vec()));
    }
    set("DOORBELL_RUN_ID", job.envelope.run_id.to_string().into());
    set("DOORBELL_ATTEMPT", job.envelope.attempt.to_string().into());
    set("DOORBELL_AGENT", job.agent.name.clone().into());
    set("DOORBELL_EVENT_FILE", folder.event_file().into());
    set("DOORBELL_OUTPUT_FILE", folder.output_file().into());
    job.trace.iter().for_each(|(name, value)| set(name, value.into()));
    set("DOORBELL_URL", job.url.clone().into());
    set("DOORBELL_TOKEN", OsString::from_vec(job.token.expose().to_vec()));
    Ok(all)
}

fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "") } else { text }
}

impl Prepared {
    /// Starts the command in a process group of its own, with pipes for what it prints.
    ///
    /// # Errors
    /// What the attempt came to, if it cannot start.
    pub(super) fn start(&self) -> Result<(Child, Own), Outcome> {
        if !self.cwd.is_dir() {
            let cwd = self.cwd.display();
            return Err(Outcome::Failed(format!("the folder {cwd} is not there: make it, or change `[runtime] cwd`")));
        }
        let input = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut command = self.command();
        command
            .args(&self.arguments)
            .process_group(0)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Only if we are dropped half-way: otherwise the whole group is ended.
        command.kill_on_drop(true);
        orphans::start(|| command.spawn(), Child::id).map_err(|error| self.explain(&error))
    }

    /// The program, which is all that is left to name its arguments to.
    fn command(&self) -> Command {
        let Some(user) = &self.user else {
            let mut command = Command::new(self.file.as_deref().unwrap_or(Path::new(&self.program)));
            command.arg0(&self.program).current_dir(&self.cwd);
            return command;
        };
        // It is looked for by the user: what we may execute, others perhaps may not.
        let mut command = user::by_way(user, &self.folder.event_file(), &self.cwd, Some(&self.folder.fault_file()));
        command.arg(&self.program);
        command.into()
    }

    fn explain(&self, error: &io::Error) -> Outcome {
        explain(&self.program, &self.cwd, self.cwd == self.folder.path(), error)
    }

    /// What the attempt came to, if it was to be carried out as another user and did not come as far as its program.
    pub(super) fn not_started(&self, exit_code: Option<i32>) -> Option<Outcome> {
        let user = self.user.as_ref().filter(|_| exit_code == Some(NOT_STARTED.into()))?;
        let fault = Fault::read(&self.folder.fault()?)?;
        let place = Place { user, reach: self.folder.path(), cwd: &self.cwd };
        Some(fault.outcome(place, |error| self.explain(error)))
    }
}

/// Why a program did not start, and what to do about it. `is_own`: it ran in the run's own folder.
fn explain(program: &str, cwd: &Path, is_own: bool, error: &io::Error) -> Outcome {
    let is_path = program.contains('/');
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    match errno {
        Errno::ENOENT if is_path && cwd.join(program).exists() => {
            let why = lookup::find_program(program, Some(cwd), None).err().map(|why| why.to_string());
            let unknown = || "the interpreter that its first line (`#!`) names is not there: install it".to_owned();
            Outcome::Failed(format!("`{program}` cannot start: {}", why.unwrap_or_else(unknown)))
        }
        Errno::ENOENT if is_path && is_own && Path::new(program).is_relative() => Outcome::Failed(format!(
            "there is no program `{program}` in the run's own folder, which is new and empty for each run: set `cwd` in \
             [runtime] (\".\" is the project), or write the whole path"
        )),
        Errno::ENOENT if is_path => Outcome::Failed(format!(
            "there is no program `{program}`: install it, or change `[runtime] command` (a relative path counts from {})",
            cwd.display()
        )),
        Errno::ENOENT if program.contains(' ') => Outcome::Failed(format!(
            "there is no program `{program}`: `[runtime] command` is a list with one item for each argument: {:?}",
            program.split_whitespace().collect::<Vec<_>>()
        )),
        Errno::ENOENT => Outcome::Failed(format!(
            "there is no program `{program}` in PATH: install it, or write its whole path in the list `[runtime] command`, in \
             place of `{program}` (`doorbell config` shows the list, also a preset's)"
        )),
        Errno::EACCES => {
            Outcome::Failed(format!("`{program}` may not be executed: `chmod +x` it, or check its folder"))
        }
        Errno::ENOEXEC => Outcome::Failed(format!(
            "`{program}` is neither a program of this machine nor a script: begin it with a `#!` line"
        )),
        Errno::E2BIG => Outcome::Failed(format!(
            "`{program}` cannot start: its arguments and environment are too large: leave large values of the event \
             out of `env` (they are in the file that DOORBELL_EVENT_FILE names) and set `prompt = \"stdin\"`"
        )),
        _ if is_shortage(error) => Outcome::NotStarted(format!("`{program}` cannot start now: {error}")),
        Errno::ETXTBSY => Outcome::TryAgain(format!("`{program}` cannot start now: {error}")),
        _ => Outcome::Failed(format!("`{program}` cannot start: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn reason(program: &str, errno: Errno) -> Outcome {
        explain(program, Path::new("/"), false, &io::Error::from(errno))
    }

    #[test]
    fn a_prompt_is_never_an_option() {
        assert_eq!(argument("- do it".to_owned()), Ok(" - do it".to_owned()));
        assert_eq!(argument("do\0 it".to_owned()), Ok("do it".to_owned()));
    }

    #[test]
    fn a_prompt_that_no_argument_can_hold_says_what_to_do() {
        assert!(argument("x".repeat(LONGEST_ARGUMENT)).is_ok());
        let Err(Outcome::Failed(reason)) = argument("x".repeat(LONGEST_ARGUMENT + 1)) else { panic!("it fits") };
        assert!(reason.contains("131072 bytes") && reason.contains("stdin"), "{reason}");
    }

    #[test]
    fn a_machine_that_is_short_of_something_does_not_use_up_the_only_try() {
        assert!(matches!(reason("a", Errno::EMFILE), Outcome::NotStarted(_)));
        assert!(matches!(reason("a", Errno::EACCES), Outcome::Failed(_)));
    }

    #[test]
    fn a_script_without_its_interpreter_is_told_from_a_missing_one() {
        let Outcome::Failed(there) = reason("/proc/self/exe", Errno::ENOENT) else { panic!() };
        let Outcome::Failed(missing) = reason("./no-such", Errno::ENOENT) else { panic!() };
        assert!(there.contains("interpreter") && missing.contains("counts from /"), "{there} {missing}");
    }

    #[test]
    fn a_relative_program_of_a_run_without_a_cwd_is_told_to_set_one() {
        let reason = explain("./no-such", Path::new("/"), true, &io::Error::from(Errno::ENOENT));
        let Outcome::Failed(reason) = reason else { panic!() };
        assert!(reason.contains("set `cwd`") && !reason.contains("install"), "{reason}");
    }
}
