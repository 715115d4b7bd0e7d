//! Commands that ask a person on a terminal before they do what cannot be taken back.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use crate::support::{ONE_SOURCE, PROGRAM, Project, sample};

/// What a command shows on a terminal of its own, where `answer` is typed once it asks; and whether it went on.
fn on_a_terminal(project: &Project, command: &str, answer: &str) -> (String, bool) {
    // Wide enough that no question is broken into lines.
    let line = format!("stty rows 50 cols 250; '{PROGRAM}' {command}");
    let mut typed = project.prepare("timeout", &["60", "script", "-qefc", &line, "/dev/null"]);
    typed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).env("TERM", "xterm");
    let mut child = typed.spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut piece, mut answered) = (Vec::new(), [0; 1024], false);
    // A terminal that is gone is read with an error on some systems.
    while let Ok(read @ 1..) = screen.read(&mut piece) {
        shown.extend_from_slice(&piece[..read]);
        if !answered && String::from_utf8_lossy(&shown).contains("(y/N)") {
            answered = true;
            keyboard.write_all(format!("{answer}\r").as_bytes()).unwrap();
            keyboard.flush().unwrap();
        }
    }
    let went_on = child.wait().unwrap().success();
    (String::from_utf8_lossy(&shown).into_owned(), went_on)
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_asked_on_a_terminal_and_not_in_a_script() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", "[[webhooks]]\nsource = \"acme\"", "exec sleep 1000");
    let gateway = project.serve();
    gateway.ring(sample("issues.opened")).await;
    project.write("agent.json", r#"{"runtime":{"type":"worker"}}"#);
    project.json(&["agents", "declare", "coded", "--file", "agent.json"]);
    let hook = project.json(&["webhooks", "create", "triage", "--name", "pushes"]);
    let key = project.json(&["keys", "create", "--name", "ci", "--role", "viewer"]);
    let (hook, key) = (hook["webhookId"].as_str().unwrap(), key["keyId"].as_str().unwrap());
    let asked = [
        (format!("webhooks rotate triage {hook} --overlap 0s"), "no overlap"),
        ("agents webhook triage --enable --auth none".to_owned(), "Anybody who knows the URL"),
        ("secrets rekey".to_owned(), "Seal all secrets"),
        ("replay --source acme".to_owned(), "1 events out once more"),
        ("runs cancel --agent triage".to_owned(), "End 1 run?"),
        ("agents rm coded".to_owned(), "Remove coded?"),
        (format!("keys rm {key}"), "Whoever uses it is refused"),
    ];
    for (command, says) in &asked {
        let (shown, went_on) = on_a_terminal(&project, command, "n");
        assert!(!went_on && shown.contains(says) && shown.contains("nothing was changed"), "{command}: {shown}");
    }
    assert!(gateway.client.agent("coded").await.is_ok(), "nothing was changed");
    let words: Vec<&str> = asked[5].0.split(' ').collect();
    assert!(project.run(&words).status.success(), "a script is not asked");
    for command in [format!("{} --yes", asked[6].0), format!("{} --yes", asked[4].0)] {
        let (shown, went_on) = on_a_terminal(&project, &command, "n");
        assert!(went_on && !shown.contains("(y/N)"), "{command}: {shown}");
    }
    let (shown, went_on) = on_a_terminal(&project, &asked[0].0, "y");
    assert!(went_on && shown.contains("(y/N)"), "{shown}");
}
