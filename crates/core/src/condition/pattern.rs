//! The patterns of `matches`: searched piece by piece, so that a search ends when nobody waits for it any more.
//!
//! A search takes up to pattern times text, seconds for the largest of both, and the engines behind [`Regex`] do not look
//! up while they search. A lazy automaton can be asked byte by byte.

use regex::{Regex, RegexBuilder};
use regex_automata::Input;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;

use super::functions::unsuited;
use super::value::Value;
use super::{Failure, Meter};

/// The longest pattern of `matches`, in bytes.
pub const LONGEST_PATTERN: usize = 256;

/// The longest text that `matches` searches, in bytes.
pub const LONGEST_SUBJECT: usize = 64 << 10;

/// The largest compiled pattern, in bytes: what a pattern with counted repetitions may grow to.
const LARGEST_PATTERN: usize = 256 << 10;

/// What an automaton may keep of what it learnt of a text, in bytes.
const LARGEST_CACHE: usize = 1 << 20;

/// Bytes that are searched between two looks at whether to stop. Each may take as long as there are states: some
/// thousands, some tens of microseconds.
const PIECE: usize = 128;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    automaton: DFA,
    /// For texts that the automaton cannot decide: bounds of words among characters beyond ASCII.
    whole: Regex,
}

impl Pattern {
    /// Compiles a pattern, or says why it is none.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST_PATTERN {
            return Err(format!("the pattern has {} bytes, and {LONGEST_PATTERN} are the most", text.len()));
        }
        let whole = RegexBuilder::new(text).size_limit(LARGEST_PATTERN).dfa_size_limit(LARGEST_PATTERN).build();
        let whole = whole.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => TOO_LARGE.to_owned(),
            other => {
                format!("not a regular expression: {}", other.to_string().lines().last().unwrap_or_default().trim())
            }
        })?;
        let small = thompson::Config::new().nfa_size_limit(Some(LARGEST_PATTERN));
        let lazy =
            DFA::config().unicode_word_boundary(true).cache_capacity(LARGEST_CACHE).skip_cache_capacity_check(true);
        let automaton = DFA::builder().thompson(small).configure(lazy).build(text).map_err(|_| TOO_LARGE.to_owned())?;
        Ok(Self { automaton, whole })
    }

    /// Searches a text.
    pub(super) fn is_in(&self, subject: &Value<'_>, meter: &mut Meter<'_>) -> Result<bool, Failure> {
        let Value::Text(text) = subject else { return Err(unsuited("matches", subject)) };
        if text.len() > LONGEST_SUBJECT {
            let message =
                format!("`matches` searches {LONGEST_SUBJECT} bytes at most, and the text has {}", text.len());
            return Err(Failure::Failed(message));
        }
        match self.walk(text, meter)? {
            Some(found) => Ok(found),
            None => {
                // Each byte takes up to a third of a step for each state.
                let states = self.automaton.get_nfa().states().len();
                meter.spend((text.len() * states / 3) as u64)?;
                Ok(self.whole.is_match(text))
            }
        }
    }

    /// Whether the pattern is in the text; none if the automaton cannot tell.
    fn walk(&self, text: &str, meter: &mut Meter<'_>) -> Result<Option<bool>, Failure> {
        let mut cache = Cache::new(&self.automaton);
        let automaton = &self.automaton;
        let Ok(mut state) = automaton.start_state_forward(&mut cache, &Input::new(text)) else { return Ok(None) };
        for piece in text.as_bytes().chunks(PIECE) {
            meter.spend(piece.len() as u64)?;
            meter.look()?;
            for byte in piece {
                let Ok(next) = automaton.next_state(&mut cache, state, *byte) else { return Ok(None) };
                state = next;
                if state.is_match() {
                    return Ok(Some(true));
                } else if state.is_dead() {
                    return Ok(Some(false));
                } else if state.is_quit() {
                    return Ok(None);
                }
            }
        }
        // What ends with the text shows only there.
        Ok(automaton.next_eoi_state(&mut cache, state).ok().map(|last| last.is_match()))
    }
}

const TOO_LARGE: &str = "the pattern is too large: it repeats too much too often";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::borrow::Cow;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    static GO: AtomicBool = AtomicBool::new(false);

    fn is_in(pattern: &str, text: &str) -> Result<bool, Failure> {
        let mut meter = Meter::new(&GO);
        meter.begin();
        Pattern::new(pattern).unwrap().is_in(&Value::Text(Cow::Borrowed(text)), &mut meter)
    }

    const PARTS: &[&str] = &[
        "a", "b", "ü", "-", "^", "$", ".", "|", "*", "+", "?", "(", ")", "[ab]", "[^a]", "{2}", "\\b", "\\B", "\\w",
        "\\d+", "(?i)", "(?-u)", "(?m)", "\\bab\\b",
    ];

    proptest! {
        #[test]
        fn a_search_piece_by_piece_finds_what_a_whole_one_finds(
            parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..7),
            text in "[abcü \n-9]{0,200}",
        ) {
            let pattern = parts.concat();
            if let Ok(plain) = Regex::new(&pattern) {
                prop_assert_eq!(is_in(&pattern, &text), Ok(plain.is_match(&text)), "{} in {:?}", pattern, text);
            }
        }
    }

    #[test]
    fn a_search_that_would_take_seconds_ends_when_nobody_waits_for_it() {
        let pattern = Pattern::new("(?-u)[ab]*a[ab]{3500}c").unwrap();
        let mut random = 7u32;
        let text: String = std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random >> 31 == 0 { 'a' } else { 'b' }
        })
        .take(LONGEST_SUBJECT)
        .collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (begun, begin) = std::sync::mpsc::channel();
            let (pattern, text, told) = (&pattern, &text, &stop);
            let search = scope.spawn(move || {
                let mut meter = Meter::new(told);
                meter.begin();
                begun.send(()).unwrap();
                pattern.is_in(&Value::Text(Cow::Borrowed(text)), &mut meter)
            });
            begin.recv().unwrap();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(search.join().unwrap(), Err(Failure::Stopped));
        });
    }
}
