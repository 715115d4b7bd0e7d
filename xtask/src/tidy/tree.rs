//! The files of the repository, read once for all checks.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::rust::Source;
use crate::tool;

/// One file as it is in the work tree.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: usize,
    /// Empty for a binary file.
    pub(crate) text: String,
    pub(crate) rust: Option<Source>,
}

impl File {
    fn new(path: &str, bytes: Vec<u8>) -> Self {
        let size = bytes.len();
        let text = if bytes.contains(&0) { String::new() } else { String::from_utf8(bytes).unwrap_or_default() };
        let rust = path.ends_with(".rs").then(|| Source::scan(&text));
        Self { path: path.to_owned(), size, text, rust }
    }

    /// What stands between the first `.` of the name's end and the end; `Cargo.toml` has `toml`.
    pub(crate) fn extension(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// Lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.split_terminator('\n').enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Whether `tidy: allow RULE: reason` stands on this line or the one above. A mark without a reason does not count.
    pub(crate) fn allows(&self, rule: &str, line: usize) -> bool {
        let marked = |(number, text): (usize, &str)| (number == line || number + 1 == line) && allowed(text, rule);
        self.lines().any(marked)
    }

    /// Whether the mark stands anywhere in the file, for rules about the whole of it.
    pub(crate) fn allows_anywhere(&self, rule: &str) -> bool {
        self.lines().any(|(_, text)| allowed(text, rule))
    }
}

fn allowed(text: &str, rule: &str) -> bool {
    let reason = text.split_once(&format!("tidy: allow {rule}:"));
    reason.is_some_and(|(_, reason)| reason.bytes().any(|byte| byte.is_ascii_alphabetic()))
}

/// All files, and the folders they stand in.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
    folders: BTreeSet<String>,
}

impl Tree {
    /// What git tracks, and new files that it does not ignore, so that a mistake is seen before it is committed.
    pub(crate) fn load() -> Result<Self> {
        let root = tool::root();
        let mut git = Command::new("git");
        // The clone may belong to another user than the one who checks it.
        git.arg("-c").arg(format!("safe.directory={}", root.display()));
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
        let list =
            tool::output(git.current_dir(&root).stdin(Stdio::null())).context("tidy needs git to list the files")?;
        let mut files = Vec::new();
        for path in list.split_terminator('\0') {
            let full = root.join(path);
            // Deleted but not yet committed, or a link whose target is checked where it stands.
            if full.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
                files.push(File::new(path, bytes));
            }
        }
        Ok(Self::new(files))
    }

    /// A tree of these paths and texts.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self::new(files.iter().map(|(path, text)| File::new(path, text.as_bytes().to_vec())).collect())
    }

    fn new(mut files: Vec<File>) -> Self {
        let folders = files.iter().flat_map(|file| folders(&file.path)).map(str::to_owned).collect();
        let modules: Vec<String> = files.iter().flat_map(test_modules).collect();
        for file in &mut files {
            let test = in_test_folder(&file.path) || modules.iter().any(|module| is_within(&file.path, module));
            if let Some(source) = file.rust.as_mut().filter(|_| test) {
                source.mark_all_as_test();
            }
        }
        Self { files, folders }
    }

    /// Rust files with their scan.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter_map(|file| file.rust.as_ref().map(|source| (file, source)))
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path) || self.folders.contains(path)
    }
}

fn folders(path: &str) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(path.match_indices('/').map(|(at, _)| &path[..at]))
}

fn in_test_folder(path: &str) -> bool {
    path.rsplit('/').skip(1).any(|folder| matches!(folder, "tests" | "benches"))
}

/// Paths, without `.rs`, of the modules that this file declares under `#[cfg(test)]`.
fn test_modules(file: &File) -> Vec<String> {
    let stem = file.path.trim_end_matches(".rs");
    let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let home = if matches!(name, "mod" | "lib" | "main") { folder } else { stem };
    let names = file.rust.iter().flat_map(|source| &source.test_modules);
    names.map(|name| format!("{home}/{name}")).collect()
}

/// Whether the file is the module or stands below it.
pub(crate) fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::Tree;

    #[test]
    fn a_test_module_in_its_own_file_is_not_production() {
        let tree = Tree::of(&[
            ("a/src/store.rs", "#[cfg(test)]\nmod conformance;\n"),
            ("a/src/store/conformance.rs", "fn x() {}\n"),
            ("a/tests/it/main.rs", "fn x() {}\n"),
        ]);
        let counts: Vec<usize> = tree.rust().map(|(_, source)| source.production_lines()).collect();
        assert_eq!(counts, [0, 0, 0]);
    }

    #[test]
    fn an_allowance_needs_a_reason() {
        let tree = Tree::of(&[(
            "a.rs",
            "x(); // tidy: allow sleep: the kernel has no event for it\ny(); // tidy: allow sleep:\n\n",
        )]);
        let file = &tree.files[0];
        assert!(file.allows("sleep", 1) && file.allows("sleep", 2));
        assert!(!file.allows("sleep", 3) && !file.allows("path", 1));
    }
}
