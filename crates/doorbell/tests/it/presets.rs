//! Presets: programs of the tools' names on the PATH, which insist on their arguments, standard input and environment as
//! the real ones do, and answer in their formats. The outputs are what the real ones printed (see `presets.toml`).

use serde_json::{Value, json};

use crate::support::{Gateway, ONE_SOURCE, Project, processes_of, sample, wait_for};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"\n";

/// What every program here begins with.
const LIBRARY: &str = r#"
fail() { echo "fake: $1" >&2; exit 99; }
arguments() { wanted=$1; shift; [ "$*" = "$wanted" ] || fail "arguments: $*"; }
variable() { [ "$(printenv "$1")" = "$2" ] || fail "$1 is not $2"; }
prompt() {
    case "$1" in *"<event>"*github.issues.opened*"</event>"*) ;; *) fail "no prompt: $1" ;; esac
    case "$1" in "Look at this issue."*) ;; *) fail "no instructions: $1" ;; esac
}
# To its end: a pipe that stays open would hang here.
prompt_on_stdin() { prompt "$(cat)"; }
nothing_on_stdin() { [ -z "$(cat)" ] || fail "something on standard input"; }
"#;

/// A tool as it is met from outside.
struct Tool {
    preset: &'static str,
    program: &'static str,
    /// What it insists on.
    insists: &'static str,
    answer: &'static str,
    /// What it prints when it failed, with exit code 0, and the reason in it.
    failure: (&'static str, &'static str),
    /// What is no answer.
    garbage: &'static str,
}

