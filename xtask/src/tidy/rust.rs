//! A Rust file as the checks need it: what is code, text and comment, and which lines are tests.
//!
//! A scanner, not a parser: it knows comments, literals and brackets, and trusts that the compiler has seen the rest.

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Literal,
    Comment,
}

/// One file, scanned. All texts have the same length and lines, with everything else blanked.
#[derive(Debug)]
pub(crate) struct Source {
    /// Code only; literals and comments are blank.
    pub(crate) code: String,
    /// Comments only.
    pub(crate) comments: String,
    lines: Vec<Line>,
    /// Modules that are declared under `#[cfg(test)]` and stand in a file of their own.
    pub(crate) test_modules: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Line {
    start: usize,
    /// Something else than blanks and comments stands there.
    filled: bool,
    test: bool,
}

impl Source {
    pub(crate) fn scan(text: &str) -> Self {
        let kinds = kinds(text.as_bytes());
        let only = |wanted: Kind| -> String {
            let kept = text.bytes().zip(&kinds).map(|(byte, kind)| (byte, *kind == wanted));
            kept.map(|(byte, keep)| if byte == b'\n' || keep && byte.is_ascii() { char::from(byte) } else { ' ' })
                .collect()
        };
        let mut source =
            Self { code: only(Kind::Code), comments: only(Kind::Comment), lines: Vec::new(), test_modules: Vec::new() };
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let bytes = line.bytes().zip(&kinds[start..]);
            let filled = bytes.into_iter().any(|(byte, kind)| *kind != Kind::Comment && !byte.is_ascii_whitespace());
            source.lines.push(Line { start, filled, test: false });
            start += line.len();
        }
        source.find_tests();
        source
    }

    /// The line (from 1) that holds this byte.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|line| line.start <= offset)
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.lines.get(line.wrapping_sub(1)).is_some_and(|line| line.test)
    }

    pub(crate) fn mark_all_as_test(&mut self) {
        self.lines.iter_mut().for_each(|line| line.test = true);
    }

    /// Lines with code that are not tests.
    pub(crate) fn production_lines(&self) -> usize {
        self.lines.iter().filter(|line| line.filled && !line.test).count()
    }

    /// Where the bracket closes that opens at `open`; the end of the file when it does not.
    pub(crate) fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (offset, byte) in self.code.bytes().enumerate().skip(open) {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return offset;
                    }
                }
                _ => {}
            }
        }
        self.code.len()
    }

    /// The `{` or `;` with which an item's head ends, from somewhere in its head; `None` when the block around it ends.
    pub(crate) fn head_end(&self, from: usize) -> Option<usize> {
        let mut offset = from;
        while let Some(byte) = self.code.as_bytes().get(offset) {
            match byte {
                b'{' | b';' => return Some(offset),
                b'}' => return None,
                b'(' | b'[' => offset = self.closing(offset),
                _ => {}
            }
            offset += 1;
        }
        None
    }

    fn find_tests(&mut self) {
        if self.code.contains("#![cfg(test)]") {
            self.mark_all_as_test();
            return;
        }
        let mut marks = Vec::new();
        for attribute in ["#[cfg(test)]", "#[cfg(all(test", "#[test]", "#[tokio::test"] {
            for (start, _) in self.code.match_indices(attribute) {
                let Some(head) = self.head_end(start) else { continue };
                let end = if self.code.as_bytes()[head] == b'{' { self.closing(head) } else { head };
                marks.push((self.line_of(start), self.line_of(end)));
                let words: Vec<&str> = self.code[start..head].split_whitespace().collect();
                if let [.., "mod", name] = words[..]
                    && end == head
                {
                    self.test_modules.push(name.to_owned());
                }
            }
        }
        for (first, last) in marks {
            let last = last.min(self.lines.len());
            self.lines[first - 1..last].iter_mut().for_each(|line| line.test = true);
        }
    }
}

fn kinds(text: &[u8]) -> Vec<Kind> {
    let mut kinds = vec![Kind::Code; text.len()];
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (kind, length) = if rest.starts_with(b"//") {
            (Kind::Comment, rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()))
        } else if rest.starts_with(b"/*") {
            (Kind::Comment, block_comment(rest))
        } else if rest[0] == b'"' {
            (Kind::Literal, string(rest))
        } else if let (b'\'', Some(length)) = (rest[0], character(rest)) {
            (Kind::Literal, length)
        } else if is_word(rest[0]) {
            let word = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
            match raw_string(&rest[..word], &rest[word..]) {
                Some(length) => (Kind::Literal, word + length),
                None => (Kind::Code, word),
            }
        } else {
            (Kind::Code, 1)
        };
        let end = text.len().min(at + length);
        kinds[at..end].fill(kind);
        at = end;
    }
    kinds
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    text.len()
}

fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of a character literal; `None` for the quote of a lifetime.
fn character(text: &[u8]) -> Option<usize> {
    if text.get(1) == Some(&b'\\') {
        let end = text.iter().skip(3).position(|byte| *byte == b'\'');
        return Some(end.map_or(text.len(), |end| end + 4));
    }
    let width = match text.get(1) {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        Some(0xc0..) => 2,
        _ => 1,
    };
    (text.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

/// The length of what follows the word, if word and rest are a raw string.
fn raw_string(word: &[u8], rest: &[u8]) -> Option<usize> {
    if !matches!(word, b"r" | b"br" | b"cr") {
        return None;
    }
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[hashes + 1..];
    let length = body.windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| hashes + 1 + length + end.len()))
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn literals_and_comments_are_not_code() {
        let text = concat!(
            "a(\"x::y\\\"z\"); // c::d\n",
            "b(r#\"e \"f\" g\"#, b'\\'', '\"'); /* h /* i */ j */\n",
            "fn k<'l>(m: &'l str) {}\n",
        );
        let source = Source::scan(text);
        let code: String = source.code.split_whitespace().collect();
        assert_eq!(code, "a();b(,b,);fnk<'l>(m:&'lstr){}");
        assert!(source.comments.contains("c::d") && source.comments.contains("j */"));
        assert_eq!(source.code.len(), text.len());
    }

    #[test]
    fn test_modules_and_functions_are_not_production() {
        let source =
            Source::scan("fn a() {}\n\n// why\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[test]\nfn c() {\n}\n");
        assert_eq!(source.production_lines(), 1);
        assert!(source.is_test(6) && !source.is_test(1) && source.is_test(9));
    }

    #[test]
    fn a_test_module_in_its_own_file_is_remembered() {
        let source = Source::scan("#[cfg(test)]\nmod conformance;\nmod other;\n");
        assert_eq!(source.test_modules, ["conformance"]);
        assert!(!source.is_test(3));
    }
}
