//! How a command fails: one line on standard error, what to do about it, and the exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::context::Context;
use super::output;
use crate::config::Problems;

/// The exit codes beyond 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It did not work.
    Failed = 1,
    /// It was asked in a way that makes no sense.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The key may not, or there is none.
    NotAllowed = 4,
    /// No gateway answers.
    Unreachable = 5,
}

impl Exit {
    /// As `--json` spells it, where the gateway has no code of its own for it.
    fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::NotAllowed => "not_allowed",
            Self::Unreachable => "unreachable",
        }
    }
}

/// An error that knows its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    message: String,
    hint: Option<String>,
    /// The gateway's own code, if it was that which refused.
    code: Option<String>,
}

impl Failure {
    /// What went wrong, in one sentence.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, code: None }
    }

    /// With what to do about it.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What to do about it; nothing, if there is nothing to say.
    #[cfg(test)]
    pub(super) fn hint_text(&self) -> String {
        self.hint.clone().unwrap_or_default()
    }

    /// It was asked in a way that makes no sense.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The gateway says that there is no such thing: which one, and where those that exist are listed. Other errors stay
    /// as they are.
    pub(super) fn missing(what: &str, name: &str, list: &str) -> impl FnOnce(doorbell_client::Error) -> anyhow::Error {
        let message = format!("there is no {what} {name} (`{list}` lists them)");
        move |error| match error {
            // The gateway may know more than that there is nothing.
            doorbell_client::Error::Api(problem) if problem.status == 404 && problem.detail.contains('`') => {
                Self::new(Exit::NotFound, problem.detail).into()
            }
            error if error.status() == Some(404) => Self::new(Exit::NotFound, message).into(),
            error => error.into(),
        }
    }

    /// The same for an event.
    pub(super) fn no_event(id: &str) -> impl FnOnce(doorbell_client::Error) -> anyhow::Error {
        Self::missing("event", id, "doorbell events")
    }

    /// The same for a run.
    pub(super) fn no_run(id: &str) -> impl FnOnce(doorbell_client::Error) -> anyhow::Error {
        Self::missing("run", id, "doorbell runs")
    }

    /// The same for an agent.
    pub(super) fn no_agent(name: &str) -> impl FnOnce(doorbell_client::Error) -> anyhow::Error {
        Self::missing("agent", name, "doorbell agents")
    }

    /// Nothing runs for the project.
    pub(super) fn no_gateway() -> Self {
        let message = "no gateway is running for this project: start it with `doorbell serve` (or `doorbell dev`)";
        Self::new(Exit::Unreachable, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Says what went wrong; the exit code says it to scripts.
pub(super) fn report(error: &anyhow::Error, context: Option<&Context>) -> ExitCode {
    if is_broken_pipe(error) {
        // Whoever reads has seen enough (`doorbell events | head`).
        return ExitCode::SUCCESS;
    }
    let json = context.is_some_and(|context| context.json);
    if let Some(problems) = error.chain().find_map(|cause| cause.downcast_ref::<Problems>()) {
        if json {
            say_json("config_invalid", &problems.render(false), None);
            return ExitCode::from(Exit::Failed as u8);
        }
        // They show the lines that are wrong, and begin with `error:` themselves.
        output::note(output::escape_text(&problems.render(false)));
        return ExitCode::from(Exit::Failed as u8);
    }
    let failure = classify(error, context.is_some_and(Context::asks_the_project));
    if json {
        let code = failure.code.as_deref().unwrap_or(failure.exit.code());
        say_json(code, &failure.message, failure.hint.as_deref());
        return ExitCode::from(failure.exit as u8);
    }
    output::note(format!("error: {}", output::escape_text(&failure.message)));
    if let Some(hint) = &failure.hint {
        output::note(format!("hint: {}", output::escape_text(hint)));
    }
    ExitCode::from(failure.exit as u8)
}

/// The code of what went wrong, and what is said of it with what to do: for who reads neither standard error nor exit codes.
pub(super) fn tell(error: &anyhow::Error, context: &Context) -> (String, String) {
    let Failure { exit, message, hint, code } = classify(error, context.asks_the_project());
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    (code.unwrap_or_else(|| exit.code().to_owned()), format!("{message}{hint}"))
}

/// The same for machines, on one line: an object with `error`.
fn say_json(code: &str, message: &str, hint: Option<&str>) {
    let error = serde_json::json!({"error": {"code": code, "message": message, "hint": hint}});
    output::note(output::escape_json(&error.to_string()));
}

/// Says what is wrong with the arguments, or shows the help that they ask for, and ends the process.
pub(super) fn refuse_arguments(error: &clap::Error) -> ! {
    let wants_json = std::env::args_os().any(|word| word == "--json");
    if error.use_stderr() && wants_json {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let (message, hint) = text.split_once("\n\n").unwrap_or((text, ""));
        say_json(Exit::Usage.code(), message.trim(), Some(hint.trim()).filter(|hint| !hint.is_empty()));
        std::process::exit(Exit::Usage as i32);
    }
    error.exit()
}

/// What it means that somebody did not answer a question.
pub(super) fn given_up(error: inquire::InquireError) -> anyhow::Error {
    match error {
        inquire::InquireError::OperationCanceled | inquire::InquireError::OperationInterrupted => {
            Failure::new(Exit::Failed, "nothing was changed").into()
        }
        error => error.into(),
    }
}

/// Whether what was printed went nowhere. Only the error itself counts: below one of the client's, the same kind means
/// that the gateway hung up.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// `of_project`: the gateway that was asked is the project's own.
fn classify(error: &anyhow::Error, of_project: bool) -> Failure {
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        return Failure { message: format!("{error:#}"), ..failure.clone() };
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<doorbell_client::Error>()) {
        // The file that says where it runs outlives a gateway that was killed.
        Some(error) if of_project && error.nobody_listens() => Failure::no_gateway(),
        Some(doorbell_client::Error::Unreachable { .. }) => Failure::new(Exit::Unreachable, format!("{error:#}")),
        Some(doorbell_client::Error::Api(problem)) => {
            let wrong = problem.errors.iter().map(|one| {
                let help = one.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                format!("\n  {}: {}{help}", one.field, one.detail)
            });
            let message = format!("{error:#}{}", wrong.collect::<String>());
            let failure = match problem.status {
                401 => Failure::new(Exit::NotAllowed, message).hint("give a key with --key or DOORBELL_TOKEN"),
                403 if message.contains("of no account") => Failure::new(Exit::NotAllowed, message)
                    .hint("whoever runs the gateway has one: the project's own is in .doorbell/key"),
                403 => Failure::new(Exit::NotAllowed, message)
                    .hint("a key with role `owner` may: the project's own is in .doorbell/key, and `doorbell keys create --role owner \
                           --name NAME` makes another; give it with --key or DOORBELL_TOKEN"),
                404 => Failure::new(Exit::NotFound, message),
                _ => Failure::new(Exit::Failed, message),
            };
            Failure { code: Some(problem.code.clone()), ..failure }
        }
        Some(doorbell_client::Error::NoUrl(_)) => Failure::usage(format!("{error:#}")),
        Some(doorbell_client::Error::Unexpected(_)) | None => Failure::new(Exit::Failed, format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    fn refused(status: u16) -> anyhow::Error {
        let text = |text: &str| text.to_owned();
        let problem = doorbell_client::api::Problem {
            kind: Box::default(),
            status,
            code: text("c"),
            title: text("t"),
            detail: text("d"),
            errors: Vec::new(),
        };
        anyhow::Error::from(doorbell_client::Error::Api(problem))
    }

    #[test]
    fn the_exit_code_says_what_kind_of_failure_it_was() {
        for (status, exit) in [
            (401, Exit::NotAllowed),
            (403, Exit::NotAllowed),
            (404, Exit::NotFound),
            (409, Exit::Failed),
            (503, Exit::Failed),
        ] {
            assert_eq!(classify(&refused(status), false).exit, exit, "{status}");
        }
        assert_eq!(classify(&anyhow::anyhow!("x"), false).exit, Exit::Failed);
        assert_eq!(classify(&Failure::usage("x").into(), false).exit, Exit::Usage);
    }

    #[test]
    fn what_is_missing_is_named() {
        let problem = |status| {
            let text = String::new;
            doorbell_client::Error::Api(doorbell_client::api::Problem {
                kind: Box::default(),
                status,
                code: text(),
                title: text(),
                detail: text(),
                errors: Vec::new(),
            })
        };
        let missing = classify(&Failure::no_event("evt_1")(problem(404)), true);
        assert_eq!(missing.exit, Exit::NotFound);
        assert_eq!(missing.message, "there is no event evt_1 (`doorbell events` lists them)");
        assert_eq!(classify(&Failure::no_run("run_1")(problem(403)), true).exit, Exit::NotAllowed);
    }

    #[test]
    fn context_around_a_failure_keeps_its_code_and_hint() {
        let error = Err::<(), _>(Failure::usage("inner").hint("do that")).context("outer").unwrap_err();
        let failure = classify(&error, false);
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Usage, "outer: inner"));
        assert_eq!(failure.hint.as_deref(), Some("do that"));
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot print");
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken pipe")));
    }
}
