//! Manifests: versions stand in one place, in order, and there are not too many of them.

use toml_edit::{Document, Item, TableLike};

use super::Finding;
use super::tree::{File, Tree};

/// Locked packages, in all.
const PACKAGES: usize = 400;

const WHY_WORKSPACE: &str = "versions stand in one place, the root Cargo.toml";
const WHY_SORTED: &str = "a sorted list has one place for everything and no merge conflicts";
const WHY_PACKAGES: &str = "every dependency is somebody else's code in a gateway that holds secrets";

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        match file.path.rsplit('/').next() {
            Some("Cargo.toml") => manifest(file, findings),
            Some("Cargo.lock") => lock(file, findings),
            _ => {}
        }
    }
}

fn manifest(file: &File, findings: &mut Vec<Finding>) {
    let document = match Document::parse(file.text.as_str()) {
        Ok(document) => document,
        Err(error) => {
            findings.push(Finding::new(file, 1, error.message(), "a manifest that cannot be read cannot be checked"));
            return;
        }
    };
    let root = document.as_table();
    if let Some(shared) = table(root, "workspace").and_then(|workspace| table(workspace, "dependencies")) {
        sorted(file, shared, findings);
        return;
    }
    inherited(file, root, findings);
    let targets = table(root, "target").into_iter().flat_map(TableLike::iter);
    for target in targets.filter_map(|(_, target)| target.as_table_like()) {
        inherited(file, target, findings);
    }
    let lints = table(root, "lints").and_then(|lints| lints.get("workspace"));
    if lints.and_then(Item::as_bool) != Some(true) {
        findings.push(Finding::new(file, 1, "does not take the lints of the workspace", "one set of rules for all"));
    }
}

/// Our own crates first, then the others by name.
fn sorted(file: &File, shared: &dyn TableLike, findings: &mut Vec<Finding>) {
    let own = |item: &Item| item.as_table_like().is_some_and(|table| table.contains_key("path"));
    let others: Vec<&str> = shared.iter().filter(|(_, item)| !own(item)).map(|(name, _)| name).collect();
    for pair in others.windows(2).filter(|pair| pair[0] > pair[1]) {
        let what = format!("`{}` stands after `{}`", pair[1], pair[0]);
        findings.push(Finding::new(file, line_of(file, shared, pair[1]), what, WHY_SORTED));
    }
}

fn inherited(file: &File, from: &dyn TableLike, findings: &mut Vec<Finding>) {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = table(from, kind) else { continue };
        for (name, item) in dependencies.iter() {
            let inherits = item.as_table_like().and_then(|table| table.get("workspace"));
            if inherits.and_then(Item::as_bool) != Some(true) {
                let what = format!("`{name}` has a version of its own instead of `workspace = true`");
                findings.push(Finding::new(file, line_of(file, dependencies, name), what, WHY_WORKSPACE));
            }
        }
    }
}

fn lock(file: &File, findings: &mut Vec<Finding>) {
    let packages = file.lines().filter(|(_, line)| *line == "[[package]]").count();
    if packages > PACKAGES {
        let what = format!("{packages} locked packages, more than {PACKAGES}");
        findings.push(Finding::new(file, 1, what, WHY_PACKAGES));
    }
}

fn table<'a>(from: &'a dyn TableLike, name: &str) -> Option<&'a dyn TableLike> {
    from.get(name).and_then(Item::as_table_like)
}

fn line_of(file: &File, table: &dyn TableLike, key: &str) -> usize {
    let span = table.get_key_value(key).and_then(|(key, item)| key.span().or_else(|| item.span()));
    let start = span.map_or(0, |span| span.start);
    file.text[..start].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::said;

    #[test]
    fn a_version_outside_the_root_is_found() {
        let text = "[dependencies]\na.workspace = true\nb = \"1\"\n\n[target.'cfg(unix)'.dev-dependencies]\nc = { version = \"1\" }\n\
                    \n[lints]\nworkspace = true\n";
        let expected = [
            "a/Cargo.toml:3: `b` has a version of its own instead of `workspace = true`",
            "a/Cargo.toml:6: `c` has a version of its own instead of `workspace = true`",
        ];
        assert_eq!(said(check, &[("a/Cargo.toml", text)]), expected);
    }

    #[test]
    fn a_crate_with_lints_of_its_own_is_found() {
        let said = said(check, &[("a/Cargo.toml", "[package]\nname = \"a\"\n")]);
        assert_eq!(said, ["a/Cargo.toml:1: does not take the lints of the workspace"]);
    }

    #[test]
    fn an_unsorted_list_is_found() {
        let text = "[workspace.dependencies]\nz-own = { path = \"z\" }\na = \"1\"\nc = \"1\"\nb = \"1\"\n";
        assert_eq!(said(check, &[("Cargo.toml", text)]), ["Cargo.toml:5: `b` stands after `c`"]);
    }

    #[test]
    fn too_many_packages_are_found() {
        let lock = |packages: usize| "[[package]]\nname = \"x\"\n".repeat(packages);
        assert!(said(check, &[("Cargo.lock", &lock(400))]).is_empty());
        assert_eq!(said(check, &[("Cargo.lock", &lock(401))]), ["Cargo.lock:1: 401 locked packages, more than 400"]);
    }
}
