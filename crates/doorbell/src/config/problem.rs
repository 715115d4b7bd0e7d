//! What is wrong with a configuration: where, why, and what to write instead.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::Setting;

/// Problems that are shown in full: enough to work on, and a hostile file cannot make more.
const MOST_SHOWN: usize = 50;

/// The longest line that is shown, in bytes.
const LONGEST_LINE: usize = 4000;

/// Where a text of the configuration came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// The embedded defaults.
    Default,
    /// A preset that is built in; there is nothing to show of it.
    Preset,
    /// A file of the project.
    File,
    /// A value of a declaration; its name is the value's path, and there is nothing to show of it.
    Declaration,
    /// One variable; the text is `NAME=value`.
    Environment,
    /// One flag; the text is `--name=value`.
    Flag,
}

/// A text of the configuration with its name.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) layer: Layer,
    pub(super) name: String,
    pub(super) text: String,
}

/// A piece of a text.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) text: Arc<Text>,
    pub(super) span: Range<usize>,
}

impl Place {
    pub(super) fn new(text: &Arc<Text>, span: Range<usize>) -> Self {
        Self { text: Arc::clone(text), span }
    }

    /// A file or folder as a whole, of which there is nothing to show.
    pub(super) fn path(name: impl Into<String>) -> Self {
        Self::new(&Arc::new(Text { layer: Layer::File, name: name.into(), text: String::new() }), 0..0)
    }

    /// A value of a declaration, by its path.
    pub(super) fn of_value(path: &str) -> Self {
        Self::new(&Arc::new(Text { layer: Layer::Declaration, name: path.to_owned(), text: String::new() }), 0..0)
    }

    /// Where it is, as `Setting::origin` says it.
    pub(super) fn origin(&self) -> String {
        let name = &self.text.name;
        match self.text.layer {
            Layer::Default => "default".to_owned(),
            Layer::Preset => name.clone(),
            Layer::Declaration => format!("declared: {name}"),
            Layer::File if self.text.text.is_empty() => name.clone(),
            Layer::File => format!("{name}:{}", self.line().0),
            Layer::Environment => format!("env {name}"),
            Layer::Flag => format!("flag {name}"),
        }
    }

    /// The number, from 1, the start and the text of its first line.
    fn line(&self) -> (usize, usize, &str) {
        let text = &self.text.text;
        let before = text.get(..self.span.start).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        (before.matches('\n').count() + 1, start, line)
    }

    /// Files first and in order, the project's own one before those of its agents.
    fn order(&self) -> (Layer, bool, &str, usize) {
        (self.text.layer, self.text.name.contains('/'), &self.text.name, self.span.start)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    place: Option<Place>,
    message: String,
    help: Vec<String>,
    hidden: bool,
}

impl Problem {
    pub(super) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { place: Some(place.clone()), ..Self::anywhere(message) }
    }

    pub(super) fn anywhere(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), help: Vec::new(), hidden: false }
    }

    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Does not show the line: there may be a secret in it.
    #[must_use]
    pub(super) fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    fn order(&self) -> (Option<(Layer, bool, &str, usize)>, &str) {
        (self.place.as_ref().map(Place::order), &self.message)
    }

    fn render(&self, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(visible(&self.message));
        let mut group = match &self.place {
            Some(place) => show(title, place, self.hidden),
            None => Group::with_title(title),
        };
        for help in &self.help {
            group = group.element(Level::HELP.message(visible(help)));
        }
        renderer.render(&[group])
    }
}

/// The line of a place with a mark below it.
fn show<'a>(title: annotate_snippets::Title<'a>, place: &'a Place, hidden: bool) -> Group<'a> {
    let (number, start, line) = place.line();
    let begin = place.span.start.saturating_sub(start).min(line.len());
    let in_file = matches!(place.text.layer, Layer::File | Layer::Default);
    if place.text.text.is_empty() {
        return title.element(Origin::path(place.text.name.as_str()));
    }
    if hidden || line.len() > LONGEST_LINE || may_hold_a_secret_url(place, line) {
        let column = line.get(..begin).map_or(1, |before| before.chars().count() + 1);
        let origin = Origin::path(place.text.name.as_str());
        return title.element(if in_file { origin.line(number).char_column(column) } else { origin });
    }
    let end = place.span.end.saturating_sub(start).clamp(begin, line.len());
    let mark = AnnotationKind::Primary.span(begin..end);
    let snippet = Snippet::source(mask_passwords(line)).line_start(number).annotation(mark);
    title.element(if in_file { snippet.path(place.text.name.as_str()) } else { snippet.line_numbering(false) })
}

