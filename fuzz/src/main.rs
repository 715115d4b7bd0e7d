//! One fuzz target under libFuzzer: the one that `DOORBELL_FUZZ_TARGET` names. `cargo xtask fuzz` builds and starts it.
#![no_main]

use std::sync::OnceLock;

use doorbell_fuzz::{Target, find};

static TARGET: OnceLock<Target> = OnceLock::new();

#[expect(clippy::disallowed_methods, reason = "libFuzzer owns the arguments; there is no `config` here")]
fn chosen() -> Target {
    let name = std::env::var("DOORBELL_FUZZ_TARGET").unwrap_or_default();
    find(&name).unwrap_or_else(|| panic!("there is no target `{name}`: start it with `cargo xtask fuzz`"))
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(chosen)(data));
