//! SKILL.md: optional front matter between `---` lines, then the instructions as a template.

use std::sync::Arc;

use doorbell_core::prompt::Template;

use super::document::Node;
use super::problem::{Place, Problem, Text};

/// What an agent's SKILL.md says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Skill {
    /// `description` of the front matter.
    pub(super) description: Option<String>,
    /// The body; none if it is blank.
    pub(super) instructions: Option<Template>,
}

/// Reads a SKILL.md. Of the front matter only simple lines `key: value` count, and of those only what is used.
pub(super) fn read(text: &Arc<Text>) -> Result<Skill, Problem> {
    let (front, start) = split(text)?;
    let description = front.lines().find_map(|line| scalar(line.strip_prefix("description:")?));
    let body = &text.text[start..];
    if body.trim().is_empty() {
        return Ok(Skill { description, instructions: None });
    }
    let template = Template::new(body).map_err(|error| {
        let message = format!("the template cannot be read: {}", error.message);
        let span = error.line.map_or(start..start, |line| line_of(body, line, start));
        Problem::at(&Place::new(text, span), message)
            .help("text between {{ and }} or {% and %} is a template; {% raw %}…{% endraw %} shows it as it is")
    })?;
    Ok(Skill { description, instructions: Some(template) })
}

/// The instructions of an agent that has no SKILL.md; none if they are blank.
pub(super) fn instructions(node: &Node) -> Result<Option<Template>, Problem> {
    let text = node.text("the text that a SKILL.md would have")?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let told = |error: doorbell_core::prompt::TemplateError| {
        let line = error.line.map(|line| format!(", line {line}")).unwrap_or_default();
        Problem::at(&node.place, format!("the template cannot be read{line}: {}", error.message))
            .help("text between {{ and }} or {% and %} is a template; {% raw %}…{% endraw %} shows it as it is")
    };
    Template::new(text).map(Some).map_err(told)
}

/// The front matter, and where the body begins.
fn split(text: &Arc<Text>) -> Result<(&str, usize), Problem> {
    let mut end = 0;
    let mut begin = None;
    for line in text.text.split_inclusive('\n') {
        let is_fence = line.trim_end() == "---";
        match begin {
            None if !is_fence => return Ok(("", 0)),
            None => begin = Some(end + line.len()),
            Some(begin) if is_fence => return Ok((&text.text[begin..end], end + line.len())),
            Some(_) => {}
        }
        end += line.len();
    }
    match begin {
        None => Ok(("", 0)),
        Some(_) => Err(Problem::at(&Place::new(text, 0..3), "the front matter has no end")
            .help("a line of three dashes ends it: ---")),
    }
}

/// A plain or quoted text; none for what is more than one line of text.
fn scalar(value: &str) -> Option<String> {
    let value = value.trim();
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    let is_block = value.starts_with(['>', '|', '[', '{']);
    (!text.is_empty() && !is_block).then(|| text.to_owned())
}

/// The place of a line of `body`, from 1, in the file where the body begins at `start`.
fn line_of(body: &str, number: usize, start: usize) -> std::ops::Range<usize> {
    let mut begin = start;
    for line in body.split_inclusive('\n').take(number.saturating_sub(1)) {
        begin += line.len();
    }
    let length = body.get(begin - start..).and_then(|rest| rest.lines().next()).map_or(0, str::len);
    begin..begin + length
}

#[cfg(test)]
mod tests {
    use super::super::problem::Layer;
    use super::*;

    fn text(text: &str) -> Arc<Text> {
        Arc::new(Text { layer: Layer::File, name: "SKILL.md".to_owned(), text: text.to_owned() })
    }

    #[test]
    fn the_front_matter_describes_and_the_body_instructs() {
        for (written, description, body) in [
            ("Do it.", None, Some("Do it.")),
            (
                "---\nname: x\ndescription: \"Does: it\"\nlicense: MIT\n---\nDo it.\n",
                Some("Does: it"),
                Some("Do it.\n"),
            ),
            ("---\r\ndescription: It's it\r\n---\r\nDo it.", Some("It's it"), Some("Do it.")),
            ("---\ndescription: >\n  long\n---\n\n", None, None),
            ("---\nmetadata:\n  description: no\n---\n---\n", None, Some("---\n")),
            ("", None, None),
        ] {
            let skill = read(&text(written)).unwrap();
            assert_eq!(skill.description.as_deref(), description, "{written:?}");
            assert_eq!(skill.instructions.as_ref().map(Template::as_str), body, "{written:?}");
        }
    }
}
