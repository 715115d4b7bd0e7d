//! The tools. To add one: its arguments, a function that asks `ops`, and a line in `tools()` of the file of its noun.

use std::sync::LazyLock;

use super::tool::Tool;

mod agents;
pub(super) mod events;
pub(super) mod runs;

static ALL: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let of_all = [events::tools(), runs::tools(), agents::tools()];
    of_all.into_iter().flatten().collect()
});

/// Every tool.
pub(super) fn all() -> impl Iterator<Item = &'static Tool> {
    ALL.iter()
}

/// The tool of this name.
pub(super) fn find(name: &str) -> Option<&'static Tool> {
    ALL.iter().find(|tool| tool.name == name)
}
