//! The log of an attempt: what its processes print, line by line and live, bounded, without the secrets it was given.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_core::time::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::Collector;
use super::redaction::{Redaction, Secrets};
use crate::clock;
use crate::store::{LogLine, Stream};

/// The longest line in bytes; a longer one becomes several.
pub(super) const LONGEST_LINE: usize = 16 * 1024;
/// The size of an attempt's log in bytes, with [`LINE_COST`] for each line.
pub(crate) const LARGEST_LOG: usize = 10 * 1024 * 1024;
/// What a line costs beside its text, so that empty lines are not free.
pub(crate) const LINE_COST: usize = 64;

const CHUNK: usize = 16 * 1024;
/// How long, in all, a pipe that somebody still holds open is waited for after the processes have ended.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much is read of such a pipe: more than the kernel keeps in one.
const MOST_AFTER_END: usize = 1024 * 1024;

/// Where the lines of an attempt go.
#[derive(Debug)]
pub(super) struct Log {
    lines: mpsc::Sender<LogLine>,
    attempt: u32,
    /// What still fits; none: it is full, and that was said.
    left: Mutex<Option<usize>>,
}

impl Log {
    pub(super) fn new(lines: mpsc::Sender<LogLine>, attempt: u32) -> Self {
        Self { lines, attempt, left: Mutex::new(Some(LARGEST_LOG)) }
    }

    /// A line of Doorbell's own. It always fits.
    pub(super) async fn tell(&self, text: impl Into<String>) {
        let line = LogLine { at: clock::now(), attempt: self.attempt, stream: Stream::System, text: text.into() };
        // Nobody reads any more if it fails, so nobody misses it.
        let _ = self.lines.send(line).await;
    }

    async fn add(&self, at: Timestamp, stream: Stream, text: String) {
        match self.take_room(text.len() + LINE_COST) {
            Room::Enough => {
                let _ = self.lines.send(LogLine { at, attempt: self.attempt, stream, text }).await;
            }
            Room::NoMore => {
                let limit = LARGEST_LOG / 1024 / 1024;
                self.tell(format!("the log has reached {limit} MiB: what the agent prints from here on is not kept"))
                    .await;
            }
            Room::Full => {}
        }
    }

    fn take_room(&self, cost: usize) -> Room {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(room) = *left else { return Room::Full };
        *left = room.checked_sub(cost);
        if left.is_some() { Room::Enough } else { Room::NoMore }
    }

