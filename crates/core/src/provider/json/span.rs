//! Where in a JSON text what begins at a place ends, without taking it apart.
//!
//! Functions of bytes and places alone: the place stays in a register, which is what makes them fast. For the same reason they
//! are made part of their callers; a text of 8 KiB has a thousand of these ends.

use super::Stop;

/// Where the value ends that begins at a place. `open` is room for what closes the lists and objects that are open.
pub(super) fn end_of_value(bytes: &[u8], mut at: usize, open: &mut Vec<u8>) -> Result<usize, Stop> {
    open.clear();
    loop {
        match bytes.get(at) {
            Some(b'"') => at = end_of_text(bytes, at)?.0,
            Some(b'{') => {
                at = end_of_space(bytes, at + 1);
                if bytes.get(at) != Some(&b'}') {
                    open.push(b'}');
                    at = end_of_name(bytes, at)?;
                    continue;
                }
                at += 1;
            }
            Some(b'[') => {
                at = end_of_space(bytes, at + 1);
                if bytes.get(at) != Some(&b']') {
                    open.push(b']');
                    continue;
                }
                at += 1;
            }
            Some(b't') => at = end_of_word(bytes, at, "true")?,
            Some(b'f') => at = end_of_word(bytes, at, "false")?,
            Some(b'n') => at = end_of_word(bytes, at, "null")?,
            _ => at = end_of_number(bytes, at)?,
        }
        loop {
            let Some(close) = open.last().copied() else { return Ok(at) };
            at = end_of_space(bytes, at);
            match bytes.get(at) {
                Some(b',') => {
                    at = end_of_space(bytes, at + 1);
                    if close == b'}' {
                        at = end_of_name(bytes, at)?;
                    }
                    break;
                }
                Some(byte) if *byte == close => {
                    open.pop();
                    at += 1;
                }
                _ => return Err(Stop),
            }
        }
    }
}

/// Where the value of a field begins whose name begins at a place.
#[inline(always)]
fn end_of_name(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    end_of_colon(bytes, end_of_text(bytes, at)?.0)
}

/// Where the value of a field begins whose name ends at a place.
#[inline(always)]
pub(super) fn end_of_colon(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    let at = end_of_space(bytes, at);
    match bytes.get(at) {
        Some(b':') => Ok(end_of_space(bytes, at + 1)),
        _ => Err(Stop),
    }
}

/// Where white space ends.
#[inline(always)]
pub(super) fn end_of_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Where a quoted text ends, and whether there are escapes in it.
#[inline(always)]
pub(super) fn end_of_text(bytes: &[u8], at: usize) -> Result<(usize, bool), Stop> {
    if bytes.get(at) != Some(&b'"') {
        return Err(Stop);
    }
    let at = end_of_plain(bytes, at + 1);
    if bytes.get(at) == Some(&b'"') { Ok((at + 1, false)) } else { end_of_escaped(bytes, at).map(|end| (end, true)) }
}

/// Where a text ends that has been looked at up to its first escape.
#[cold]
fn end_of_escaped(bytes: &[u8], mut at: usize) -> Result<usize, Stop> {
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = end_of_escape(bytes, at)?,
            _ => return Err(Stop),
        }
        at = end_of_plain(bytes, at);
    }
}

fn end_of_escape(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match &bytes[at + 1..] {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Ok(at + 2),
        [b'u', digits @ ..] if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
        _ => Err(Stop),
    }
}

#[inline(always)]
fn end_of_word(bytes: &[u8], at: usize, word: &str) -> Result<usize, Stop> {
    if bytes[at..].starts_with(word.as_bytes()) { Ok(at + word.len()) } else { Err(Stop) }
}

fn end_of_number(bytes: &[u8], mut at: usize) -> Result<usize, Stop> {
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    at += usize::from(is(at, b'-'));
    at = if is(at, b'0') { at + 1 } else { end_of_digits(bytes, at)? };
    if is(at, b'.') {
        at = end_of_digits(bytes, at + 1)?;
    }
    if is(at, b'e') || is(at, b'E') {
        at += 1;
        at += usize::from(is(at, b'+') || is(at, b'-'));
        at = end_of_digits(bytes, at)?;
    }
    Ok(at)
}

/// At least one.
#[inline(always)]
fn end_of_digits(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    let mut at = start;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at > start { Ok(at) } else { Err(Stop) }
}

/// The lowest bit of each byte of a word.
const LOW: u64 = 0x0101_0101_0101_0101;

/// Where a run of characters ends that stand for themselves: at a quote, a backslash, a control character, or the end.
#[inline(always)]
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    // Eight at once: the highest bit of a byte is set where one ends. Beyond the first of them it may be set where none does.
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|eight| u64::from_le_bytes(*eight)) {
        let is_zero = |word: u64| word.wrapping_sub(LOW) & !word;
        let is = |byte: u8| is_zero(word ^ (LOW * u64::from(byte)));
        let is_control = word.wrapping_sub(LOW * u64::from(b' ')) & !word;
        let found = (is(b'"') | is(b'\\') | is_control) & (LOW << 7);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | ..b' ')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_ends_where_it_ends_byte_by_byte(bytes: Vec<u8>, at: prop::sample::Index) {
            let at = at.index(bytes.len() + 1);
            let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
            let expected = bytes[at..].iter().position(ends).map_or(bytes.len(), |found| at + found);
            prop_assert_eq!(end_of_plain(&bytes, at), expected);
        }
    }
}
