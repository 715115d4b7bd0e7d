//! Every parser of untrusted input, fed with anything.
//!
//! A target is a function that takes bytes and must come back: no panic, no endless loop, no exhausted memory, and
//! what it asserts must hold. `cargo xtask fuzz` runs targets under libFuzzer; an ordinary test replays `corpus/`, in which
//! every input stays that ever broke something.

mod agents;
mod answers;
mod api;
mod bodies;
mod causes;
mod conditions;
mod declared;
mod filters;
mod project;
mod prompts;
mod requests;
mod search;
mod workers;

/// Takes an input; panics if it breaks something.
pub type Target = fn(&[u8]);

/// The targets by name. Each has a folder of that name in `corpus/`.
pub const TARGETS: [(&str, Target); 16] = [
    ("agents", agents::agents),
    ("answers", answers::answers),
    ("api", api::calls),
    ("bodies", bodies::bodies),
    ("causes", causes::causes),
    ("conditions", conditions::conditions),
    ("config", project::config),
    ("credentials", project::credentials),
    ("declared", declared::definitions),
    ("deliveries", requests::deliveries),
    ("filters", filters::filters),
    ("forms", requests::forms),
    ("prompts", prompts::prompts),
    ("search", search::search),
    ("signatures", requests::signatures),
    ("workers", workers::workers),
];

/// The target of this name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
