//! Printing: tables, JSON, and text from outside that must not play with the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Grid, Width, presets};
use serde::Serialize;

use crate::telemetry;

/// As many entries of a list as the gateway gives at once.
pub(super) const MOST: i64 = 500;

/// Prints a line, or several.
pub(super) fn line(text: impl AsRef<str>) -> io::Result<()> {
    telemetry::print(format!("{}\n", text.as_ref()).as_bytes())
}

/// Prints a sentence, on a terminal broken between words.
pub(super) fn sentence(text: impl AsRef<str>) -> io::Result<()> {
    line(wrap(text.as_ref(), terminal_width().unwrap_or(usize::MAX)).join("\n"))
}

/// Prints bytes as they are, or escaped if a terminal would show them.
pub(super) fn raw(bytes: &[u8]) -> io::Result<()> {
    if io::stdout().is_terminal() {
        return line(escape_text(&String::from_utf8_lossy(bytes)));
    }
    telemetry::print(bytes)
}

/// Prints a line for people; where standard output is for JSON, it goes to standard error.
pub(super) fn remark(json: bool, text: impl AsRef<str>) -> io::Result<()> {
    if json {
        note(text);
        return Ok(());
    }
    line(text)
}

/// Says something beside the result, on standard error.
pub(super) fn note(text: impl AsRef<str>) {
    telemetry::say(text.as_ref());
}

/// Prints JSON, indented.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(escape_json(&serde_json::to_string_pretty(value)?))?)
}

/// Prints JSON on one line, for streams.
pub(super) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(escape_json(&serde_json::to_string(value)?))?)
}

/// Between two columns.
const GAP: u16 = 2;

/// Free text is not wrapped to less: where so much does not fit, the terminal may break the lines.
const NARROWEST: u16 = 24;

/// A table without borders. Its cells stand on one line, so that ids and URLs can be copied; where the last column is
/// free text, that one is wrapped to fit the terminal, or stands below its row where the others leave it no room; with it those before it that do not fit either.
#[derive(Debug)]
pub(super) struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The columns of the terminal; none without one.
    width: Option<u16>,
    wraps: bool,
    keeps_lines: bool,
}

impl Table {
    /// A table with a line of titles; none, if there are no titles.
    pub(super) fn new(titles: &[&str]) -> Self {
        let titles = titles.iter().map(|title| (*title).to_owned()).collect();
        Self { titles, rows: Vec::new(), width: Grid::new().width(), wraps: false, keeps_lines: false }
    }

    /// The same with free text in the last column.
    #[must_use]
    pub(super) fn wrapping_last(self) -> Self {
        Self { wraps: true, ..self }
    }

    /// The same, and texts of the last column may have several lines: for texts that no sender has a word in.
    #[must_use]
    pub(super) fn keeping_lines(self) -> Self {
        Self { keeps_lines: true, ..self.wrapping_last() }
    }

    /// Adds a row. What is not text is shown escaped, line ends too: what a sender chose must not look like a row of its own. A
    /// text that is longer than anything to be read in a table is cut: laying it out takes the square of its length.
    pub(super) fn row<I: IntoIterator<Item: AsRef<str>>>(&mut self, cells: I) {
        let cells: Vec<String> = cells.into_iter().map(|cell| cut(cell.as_ref()).into_owned()).collect();
        let last = cells.len().saturating_sub(1);
        let escape = |(n, cell): (usize, &String)| match n == last && self.keeps_lines {
            true => escape_text(cell).into_owned(),
            false => escape_terminal(cell).into_owned(),
        };
        self.rows.push(cells.iter().enumerate().map(escape).collect());
    }

    /// The lines, without white space at their ends.
    pub(super) fn render(mut self) -> String {
        let Some((width, kept)) =
            self.width.map(usize::from).and_then(|width| Some((width, self.most_columns(width)?)))
        else {
            return self.lay_out();
        };
        // Lines of the last column stay lines.
        let below = |row: &mut Vec<String>| {
            let cells: Vec<String> = row.split_off(kept.min(row.len()));
            cells.into_iter().filter(|cell| !cell.is_empty() && cell != "-").collect::<Vec<_>>().join("  ")
        };
        let several = self.titles.len() > kept + 1;
        let title = Some(below(&mut self.titles)).filter(|_| several).unwrap_or_default();
        let mut texts: Vec<String> = self.rows.iter_mut().map(below).collect();
        if !self.titles.is_empty() {
            texts.insert(0, title);
        }
        self.wraps = false;
        let mut lines = Vec::new();
        for (line, text) in self.lay_out().lines().zip(texts) {
            lines.push(line.to_owned());
            let parts = text.lines().flat_map(|text| wrap(text, width.saturating_sub(BELOW.len())));
            lines.extend(parts.map(|part| format!("{BELOW}{part}")));
        }
        lines.join("\n")
    }

