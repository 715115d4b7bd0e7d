//! `doorbell init`: makes a project that works at once.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use doorbell_core::secret::Secret;

use super::context::{self, Context};
use super::failure::{self, Exit, Failure};
use super::output;
use super::random;
use crate::config::{Credentials, Environment, Preset, presets};
use crate::runtime::find_program;

/// Make a project: a GitHub source with a secret of its own, and an agent
///
/// The agent is a shell script that needs no API key, unless `--preset` names another one. On a terminal it is asked for.
/// A folder that is a project already is left as it is.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell init my-project --preset claude && cd my-project && doorbell dev\n  doorbell init --preset shell"
)]
pub(super) struct InitArgs {
    /// The folder; it is made if it is not there
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What the agent is: a coding agent's command line, or a script
    #[arg(long, value_name = "NAME", value_parser = names())]
    preset: Option<String>,
}

/// A file of a new project.
#[derive(Debug)]
struct Template {
    path: &'static str,
    text: &'static str,
    mode: u32,
}

const PROJECT_FILE: &str = "config.toml";
const SECRET_TYPE: &str = "github_webhook_secret";
const SECRET_FIELD: &str = "secret";

/// The project's own file comes last: with it, the folder is a project.
const TEMPLATES: [Template; 4] = [
    Template { path: "agents/triage/config.toml", text: include_str!("init/agent.toml"), mode: 0o644 },
    Template { path: "agents/triage/SKILL.md", text: include_str!("init/SKILL.md"), mode: 0o644 },
    Template { path: ".gitignore", text: include_str!("init/gitignore"), mode: 0o644 },
    Template { path: PROJECT_FILE, text: include_str!("init/config.toml"), mode: 0o644 },
];

/// The scripts of the presets that run one.
const SCRIPTS: [(&str, Template); 2] = [
    (DEFAULT_PRESET, Template { path: "agents/triage/agent.sh", text: include_str!("init/agent.sh"), mode: 0o755 }),
    ("python", Template { path: "agents/triage/agent.py", text: include_str!("init/agent.py"), mode: 0o755 }),
];

/// It works at once, and without an API key.
const DEFAULT_PRESET: &str = "shell";

/// What was done, as `--json` prints it.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Made {
    project: PathBuf,
    preset: &'static str,
    created: Vec<&'static str>,
    kept: Vec<&'static str>,
    credential: String,
    secret_place: String,
    /// Why the agent's program could not start now.
    #[serde(skip_serializing_if = "Option::is_none")]
    unstartable: Option<String>,
}

pub(super) fn run(context: &Context, args: InitArgs) -> anyhow::Result<()> {
    if context.names_a_project() {
        return Err(Failure::usage("--project names a project that is there: say `doorbell init DIR`").into());
    }
    let preset = match args.preset {
        Some(name) => name,
        None if !context.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() => ask()?,
        None => DEFAULT_PRESET.to_owned(),
    };
    let mut made = create(&args.dir, &preset, &context::credentials())?;
    made.unstartable = why_unstartable(made.preset);
    if context.json {
        return output::json(&made);
    }
    Ok(output::line(next_steps(&made, &args.dir))?)
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(presets().iter().map(|preset| preset.name.as_str()))
}

/// Which preset it is to be.
fn ask() -> anyhow::Result<String> {
    let choice = |preset: &'static Preset| format!("{}: {}", preset.name, preset.title);
    let choices = presets().iter().map(choice).collect::<Vec<_>>();
    let first = presets().iter().position(|preset| preset.name == DEFAULT_PRESET).unwrap_or(0);
    let asked =
        inquire::Select::new("What is the agent? (a script works at once)", choices).with_starting_cursor(first);
    let chosen = asked.raw_prompt().map_err(failure::given_up)?;
    Ok(presets()[chosen.index].name.clone())
}

