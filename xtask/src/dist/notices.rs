//! The licences of what is built into the program, which go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::files_in;
use crate::tool;

/// Each text once, with the packages that have it; packages without a file of their own by what they declare.
pub(super) fn collect() -> Result<String> {
    let args =
        ["tree", "--locked", "--package", "doorbell", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let tree = tool::output(tool::cargo().args(args))?;
    let wanted: BTreeSet<String> = tree.lines().filter_map(name_and_version).collect();
    let metadata = tool::metadata(&[])?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = 0;
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", text("name"), text("version"));
        if !wanted.contains(&name) {
            continue;
        }
        seen += 1;
        let folder = Path::new(text("manifest_path")).parent().context("a manifest stands in a folder")?;
        let mut found = licences_in(folder)?;
        if found.is_empty() {
            found.push(format!("Licensed under {}; the package has no text of it.", text("license")));
        }
        for licence in found {
            texts.entry(licence).or_default().push(name.clone());
        }
    }
    if seen == 0 {
        bail!("no package was found whose licence goes with the program");
    }
    let head = format!("The {seen} packages that are built into Doorbell, and their licences.\n");
    let parts = texts
        .into_iter()
        .map(|(text, packages)| format!("\n{}\n{}\n\n{}\n", "-".repeat(80), packages.join(", "), text.trim()));
    Ok(std::iter::once(head).chain(parts).collect())
}

/// `serde v1.0.229` and perhaps more.
fn name_and_version(line: &str) -> Option<String> {
    let (name, rest) = line.split_once(" v")?;
    Some(format!("{name} {}", rest.split_whitespace().next()?))
}

fn licences_in(folder: &Path) -> Result<Vec<String>> {
    let is_licence = |file: &Path| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase();
        file.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT"].iter().any(|start| name.starts_with(start))
    };
    let files = files_in(folder)?.into_iter().filter(|file| is_licence(file));
    files.map(|file| Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::{collect, name_and_version};

    #[test]
    fn the_licences_of_what_is_built_in_are_there() {
        let text = collect().unwrap();
        for package in ["rusqlite ", "rustls ", "tokio "] {
            assert!(text.contains(package), "{package}");
        }
        assert!(text.contains("Permission is hereby granted") && text.contains("Apache License"));
        assert!(!text.contains("proptest "), "it is for tests only");
    }

    #[test]
    fn a_line_of_the_tree_names_a_package() {
        assert_eq!(name_and_version("serde v1.0.229 (proc-macro)").as_deref(), Some("serde 1.0.229"));
        assert_eq!(name_and_version(""), None);
    }
}