    /// How many columns stand beside each other where the last one, of free text, has too little room; none where it has enough.
    fn most_columns(&self, width: usize) -> Option<usize> {
        if !self.wraps {
            return None;
        }
        let lines = || self.rows.iter().chain([&self.titles]);
        let size = |cell: &String| cell.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let widest = |column| lines().filter_map(|row| row.get(column)).map(size).max().unwrap_or(0);
        let columns = lines().map(Vec::len).max().unwrap_or(0);
        let ends = |most: usize| (0..most).map(|column| widest(column) + usize::from(GAP)).sum::<usize>();
        let last = widest(columns.checked_sub(1)?).min(usize::from(NARROWEST));
        if ends(columns - 1) + last <= width {
            return None;
        }
        (1..columns).rev().find(|most| ends(*most) <= width + usize::from(GAP))
    }

    fn lay_out(self) -> String {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        match self.width {
            Some(width) => grid.set_width(width),
            None => grid.force_no_tty(),
        };
        if !self.titles.is_empty() {
            grid.set_header(self.titles);
        }
        grid.add_rows(self.rows);
        let content = grid.column_max_content_widths();
        let last = content.len().saturating_sub(1);
        for (n, (column, content)) in grid.column_iter_mut().zip(content).enumerate() {
            column.set_padding((0, GAP));
            column.set_constraint(if self.wraps && n == last {
                ColumnConstraint::LowerBoundary(Width::Fixed(content.min(NARROWEST) + GAP))
            } else {
                ColumnConstraint::ContentWidth
            });
        }
        grid.trim_fmt()
    }

    /// Prints it.
    pub(super) fn print(self) -> io::Result<()> {
        line(self.render())
    }
}

/// Before a text that stands below its row.
const BELOW: &str = "    ";

/// How many columns the terminal has; none if standard output is none.
pub(super) fn terminal_width() -> Option<usize> {
    Grid::new().width().map(usize::from)
}

/// The lines of a text, broken at spaces so that none has more than `width` characters; a longer word stays whole. Where
/// so little room is left that few words fit, the terminal may break it.
pub(super) fn wrap(text: &str, width: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while usize::from(NARROWEST) <= width
        && let Some((most, next)) = rest.char_indices().nth(width)
    {
        let is_inside = |at: &usize| !rest[..*at].trim_start().is_empty();
        // A space that just does not fit may be left out, too.
        let fits = rest[..most + next.len_utf8()].rmatch_indices(' ').map(|(at, _)| at).find(is_inside);
        let Some(at) = fits.or_else(|| rest.match_indices(' ').map(|(at, _)| at).find(is_inside)) else { break };
        lines.push(rest[..at].trim_end());
        rest = rest[at..].trim_start_matches(' ');
    }
    lines.push(rest);
    lines
}

