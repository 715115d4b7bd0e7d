//! docs/recipes/checkout.sh: a checkout of the event's repository for each run, with a real repository.

use std::path::Path;
use std::process::Command;

use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, Signed, find_sample};
use serde_json::Value;

use crate::support::{Gateway, ONE_SOURCE, Project, fresh_id, sample, sign, wait_for};

/// A name that git takes, and that no shell should.
const NASTY: &str = "fix-$(touch${IFS}pwned);`touch${IFS}pwned`'\"";

fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"]);
    let output = command.args(args).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The repository of GitHub's samples, with a file `where` that names its branch, and an agent that runs in a checkout.
fn project(script: &str, more: &str) -> Project {
    let project = Project::new(ONE_SOURCE);
    let body: Value = serde_json::from_str(&find_sample(Github.samples(), "issues.opened").unwrap().body).unwrap();
    let repo = body["repository"]["full_name"].as_str().unwrap();
    project.write("seed/where", "main\n");
    let seed = project.path("seed");
    git(&seed, &["init", "--quiet"]);
    for branch in ["main", "topic", NASTY] {
        git(&seed, &["checkout", "--quiet", "-B", branch]);
        project.write("seed/where", branch);
        git(&seed, &["add", "."]);
        git(&seed, &["commit", "--quiet", "--message", branch]);
    }
    git(&seed, &["checkout", "--quiet", "main"]);
    let origin = project.path("origin").join(format!("{repo}.git"));
    git(&seed, &["clone", "--quiet", "--bare", ".", origin.to_str().unwrap()]);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes/checkout.sh");
    project.write("checkout.sh", &std::fs::read_to_string(recipe).unwrap());
    let command = Value::from(vec!["sh", "checkout.sh", "sh", "-c", script]);
    let config = format!(
        "scale = 5\n{more}\n[[webhooks]]\nsource = \"acme\"\n[retries]\nattempts = 1\nbackoff = {{ initial = \"1ms\", max = \"1ms\" }}\n\
         [runtime]\ntype = \"command\"\ncommand = {command}\ncwd = \".\"\ncredentials = [\"github_token:acme\"]\n\
         [runtime.env]\nCHECKOUT_REPO = \"{{{{ event.context.repo }}}}\"\nCHECKOUT_BRANCH = \"{{{{ event.context.branch }}}}\"\n\
         CHECKOUT_FROM = \"file://{}\"\n",
        project.path("origin").display()
    );
    project.write("agents/coder/config.toml", &config);
    project.write("credentials/github_token/acme/secret", "token-of-acme");
    project
}

/// A pull request from this branch of this repository.
fn pull_request(branch: &str, repo: Option<&str>) -> Signed {
    let sample = find_sample(Github.samples(), "pull_request.opened").unwrap();
    let mut body: Value = serde_json::from_str(&sample.body).unwrap();
    body["pull_request"]["head"]["ref"] = branch.into();
    if let Some(repo) = repo {
        body["repository"]["full_name"] = repo.into();
    }
    sign("pull_request.opened", body.to_string(), &fresh_id())
}

/// Nothing of the runs is left: neither checkouts, nor what git knows of them.
fn assert_clean(project: &Project) {
    for run in std::fs::read_dir(project.path(".doorbell/runs")).unwrap().flatten() {
        assert!(!run.path().join("checkout").exists(), "{run:?}");
    }
    for owner in std::fs::read_dir(project.path(".doorbell/checkouts")).unwrap().flatten() {
        for clone in std::fs::read_dir(owner.path()).unwrap().flatten().filter(|clone| clone.path().is_dir()) {
            assert_eq!(git(&clone.path(), &["worktree", "list"]).lines().count(), 1);
        }
    }
}

async fn ring(gateway: &Gateway, signed: Signed) -> (doorbell_client::api::RunDetail, String, String) {
    let run = gateway.ring(signed).await.runs.remove(0);
    let ended = gateway.finished(&run).await;
    let (stdout, stderr) = (gateway.stdout(&run).await, gateway.lines(&run, "stderr").await);
    (ended, stdout, stderr)
}

