//! Where the program of a command is, and whether it could start: looked up as the system will, without starting it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Where programs are looked for without `PATH` (glibc's `execvp`).
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// The longest first line that the kernel reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE: u64 = 256;

/// Why a program cannot start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstartable {
    /// What is wrong, in one sentence.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Unstartable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.advice)
    }
}

fn unstartable(what: impl Into<String>, advice: impl Into<String>) -> Unstartable {
    Unstartable { what: what.into(), advice: advice.into() }
}

/// What to do if nothing better is known.
const CHANGE: &str = "change `[runtime] command`";

/// Finds the program of a command that runs in `cwd` (none: in a folder of its own, made for each run) with `path` as
/// its `PATH`.
///
/// # Errors
/// Why it cannot start, and what to do.
pub fn find_program(program: &str, cwd: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, Unstartable> {
    let file = if program.contains('/') { by_path(program, cwd)? } else { by_name(program, path)? };
    check_start(&file, path, 0)?;
    Ok(file)
}

/// Where the program of this name is, if every folder of `path` is the same wherever the command runs.
pub(super) fn in_path(program: &str, path: &OsStr) -> Option<PathBuf> {
    let fixed = path.as_bytes().split(|byte| *byte == b':').all(|folder| folder.starts_with(b"/"));
    if program.contains('/') || !fixed {
        return None;
    }
    by_name(program, Some(path)).ok()
}

fn by_path(program: &str, cwd: Option<&Path>) -> Result<PathBuf, Unstartable> {
    let file = match (Path::new(program).is_absolute(), cwd) {
        (true, _) => PathBuf::from(program),
        (false, Some(cwd)) => cwd.join(program),
        (false, None) => {
            return Err(unstartable(
                format!("`{program}` counts from the run's own folder, which is new for each run"),
                "set `cwd` (\".\" is the project), or write the whole path",
            ));
        }
    };
    match std::fs::metadata(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("there is no program {}", file.display());
            Err(unstartable(what, format!("install it, or {CHANGE}")))
        }
        Err(error) => Err(unstartable(format!("{} cannot be looked at: {error}", file.display()), CHANGE)),
        Ok(found) if !found.is_file() => Err(unstartable(format!("{} is not a file", file.display()), CHANGE)),
        Ok(_) if access(&file, AccessFlags::X_OK).is_err() => Err(forbids(&file)),
        Ok(_) => Ok(file),
    }
}

fn forbids(file: &Path) -> Unstartable {
    let file = file.display();
    unstartable(format!("{file} may not be executed"), format!("`chmod +x {file}`"))
}

fn by_name(program: &str, path: Option<&OsStr>) -> Result<PathBuf, Unstartable> {
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let folders = path.as_bytes().split(|byte| *byte == b':').map(|folder| Path::new(OsStr::from_bytes(folder)));
    let files = folders.map(|folder| folder.join(program)).filter(|file| file.is_file());
    let mut forbidden = None;
    for file in files {
        if access(&file, AccessFlags::X_OK).is_ok() {
            return Ok(file);
        }
        forbidden.get_or_insert(file);
    }
    Err(match forbidden {
        Some(file) => forbids(&file),
        None => unstartable(
            format!("there is no program `{program}` in PATH ({})", path.to_string_lossy()),
            "install it, or write its whole path in its place in `[runtime] command`: the whole list, as `doorbell config` shows it",
        ),
    })
}

/// Whether the system knows how to start a file.
fn check_start(file: &Path, path: Option<&OsStr>, depth: u8) -> Result<(), Unstartable> {
    let mut start = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(FIRST_LINE).read_to_end(&mut start));
    // What may be executed but not read is a program: scripts must be read.
    if read.is_err() || start.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let Some(rest) = start.strip_prefix(b"#!") else {
        return Err(unstartable(
            format!("{} is neither a program of this machine nor a script", file.display()),
            "begin it with a line such as `#!/bin/sh`",
        ));
    };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        let file = file.display();
        return Err(unstartable(
            format!("the lines of {file} end with CR LF, and the CR counts to the interpreter's name"),
            format!("`sed -i 's/\\r$//' {file}`"),
        ));
    }
    interpreter(file, &String::from_utf8_lossy(line), path, depth)
}

