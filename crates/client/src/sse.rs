//! Server-sent events: bytes in, in pieces of any size; events out.
//!
//! Follows <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>, without `retry`.

use std::collections::VecDeque;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its name; `message` if the stream gave none.
    pub(crate) name: String,
    /// Its lines of data, with line feeds in between.
    pub(crate) data: String,
}

/// The bytes are not an event stream of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("a line of the stream is not UTF-8")]
    NotText,
    #[error("an event of the stream is larger than 64 MiB")]
    TooLarge,
}

/// More than the largest body and log line that a gateway may be configured for is sure to need.
const MOST_BYTES: usize = 64 << 20;

/// Reads a stream piece by piece.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The last line ended with a carriage return: a line feed right after it belongs to that end.
    after_return: bool,
    /// Whether the first line is over, which may begin with a byte order mark.
    begun: bool,
    name: String,
    data: Option<String>,
    complete: VecDeque<SseEvent>,
}

impl SseParser {
    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        let mut rest = bytes;
        if let (true, Some(first)) = (self.after_return, rest.first()) {
            rest = if *first == b'\n' { &rest[1..] } else { rest };
            self.after_return = false;
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.keep(&rest[..end])?;
            let line = std::mem::take(&mut self.line);
            self.take_line(std::str::from_utf8(&line).map_err(|_| SseError::NotText)?);
            let ending = match &rest[end..] {
                [b'\r', b'\n', ..] => 2,
                [b'\r'] => {
                    self.after_return = true;
                    1
                }
                _ => 1,
            };
            rest = &rest[end + ending..];
        }
        self.keep(rest)
    }

    /// The next complete event, if there is one.
    pub(crate) fn next(&mut self) -> Option<SseEvent> {
        self.complete.pop_front()
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), SseError> {
        if self.line.len() + part.len() + self.data.as_ref().map_or(0, String::len) > MOST_BYTES {
            return Err(SseError::TooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take_line(&mut self, line: &str) {
        let line = if self.begun { line } else { line.strip_prefix('\u{feff}').unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Comments (an empty field name) keep the connection alive; `id` stands in the data as well.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let name = std::mem::take(&mut self.name);
        if let Some(data) = self.data.take() {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.complete.push_back(SseEvent { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = SseParser::default();
        pieces.iter().for_each(|piece| parser.push(piece).unwrap());
        std::iter::from_fn(|| parser.next()).map(|event| (event.name, event.data)).collect()
    }

    fn pair(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn an_event_ends_with_an_empty_line() {
        assert_eq!(parse(&[b"id: 7\nevent: run\ndata: {}\n\n"]), [pair("run", "{}")]);
        assert_eq!(parse(&[b"event: run\ndata: {}\n"]), [], "it is not over");
    }

    #[test]
    fn every_way_to_split_a_stream_gives_the_same_events() {
        let stream =
            "\u{feff}: hello\r\n\r\nevent:line\r\nid: 1\r\ndata: für\r\ndata\r\ndata: dich\r\n\r\ndata:x\r\n\r\n";
        let wanted = [pair("line", "für\n\ndich"), pair("message", "x")];
        for split in 0..=stream.len() {
            let (left, right) = stream.as_bytes().split_at(split);
            assert_eq!(parse(&[left, right]), wanted, "split at {split}");
        }
        let bytes = stream.as_bytes().chunks(1).collect::<Vec<_>>();
        assert_eq!(parse(&bytes), wanted, "byte by byte");
    }

    #[test]
    fn all_three_line_ends_count() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = format!("data: a{end}{end}data: b{end}{end}");
            assert_eq!(parse(&[stream.as_bytes()]), [pair("message", "a"), pair("message", "b")], "{end:?}");
        }
    }

    #[test]
    fn comments_keep_the_connection_alive_and_nothing_more() {
        assert_eq!(parse(&[b": ping\n\n:\n\nevent: run\n\ndata: x\n\n"]), [pair("message", "x")]);
    }

    #[test]
    fn only_one_space_after_the_colon_is_taken_away() {
        assert_eq!(parse(&[b"data:  two\n\n"]), [pair("message", " two")]);
        assert_eq!(parse(&[b"data:a:b\n\n"]), [pair("message", "a:b")]);
    }

    #[test]
    fn what_is_not_text_is_an_error() {
        assert_eq!(SseParser::default().push(b"data: \xff\n"), Err(SseError::NotText));
    }
}
