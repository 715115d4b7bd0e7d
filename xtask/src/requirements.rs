//! What the tests need besides cargo: one entry each, seen before anything is built.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::tool;

/// Something that has to be on the machine.
struct Requirement {
    what: &'static str,
    seen: fn() -> bool,
    /// Debian packages that bring it.
    debian: &'static [&'static str],
}

const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        what: "a C compiler (for the bundled SQLite, zstd and AWS-LC)",
        seen: || ["cc", "gcc", "clang"].iter().any(|name| starts(name)),
        debian: &["gcc", "libc6-dev"],
    },
    Requirement {
        what: "Node.js 18 or newer, and npm (for the SDKs that judge signatures)",
        seen: || runs("node", &["-e", "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)"]) && starts("npm"),
        debian: &["nodejs", "npm"],
    },
    Requirement {
        what: "Python 3 and pip (for the SDKs that judge signatures)",
        seen: || runs("python3", &["-m", "pip", "--version"]),
        debian: &["python3", "python3-pip"],
    },
];

/// What fuzzing needs besides.
const FUZZING: &[Requirement] = &[Requirement {
    what: "a C++ compiler (for libFuzzer)",
    seen: || ["c++", "g++", "clang++"].iter().any(|name| starts(name)),
    debian: &["g++"],
}];

/// Makes sure that everything is there: installs it as root on Debian, else says what to install.
pub(crate) fn ensure() -> Result<()> {
    ensure_all(REQUIREMENTS)
}

/// The same with what fuzzing needs.
pub(crate) fn ensure_for_fuzzing() -> Result<()> {
    ensure().and_then(|()| ensure_all(FUZZING))
}

fn ensure_all(requirements: &[Requirement]) -> Result<()> {
    let missing: Vec<&Requirement> = requirements.iter().filter(|needed| !(needed.seen)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|needed| needed.debian).copied().collect();
    if may_install() {
        for needed in &missing {
            println!("missing: {}", needed.what);
        }
        tool::run(Command::new("apt-get").arg("update").stdin(Stdio::null()))?;
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "--no-install-recommends"]);
        tool::run(install.args(&packages).stdin(Stdio::null()))?;
    }
    let still: Vec<&str> = missing.iter().filter(|needed| !(needed.seen)()).map(|needed| needed.what).collect();
    if still.is_empty() {
        return Ok(());
    }
    bail!("missing: {}. On Debian or Ubuntu: apt-get install {}", still.join("; "), packages.join(" "))
}

/// Root on a Debian: the owner of our own `/proc` entry is who we are.
fn may_install() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    root && Path::new("/etc/debian_version").exists() && starts("apt-get")
}

fn starts(program: &str) -> bool {
    runs(program, &["--version"])
}

fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