/// The longest text in a cell, in characters: the texts of a context fit.
const LONGEST_CELL: usize = 4_100;

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_CELL) {
        Some((end, _)) => Cow::Owned(format!("{}… (cut; --json has it all)", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Text from outside for one line of a terminal: line ends, tabs, control, bidi and other format characters are shown as `\n` or `\u{..}`.
pub(super) fn escape_terminal(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// The same for text of several lines: line ends and tabs stay, and a line ends with a line feed alone.
pub(super) fn escape_text(text: &str) -> Cow<'_, str> {
    let keep = |c| matches!(c, '\n' | '\t');
    if text.contains("\r\n") {
        return Cow::Owned(escape(&text.replace("\r\n", "\n"), keep).into_owned());
    }
    escape(text, keep)
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let acts = |c: char| acts_on_terminals(c) && !keep(c);
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !acts(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c => escaped.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(escaped)
}

/// JSON that says the same and shows no such characters: in it, they stand in strings only.
pub(super) fn escape_json(json: &str) -> Cow<'_, str> {
    let acts = |c: char| c != '\n' && acts_on_terminals(c);
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character does something else to a terminal than being shown: Unicode's categories Cc, Cf, Zl and Zp, and
/// the invisible ones of the last planes.
fn acts_on_terminals(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{061C}' | '\u{06DD}' | '\u{070F}' | '\u{08E2}' | '\u{180E}' | '\u{FEFF}'
            | '\u{0600}'..='\u{0605}' | '\u{0890}'..='\u{0891}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FFF9}'..='\u{FFFB}' | '\u{110BD}' | '\u{110CD}'
            | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{10FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_escaped() {
        assert_eq!(escape_terminal("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape_terminal("a\u{202e}b\u{2066}c\u{200b}"), "a\\u{202e}b\\u{2066}c\\u{200b}");
        assert_eq!(escape_terminal("\u{9b}31m\r\n\t\u{7f}"), "\\u{9b}31m\\r\\n\\t\\u{7f}");
        assert_eq!(escape_terminal("tag\u{e0041}"), "tag\\u{e0041}");
    }

    #[test]
    fn text_of_all_languages_stays() {
        for text in ["für", "日本語", "עברית", "émoji 🎉", "a b"] {
            assert!(matches!(escape_terminal(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn text_of_several_lines_keeps_them() {
        assert_eq!(escape_text("a\n\tb\r\u{1b}"), "a\n\tb\\r\\u{1b}");
        assert_eq!(escape_text("a\r\nb\r\n\u{1b}\r"), "a\nb\n\\u{1b}\\r");
    }

    #[test]
    fn json_says_the_same_when_escaped() {
        let value = serde_json::json!({"a": "x\u{9b}y\u{202e}z\u{e0041}\u{7f}🎉\n", "b": ["\u{feff}"]});
        let plain = serde_json::to_string_pretty(&value).unwrap_or_default();
        let escaped = escape_json(&plain);
        assert!(!escaped.contains(|c| c != '\n' && acts_on_terminals(c)));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).ok(), Some(value));
    }

    #[test]
    fn a_table_has_no_borders_and_no_white_space_at_the_ends() {
        let mut table = Table::new(&["ID", "EVENT"]);
        table.row(["evt_1", "github.push"]);
        table.row(["evt_22", "evil\u{1b}[0m"]);
        let lines = ["ID      EVENT", "evt_1   github.push", "evt_22  evil\\u{1b}[0m"];
        assert_eq!(table.render(), lines.join("\n"));
    }

    #[test]
    fn a_sender_cannot_forge_a_row() {
        let mut table = Table::new(&["KEY", "STATE"]);
        table.row(["a\nb        succeeded\r\n\u{2028}c", "failed"]);
        let shown = table.render();
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.ends_with("a\\nb        succeeded\\r\\n\\u{2028}c  failed"), "{shown}");
    }

    #[test]
    fn a_text_that_no_sender_has_a_word_in_may_have_lines() {
        let mut table = Table::new(&[]).keeping_lines();
        table.row(["WARN\n", "none is set\n→ set \u{1b}one"]);
        assert_eq!(table.render(), "WARN\\n  none is set\n        → set \\u{1b}one");
    }

    #[test]
    fn an_endless_text_in_a_cell_is_cut_before_it_is_laid_out() {
        let mut table = Table::new(&["ID", "WHY"]).wrapping_last();
        table.width = Some(80);
        table.row(["evt_1", &"S".repeat(5_000_000)]);
        let shown = table.render();
        assert!(shown.len() < 20_000 && shown.contains("--json"), "{} bytes", shown.len());
    }

    #[test]
    fn only_free_text_is_wrapped() {
        let id = format!("evt_{}", "0".repeat(26));
        let url = format!("http://gateway/v1/webhooks/github/{}", "a".repeat(60));
        let why = "the agent ended with exit code 1 after it had said at length what it could not do";
        for (cells, wraps) in [([id.as_str(), why], true), ([url.as_str(), why], true), ([id.as_str(), &url], false)] {
            let mut table = Table::new(&["ID", "WHY"]);
            table.wraps = wraps;
            table.width = Some(80);
            table.row(cells);
            let shown = table.render();
            assert!(shown.lines().any(|line| line.starts_with(cells[0])), "{shown}");
            assert_eq!(shown.lines().count() > 2, wraps, "{shown}");
            assert!(wraps || shown.contains(&url), "{shown}");
            assert!(cells[0] == url || !wraps || shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        }
    }

    #[test]
    fn free_text_without_room_stands_below_its_row() {
        let mut table = Table::new(&["ID", "AGENT", "WHY"]).wrapping_last();
        table.width = Some(40);
        table.row(["run_000000000000000", "triage", "it ended with exit code 1 and said nothing"]);
        table.row(["run_000000000000001", "triage", ""]);
        let lines = [
            "ID                   AGENT",
            "run_000000000000000  triage",
            "    it ended with exit code 1 and said",
            "    nothing",
            "run_000000000000001  triage",
        ];
        assert_eq!(table.render(), lines.join("\n"));
        let mut table = Table::new(&["ID", "AGENT", "STATE", "WHY"]).wrapping_last();
        table.width = Some(30);
        table.row(["run_000000000000000", "triage", "failed", "it broke"]);
        let lines =
            ["ID                   AGENT", "    STATE  WHY", "run_000000000000000  triage", "    failed  it broke"];
        assert_eq!(table.render(), lines.join("\n"));
    }

    #[test]
    fn lines_are_broken_between_words_only() {
        let text = "matched triage by trigger #1 https://example.com/a/long/address end";
        assert_eq!(wrap(text, 28), ["matched triage by trigger #1", "https://example.com/a/long/address", "end"]);
        assert_eq!(wrap(text, 200), [text]);
        assert_eq!(wrap("", 80), [""]);
        assert_eq!(wrap(text, 5), [text], "too narrow for anything");
        let wide = "ä".repeat(30);
        assert_eq!(wrap(&format!("{wide} {wide} x"), 32), [wide.as_str(), &format!("{wide} x")]);
        assert_eq!(wrap(&format!("   {wide}  {wide}"), 40), [format!("   {wide}"), wide]);
    }

    #[test]
    fn without_a_terminal_nothing_is_wrapped() {
        let mut table = Table::new(&["ID", "WHY"]).wrapping_last();
        table.width = None;
        let why = "so it is ".repeat(40);
        table.row(["evt_1", &why]);
        assert_eq!(table.render().lines().count(), 2);
    }
}
