//! Looking for events: what a question asks for, and whether a text says it.
//!
//! Texts and questions are cut into words in the same way: at whatever is no letter and no digit. What stands together in a
//! question (`acme/app`, `issues.opened`, `PROJ-12`, an address) is several words that must follow each other. There are no
//! operators: nothing in a question can mean anything but words.

use crate::event::{Context, Value};

mod body;
mod words;

pub use body::read_body;
pub use words::read_words;

/// Characters in a question.
pub const LONGEST: usize = 200;
/// Digits of a number that is looked for as a whole: `#42` does not mean 420. Longer ones are ids, of which people know the
/// beginning.
const WHOLE_NUMBER: usize = 6;
/// Words of a term that are looked for together; a longer one is looked for in pieces, which must all be there.
const TOGETHER: usize = u64::BITS as usize;

/// What is looked for: all terms must be found, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    terms: Vec<Term>,
}

/// Words that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    words: Vec<Word>,
}

/// A word of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As [`read_words`] has it.
    pub text: String,
    /// Whether it must end there; else it is the beginning of a word.
    pub whole: bool,
}

/// A question that is longer than [`LONGEST`] characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is looked for may have up to {LONGEST} characters")]
pub struct TooLong;

impl Search {
    /// Reads a question: words with white space between, and phrases in quotation marks. Without a letter or a digit in it, it
    /// is empty and finds everything.
    ///
    /// # Errors
    /// If it is too long.
    pub fn parse(question: &str) -> Result<Self, TooLong> {
        if question.chars().count() > LONGEST {
            return Err(TooLong);
        }
        let mut search = Self::default();
        let quotes = question.matches('"').count();
        for (place, part) in question.split('"').enumerate() {
            match place % 2 {
                0 => part.split_whitespace().for_each(|word| search.add(word, false)),
                // One that is not closed yet is still being written.
                _ => search.add(part, place < quotes),
            }
        }
        Ok(search)
    }

    fn add(&mut self, text: &str, closed: bool) {
        let mut words = Vec::new();
        read_words(text, |word| words.push(Word { text: word.to_owned(), whole: true }));
        if let Some(last) = words.last_mut() {
            last.whole = closed || is_number(&last.text);
        }
        self.terms.extend(words.chunks(TOGETHER).map(|words| Term { words: words.to_vec() }));
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Every word that must be there.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.terms.iter().flat_map(|term| &term.words)
    }

    /// Begins to look at what one event says.
    pub fn begin(&self) -> Looking<'_> {
        let terms = self.terms.iter().map(|term| Progress { words: &term.words, at: 0 }).collect();
        Looking { terms }
    }
}

fn is_number(word: &str) -> bool {
    word.len() <= WHOLE_NUMBER && word.bytes().all(|byte| byte.is_ascii_digit())
}

impl Word {
    fn fits(&self, word: &str) -> bool {
        if self.whole { word == self.text } else { word.starts_with(&self.text) }
    }
}

/// What was found of a question so far, in the texts of one event.
#[derive(Debug)]
pub struct Looking<'a> {
    /// Those that were not found yet.
    terms: Vec<Progress<'a>>,
}

#[derive(Debug)]
struct Progress<'a> {
    words: &'a [Word],
    /// Bit n: the last words that were read are the first n + 1 of the term.
    at: u64,
}

impl Looking<'_> {
    /// Looks at a text. No term goes on from one text to the next.
    pub fn read(&mut self, text: &str) {
        if self.terms.is_empty() {
            return;
        }
        self.terms.iter_mut().for_each(|term| term.at = 0);
        read_words(text, |word| self.terms.retain_mut(|term| !term.is_complete_with(word)));
    }

    /// Looks at the values of a context; what is only yes or no says nothing.
    pub fn read_context(&mut self, context: &Context) {
        read_context(context, |text| self.read(text));
    }

    /// Whether all was found.
    pub fn is_complete(&self) -> bool {
        self.terms.is_empty()
    }
}

impl Progress<'_> {
    fn is_complete_with(&mut self, word: &str) -> bool {
        let reached = (self.at << 1) | 1;
        self.at = 0;
        for (place, wanted) in self.words.iter().enumerate() {
            let bit = 1 << place;
            if reached & bit != 0 && wanted.fits(word) {
                self.at |= bit;
            }
        }
        self.at & (1 << (self.words.len() - 1)) != 0
    }
}