const TOOLS: [Tool; 10] = [
    Tool {
        preset: "claude",
        program: "claude",
        insists: "arguments '--print --output-format json --permission-mode dontAsk' \"$@\"; prompt_on_stdin
                  variable ANTHROPIC_API_KEY key-of-claude; variable DISABLE_AUTOUPDATER 1; variable CLAUDECODE ''",
        answer: r#"{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"It is a bug.","session_id":"247207e5"}"#,
        failure: (
            r#"{"type":"result","subtype":"success","is_error":true,"result":"API Error: Unable to connect to API","session_id":"247207e5"}"#,
            "API Error: Unable to connect to API",
        ),
        garbage: "Killed",
    },
    Tool {
        preset: "codex",
        program: "codex",
        insists: "arguments 'exec --json --skip-git-repo-check -c sandbox_mode=read-only -' \"$@\"; prompt_on_stdin
                  variable CODEX_API_KEY key-of-codex",
        answer: r#"{"type":"thread.started","thread_id":"01a1fd2e"}
{"type":"turn.started"}
{"type":"error","message":"Reconnecting... 2/5"}
{"type":"item.completed","item":{"id":"item_0","type":"error","message":"Falling back"}}
{"type":"item.completed","item":{"id":"item_1","type":"agent_message","text":"It is a bug."}}
{"type":"item.completed","item":{"id":"item_2","type":"reasoning","text":"Was that right?"}}
{"type":"turn.completed","usage":{"input_tokens":1}}"#,
        failure: (
            r#"{"type":"error","message":"Reconnecting... 5/5"}
{"type":"turn.failed","error":{"message":"unexpected status 401 Unauthorized"}}"#,
            "unexpected status 401 Unauthorized",
        ),
        garbage: r#"{"type":"turn.started"}"#,
    },
    Tool {
        preset: "gemini",
        program: "gemini",
        insists: "arguments '--output-format json --skip-trust' \"$@\"; prompt_on_stdin
                  variable GEMINI_API_KEY key-of-gemini; variable GEMINI_CLI_NO_RELAUNCH 1",
        answer: "Loaded cached credentials.\n{\n  \"session_id\": \"82ca\",\n  \"response\": \"It is a bug.\",\n  \"stats\": {}\n}",
        failure: (
            "{\n  \"session_id\": \"82ca\",\n  \"error\": {\n    \"type\": \"Error\",\n    \"message\": \"Invalid auth method selected.\",\n    \"code\": 41\n  }\n}",
            "Invalid auth method selected.",
        ),
        garbage: "{\n  \"session_id\": \"82ca\",\n  \"response\": \"It is",
    },
    Tool {
        preset: "opencode",
        program: "opencode",
        insists: "arguments 'run --format json' \"$@\"; prompt_on_stdin; variable OPENCODE_DISABLE_AUTOUPDATE 1
                  case $OPENCODE_PERMISSION in *'\"bash\":\"deny\"'*) ;; *) fail permission ;; esac",
        answer: r#"{"type":"step_start","sessionID":"ses_1","part":{"type":"step-start"}}
{"type":"text","sessionID":"ses_1","part":{"type":"text","text":"I look."}}
{"type":"text","sessionID":"ses_1","part":{"type":"text","text":"It is a bug."}}
{"type":"step_finish","sessionID":"ses_1","part":{"reason":"stop","cost":0.000033}}"#,
        failure: (
            r#"{"type":"error","sessionID":"ses_1","error":{"name":"APIError","data":{"message":"invalid x-api-key","statusCode":401}}}"#,
            "invalid x-api-key",
        ),
        garbage: "",
    },
    Tool {
        preset: "aider",
        program: "aider",
        insists: "[ \"$#\" = 11 ] && [ \"${10}\" = --message-file ] || fail \"arguments: $*\"; nothing_on_stdin
                  prompt \"$(cat \"${11}\")\"
                  for flag in --yes-always --no-stream --no-pretty; do case \" $* \" in *\" $flag \"*) ;; *) fail $flag ;; esac; done",
        answer: "Aider v0.86.2\n\nIt is a bug.\n\nTokens: 1 sent, 1 received. Cost: $0.000018 message, $0.000018 session.",
        failure: (
            "Aider v0.86.2\n\nlitellm.AuthenticationError: AnthropicException - invalid x-api-key\nThe API provider is not able to authenticate you.",
            "litellm.AuthenticationError: AnthropicException - invalid x-api-key",
        ),
        garbage: "Aider v0.86.2",
    },
    Tool {
        preset: "goose",
        program: "goose",
        insists: "arguments 'run --instructions - --quiet --no-session' \"$@\"; prompt_on_stdin
                  variable GOOSE_DISABLE_KEYRING 1; variable GOOSE_MODE chat",
        answer: "It is a bug.",
        failure: ("Ran into this error: Authentication failed.\n\nPlease retry.", "Ran into this error: Authentication failed."),
        garbage: "",
    },
    Tool {
        preset: "cursor",
        program: "cursor-agent",
        insists: "for last; do :; done; prompt \"$last\"; nothing_on_stdin; variable CURSOR_API_KEY key-of-cursor
                  arguments '--print --output-format json --trust' \"$1\" \"$2\" \"$3\" \"$4\"; [ \"$#\" = 5 ] || fail \"$#\"",
        answer: r#"{"type":"result","subtype":"success","is_error":false,"duration_ms":1,"result":"It is a bug.","session_id":"1"}"#,
        failure: (r#"{"type":"result","subtype":"error","is_error":true,"result":"no plan"}"#, "no plan"),
        garbage: "Workspace Trust Required",
    },
    Tool {
        preset: "copilot",
        program: "copilot",
        insists: "arguments '--output-format json --no-ask-user --no-auto-update' \"$@\"; prompt_on_stdin
                  variable COPILOT_GITHUB_TOKEN key-of-copilot",
        answer: r#"{"type":"user.message","data":{"content":"Look"}}
{"type":"assistant.message","data":{"messageId":"8","content":"It is a bug.","toolRequests":[]}}
{"type":"assistant.idle","data":{"content":"not this"}}
{"type":"result","sessionId":"b2c9","exitCode":0,"usage":{"premiumRequests":0}}"#,
        failure: (
            r#"{"type":"user.message","data":{"content":"Look"}}
{"type":"session.error","data":{"errorType":"authentication","message":"Authentication failed with provider"}}
{"type":"result","sessionId":"4f4a","exitCode":1,"usage":{}}"#,
            "Authentication failed with provider",
        ),
        garbage: r#"{"type":"user.message","data":{"content":"Look"}}"#,
    },
    Tool {
        preset: "amp",
        program: "amp",
        insists: "arguments '--execute --stream-json --no-notifications --no-ide' \"$@\"; prompt_on_stdin
                  variable AMP_API_KEY key-of-amp",
        answer: r#"{"type":"system","subtype":"init","session_id":"T-1"}
{"type":"result","subtype":"success","is_error":false,"result":"It is a bug.","session_id":"T-1"}"#,
        failure: (
            r#"{"type":"result","subtype":"error_during_execution","is_error":true,"error":"out of credits","session_id":"T-1"}"#,
            "out of credits",
        ),
        garbage: "No API key found. Starting login flow...",
    },
    Tool {
        preset: "qwen",
        program: "qwen",
        insists: "arguments '--output-format stream-json' \"$@\"; prompt_on_stdin",
        answer: r#"{"type":"system","subtype":"init","session_id":"aa92"}
{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"It is a bug."}]}}
{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"It is a bug."}"#,
        failure: (
            r#"{"type":"result","subtype":"success","is_error":false,"result":"[API Error: 401 invalid x-api-key]"}"#,
            "[API Error: 401 invalid x-api-key]",
        ),
        garbage: r#"{"type":"assistant","message":{}}"#,
    },
];

