//! SPDX licence expressions: `MIT OR (Apache-2.0 WITH LLVM-exception AND ISC)`. The older `MIT/Apache-2.0` means OR.

use anyhow::{Result, bail};

/// Whether the licences that are allowed satisfy the expression. `allowed` gets one licence, with its exception if any.
pub(super) fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = Words { words: spaced.split_whitespace().collect(), at: 0, allowed };
    let verdict = words.alternatives()?;
    match words.next() {
        None => Ok(verdict),
        Some(word) => bail!("unexpected `{word}`"),
    }
}

struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn alternatives(&mut self) -> Result<bool> {
        let mut verdict = self.conjunction()?;
        while self.take("OR") {
            verdict |= self.conjunction()?;
        }
        Ok(verdict)
    }

    fn conjunction(&mut self) -> Result<bool> {
        let mut verdict = self.term()?;
        while self.take("AND") {
            verdict &= self.term()?;
        }
        Ok(verdict)
    }

    fn term(&mut self) -> Result<bool> {
        match self.next() {
            Some("(") => {
                let verdict = self.alternatives()?;
                if !self.take(")") {
                    bail!("a parenthesis is not closed");
                }
                Ok(verdict)
            }
            Some(word @ ("OR" | "AND" | "WITH" | ")")) => bail!("unexpected `{word}`"),
            Some(licence) if self.take("WITH") => match self.next() {
                Some(exception) => Ok((self.allowed)(&format!("{licence} WITH {exception}"))),
                None => bail!("`WITH` is followed by nothing"),
            },
            Some(licence) => Ok((self.allowed)(licence)),
            None => bail!("a licence is missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    fn allowed(expression: &str) -> bool {
        satisfied(expression, &|term| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&term)).unwrap()
    }

    #[test]
    fn or_needs_one_and_needs_all() {
        assert!(allowed("MIT") && allowed("GPL-3.0-only OR MIT") && allowed("MIT AND ISC"));
        assert!(!allowed("GPL-3.0-only") && !allowed("MIT AND GPL-3.0-only"));
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(allowed("MIT OR ISC AND GPL-3.0-only"));
        assert!(!allowed("(MIT OR ISC) AND GPL-3.0-only"));
        assert!(allowed("(GPL-3.0-only OR (MIT)) AND ISC"));
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        assert!(allowed("Apache-2.0 WITH LLVM-exception"));
        assert!(!allowed("Apache-2.0") && !allowed("MIT WITH LLVM-exception"));
    }

    #[test]
    fn a_slash_is_an_or() {
        assert!(allowed("MIT/Apache-2.0") && allowed("Apache-2.0 / MIT") && !allowed("Apache-2.0/GPL-3.0-only"));
    }

    #[test]
    fn a_broken_expression_is_refused() {
        for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "AND MIT", "MIT WITH"] {
            assert!(satisfied(broken, &|_| true).is_err(), "{broken:?}");
        }
    }
}
