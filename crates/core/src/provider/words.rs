//! What is said to the people who wait where an event came from.

use super::Ended;

/// How a run ended, in as many words as it takes.
pub(super) fn report(ended: &Ended<'_>) -> String {
    let text = ended.text.trim();
    match (ended.succeeded, text.is_empty()) {
        (true, false) => text.to_owned(),
        (true, true) => format!("`{}` is done.", ended.agent),
        (false, false) => format!("`{}` failed: {text}", ended.agent),
        (false, true) => format!("`{}` failed.", ended.agent),
    }
}

/// The text with each character written as `escape` says, cut with an ellipsis to `limit` units of UTF-16: the
/// largest count that anybody has of a text, and never in the middle of an escape.
pub(super) fn fit(text: &str, limit: usize, escape: impl Fn(char) -> Option<&'static str>) -> String {
    let width = |character: char| escape(character).map_or(character.len_utf16(), str::len);
    let whole = text.chars().map(width).sum::<usize>() <= limit;
    let mut left = if whole { limit } else { limit.saturating_sub(1) };
    let mut fitting = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        let Some(rest) = left.checked_sub(width(character)) else { break };
        left = rest;
        match escape(character) {
            Some(escaped) => fitting.push_str(escaped),
            None => fitting.push(character),
        }
    }
    if !whole {
        fitting.push('…');
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_only_when_it_is_too_long_and_never_inside_of_an_escape() {
        let amp = |character| (character == '&').then_some("&amp;");
        assert_eq!(fit("abc", 3, amp), "abc");
        assert_eq!(fit("abcd", 3, amp), "ab…");
        assert_eq!(fit("a&b", 7, amp), "a&amp;b");
        assert_eq!(fit("a&b", 6, amp), "a…");
        assert_eq!(fit("🔔🔔", 3, amp), "🔔…");
        assert_eq!(fit("", 3, amp), "");
    }

    #[test]
    fn a_report_always_says_something() {
        let ended = |succeeded, text| report(&Ended { agent: "triage", succeeded, text, first: true });
        assert_eq!(ended(true, " 7 issues \n"), "7 issues");
        assert_eq!(ended(true, "\n"), "`triage` is done.");
        assert_eq!(ended(false, "timed out"), "`triage` failed: timed out");
        assert_eq!(ended(false, ""), "`triage` failed.");
    }
}
