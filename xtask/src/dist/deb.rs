//! The Debian package: an `ar` archive of two tar archives (deb(5)), so nothing of Debian is needed to make it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Parts, files_in, install, make_folder, tar};
use crate::tool;

/// Builds `doorbell_0.1.0_amd64.deb`.
pub(super) fn build(parts: &Parts, out: &Path) -> Result<PathBuf> {
    let (data, control) = (out.join("deb/data"), out.join("deb/control"));
    lay_out(parts, &data)?;
    make_folder(&control)?;
    let architecture = architecture()?;
    fs::write(control.join("control"), describe(parts, &data, architecture)?)?;
    fs::write(control.join("md5sums"), md5sums(&data)?)?;
    for script in ["postinst", "prerm"] {
        install(&parts.root.join("deploy").join(script), &control.join(script), 0o755)?;
    }
    for file in ["control", "md5sums"] {
        fs::set_permissions(control.join(file), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    }
    let members = ["control.tar.gz", "data.tar.gz"].map(|name| out.join("deb").join(name));
    tar(&control, &["."], &members[0], &parts.time)?;
    tar(&data, &["."], &members[1], &parts.time)?;
    let package = out.join(format!("doorbell_{}_{architecture}.deb", parts.version));
    let mut archive = b"!<arch>\n".to_vec();
    append(&mut archive, "debian-binary", b"2.0\n", &parts.time)?;
    append(&mut archive, "control.tar.gz", &fs::read(&members[0])?, &parts.time)?;
    append(&mut archive, "data.tar.gz", &fs::read(&members[1])?, &parts.time)?;
    fs::write(&package, archive)?;
    fs::remove_dir_all(out.join("deb"))?;
    Ok(package)
}

/// Puts every file where Debian has it.
fn lay_out(parts: &Parts, data: &Path) -> Result<()> {
    let root = &parts.root;
    let files = [
        (parts.program.clone(), "usr/bin/doorbell"),
        (root.join("deploy/doorbell.service"), "lib/systemd/system/doorbell.service"),
        (root.join("deploy/sysusers.conf"), "usr/lib/sysusers.d/doorbell.conf"),
        (parts.made.join("completions/bash"), "usr/share/bash-completion/completions/doorbell"),
        (parts.made.join("completions/zsh"), "usr/share/zsh/vendor-completions/_doorbell"),
        (parts.made.join("completions/fish"), "usr/share/fish/vendor_completions.d/doorbell.fish"),
        (root.join("LICENSE-MIT"), "usr/share/doc/doorbell/LICENSE-MIT"),
        (root.join("LICENSE-APACHE"), "usr/share/doc/doorbell/LICENSE-APACHE"),
        (root.join("CHANGELOG.md"), "usr/share/doc/doorbell/CHANGELOG.md"),
        (parts.made.join("THIRD-PARTY.txt"), "usr/share/doc/doorbell/THIRD-PARTY.txt"),
    ];
    for (from, to) in files {
        install(&from, &data.join(to), if to.starts_with("usr/bin/") { 0o755 } else { 0o644 })?;
    }
    let copyright = data.join("usr/share/doc/doorbell/copyright");
    install(&root.join("LICENSE-MIT"), &copyright, 0o644)?;
    let own = fs::read_to_string(&copyright)?;
    let text = format!(
        "Doorbell is licensed under MIT or Apache-2.0, as its user chooses. The licences of what is built \
        into it are in THIRD-PARTY.txt.\n\n{own}"
    );
    fs::write(&copyright, text)?;
    for page in files_in(&parts.made.join("man"))? {
        let to = data.join("usr/share/man/man1").join(page.file_name().context("a file has a name")?);
        install(&page, &to, 0o644)?;
        tool::output(Command::new("gzip").args(["--no-name", "--best"]).arg(&to).stdin(Stdio::null()))?;
    }
    Ok(())
}

/// Debian's name for this machine's architecture.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no Debian package is made for {other}"),
    }
}

fn describe(parts: &Parts, data: &Path, architecture: &str) -> Result<String> {
    let size = tool::output(Command::new("du").args(["--summarize", "--apparent-size", "-k"]).arg(data))?;
    let size = size.split_whitespace().next().unwrap_or_default().to_owned();
    let libc = newest_libc(&fs::read(&parts.program)?).context("the program names no version of the C library")?;
    Ok(format!(
        "Package: doorbell\nVersion: {}\nArchitecture: {architecture}\nMaintainer: The Doorbell authors <doorbell@localhost>\n\
         Section: net\nPriority: optional\nInstalled-Size: {size}\nDepends: libc6 (>= 2.{libc}), libgcc-s1\n\
         Recommends: ca-certificates\nDescription: self-hosted webhook gateway that starts agents\n \
         A service posts an event; Doorbell proves who sent it, stores it durably, answers,\n \
         finds the agents that asked for it, and runs them.\n",
        parts.version
    ))
}

/// The newest version of glibc of which a program wants something: N of `GLIBC_2.N`.
fn newest_libc(program: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b"GLIBC_2.";
    let versions =
        program.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK).filter_map(|(at, _)| {
            let digits = program[at + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
        });
    versions.max()
}

fn md5sums(data: &Path) -> Result<String> {
    let script = "find . -type f -printf '%P\\0' | sort -z | xargs -0 md5sum";
    tool::output(Command::new("sh").args(["-c", script]).current_dir(data).stdin(Stdio::null()))
}

/// Appends a member: 60 bytes that say what it is, its content, and a byte more if that makes the length even (ar(5)).
fn append(archive: &mut Vec<u8>, name: &str, content: &[u8], time: &str) -> Result<()> {
    let size = content.len();
    let head = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, "100644");
    if head.len() != 60 {
        bail!("`{name}` with {size} bytes does not fit into an archive");
    }
    archive.extend(head.as_bytes());
    archive.extend(content);
    if size % 2 == 1 {
        archive.push(b'\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{append, newest_libc};

    #[test]
    fn members_begin_at_even_places() {
        let mut archive = b"!<arch>\n".to_vec();
        append(&mut archive, "one", b"abc", "7").unwrap();
        append(&mut archive, "two", b"", "7").unwrap();
        assert_eq!(archive.len(), 8 + 60 + 4 + 60);
        assert!(archive[72..].starts_with(b"two             7           0     0     100644  0         `\n"));
        assert!(append(&mut archive, "a name that is too long", b"", "7").is_err());
    }

    #[test]
    fn the_newest_version_counts_by_number() {
        assert_eq!(newest_libc(b"..GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.\0GLIBC_2.4"), Some(34));
        assert_eq!(newest_libc(b"nothing"), None);
    }
}