fn interpreter(file: &Path, line: &str, path: Option<&OsStr>, depth: u8) -> Result<(), Unstartable> {
    let mut words = line.split_ascii_whitespace();
    let Some(named) = words.next() else {
        let what = format!("the first line of {} names no interpreter", file.display());
        return Err(unstartable(what, "begin it with a line such as `#!/bin/sh`"));
    };
    let missing =
        |what: &str| unstartable(format!("{} needs {what}, which is not there", file.display()), "install it");
    if !Path::new(named).exists() {
        return Err(missing(named));
    }
    if Path::new(named).ends_with("env")
        && let Some(program) = words.find(|word| !word.starts_with('-') && !word.contains('='))
        && !program.contains('/')
    {
        return by_name(program, path).map(drop).map_err(|_| missing(&format!("`{program}` in PATH")));
    }
    // Interpreters may be scripts; the kernel follows four of them.
    if depth < 4 { check_start(Path::new(named), path, depth + 1) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(folder: &Path, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    /// Whether the system starts it, by trying.
    fn starts(program: &str, cwd: &Path, path: &OsStr) -> bool {
        let mut command = std::process::Command::new(program);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.current_dir(cwd).env_clear().env("PATH", path).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.status().is_ok()
    }

    #[test]
    fn what_is_said_is_what_the_system_does() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let bin = at.join("bin");
        std::fs::create_dir(&bin).unwrap();
        file(&bin, "tool", "#!/bin/sh\n", 0o755);
        file(&bin, "closed", "#!/bin/sh\n", 0o644);
        for (name, content, mode) in [
            ("good.sh", "#!/bin/sh\n", 0o755),
            ("plain.sh", "exit 0\n", 0o755),
            ("closed.sh", "#!/bin/sh\n", 0o644),
            ("lost.sh", "#!/no/such/thing\n", 0o755),
            ("windows.sh", "#!/bin/sh\r\n", 0o755),
        ] {
            file(at, name, content, mode);
        }
        let path = std::env::join_paths([bin.as_path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        for program in [
            "tool",
            "closed",
            "nothing",
            "sh",
            "./good.sh",
            "./plain.sh",
            "./closed.sh",
            "./lost.sh",
            "./windows.sh",
            "./bin",
            "./none",
            "/bin/sh",
        ] {
            let found = find_program(program, Some(at), Some(&path));
            assert_eq!(found.is_ok(), starts(program, at, &path), "{program}: {found:?}");
        }
        assert!(find_program("./plain.sh", Some(at), Some(&path)).unwrap_err().advice.contains("#!/bin/sh"));
        assert!(find_program("./windows.sh", Some(at), Some(&path)).unwrap_err().what.contains("CR LF"));
    }

    #[test]
    fn an_interpreter_that_env_looks_for_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "agent.py", "#!/usr/bin/env -S no-such-python3 -u\n", 0o755);
        let error = find_program("./agent.py", Some(folder.path()), Some(OsStr::new("/usr/bin:/bin"))).unwrap_err();
        assert!(error.what.contains("no-such-python3"), "{error}");
    }

    #[test]
    fn a_colon_in_a_path_does_not_part_what_is_wrong_from_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let program = file(folder.path(), "a: b", "exit 0\n", 0o644);
        let found = find_program(program.to_str().unwrap(), None, None).unwrap_err();
        assert_eq!(found.what, format!("{} may not be executed", program.display()));
        assert!(found.advice.starts_with("`chmod +x"), "{found}");
    }

    #[test]
    fn a_relative_path_without_a_folder_says_what_to_set() {
        assert!(find_program("./agent.sh", None, None).unwrap_err().advice.contains("`cwd`"));
    }
}
