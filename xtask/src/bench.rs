//! `cargo xtask bench`: one benchmark of the gateway by name.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::tool;

const PACKAGE: &str = "doorbell";

/// Runs the benchmark named first with the rest as its arguments; without a name, lists them.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let names = names(&tool::metadata(&["--no-deps"])?);
    let list = if names.is_empty() { "there are none yet".to_owned() } else { names.join(", ") };
    let Some((name, rest)) = args.split_first() else {
        println!("benchmarks: {list}");
        return Ok(());
    };
    if !names.contains(name) {
        bail!("there is no benchmark `{name}`; benchmarks: {list}");
    }
    tool::run(tool::cargo().args(["bench", "--locked", "-p", PACKAGE, "--bench", name, "--"]).args(rest))
}

fn names(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.filter(|package| package["name"] == PACKAGE).filter_map(|found| found["targets"].as_array());
    let benches = targets.flatten().filter(|target| target["kind"][0] == "bench");
    benches.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::names;

    #[test]
    fn only_benchmarks_of_the_gateway_are_offered() {
        let metadata = json!({ "packages": [
            { "name": "doorbell", "targets": [
                { "kind": ["bin"], "name": "doorbell" },
                { "kind": ["bench"], "name": "ingest" },
            ] },
            { "name": "other", "targets": [{ "kind": ["bench"], "name": "elsewhere" }] },
        ] });
        assert_eq!(names(&metadata), ["ingest"]);
    }
}
