//! The arrows: which module may use which, and who may name the world outside.

use super::Finding;
use super::paths::{NamedPath, named};
use super::tree::{File, Tree, is_within};

/// Where the arrows hold.
const GATEWAY: &str = "crates/doorbell/src/";

/// May use every module.
const ALL: &[&str] = &["*"];

/// Module of the gateway → the modules it may name (itself always). Edit here, and the map in ARCHITECTURE.md with it.
const ARROWS: &[(&str, &[&str])] = &[
    ("acme", &["app", "clock", "config", "files"]),
    ("app", &["clock", "conditions", "config", "store", "telemetry", "vault"]),
    ("cli", ALL),
    ("clock", &[]),
    ("conditions", &[]),
    ("config", &["users"]),
    ("dispatch", &["app", "clock", "config", "runtime", "store", "telemetry"]),
    ("files", &[]),
    (
        "gateway",
        &[
            "acme",
            "app",
            "clock",
            "conditions",
            "config",
            "dispatch",
            "files",
            "http",
            "indexer",
            "notify",
            "ops",
            "reload",
            "runtime",
            "schedules",
            "store",
            "sweep",
            "telemetry",
        ],
    ),
    ("http", &["app", "clock", "conditions", "config", "dispatch", "mcp", "notify", "ops", "store", "telemetry"]),
    ("indexer", &["app", "store"]),
    ("mcp", &["app", "dispatch", "ops"]),
    ("notify", &["app", "clock", "config", "dispatch", "runtime", "store", "telemetry"]),
    ("ops", &["app", "clock", "conditions", "config", "dispatch", "files", "notify", "store", "telemetry", "vault"]),
    ("reload", &["app", "clock", "config"]),
    ("runtime", &["clock", "config", "files", "store", "users"]),
    ("schedules", &["app", "clock", "config", "dispatch", "store"]),
    ("store", &["files"]),
    ("sweep", &["app", "clock", "dispatch", "files", "store"]),
    ("telemetry", &["config", "store"]),
    ("users", &[]),
    ("vault", &["clock", "files"]),
];

/// Names that only some places may use.
struct Reserved {
    /// Paths that are reserved. One that starts with `…` may stand anywhere in a path, the others begin it.
    names: &'static [&'static str],
    /// Where the rule holds.
    within: &'static str,
    /// Files and folders in which the names are allowed, without `.rs`.
    only_in: &'static [&'static str],
    why: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        names: &["axum", "hyper", "hyper_util", "tower"],
        within: "crates/",
        only_in: &["crates/doorbell/src/http", "crates/client/src/dialing"],
        why: "only `http` names the web framework, and `dialing` what the HTTP client is made of",
    },
    Reserved {
        names: &["rmcp"],
        within: "crates/",
        only_in: &["crates/doorbell/src/mcp"],
        why: "only `mcp` names the library of the protocol, which changes often",
    },
    Reserved {
        names: &["instant_acme"],
        within: "crates/",
        only_in: &["crates/doorbell/src/acme"],
        why: "only `acme` names the library of the protocol",
    },
    Reserved {
        names: &["rusqlite"],
        within: "crates/",
        only_in: &["crates/doorbell/src/store"],
        why: "only `store` names SQL",
    },
    Reserved {
        names: &["tokio::process", "std::process::Command", "nix::sys::signal"],
        within: "crates/",
        only_in: &["crates/doorbell/src/runtime"],
        why: "only `runtime` names processes",
    },
    Reserved {
        names: &["nix::unistd"],
        within: "crates/",
        only_in: &["crates/doorbell/src/runtime", "crates/doorbell/src/users"],
        why: "only `runtime` names processes, and `users` looks up who is who",
    },
    Reserved {
        names: &["reqwest"],
        within: "crates/",
        only_in: &["crates/client/src"],
        why: "only the client names the HTTP client",
    },
    Reserved {
        names: &["std::env::args", "std::env::args_os", "std::env::current_dir", "std::env::current_exe"],
        within: "crates/",
        only_in: &["crates/doorbell/src/main", "crates/doorbell/src/cli", "crates/doorbell/src/config"],
        why: "arguments and the place we were started in are the command line's",
    },
    Reserved {
        names: &["std::env"],
        within: "crates/",
        only_in: &["crates/doorbell/src/config"],
        why: "only `config` reads the environment",
    },
    Reserved {
        names: &["…SystemTime::now", "…Timestamp::now", "…Zoned::now"],
        within: "crates/",
        only_in: &["crates/doorbell/src/clock"],
        why: "only `clock` reads the time; others are handed it",
    },
    Reserved {
        names: &["tokio", "axum", "rusqlite", "reqwest", "std::fs", "std::net", "…SystemTime", "rand"],
        within: "crates/core/src/",
        only_in: &[],
        why: "the core is pure: no I/O, no clock, no environment, no randomness",
    },
];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, source) in tree.rust() {
        let module = file.path.strip_prefix(GATEWAY).map(module_of);
        if let Some(module) = module.filter(|module| !is_root(module) && allowed(module).is_none()) {
            let what = format!("the module `{module}` is not in the table of arrows (xtask/src/tidy/layers.rs)");
            findings.push(Finding::new(file, 1, what, "every module has its place in the architecture"));
        }
        for path in named(source).iter().filter(|path| !source.is_test(path.line)) {
            if let Some(module) = module {
                arrow(file, module, path, findings);
            }
            reserved(file, path, findings);
        }
    }
}

