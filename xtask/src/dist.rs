//! `cargo xtask dist`: what is shipped: an archive, a Debian package and their checksums.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::tool;

mod deb;
mod notices;

/// The program's manual pages, completions and unit, with the program: where each is taken from.
pub(crate) struct Parts {
    /// The program.
    pub(crate) program: PathBuf,
    /// What was made with it: `man/*.1`, `completions/{bash,zsh,fish}`, `THIRD-PARTY.txt`.
    pub(crate) made: PathBuf,
    /// The repository.
    pub(crate) root: PathBuf,
    /// `0.1.0`.
    pub(crate) version: String,
    /// When the newest commit was made, in Unix seconds: the time of all files, so that the same commit gives the same
    /// archive.
    pub(crate) time: String,
}

/// Builds the program as it is shipped, unless one is given, and packs it into `target/dist/packages`.
pub(crate) fn run(program: Option<&str>) -> Result<()> {
    let target = target()?;
    let program = match program {
        Some(program) => PathBuf::from(program),
        None => {
            tool::run(tool::cargo().args(["build", "--locked", "--profile", "dist", "--package", "doorbell"]))?;
            target.join("dist/doorbell")
        }
    };
    let out = target.join("dist/packages");
    let packages = pack(&program, &out)?;
    for package in packages {
        println!("{}", package.display());
    }
    Ok(())
}

fn target() -> Result<PathBuf> {
    let metadata = tool::metadata(&["--no-deps"])?;
    Ok(PathBuf::from(metadata["target_directory"].as_str().context("cargo metadata names no target folder")?))
}

/// Makes all packages anew in `out`.
fn pack(program: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    let made = out.join("made");
    fs::create_dir_all(made.join("completions"))?;
    let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
    let said = tool::output(Command::new(&program).arg("--version").stdin(Stdio::null()))?;
    let version = said.split_whitespace().last().context("the program does not say its version")?.to_owned();
    tool::run(Command::new(&program).arg("man").arg(made.join("man")).stdin(Stdio::null()))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = tool::output(Command::new(&program).args(["completions", shell]).stdin(Stdio::null()))?;
        fs::write(made.join("completions").join(shell), script)?;
    }
    fs::write(made.join("THIRD-PARTY.txt"), notices::collect()?)?;
    let mut git = Command::new("git");
    let time = tool::output(git.args(["log", "-1", "--format=%ct"]).current_dir(tool::root()))?.trim().to_owned();
    let parts = Parts { program, made, root: tool::root().canonicalize()?, version, time };
    let archive = archive(&parts, out)?;
    let package = deb::build(&parts, out)?;
    let sums = checksums(out, &[&archive, &package])?;
    fs::remove_dir_all(&parts.made)?;
    Ok(vec![archive, package, sums])
}

/// `doorbell-0.1.0-x86_64-linux.tar.gz`.
fn archive(parts: &Parts, out: &Path) -> Result<PathBuf> {
    let name = format!("doorbell-{}-{}-linux", parts.version, std::env::consts::ARCH);
    let folder = out.join("archive").join(&name);
    let files = [
        (parts.program.clone(), "doorbell"),
        (parts.root.join("README.md"), "README.md"),
        (parts.root.join("CHANGELOG.md"), "CHANGELOG.md"),
        (parts.root.join("LICENSE-MIT"), "LICENSE-MIT"),
        (parts.root.join("LICENSE-APACHE"), "LICENSE-APACHE"),
        (parts.made.join("THIRD-PARTY.txt"), "THIRD-PARTY.txt"),
        (parts.root.join("deploy/doorbell.service"), "doorbell.service"),
    ];
    for (from, to) in files {
        install(&from, &folder.join(to), if to == "doorbell" { 0o755 } else { 0o644 })?;
    }
    for (folder_of, name) in [(&parts.made.join("man"), "man"), (&parts.made.join("completions"), "completions")] {
        for file in files_in(folder_of)? {
            install(&file, &folder.join(name).join(file.file_name().context("a file has a name")?), 0o644)?;
        }
    }
    let archive = out.join(format!("{name}.tar.gz"));
    tar(&out.join("archive"), &[&name], &archive, &parts.time)?;
    fs::remove_dir_all(out.join("archive"))?;
    Ok(archive)
}