fn agent(project: &Project, name: &str, keys: &str, runtime: &str) {
    project.write(&format!("agents/{name}/config.toml"), &format!("{keys}{ANY}[runtime]\n{runtime}\n"));
    project.write(&format!("agents/{name}/SKILL.md"), "Look at this issue.\n");
}

/// A program that insists, and then prints what its agent's `SAYS` names.
fn install(project: &Project, tool: &Tool) {
    for (says, output) in [("answer", tool.answer), ("failure", tool.failure.0), ("garbage", tool.garbage)] {
        project.write(&format!("says/{}-{says}", tool.preset), output);
    }
    let says = project.path("says").join(tool.preset);
    let script = format!("{LIBRARY}\n{}\ncat '{}'-\"$SAYS\"", tool.insists, says.display());
    project.program(tool.program, &script);
    let credential = match tool.preset {
        "claude" => "anthropic_api_key",
        "codex" => "codex_api_key",
        "gemini" => "gemini_api_key",
        "cursor" => "cursor_api_key",
        "copilot" => "copilot_github_token",
        "amp" => "amp_api_key",
        _ => return,
    };
    project.write(&format!("credentials/{credential}/default/secret"), &format!("key-of-{}", tool.preset));
}

/// Rings once and waits for the runs of all agents: agent → run.
async fn ring_all(gateway: &Gateway) -> std::collections::BTreeMap<String, doorbell_client::api::RunDetail> {
    let receipt = gateway.ring(sample("issues.opened")).await;
    let mut ended = std::collections::BTreeMap::new();
    for run in &receipt.runs {
        let detail = gateway.finished(run).await;
        ended.insert(detail.run.agent.clone(), detail);
    }
    ended
}

#[tokio::test]
async fn every_preset_runs_its_tool_as_that_wants_it_and_understands_its_answer() {
    let project = Project::new(ONE_SOURCE);
    for tool in &TOOLS {
        install(&project, tool);
        for says in ["answer", "failure", "garbage"] {
            let runtime = format!("preset = \"{}\"\nenv = {{ SAYS = \"{says}\" }}", tool.preset);
            agent(&project, &format!("{}-{says}", tool.preset), "", &runtime);
        }
    }
    let gateway = project.serve();
    let ended = ring_all(&gateway).await;
    for tool in &TOOLS {
        let of = |says: &str| ended[&format!("{}-{says}", tool.preset)].clone();
        let stderr = gateway.lines(&of("answer").run.id, "stderr").await;
        let (answer, failure, garbage) = (of("answer").run, of("failure"), of("garbage").run);
        assert_eq!(answer.state, "succeeded", "{}: {:?} {stderr}", tool.preset, answer.reason);
        let result = answer.result.as_ref().and_then(Value::as_str).unwrap();
        assert!(result.contains("It is a bug."), "{}: {result}", tool.preset);
        // What is told apart from the rest of the output is the answer and nothing else.
        assert!(tool.preset == "aider" || result == "It is a bug.", "{}: {result}", tool.preset);
        let reason = failure.run.reason.unwrap();
        assert_eq!((failure.run.state.as_str(), failure.attempts[0].exit_code), ("failed", Some(0)), "{}", tool.preset);
        assert!(reason.contains("exited with code 0") && reason.contains(tool.failure.1), "{}: {reason}", tool.preset);
        assert_eq!(failure.run.result, None, "{}", tool.preset);
        assert_eq!(garbage.state, "failed", "{}: {:?}", tool.preset, garbage.result);
        assert!(garbage.reason.unwrap().contains("output"), "{}", tool.preset);
    }
    let shown = project.run(&["runs", "show", &ended["qwen-failure"].run.id]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("[API Error: 401 invalid x-api-key]"), "{shown:?}");
}