fn arrow(file: &File, module: &str, path: &NamedPath<'_>, findings: &mut Vec<Finding>) {
    let (Some(may_use), Some(target)) = (allowed(module), target(file, path)) else { return };
    if target == module || may_use == ALL || may_use.contains(&target) {
        return;
    }
    let what = format!("`{module}` uses `{}`", path.segments.join("::"));
    findings.push(Finding::new(file, path.line, what, "the arrows between modules point one way: ARCHITECTURE.md"));
}

/// The top module that a path leads to, if it leads into this crate.
fn target<'a>(file: &File, path: &NamedPath<'a>) -> Option<&'a str> {
    let supers = path.segments.iter().take_while(|segment| **segment == "super").count();
    match path.segments[..] {
        ["crate", target, ..] => Some(target),
        ["super", ..] if supers == depth(&file.path) => path.segments.get(supers).copied(),
        _ => None,
    }
}

/// How many modules deep a file of the gateway stands: 1 for `http.rs` and `http/mod.rs`, 2 for `http/ingest.rs`.
fn depth(path: &str) -> usize {
    let inside = path.strip_prefix(GATEWAY).unwrap_or(path);
    inside.trim_end_matches("/mod.rs").split('/').count()
}

fn module_of(inside: &str) -> &str {
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

fn is_root(module: &str) -> bool {
    matches!(module, "lib" | "main")
}

fn allowed(module: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(name, _)| *name == module).map(|(_, may_use)| *may_use)
}

fn reserved(file: &File, path: &NamedPath<'_>, findings: &mut Vec<Finding>) {
    let holds =
        |rule: &&Reserved| file.path.starts_with(rule.within) && rule.names.iter().any(|name| names(path, name));
    // The first rule that knows the name decides where it may stand; the purity of the core is asked besides.
    let mut rules = RESERVED.iter().filter(holds);
    let Some(rule) = rules.next() else { return };
    let rule = rules.find(|rule| rule.only_in.is_empty()).unwrap_or(rule);
    if rule.only_in.iter().any(|place| is_within(&file.path, place)) {
        return;
    }
    findings.push(Finding::new(file, path.line, format!("names `{}`", path.segments.join("::")), rule.why));
}

fn names(path: &NamedPath<'_>, name: &str) -> bool {
    let (anywhere, name) = name.strip_prefix('…').map_or((false, name), |rest| (true, rest));
    let wanted: Vec<&str> = name.split("::").collect();
    if anywhere {
        path.segments.windows(wanted.len()).any(|window| window == wanted)
    } else {
        path.segments.starts_with(&wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::said;

    #[test]
    fn an_arrow_against_the_direction_is_found() {
        let files = [
            (
                "crates/doorbell/src/store/sqlite.rs",
                "//! S.\nuse crate::{store::Row, http::Api};\nuse super::super::ops;\n",
            ),
            ("crates/doorbell/src/http/api.rs", "//! A.\nuse crate::ops::list;\nuse super::errors;\n"),
            ("crates/doorbell/src/cli.rs", "//! C.\nuse super::http::serve;\n"),
        ];
        let expected = [
            "crates/doorbell/src/store/sqlite.rs:2: `store` uses `crate::http::Api`",
            "crates/doorbell/src/store/sqlite.rs:3: `store` uses `super::super::ops`",
        ];
        assert_eq!(said(check, &files), expected);
    }

    #[test]
    fn tests_may_reach_across() {
        let text = "//! S.\n#[cfg(test)]\nmod tests {\n    use crate::http::Api;\n    use std::env::temp_dir;\n}\n";
        assert!(said(check, &[("crates/doorbell/src/store.rs", text)]).is_empty());
    }

    #[test]
    fn a_module_without_a_place_is_found() {
        let said =
            said(check, &[("crates/doorbell/src/misc.rs", "//! M.\n"), ("crates/doorbell/src/main.rs", "//! B.\n")]);
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("crates/doorbell/src/misc.rs:1: the module `misc` is not in the table"));
    }

    #[test]
    fn reserved_names_are_found_outside_their_place() {
        let cases = [
            ("crates/doorbell/src/ops.rs", "crates/doorbell/src/http/api.rs", "use axum::Router;"),
            ("crates/doorbell/src/ops.rs", "crates/doorbell/src/store/sqlite.rs", "use rusqlite::Connection;"),
            (
                "crates/doorbell/src/dispatch.rs",
                "crates/doorbell/src/runtime.rs",
                "use tokio::{process::Command, time};",
            ),
            ("crates/doorbell/src/cli.rs", "crates/doorbell/src/runtime/group.rs", "fn a() { nix::unistd::setsid(); }"),
            ("crates/doorbell/src/runtime.rs", "crates/client/src/lib.rs", "use reqwest::Client;"),
            ("crates/doorbell/src/cli.rs", "crates/doorbell/src/config/env.rs", "use std::{env, fs};"),
            ("crates/doorbell/src/http.rs", "crates/doorbell/src/cli.rs", "fn a() { std::env::args(); }"),
            ("crates/doorbell/src/store.rs", "crates/doorbell/src/clock.rs", "fn a() { jiff::Timestamp::now(); }"),
            ("crates/core/src/time.rs", "crates/doorbell/src/clock.rs", "fn a() { SystemTime::now(); }"),
            ("crates/core/src/id.rs", "crates/doorbell/src/store.rs", "use std::fs::read;"),
        ];
        for (wrong, right, line) in cases {
            let text = format!("//! M.\n{line}\n");
            assert_eq!(said(check, &[(wrong, &text)]).len(), 1, "{wrong}: {line}");
            assert!(said(check, &[(right, &text)]).is_empty(), "{right}: {line}");
        }
    }
}
