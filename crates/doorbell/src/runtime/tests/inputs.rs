//! What an agent is handed, and what it hands back.

use std::os::unix::fs::PermissionsExt;

use super::*;

const FENCE: &str = "</event>";

#[tokio::test]
async fn the_prompt_comes_on_standard_input_which_is_then_closed() {
    let done = Bench::new("cat; echo over").carry_out().await;
    assert_eq!(done.ended.outcome, Outcome::Succeeded);
    assert_eq!(done.stdout()[0], "Do what is to be done.");
    assert!(done.stdout().ends_with(&[FENCE, "over"]), "{:?}", done.log);
}

#[tokio::test]
async fn the_prompt_comes_as_the_last_argument() {
    let mut bench = Bench::new("printf '%s' \"$1\"; cat; echo $#");
    bench.command.prompt = PromptChannel::Arg;
    let done = bench.carry_out().await;
    assert_eq!(done.stdout()[0], "Do what is to be done.");
    assert!(done.stdout().ends_with(&[FENCE, "1"]), "{:?}", done.log);
}

#[tokio::test]
async fn the_prompt_comes_in_a_file_that_only_its_owner_can_read() {
    let mut bench = Bench::new("cat \"$1\"");
    bench.command.prompt = PromptChannel::File;
    let done = bench.carry_out().await;
    assert!(done.stdout().ends_with(&[FENCE]), "{:?}", done.log);
    for file in ["prompt.md", "event.json"] {
        let mode = std::fs::metadata(bench.folder().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_large_prompt_that_nobody_reads_holds_nothing_up() {
    let mut bench =
        Bench::new("i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done");
    bench.agent.instructions = Some(Template::new("x".repeat(200_000)).unwrap());
    let done = bench.carry_out().await;
    assert_eq!((done.ended.outcome.clone(), done.stdout().len()), (Outcome::Succeeded, 3000));
}

#[tokio::test]
async fn a_prompt_too_large_for_an_argument_says_what_to_do() {
    let mut bench = Bench::new("true");
    bench.command.prompt = PromptChannel::Arg;
    bench.agent.instructions = Some(Template::new("x".repeat(200_000)).unwrap());
    let done = bench.carry_out().await;
    assert!(done.reason().contains("prompt = \"stdin\"") && done.process.is_none(), "{}", done.reason());
}

#[tokio::test]
async fn an_environment_too_large_says_what_to_do() {
    let mut bench = Bench::new("true");
    bench.command.env = BTreeMap::from([("BODY".to_owned(), Template::new("x".repeat(200_000)).unwrap())]);
    let done = bench.carry_out().await;
    assert!(done.reason().contains("DOORBELL_EVENT_FILE"), "{}", done.reason());
}

#[tokio::test]
async fn the_environment_is_the_allow_list_and_what_is_configured() {
    let mut bench = Bench::new("");
    bench.command.command = vec!["env".to_owned()];
    let template = |text: &str| Template::new(text).unwrap();
    bench.command.env = BTreeMap::from([
        ("DOORBELL_RUN_ID".to_owned(), template("mine")),
        ("BRANCH".to_owned(), template("{{ event.context.branch }}\0!")),
    ]);
    bench.command.credentials = vec![("PIN".to_owned(), Secret::new("123"))];
    let done = bench.carry_out().await;
    let mut lines = done.stdout();
    lines.sort_unstable();
    let folder = bench.folder();
    let mut expected = vec![
        "BRANCH=$(touch x)`touch y`;touch z!".to_owned(),
        "DOORBELL_AGENT=triage".to_owned(),
        "DOORBELL_ATTEMPT=2".to_owned(),
        format!("DOORBELL_EVENT_FILE={}", folder.join("event.json").display()),
        format!("DOORBELL_OUTPUT_FILE={}", folder.join("output.json").display()),
        format!("DOORBELL_RUN_ID={}", bench.envelope.run_id),
        "DOORBELL_TOKEN=[redacted]".to_owned(),
        "DOORBELL_URL=http://127.0.0.1:8080".to_owned(),
        "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
        "PIN=123".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn no_text_of_a_sender_reaches_a_shell() {
    let mut bench = Bench::new("printf '%s\\n' \"$BRANCH\"; ls");
    let branch = Template::new("{{ event.context.branch }}").unwrap();
    bench.command.env = BTreeMap::from([("BRANCH".to_owned(), branch.clone())]);
    bench.command.prompt = PromptChannel::Arg;
    bench.agent.instructions = Some(branch);
    let done = bench.carry_out().await;
    assert_eq!(done.stdout(), ["$(touch x)`touch y`;touch z", "event.json"]);
}

#[tokio::test]
async fn the_event_file_holds_the_whole_event() {
    let bench = Bench::new("cat $DOORBELL_EVENT_FILE");
    let done = bench.carry_out().await;
    assert_eq!(serde_json::from_str::<Envelope>(&done.stdout().concat()).unwrap(), bench.envelope);
}

#[tokio::test]
async fn issued_secrets_are_redacted_in_the_log_and_in_the_result() {
    let script = "printf 'a %s\\n' $DOORBELL_TOKEN $KEY >&2; printf dbr_01234; printf '56789abcdef\\n'
                  printf '{\"token\":\"%s\"}' $DOORBELL_TOKEN > $DOORBELL_OUTPUT_FILE";
    let mut bench = Bench::new(script);
    bench.command.credentials = vec![("KEY".to_owned(), Secret::new("hunter2\n"))];
    let done = bench.carry_out().await;
    assert_eq!(done.lines(Stream::Stderr), ["a [redacted]", "a [redacted]"]);
    assert_eq!(done.stdout(), ["[redacted]"]);
    assert_eq!(done.ended.result.as_deref(), Some("{\"token\":\"[redacted]\"}"));
}

#[tokio::test]
async fn a_result_that_is_no_json_is_ignored_and_the_log_says_so() {
    let done = Bench::new("echo done > $DOORBELL_OUTPUT_FILE").carry_out().await;
    assert_eq!((done.ended.ended, &done.ended.result), ("succeeded", &None));
    assert!(done.lines(Stream::System)[0].contains("not JSON"));
}

#[tokio::test]
async fn lines_are_logged_live_in_order_and_to_the_last_byte() {
    let mut bench = Bench::new("echo one; echo two; while [ ! -e go ]; do :; done; printf three");
    bench.command.prompt = PromptChannel::File;
    let go = bench.folder().join("go");
    let release = |log: &[LogLine]| {
        if log.len() == 2 {
            std::fs::write(&go, "").unwrap();
        }
        false
    };
    let done = bench.carry_out_until(release, Stop::Shutdown).await;
    assert_eq!(done.stdout(), ["one", "two", "three"]);
    assert!(done.log.iter().all(|line| line.attempt == 2));
}

#[tokio::test]
async fn a_command_runs_in_the_folder_that_is_configured() {
    let mut bench = Bench::new("pwd -P");
    let elsewhere = tempfile::tempdir().unwrap();
    bench.command.cwd = Some(elsewhere.path().to_owned());
    assert_eq!(bench.carry_out().await.stdout(), [elsewhere.path().canonicalize().unwrap().to_str().unwrap()]);
    bench.command.cwd = Some("/no/such/folder".into());
    assert!(bench.carry_out().await.reason().contains("/no/such/folder is not there"));
}

#[tokio::test]
async fn a_program_that_cannot_start_is_named_with_what_to_do() {
    let mut bench = Bench::new("");
    bench.command.command = vec!["no-such-agent".to_owned()];
    assert!(bench.carry_out().await.reason().contains("no program `no-such-agent` in PATH: install it"));
    let script = bench.home.path().join("agent");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    bench.command.command = vec![script.to_str().unwrap().to_owned()];
    assert!(bench.carry_out().await.reason().contains("chmod +x"));
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(bench.carry_out().await.reason().contains("interpreter"));
    bench.command.command.clear();
    let done = bench.carry_out().await;
    assert!(done.reason().contains("is empty") && done.ended.ended == "failed" && done.ended.exit_code.is_none());
}

#[tokio::test]
async fn a_prompt_that_cannot_be_made_names_the_line() {
    let mut bench = Bench::new("");
    bench.agent.instructions = Some(Template::new("a\n{{ event.context + 1 }}").unwrap());
    assert!(bench.carry_out().await.reason().contains("SKILL.md, line 2"));
}