#[tokio::test]
async fn an_exit_code_that_is_not_0_fails_and_is_told_with_the_tools_own_words() {
    let project = Project::new(ONE_SOURCE);
    project.program("claude", "echo '{\"is_error\":true,\"errors\":[\"no budget left\"],\"result\":\"\"}'; exit 1");
    project.program("opencode", "echo '{\"type\":\"text\",\"part\":{\"text\":\"It is a bug.\"}}'; exit 3");
    project.program("codex", "echo '{\"error\":\"later\"}'; exit 75");
    for preset in ["claude", "opencode", "codex"] {
        agent(
            &project,
            preset,
            "[retries]\nattempts = 1\nbackoff = { initial = \"1ms\", max = \"1ms\" }\n",
            &format!("preset = \"{preset}\""),
        );
    }
    let ended = ring_all(&project.serve()).await;
    let reason = |agent: &str| ended[agent].run.reason.clone().unwrap();
    assert!(reason("claude").contains("exited with code 1: no budget left"), "{}", reason("claude"));
    assert!(reason("opencode").contains("exited with code 3"), "{}", reason("opencode"));
    assert_eq!(ended["opencode"].run.result, Some(json!("It is a bug.")));
    assert!(ended["codex"].attempts.len() > 1, "75 asks for another try");
}

#[tokio::test]
async fn the_output_file_outweighs_what_is_printed_but_not_a_failure() {
    let project = Project::new(ONE_SOURCE);
    let left = "echo '{\"labels\":[\"bug\"]}' > $DOORBELL_OUTPUT_FILE;";
    project.program("claude", &format!("{left} echo '{{\"is_error\":false,\"result\":\"It is a bug.\"}}'"));
    project.program("gemini", &format!("{left} echo nothing"));
    project.program("amp", &format!("{left} echo '{{\"type\":\"result\",\"is_error\":true,\"error\":\"gone\"}}'"));
    for preset in ["claude", "gemini", "amp"] {
        agent(&project, preset, "", &format!("preset = \"{preset}\""));
    }
    let script = "type = \"command\"\ncommand = [\"sh\", \"-c\", \"printf '{\\\"ok\\\":%s,\\\"done\\\":1}' $OK > $DOORBELL_OUTPUT_FILE\"]\n\
                  result = { from = \"file\", path = \"/done\", failed = \"/error\", reason = \"/error\" }\n";
    agent(&project, "own", "", &format!("{script}env = {{ OK = \"true\" }}"));
    agent(&project, "own-failed", "", &format!("{script}env = {{ OK = \"true,\\\"error\\\":\\\"no-luck\\\"\" }}"));
    agent(&project, "silent", "", "type = \"command\"\ncommand = [\"true\"]\nresult = { from = \"file\" }");
    let ended = ring_all(&project.serve()).await;
    let labels = Some(json!({"labels": ["bug"]}));
    let of = |agent: &str| (ended[agent].run.state.as_str(), ended[agent].run.result.clone());
    assert_eq!(of("claude"), ("succeeded", labels.clone()));
    assert_eq!(of("gemini"), ("succeeded", labels.clone()));
    assert_eq!(of("amp"), ("failed", labels));
    assert_eq!(of("own"), ("succeeded", Some(json!(1))));
    assert_eq!(of("own-failed"), ("failed", None));
    assert!(ended["own-failed"].run.reason.as_ref().unwrap().contains("no-luck"));
    assert!(ended["silent"].run.reason.as_ref().unwrap().contains("DOORBELL_OUTPUT_FILE"));
}

#[tokio::test]
async fn secrets_are_redacted_in_results_and_in_reasons() {
    let project = Project::new(ONE_SOURCE);
    project.program("claude", "printf '{\"is_error\":%s,\"result\":\"key %s\"}\\n' $FAILED $ANTHROPIC_API_KEY");
    project.write("credentials/anthropic_api_key/default/secret", "very-secret-value");
    agent(&project, "fine", "", "preset = \"claude\"\nenv = { FAILED = \"false\" }");
    agent(&project, "bad", "", "preset = \"claude\"\nenv = { FAILED = \"true\" }");
    let gateway = project.serve();
    let ended = ring_all(&gateway).await;
    assert_eq!(ended["fine"].run.result, Some(json!("key [redacted]")));
    let reason = ended["bad"].run.reason.clone().unwrap();
    assert!(reason.contains("key [redacted]") && !reason.contains("very-secret"), "{reason}");
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!project.read("gateway.log").contains("very-secret"));
}

