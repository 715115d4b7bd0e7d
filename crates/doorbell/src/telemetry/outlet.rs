//! Standard output and error of a gateway: bounded queues of lines, and threads that write them. Whoever has something to say never
//! waits for who reads it: a terminal that is stopped, a pager or a full pipe would otherwise stop the gateway.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The most bytes that wait to be written. Further lines are dropped, and counted.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// So many bytes are not waited with.
const ENOUGH: usize = 32 * 1024;
/// What is kept of the queue's memory when it was longer for a while.
const KEPT: usize = 64 * 1024;
/// How long lines are gathered, so that a busy gateway writes many at once.
const GATHER: Duration = Duration::from_millis(2);
/// Before a write is tried again that a descriptor in non-blocking mode had no room for.
const NO_ROOM: Duration = Duration::from_millis(10);

static STDERR: OnceLock<Outlet> = OnceLock::new();
static STDOUT: OnceLock<Outlet> = OnceLock::new();

/// A queue of lines, and whether they are being written.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<u8>,
    writing: bool,
    /// Whether the last write failed.
    failing: bool,
    /// Whether it failed because nobody reads any more: a full disk, say, may have room again.
    unread: bool,
    /// Lines dropped since the start, and those of them that were told of.
    dropped: u64,
    told: u64,
}

impl Outlet {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts lines in the queue; they are dropped if it is full.
    fn put(&self, lines: &[u8]) {
        let mut queue = self.queue();
        if queue.lines.len() + lines.len() > MOST_WAITING {
            queue.dropped += 1;
            return;
        }
        let before = queue.lines.len();
        queue.lines.extend_from_slice(lines);
        let wakes = before == 0 || (before < ENOUGH && queue.lines.len() >= ENOUGH);
        drop(queue);
        if wakes {
            self.filled.notify_one();
        }
    }

    /// Writes what is put in, for ever, and tells of lines that were lost.
    fn write_to(&self, mut to: impl Write, tell: impl Fn(u64)) {
        let (mut batch, mut torn) = (Vec::new(), false);
        loop {
            let queue = self.queue();
            let queue = self.filled.wait_while(queue, |queue| queue.lines.is_empty());
            let queue = queue.unwrap_or_else(PoisonError::into_inner);
            let gathered = self.filled.wait_timeout_while(queue, GATHER, |queue| queue.lines.len() < ENOUGH);
            let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            batch.append(&mut queue.lines);
            queue.lines.shrink_to(KEPT);
            queue.writing = true;
            drop(queue);
            // Now, while there is room: it stands after what was said before.
            if let Some(untold) = self.untold() {
                tell(untold);
            }
            let (written, unread) = match write_all(&mut to, &batch) {
                Ok(()) => (batch.len(), false),
                Err((written, error)) => (written, error.kind() == io::ErrorKind::BrokenPipe),
            };
            let lost = batch[written.max(usize::from(torn))..].iter().filter(|byte| **byte == b'\n').count() as u64;
            // What follows a line that was torn is on a line of its own.
            if written > 0 {
                torn = written < batch.len() && batch[written - 1] != b'\n';
            }
            batch.clear();
            batch.shrink_to(KEPT);
            batch.extend(torn.then_some(b'\n'));
            let mut queue = self.queue();
            (queue.failing, queue.unread) = (lost > 0, unread);
            queue.dropped += lost;
            queue.writing = false;
            drop(queue);
            self.emptied.notify_all();
        }
    }

    /// How many lines were dropped since this was last asked, if any were and there is somebody to tell.
    fn untold(&self) -> Option<u64> {
        let mut queue = self.queue();
        if queue.failing {
            return None;
        }
        let dropped = queue.dropped;
        let told = std::mem::replace(&mut queue.told, dropped);
        Some(dropped - told).filter(|untold| *untold > 0)
    }

