//! From the parser's places to places in the source.

use std::ops::Range;

use cel::parser::ParseErrors;

use super::Flaw;

/// Where things stand in the source.
#[derive(Clone, Copy)]
pub(super) struct Places<'s>(pub(super) &'s str);

impl Places<'_> {
    /// These bytes, widened to whole characters.
    pub(super) fn span(self, start: usize, end: usize) -> Range<usize> {
        let start = self.0.floor_char_boundary(start);
        start..self.0.ceil_char_boundary(end).max(start)
    }

    /// The first thing that the parser did not understand.
    pub(super) fn syntax(self, errors: &ParseErrors) -> Flaw {
        let Some(error) = errors.errors.first() else {
            return Flaw { message: "not CEL".to_owned(), help: None, at: 0..self.0.len() };
        };
        let line = usize::try_from(error.pos.0 - 1).unwrap_or(0);
        let before: usize = self.0.split_inclusive('\n').take(line).map(str::len).sum();
        // Unlike the places of nodes, columns count characters.
        let column = usize::try_from(error.pos.1 - 1).unwrap_or(0);
        let behind = self.0.get(before..).unwrap_or_default();
        let start = before + behind.char_indices().nth(column).map_or(behind.len(), |(at, _)| at);
        let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
        let message = match message.split_once(" expecting ") {
            _ if message.contains("ecursion") => "nested too deep",
            Some((what, _)) => what,
            None => message,
        };
        let message = message
            .replace("'<EOF>'", "end")
            .replace("mismatched input", "unexpected")
            .replace("extraneous input", "unexpected");
        Flaw { message: format!("not CEL: {message}"), help: None, at: self.span(start, start + 1) }
    }
}