/// The npm launchers of Copilot and Qwen Code end at SIGTERM and leave the real process to itself.
#[tokio::test]
async fn a_launcher_that_ends_without_its_agent_leaves_nothing_behind() {
    let project = Project::new(ONE_SOURCE);
    let launcher = "sh -c 'trap \"\" TERM; echo started; while :; do sleep 0.05; done' & wait";
    project.program("copilot", launcher);
    agent(&project, "copilot", "timeout = \"1s\"\n", "preset = \"copilot\"");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let ended = gateway.finished(&run).await;
    assert_eq!(ended.attempts[0].ended.as_deref(), Some("timed_out"));
    assert_eq!(gateway.stdout(&run).await, "started");
    assert_eq!(processes_of(&run), Vec::<i32>::new());
}

#[tokio::test]
async fn a_prompt_that_no_argument_can_hold_says_what_to_do() {
    let project = Project::new(ONE_SOURCE);
    project.program("cursor-agent", "echo '{\"is_error\":false,\"result\":1}'");
    agent(&project, "cursor", "", "preset = \"cursor\"");
    project.write("agents/cursor/SKILL.md", &"Look at this issue.\n".repeat(10_000));
    let ended = ring_all(&project.serve()).await;
    let reason = ended["cursor"].run.reason.clone().unwrap();
    assert!(reason.contains("131071") && reason.contains("prompt = \"stdin\""), "{reason}");
}

#[tokio::test]
async fn a_huge_output_costs_neither_the_result_nor_the_gateway() {
    let project = Project::new(ONE_SOURCE);
    // 64 MB of a line that is no JSON, then one line too long to be kept, then the result.
    let noise = "head -c 64000000 /dev/zero | tr '\\0' x; echo; printf '{\"result\":\"'; head -c 4000000 /dev/zero | tr '\\0' y; echo '\"}'";
    project.program(
        "amp",
        &format!("{noise}; echo '{{\"type\":\"result\",\"is_error\":false,\"result\":\"It is a bug.\"}}'"),
    );
    agent(&project, "amp", "", "preset = \"amp\"");
    let gateway = project.serve();
    let ended = ring_all(&gateway).await;
    assert_eq!(ended["amp"].run.result, Some(json!("It is a bug.")), "{:?}", ended["amp"].run.reason);
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 400_000, "{peak} kB");
}

/// Every script that `init` can write works at once.
#[tokio::test]
async fn a_new_project_of_a_script_runs_it() {
    for (preset, file) in [("shell", "agent.sh"), ("python", "agent.py")] {
        let project = Project::new("");
        let made = project.run(&["init", "fresh", "--preset", preset]);
        assert!(made.status.success(), "{made:?}");
        let script = project.path(&format!("fresh/agents/triage/{file}"));
        // Stands in for an interpreter that this machine may not have; it insists on what a real one would be given.
        let python = format!(
            "[ \"$1\" = '{}' ] && [ -f \"$1\" ] && [ \"$PYTHONUNBUFFERED\" = 1 ] || exit 9; grep -q '</event>' || exit 8
             grep -q 'json.dump' \"$1\" || exit 7; printf '{{\"seen\": \"x\", \"repo\": \"y\"}}' > $DOORBELL_OUTPUT_FILE",
            script.canonicalize().unwrap().display()
        );
        project.program("python3", &python);
        let _gateway =
            crate::support::Background::start(project.doorbell(&["serve", "--listen", "127.0.0.1:0", "-p", "fresh"]));
        wait_for("the gateway", || project.path("fresh/.doorbell/gateway.json").exists().then_some(()));
        assert!(project.run(&["ring", "github", "issues.opened", "-p", "fresh"]).status.success());
        let run = project.json(&["runs", "-p", "fresh"])["runs"][0]["id"].as_str().unwrap().to_owned();
        let run = wait_for("the run to end", || {
            let run = project.json(&["runs", "show", &run, "-p", "fresh"]);
            run["finishedAt"].is_string().then_some(run)
        });
        assert!(run["state"] == "succeeded" && run["result"].is_object(), "{preset}: {run}");
    }
}