/// Copies a file, with this mode.
fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// Makes a folder, and those above it, readable for all, whatever the umask is.
fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?)
}

/// The files in a folder, by name.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Packs entries of a folder as root's, all of this time: the same files give the same bytes.
fn tar(folder: &Path, entries: &[&str], to: &Path, time: &str) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{time}")).arg("--use-compress-program=gzip --no-name --best");
    tar.arg("--file").arg(to).arg("--directory").arg(folder).args(entries).stdin(Stdio::null());
    tool::output(&mut tar).map(drop)
}

fn checksums(out: &Path, files: &[&Path]) -> Result<PathBuf> {
    let names = files.iter().filter_map(|file| file.file_name());
    let sums = tool::output(Command::new("sha256sum").args(names).current_dir(out).stdin(Stdio::null()))?;
    let file = out.join("SHA256SUMS");
    fs::write(&file, sums)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::pack;
    use crate::tool;

    /// A program that says what packing asks of it, and has the version of the C library in it.
    const STAND_IN: &str = "#!/bin/sh\ncase \"$1\" in\n--version) echo doorbell 9.8.7 ;;\nman) mkdir -p \"$2\" && \
        echo page > \"$2/doorbell.1\" ;;\ncompletions) echo \"for $2\" ;;\nesac\n# GLIBC_2.9 GLIBC_2.34\n";

    #[test]
    fn what_is_shipped_unpacks_to_what_was_packed() {
        let folder = std::env::temp_dir().join(format!("doorbell-dist-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("stand-in");
        fs::write(&program, STAND_IN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let packages = pack(&program, &folder.join("out")).unwrap();
        let first: Vec<Vec<u8>> = packages.iter().map(|package| fs::read(package).unwrap()).collect();
        let again = pack(&program, &folder.join("out")).unwrap();
        assert!(again.iter().zip(&first).all(|(file, before)| fs::read(file).unwrap() == *before), "the same bytes");

        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).current_dir(folder.join("out")).output().unwrap();
            assert!(output.status.success(), "{program} {args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run("sha256sum", &["--check", "--quiet", "SHA256SUMS"]);
        let name = format!("doorbell-9.8.7-{}-linux", std::env::consts::ARCH);
        let listed = run("tar", &["-tvf", &format!("{name}.tar.gz")]);
        for file in
            ["doorbell", "LICENSE-MIT", "THIRD-PARTY.txt", "doorbell.service", "man/doorbell.1", "completions/zsh"]
        {
            assert!(listed.contains(&format!("{name}/{file}\n")), "{file}: {listed}");
        }
        assert!(!listed.lines().any(|line| !line.contains(" 0/0 ")), "{listed}");

        // By `ar`'s own format, without a tool for it.
        let package = packages.iter().find(|file| file.extension().is_some_and(|e| e == "deb")).unwrap();
        let bytes = fs::read(package).unwrap();
        assert!(bytes.starts_with(b"!<arch>\ndebian-binary   "));
        if Command::new("dpkg-deb").arg("--version").output().is_ok() {
            let package = package.to_str().unwrap();
            let info = run("dpkg-deb", &["--info", package]);
            assert!(info.contains("Version: 9.8.7") && info.contains("libc6 (>= 2.34)"), "{info}");
            run("dpkg-deb", &["--extract", package, "unpacked"]);
            let unpacked = folder.join("out/unpacked");
            assert_eq!(fs::read(unpacked.join("usr/bin/doorbell")).unwrap(), STAND_IN.as_bytes());
            let unit = fs::read_to_string(tool::root().join("deploy/doorbell.service")).unwrap();
            assert_eq!(fs::read_to_string(unpacked.join("lib/systemd/system/doorbell.service")).unwrap(), unit);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