/// The values of a context that say something, each apart.
pub fn read_context(context: &Context, mut text: impl FnMut(&str)) {
    for (_, value) in context.iter() {
        match value {
            Value::Text(value) => text(value),
            Value::Number(number) => text(&number.to_string()),
            Value::List(list) => list.iter().for_each(|value| text(value)),
            Value::Flag(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn finds(question: &str, texts: &[&str]) -> bool {
        let search = Search::parse(question).unwrap();
        let mut looking = search.begin();
        texts.iter().for_each(|text| looking.read(text));
        looking.is_complete()
    }

    const ISSUE: &[&str] = &[
        "acme",
        "github.issues.opened",
        "acme/app",
        "42",
        "Login bug: the Größe of the button is wrong",
        "jane.doe@example.com",
        "PROJ-12",
        "area-api",
        "https://github.com/acme/app/issues/42",
        "ログインのバグ",
        "deploy 🚀 done",
    ];

    #[test]
    fn words_are_found_in_any_order_and_case_and_by_their_beginning() {
        for question in ["login bug", "BUG login", "butt", "größe", "GRÖẞE"] {
            assert!(finds(question, ISSUE), "{question}");
        }
        assert!(!finds("login crash", ISSUE), "all of them must be there");
        assert!(!finds("ogin", ISSUE), "not from the middle of a word");
        assert!(finds("große", ISSUE), "accents may be left out");
        assert!(finds("gro\u{308}ße", ISSUE), "or be written apart");
    }

    #[test]
    fn names_numbers_and_addresses_find_what_people_expect() {
        for question in [
            "acme/app",
            "acme/a",
            "issues.op",
            "issues.opened",
            "github.issues",
            "#42",
            "42",
            "PROJ-12",
            "proj-12",
            "jane.doe@example.com",
            "jane",
            "@example.com",
            "area-api",
            "https://github.com/acme/app/issues/42",
            "issues/42",
            "バグ",
            "🚀",
        ] {
            assert!(finds(question, ISSUE), "{question}");
        }
        for question in ["acme/web", "app/acme", "issues.closed", "#4", "PROJ-1", "グロ", "💥", "app.42"] {
            assert!(!finds(question, ISSUE), "{question}");
        }
        assert!(!finds("#42", &["420", "4200", "142"]), "a number is meant as a whole");
        assert!(finds("1234567", &["1234567890"]), "of an id, people know the beginning");
    }

    #[test]
    fn a_phrase_is_found_as_it_stands() {
        assert!(finds("\"login bug\"", ISSUE) && finds("\"Login, bug\" wrong", ISSUE));
        assert!(!finds("\"bug login\"", ISSUE) && !finds("\"login bu\"", ISSUE));
        assert!(finds("\"login bu", ISSUE), "one that is still being written may end in the middle of a word");
        assert!(!finds("\"app 42\"", ISSUE), "it does not go on from one text to the next");
        assert!(finds("\"a b a c\"", &["a b a b a c"]), "also where it nearly began before");
    }

    #[test]
    fn nothing_in_a_question_is_an_operator() {
        for question in ["login* bug", "login AND", "NOT login", "login OR bug", "title:login", "login^2", "(login"] {
            let words = ["and", "not", "or", "title", "2"];
            let named = words.iter().any(|word| question.to_lowercase().contains(word));
            assert_eq!(finds(question, ISSUE), !named, "{question}");
        }
        for question in ["", "\"", "\"\"\"", "*", "- :", "\0", " \t\n"] {
            assert!(Search::parse(question).unwrap().is_empty(), "{question:?}");
        }
        assert!(finds("- login \0 \" * bug", ISSUE));
    }

    #[test]
    fn a_question_has_a_limit() {
        assert_eq!(Search::parse(&"ü".repeat(LONGEST + 1)), Err(TooLong));
        let long = "字".repeat(LONGEST);
        assert!(finds(&long, &[&long]) && !finds(&long, &[&"字".repeat(10)]), "also with a word for each character");
    }

    proptest! {
        #[test]
        fn any_question_is_read_and_finds_the_text_that_it_is(question in "\\PC{0,60}", text: String) {
            let question = question.replace('"', "");
            let search = Search::parse(&question).unwrap();
            let mut looking = search.begin();
            looking.read(&text);
            looking.read(&question);
            prop_assert!(looking.is_complete());
        }

        #[test]
        fn a_part_of_a_text_in_quotation_marks_is_found_in_it(words in proptest::collection::vec("[a-cÄ字🚀]{1,3}", 1..12),
            from in 0usize..12, length in 1usize..12) {
            let from = from % words.len();
            let part = words[from..words.len().min(from + length)].join(" ");
            let text = words.join("-");
            let question = format!("\"{part}\"");
            prop_assert!(finds(&question, &[&text]));
        }
    }
}
