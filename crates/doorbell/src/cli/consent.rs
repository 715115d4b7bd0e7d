//! Whether whoever types a command means it: asked before what cannot be taken back.

use std::io::IsTerminal as _;

use super::failure::{self, Exit, Failure};

/// Whether somebody is asked: there is a terminal, and `--yes` was not said.
pub(super) fn is_asked(yes: bool) -> bool {
    !yes && std::io::stdin().is_terminal()
}

/// Asks. Without a terminal, in a script, it goes on.
pub(super) fn ask(yes: bool, question: &str) -> anyhow::Result<()> {
    if is_asked(yes) { get(question) } else { Ok(()) }
}

/// Asks. Without a terminal it is refused, because of `unasked`: there, `--yes` must be said.
pub(super) fn demand(yes: bool, unasked: impl Into<String>, question: &str) -> anyhow::Result<()> {
    match (yes, is_asked(yes)) {
        (true, _) => Ok(()),
        (false, true) => get(question),
        (false, false) => Err(Failure::usage(unasked).hint("say --yes").into()),
    }
}

fn get(question: &str) -> anyhow::Result<()> {
    match inquire::Confirm::new(question).with_default(false).prompt().map_err(failure::given_up)? {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "nothing was changed").into()),
    }
}