    /// Waits until all is written, at most so long. Whether it is.
    fn drain(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut queue = self.queue();
        while queue.writing || !queue.lines.is_empty() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            queue = self.emptied.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Writes it all, also where a descriptor in non-blocking mode has no room now.
///
/// # Errors
/// How many bytes were written before it failed, and why it did.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::park_timeout(NO_ROOM),
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

/// The queue as something to write lines to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines(&'static Outlet);

impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.put(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on, what is said on standard error goes through the queue.
pub(super) fn open() -> Lines {
    let outlet = STDERR.get_or_init(|| {
        // Without the thread, lines fill the queue and are dropped: nothing waits for them.
        let tell = |lines| tracing::warn!(lines, "log.dropped: whatever reads the log was too slow for it, or failed");
        let write = move || STDERR.wait().write_to(io::stderr(), tell);
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(write);
        Outlet::default()
    });
    Lines(outlet)
}

/// From now on, what is printed on standard output goes through a queue, too. Of lines that are lost it tells there, or, where
/// that is for programs, on standard error.
pub fn open_stdout(for_programs: bool) {
    STDOUT.get_or_init(move || {
        let tell = move |lines| {
            let missing = format!("({lines} lines are missing here: they were not read in time)");
            match for_programs {
                true => say(&missing),
                false => drop(print(format!("{missing}\n").as_bytes())),
            }
        };
        let write = move || STDOUT.wait().write_to(io::stdout(), tell);
        let _ = std::thread::Builder::new().name("output".to_owned()).spawn(write);
        Outlet::default()
    });
}

/// Prints on standard output.
///
/// # Errors
/// If it cannot be written; where it goes through the queue, if nobody reads any more.
pub fn print(text: &[u8]) -> io::Result<()> {
    match STDOUT.get() {
        Some(outlet) if outlet.queue().unread => Err(io::ErrorKind::BrokenPipe.into()),
        Some(outlet) => {
            outlet.put(text);
            Ok(())
        }
        None => {
            let mut out = io::stdout().lock();
            write_all(&mut out, text).map_err(|(_, error)| error)?;
            loop {
                match out.flush() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::park_timeout(NO_ROOM),
                    flushed => return flushed,
                }
            }
        }
    }
}

/// Says something on standard error, after what was said before.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    match STDERR.get() {
        Some(outlet) => outlet.put(line.as_bytes()),
        // There is nowhere left to say that this failed.
        None => drop(io::stderr().lock().write_all(line.as_bytes())),
    }
}

/// Waits until what was said is written, at most so long.
pub fn drain(limit: Duration) {
    let until = Instant::now() + limit;
    for outlet in [&STDOUT, &STDERR].into_iter().filter_map(OnceLock::get) {
        outlet.drain(until.saturating_duration_since(Instant::now()));
    }
}

/// Lines that were dropped since the start, since whatever reads the log was too slow or failed.
pub(super) fn dropped() -> u64 {
    STDERR.get().map_or(0, |outlet| outlet.queue().dropped)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes go on when something is sent.
    struct Reader(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_does_not_read_holds_nobody_up_and_hears_what_was_dropped() {
        let outlet: &Outlet = Box::leak(Box::default());
        let (go, wait) = mpsc::channel();
        let (write, written) = mpsc::channel();
        let tell = |lines| outlet.put(format!("{lines} were dropped\n").as_bytes());
        std::thread::spawn(move || outlet.write_to(Reader(wait, write), tell));
        outlet.put(b"first\n");
        assert!(!outlet.drain(Duration::from_millis(10)), "nobody reads");
        while !outlet.queue().writing {
            std::thread::yield_now();
        }
        let line = [&[b'x'; 1023], b"\n".as_slice()].concat();
        for _ in 0..2 * MOST_WAITING / line.len() {
            outlet.put(&line);
        }
        let dropped = outlet.queue().dropped;
        assert_eq!(dropped as usize, MOST_WAITING / line.len());
        (0..3).for_each(|_| go.send(()).unwrap_or_default());
        assert!(outlet.drain(Duration::from_secs(60)));
        let read: Vec<u8> = written.try_iter().flatten().collect();
        assert!(read.starts_with(b"first\nxxx") && read.len() <= MOST_WAITING + 64, "{} bytes", read.len());
        assert!(read.ends_with(format!("x\n{dropped} were dropped\n").as_bytes()));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let outlet: &Outlet = Box::leak(Box::default());
        let (_, wait) = mpsc::channel();
        let (write, _) = mpsc::channel();
        std::thread::spawn(move || outlet.write_to(Reader(wait, write), |_| {}));
        outlet.put(b"first\nsecond\n");
        assert!(outlet.drain(Duration::from_secs(60)));
        assert_eq!(outlet.queue().dropped, 2);
    }
}