/// Makes a project in `dir` with an agent of this preset, and a secret among `credentials`.
pub(super) fn create(dir: &Path, preset: &str, credentials: &Credentials) -> anyhow::Result<Made> {
    let Some(preset) = presets().iter().find(|known| known.name == preset) else {
        return Err(Failure::usage(format!("there is no preset `{preset}`")).into());
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let project = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    if project.join(PROJECT_FILE).exists() {
        let message = format!("{} is a project already: it has a {PROJECT_FILE}", project.display());
        return Err(Failure::new(Exit::Failed, message).hint("nothing was changed").into());
    }
    let instance = free_instance(credentials, &instance_of(&project))?;
    let secret_place = keep_secret(credentials, &instance)?;
    let (mut created, mut kept) = (Vec::new(), Vec::new());
    let script = SCRIPTS.iter().filter(|(name, _)| *name == preset.name).map(|(_, template)| template);
    for template in script.chain(&TEMPLATES) {
        let text = template.text.replace("@INSTANCE@", &instance).replace("@TITLE@", &capitalised(&preset.title));
        let text = text.replace("@PRESET@", &preset.name).replace("@RUNTIME@", &runtime_lines(preset));
        let is_new = write_new(&project.join(template.path), &text, template.mode)?;
        if is_new { &mut created } else { &mut kept }.push(template.path);
    }
    Ok(Made {
        project,
        preset: &preset.name,
        created,
        kept,
        credential: format!("{SECRET_TYPE}:{instance}"),
        secret_place,
        unstartable: None,
    })
}

/// Why the program of a preset could not start, if its name is looked for in `PATH`.
fn why_unstartable(preset: &str) -> Option<String> {
    let preset = presets().iter().find(|known| known.name == preset)?;
    let program = preset.program().filter(|program| !program.contains('/'))?;
    find_program(program, None, Environment::read().var_os("PATH")).err().map(|why| why.to_string())
}

/// What stands below `preset = …`.
fn runtime_lines(preset: &Preset) -> String {
    let mut lines = Vec::new();
    if let Some(act) = &preset.act {
        lines.push(
            "# It may read and answer. To let it change files as well, which strangers may then make it do:".to_owned(),
        );
        lines.push(format!("# {act}"));
    }
    lines.extend(preset.remark.as_ref().map(|remark| format!("# Mind that {remark}.")));
    let mut credentials = vec!["github_token"];
    if let Some(key) = &preset.credential {
        lines.push(format!("# Its key, unless it is logged in already: `doorbell creds add {key}`."));
        credentials.insert(0, key);
    }
    lines.push(
        "# What else it is to know in secret, as environment variables (first `doorbell creds add github_token`):"
            .to_owned(),
    );
    lines.push(format!("# credentials = {credentials:?}"));
    lines.join("\n")
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), characters.as_str()))
}

/// A name that no secret has yet: one that is there is another project's, perhaps of a folder of the same name.
fn free_instance(credentials: &Credentials, name: &str) -> anyhow::Result<String> {
    let mut instance = name.to_owned();
    for number in 2.. {
        let there = credentials.find(SECRET_TYPE, &instance, SECRET_FIELD).context("cannot look for a secret")?;
        if there.is_none() {
            break;
        }
        instance = format!("{name}-{number}");
    }
    Ok(instance)
}

/// Keeps a new secret; answers where.
fn keep_secret(credentials: &Credentials, instance: &str) -> anyhow::Result<String> {
    let secret = Secret::new(random::secret());
    let path = credentials.add(SECRET_TYPE, instance, SECRET_FIELD, &secret).with_context(|| {
        let place = credentials.places(SECRET_TYPE, instance, SECRET_FIELD).pop().unwrap_or_default();
        format!("cannot keep a new secret in {place}")
    })?;
    Ok(path.display().to_string())
}

/// Writes a file that is not there yet; answers whether it was not.
fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<bool> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

/// The folder's name as an instance of a credential may be called.
fn instance_of(project: &Path) -> String {
    let name = project.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let spelled = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '-' };
    // Of the 64 that a name may have, some are left for a number.
    let name = name.chars().map(spelled).take(56).collect::<String>();
    match name.trim_matches(['-', '_']) {
        "" => "default".to_owned(),
        name => name.to_owned(),
    }
}

