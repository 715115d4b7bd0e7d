//! Names: which are allowed, and which one was probably meant.

/// The longest name of a source, an agent or a credential, in bytes.
const LONGEST: usize = 64;

/// What a name must look like, for messages.
pub(super) const NAME_RULE: &str =
    "a name begins with one of a-z and 0-9 and goes on with those, `_` and `-`, 64 characters at most";

/// Which names are Doorbell's own, for messages: those for which [`doorbell_core::event::is_own`].
pub(super) const OWN_RULE: &str = "events that Doorbell makes itself are stored under `doorbell`, `schedule`, `manual` and \
                                   `agent`, and could not be told from those that came: choose another name";

/// Whether it matches `[a-z0-9][a-z0-9_-]{0,63}`.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= LONGEST
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'-'))
}

/// Whether it matches `[A-Za-z_][A-Za-z0-9_]*`.
pub(super) fn is_variable(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = snake(word);
    let closeness = |candidate: &str| {
        let distance = strsim::damerau_levenshtein(&word, candidate);
        let near = distance <= (candidate.len() / 3).max(1) || strsim::jaro_winkler(&word, candidate) > 0.88;
        near.then_some(distance)
    };
    if word.len() > LONGEST {
        return None;
    }
    let close = candidates.into_iter().filter_map(|candidate| Some((closeness(candidate)?, candidate)));
    close.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// The known word that `word` is but for its case and a slip of the keyboard; none if it is known.
pub(super) fn misspelt<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if known.contains(&word) || word.len() > LONGEST {
        return None;
    }
    let (word, slips) = (word.to_ascii_lowercase(), if word.len() < 8 { 1 } else { 2 });
    let close = known.iter().map(|known| (strsim::damerau_levenshtein(&word, known), *known));
    close.filter(|(distance, _)| *distance <= slips).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// `workQueueSize` and `WORK-QUEUE-SIZE` as `work_queue_size`.
fn snake(word: &str) -> String {
    let mut snake = String::with_capacity(word.len());
    let mut after_small = false;
    for c in word.chars() {
        if c.is_ascii_uppercase() && after_small {
            snake.push('_');
        }
        after_small = c.is_ascii_lowercase();
        snake.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    snake
}

/// `work_queue_size` as `workQueueSize`.
pub(super) fn camel(word: &str) -> String {
    let mut words = word.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// Names as a sentence lists them.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        for good in ["a", "0", "acme-github", "a_b-c", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a b", "a.b", "a/b", "ä", "..", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn typing_errors_and_other_spellings_find_what_was_meant() {
        let keys = ["repos", "events", "work_queue_size", "timeout", "when_full"];
        for (word, meant) in [
            ("repo", Some("repos")),
            ("repository", Some("repos")),
            ("evnets", Some("events")),
            ("workqueuesize", Some("work_queue_size")),
            ("whenFull", Some("when_full")),
            ("time-out", Some("timeout")),
            ("color", None),
        ] {
            assert_eq!(nearest(word, keys), meant, "{word}");
        }
    }
}