#[tokio::test]
async fn runs_at_once_each_get_a_checkout_of_their_own_which_is_gone_afterwards() {
    // Each waits until five are at work, changes the same file, and pushes under its own name.
    let script = "[ \"$(cat)\" ] || exit 9; : > $HOME/$DOORBELL_RUN_ID.here
                  while [ $(ls $HOME/*.here | wc -l) -lt 5 ]; do sleep 0.02; done
                  echo $DOORBELL_RUN_ID > where; git -c user.name=a -c user.email=b commit --quiet --all --message $DOORBELL_RUN_ID
                  git push --quiet origin HEAD:refs/heads/$DOORBELL_RUN_ID; git log --format=%s";
    let project = project(script, "");
    std::fs::create_dir(project.path("home")).unwrap();
    let gateway = project.serve();
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(gateway.ring(sample("issues.opened")).await.runs.remove(0));
    }
    for run in &runs {
        let ended = gateway.finished(run).await.run;
        let stderr = gateway.lines(run, "stderr").await;
        assert_eq!(ended.state, "succeeded", "{:?}: {stderr}", ended.reason);
        assert_eq!(gateway.stdout(run).await, format!("{run}\nmain"));
    }
    let pushed = git(
        &project.path("seed"),
        &["ls-remote", "--heads", &format!("file://{}", project.path("origin/acme/app.git").display())],
    );
    assert!(runs.iter().all(|run| pushed.contains(run)), "{pushed}");
    assert_clean(&project);
}

#[tokio::test]
async fn the_branch_of_the_event_is_checked_out_whatever_it_is_called() {
    let project = project("cat where; pwd", "");
    let gateway = project.serve();
    for branch in ["topic", NASTY] {
        let (ended, stdout, stderr) = ring(&gateway, pull_request(branch, None)).await;
        assert_eq!(ended.run.state, "succeeded", "{stderr}");
        let wanted = format!(
            "{branch}{}/.doorbell/runs/{}/checkout",
            project.root().canonicalize().unwrap().display(),
            ended.run.id
        );
        assert_eq!(stdout, wanted);
    }
    for (signed, says) in [
        (pull_request("of-a-fork", None), "has no branch of-a-fork"),
        (pull_request("--upload-pack=touch pwned", None), "not the name of a branch"),
        (pull_request("../../HEAD", None), "not the name of a branch"),
        (pull_request("main", Some("--upload-pack=x/y")), "not the name of a repository"),
        (pull_request("main", Some("../../etc/app")), "not the name of a repository"),
        (pull_request("main", Some("acme/../app")), "not the name of a repository"),
        (pull_request("main", Some("acme/..")), "not the name of a repository"),
        (pull_request("main", Some("acme/.")), "not the name of a repository"),
        (pull_request("main", Some("acme/$(touch pwned)")), "not the name of a repository"),
    ] {
        let (ended, stdout, stderr) = ring(&gateway, signed).await;
        assert_eq!((ended.attempts[0].exit_code, stdout.as_str()), (Some(1), ""), "{says}: {stderr}");
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
    let (_, _, stderr) = ring(&gateway, pull_request("main", Some("acme/.github"))).await;
    assert!(stderr.contains("cannot clone acme/.github"), "a name may begin with a dot: {stderr}");
    let (ended, _, stderr) = ring(&gateway, pull_request("main", Some("acme/missing"))).await;
    assert!(ended.attempts[0].exit_code == Some(75) && stderr.contains("cannot clone acme/missing"), "{stderr}");
    assert!(!project.path("pwned").exists());
    assert_clean(&project);
}

#[tokio::test]
async fn the_token_is_for_the_place_of_the_repositories_only_and_in_no_file() {
    // What git would ask for; the answer goes to a file that the log cannot redact.
    let script = "ask() { printf 'url=%s\\n\\n' \"$1\" | GIT_ASKPASS=true git credential fill 2>/dev/null | grep -c password=token-of-acme; }
                  ask https://git.example.com/acme/app.git; ask https://evil.example.com/acme/app.git; ask https://git.example.com.evil.example/x
                  grep -r token-of-acme . ../../../checkouts | wc -l";
    let project = project(script, "");
    // The clone is there already, so that nothing has to be fetched from a host that is not.
    let clone = project.path(".doorbell/checkouts/acme/app.git");
    std::fs::create_dir_all(clone.parent().unwrap()).unwrap();
    let origin = format!("file://{}", project.path("origin/acme/app.git").display());
    git(project.root(), &["clone", "--quiet", "--bare", &origin, clone.to_str().unwrap()]);
    let config = project.read("agents/coder/config.toml");
    let config = config.replace(&format!("file://{}", project.path("origin").display()), "https://git.example.com");
    project.write("agents/coder/config.toml", &config);
    let gateway = project.serve();
    let (_, stdout, stderr) = ring(&gateway, sample("issues.opened")).await;
    assert_eq!(stdout, "1\n0\n0\n0", "{stderr}");
}

#[tokio::test]
async fn a_run_that_is_ended_leaves_no_checkout_and_one_that_was_killed_is_cleaned_up_after() {
    let project = project("echo working; while :; do sleep 0.05; done", "timeout = \"20s\"");
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let at_work = |run: &str| project.path(&format!(".doorbell/runs/{run}/checkout/where")).exists().then_some(());
    wait_for("the checkout", || at_work(&first));
    gateway.client.cancel_run(&first).await.unwrap();
    assert_eq!(gateway.finished(&first).await.run.state, "cancelled");
    assert_clean(&project);
    let second = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    wait_for("the checkout", || at_work(&second));
    // Nobody can clean up after this; the next try of the run does.
    for pid in crate::support::processes_of(&second) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    gateway.finished(&second).await;
    assert!(at_work(&second).is_some());
    std::fs::remove_dir_all(project.path(&format!(".doorbell/runs/{second}"))).unwrap();
    let third = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    wait_for("the checkout", || at_work(&third));
    gateway.client.cancel_run(&third).await.unwrap();
    gateway.finished(&third).await;
    assert_clean(&project);
}