    fn is_full(&self) -> bool {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

enum Room {
    Enough,
    /// This is the first line that does not fit.
    NoMore,
    Full,
}

/// Reads a pipe to its end and logs its lines. After `ended` (no process of the attempt is left) it only waits a short
/// time for a process that got away with the pipe; it never waits less for whoever takes the lines. `collector` gets
/// all of it as it came, and comes back at the end.
pub(super) async fn capture(
    mut pipe: impl AsyncRead + Unpin,
    stream: Stream,
    log: Arc<Log>,
    secrets: Arc<Secrets>,
    ended: CancellationToken,
    mut collector: Option<Collector>,
) -> Option<Collector> {
    let mut lines = Lines::new(secrets);
    let mut chunk = vec![0; CHUNK];
    let mut rest = Rest { patience: PATIENCE, bytes: MOST_AFTER_END };
    loop {
        let read = tokio::select! {
            biased;
            read = pipe.read(&mut chunk) => read.unwrap_or(0),
            () = ended.cancelled() => rest.read(&mut pipe, &mut chunk).await,
        };
        let at = clock::now();
        if let Some(collector) = &mut collector {
            collector.push(&chunk[..read]);
        }
        if read == 0 {
            lines.finish();
        } else if !log.is_full() {
            lines.push(&chunk[..read]);
        }
        for text in lines.done.drain(..) {
            log.add(at, stream, text).await;
        }
        if read == 0 || (ended.is_cancelled() && !rest.take(read)) {
            return collector;
        }
    }
}

/// What is still granted to a pipe whose processes have ended.
struct Rest {
    patience: Duration,
    bytes: usize,
}

impl Rest {
    async fn read(&mut self, pipe: &mut (impl AsyncRead + Unpin), chunk: &mut [u8]) -> usize {
        let started = Instant::now();
        let read = timeout(self.patience, pipe.read(chunk)).await;
        self.patience = self.patience.saturating_sub(started.elapsed());
        read.map_or(0, |read| read.unwrap_or(0))
    }

    fn take(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.bytes > 0
    }
}

/// Cuts a stream of bytes into lines of text. A line ends with a line feed, a carriage return, or both.
#[derive(Debug)]
struct Lines {
    redaction: Redaction,
    clean: Vec<u8>,
    line: Vec<u8>,
    after_return: bool,
    done: Vec<String>,
}

impl Lines {
    fn new(secrets: Arc<Secrets>) -> Self {
        let redaction = Redaction::new(secrets);
        Self { redaction, clean: Vec::new(), line: Vec::new(), after_return: false, done: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.redaction.push(bytes, &mut self.clean);
        self.cut();
    }

    fn finish(&mut self) {
        self.redaction.finish(&mut self.clean);
        self.cut();
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    fn cut(&mut self) {
        let clean = std::mem::take(&mut self.clean);
        for byte in &clean {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    self.end_line();
                }
                _ => {
                    self.after_return = false;
                    let room = LONGEST_LINE - self.line.len();
                    // The longest character has four bytes.
                    if room == 0 || (room < 4 && !is_inside_character(*byte)) {
                        self.end_line();
                    }
                    self.line.push(*byte);
                }
            }
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line).replace('\0', "\u{fffd}");
        self.line.clear();
        // Bytes that are no text take more room when they are shown as such.
        let mut rest = text.as_str();
        while rest.len() > LONGEST_LINE {
            let (head, tail) = rest.split_at(rest.floor_char_boundary(LONGEST_LINE));
            self.done.push(head.to_owned());
            rest = tail;
        }
        self.done.push(rest.to_owned());
    }
}

/// Whether it is not the first byte of a character in UTF-8.
fn is_inside_character(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use doorbell_core::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new(Arc::new(Secrets::new(&[Secret::new("dbk_secret")])));
        pieces.iter().for_each(|piece| lines.push(piece));
        lines.finish();
        lines.done
    }

    #[test]
    fn lines_end_with_a_line_feed_a_return_or_both_and_the_last_one_with_nothing() {
        assert_eq!(lines_of(&[b"a\nb\r", b"\n\nc\rd\r\n\r\n", b"e"]), ["a", "b", "", "c", "d", "", "e"]);
        assert!(lines_of(&[]).is_empty());
    }

    #[test]
    fn what_is_no_text_is_shown_as_such() {
        assert_eq!(lines_of(&[b"a\xffb\0c"]), ["a\u{fffd}b\u{fffd}c"]);
    }

    #[test]
    fn a_long_line_is_split_between_characters() {
        let text = "€".repeat(LONGEST_LINE);
        let lines = lines_of(&[text.as_bytes()]);
        assert!(lines.iter().all(|line| line.len() <= LONGEST_LINE && line.chars().all(|c| c == '€')));
        assert_eq!((lines.len(), lines.concat()), (4, text));
    }

    #[test]
    fn a_line_of_just_the_longest_length_is_one_line() {
        let text = "x".repeat(LONGEST_LINE - 3);
        assert_eq!(lines_of(&[format!("{text}\nb\n").as_bytes()]), [text.as_str(), "b"]);
    }

    #[test]
    fn garbage_is_split_too() {
        let lines = lines_of(&[&[0xff; LONGEST_LINE * 2]]);
        assert!(lines.iter().all(|line| line.len() <= LONGEST_LINE));
        assert_eq!(lines.concat().chars().count(), LONGEST_LINE * 2);
    }

    #[test]
    fn a_secret_across_a_split_of_a_long_line_is_redacted() {
        let text = format!("{}dbk_secret{}", "x".repeat(LONGEST_LINE - 5), "y".repeat(9));
        let lines = lines_of(&[&text.as_bytes()[..LONGEST_LINE], &text.as_bytes()[LONGEST_LINE..]]);
        assert_eq!(lines.concat(), text.replace("dbk_secret", "[redacted]"));
    }

    #[tokio::test]
    async fn a_log_that_is_full_says_so_once_and_the_pipe_is_still_read() {
        let (sender, mut receiver) = mpsc::channel(4);
        let log = Arc::new(Log::new(sender, 1));
        let printed = "x".repeat(LONGEST_LINE - 1) + "\n";
        let printed = printed.repeat(LARGEST_LOG / LONGEST_LINE + 10);
        let secrets = Arc::new(Secrets::new([]));
        let pipe = std::io::Cursor::new(printed.into_bytes());
        let captured = tokio::spawn(async move {
            let mut pipe = pipe;
            capture(&mut pipe, Stream::Stdout, log, secrets, CancellationToken::new(), None).await;
            pipe.position() == pipe.get_ref().len() as u64
        });
        let (mut kept, mut told) = (0, Vec::new());
        while let Some(line) = receiver.recv().await {
            match line.stream {
                Stream::System => told.push(line.text),
                _ => kept += line.text.len() + LINE_COST,
            }
        }
        assert!(captured.await.unwrap());
        assert!(kept <= LARGEST_LOG && kept > LARGEST_LOG - 2 * LONGEST_LINE);
        assert_eq!(told, ["the log has reached 10 MiB: what the agent prints from here on is not kept"]);
    }

    #[tokio::test]
    async fn a_pipe_that_somebody_holds_open_is_not_waited_for() {
        let (mut writer, reader) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"said").await.unwrap();
        let (sender, mut receiver) = mpsc::channel(4);
        let ended = CancellationToken::new();
        ended.cancel();
        let log = Arc::new(Log::new(sender, 1));
        capture(reader, Stream::Stdout, log, Arc::new(Secrets::new([])), ended, None).await;
        assert_eq!(receiver.recv().await.unwrap().text, "said");
        drop(writer);
    }

    proptest! {
        #[test]
        fn no_cut_of_a_stream_changes_its_lines(text in "([a-c\r\n€]|dbk_secret){0,40}", cut in 0usize..80) {
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(lines_of(&[head, tail]), lines_of(&[text.as_bytes()]));
        }
    }
}