fn next_steps(made: &Made, dir: &Path) -> String {
    let mut lines = made.created.iter().map(|path| format!("made  {path}")).collect::<Vec<_>>();
    lines.extend(made.kept.iter().map(|path| format!("kept  {path} (it was there)")));
    lines.push(format!("secret  {} in {}", made.credential, made.secret_place));
    if let Some(why) = &made.unstartable {
        lines.push(format!("\nMind that its runs would fail now: {why}. `doorbell doctor` looks again."));
    }
    if made.kept.contains(&".gitignore") {
        lines.push("\nAdd .doorbell/ to .gitignore: the project's database and keys are in it.".to_owned());
    }
    let enter = if dir == Path::new(".") { String::new() } else { format!("  cd {}\n", quoted(dir)) };
    lines.push(format!(
        "\nNext:\n{enter}  doorbell dev                           run the gateway and watch\n  \
         doorbell ring github issues.opened     in another terminal: send it a signed sample\n\n\
         To connect GitHub, add a webhook under Settings → Webhooks of a repository:\n  \
         Payload URL   <the public URL of this gateway>/v1/webhooks/github/github\n  \
         Content type  application/json\n  \
         Secret        what {} holds\n  \
         Events        Issues\n\n\
         Other senders: `doorbell providers` lists them, `doorbell providers show NAME` says how each is set up.",
        made.secret_place
    ));
    output::escape_text(&lines.join("\n")).into_owned()
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn credentials(home: &Path) -> Credentials {
        Credentials::new(&[("HOME", home)].into_iter().collect())
    }

    #[test]
    fn a_new_project_loads_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("acme");
        let made = create(&dir, DEFAULT_PRESET, &credentials(home.path())).unwrap();
        assert_eq!((made.created.len(), made.credential.as_str()), (5, "github_webhook_secret:acme"));
        let environment = [("HOME", home.path())].into_iter().collect::<Environment>();
        let config = crate::config::load(&dir, &environment, &[]).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
        assert!(config.sources.contains_key("github") && config.agents.contains_key("triage"));
        let secret = fs::read_to_string(&made.secret_place).unwrap();
        assert!(!next_steps(&made, &dir).contains(&secret), "the secret is not shown");
    }

    #[test]
    fn two_projects_in_folders_of_one_name_do_not_share_a_secret() {
        let home = tempfile::tempdir().unwrap();
        let credentials = credentials(home.path());
        let secret = |folder: &str| {
            let made = create(&home.path().join(folder), DEFAULT_PRESET, &credentials).unwrap();
            let config = fs::read_to_string(made.project.join(PROJECT_FILE)).unwrap();
            let instance = made.credential.split_once(':').unwrap().1.to_owned();
            assert!(config.contains(&format!("credential = \"{instance}\"")), "{config}");
            (instance, fs::read_to_string(&made.secret_place).unwrap())
        };
        let all = ["a/app", "b/app", "c/app"].map(secret);
        assert_eq!(all.each_ref().map(|(instance, _)| instance.as_str()), ["app", "app-2", "app-3"]);
        assert!(all[0].1 != all[1].1 && all[1].1 != all[2].1);
    }

    #[test]
    fn what_is_there_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let credentials = credentials(home.path());
        let dir = home.path().join("acme");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(".gitignore"), "/target\n").unwrap();
        let made = create(&dir, DEFAULT_PRESET, &credentials).unwrap();
        assert_eq!(made.kept, [".gitignore"]);
        assert_eq!(fs::read_to_string(dir.join(".gitignore")).unwrap(), "/target\n");
        assert!(create(&dir, DEFAULT_PRESET, &credentials).is_err(), "it is a project now");
    }

    #[test]
    fn a_path_is_quoted_for_a_shell_where_it_needs_to_be() {
        assert_eq!(quoted(Path::new("../my-project")), "../my-project");
        assert_eq!(quoted(Path::new("it's mine")), r"'it'\''s mine'");
    }

    #[test]
    fn a_credential_is_named_like_the_folder() {
        for (folder, instance) in [
            ("/srv/acme", "acme"),
            ("/srv/My Project", "my-project"),
            ("/srv/.hidden", "hidden"),
            ("/srv/日本", "default"),
            ("/", "default"),
        ] {
            assert_eq!(instance_of(Path::new(folder)), instance);
        }
    }
}