/// Whether a line may hold the URL of a notification or of an agent, or a header that is sent there: the path of a chat
/// service's is its secret, and what is wrong with the line may be that nobody can tell where the URL ends. That of a
/// notification can only stand after the word.
fn may_hold_a_secret_url(place: &Place, line: &str) -> bool {
    let (_, start, _) = place.line();
    let until = place.text.text.get(..start + line.len()).unwrap_or(&place.text.text).to_ascii_lowercase();
    let line = line.to_ascii_lowercase();
    let is_there = |words: &[&str]| words.iter().any(|word| line.contains(word));
    (until.contains("notifications") && is_there(&["url", "http", "//"]))
        || (place.text.text.contains("\"http\"") && is_there(&["url", "//", "header", "authorization", "prefix"]))
}

/// Without control characters, line ends excepted, and not endless: a message may quote a file, and a file may try to
/// fool a terminal.
fn visible(text: &str) -> String {
    text.chars().take(LONGEST_LINE).map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The passwords of URLs (`scheme://user:password@host`) as stars, one for each byte, so that places stay where they
/// are.
pub(super) fn mask_passwords(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let authority = after.find(['/', '"', '\'', ' ', '\t']).unwrap_or(after.len());
        let secret = after[..authority].rfind('@').and_then(|end| Some((after[..end].find(':')? + 1, end)));
        rest = match secret {
            Some((start, end)) => {
                masked.push_str(&after[..start]);
                masked.push_str(&"*".repeat(end - start));
                &after[end..]
            }
            None => after,
        };
    }
    masked.push_str(rest);
    masked
}

/// Everything that is wrong with a configuration, in the order of its files and lines.
#[derive(Clone)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.order().cmp(&b.order()));
        // A mistake among the defaults is found again by every agent.
        problems.dedup_by(|a, b| a.order() == b.order());
        Self(problems)
    }

    /// Each as the field of a declaration that it is about, what it is, and what to do.
    pub(super) fn flaws(&self) -> Vec<Flaw> {
        let one = |problem: &Problem| Flaw {
            field: problem.place.as_ref().map(|place| place.text.name.clone()).unwrap_or_default(),
            message: visible(&problem.message),
            help: problem.help.iter().find(|help| !is_toml(help)).map(|help| visible(help)),
        };
        self.0.iter().map(one).collect()
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them, each as where and what it is, and what to do.
    pub fn list(&self) -> Vec<(String, String)> {
        let one = |problem: &Problem| {
            let place = problem.place.as_ref().map(|place| format!("{}: ", place.origin())).unwrap_or_default();
            (visible(&format!("{place}{}", problem.message)), visible(&problem.help.join("\n")))
        };
        self.0.iter().map(one).collect()
    }

    /// All of them for people: message, place, line and advice; `color` for a terminal.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let shown = self.0.iter().take(MOST_SHOWN).map(|problem| problem.render(&renderer));
        let mut text = shown.collect::<Vec<_>>().join("\n\n");
        match self.0.len() {
            0 | 1 => {}
            n if n > MOST_SHOWN => text.push_str(&format!("\n\n{n} problems, the first {MOST_SHOWN} are shown")),
            n => text.push_str(&format!("\n\n{n} problems")),
        }
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// One thing that is wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The path of the value, e.g. `webhooks[0].events`; empty: the declaration as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Whether an advice shows lines of a file, or folders of this machine: of no use to who declares an agent.
fn is_toml(help: &str) -> bool {
    let key = help.split(" = ").next().unwrap_or_default();
    help.contains('\n') || help.starts_with('[') || (key.len() < help.len() && !key.contains(' '))
}

/// What reading a configuration brings up beside its values.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) settings: Vec<Setting>,
    settled: BTreeSet<String>,
}

impl Findings {
    pub(super) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The value, or a problem more.
    pub(super) fn take<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problem(problem)).ok()
    }

    pub(super) fn warn(&mut self, place: &Place, sentence: impl fmt::Display) {
        let warning = visible(&format!("{}: {sentence}", place.origin()));
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Notes a value in force; the first word on a path counts.
    pub(super) fn setting(&mut self, path: String, value: String, origin: String) {
        if self.settled.insert(path.clone()) {
            self.settings.push(Setting { path, value, origin });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_stars_of_the_same_length() {
        let masked = mask_passwords(r#"url = "postgres://me:p:w@d@host/db" # http://a/b http://x:y@z"#);
        assert_eq!(masked, r#"url = "postgres://me:*****@host/db" # http://a/b http://x:*@z"#);
    }
}
