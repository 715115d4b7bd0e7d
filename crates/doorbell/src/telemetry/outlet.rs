//! Standard error of a gateway: a bounded queue of lines, and a thread that writes them. Whoever has something to say never waits for
//! who reads it: a terminal that is stopped, a pager or a full pipe would otherwise stop the gateway.

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

    /// Writes what is put in, for ever.
    fn write_to(&self, mut to: impl Write) {
        let mut batch = Vec::new();
        loop {
            let queue = self.queue();
            let queue = self.filled.wait_while(queue, |queue| queue.lines.is_empty());
            let queue = queue.unwrap_or_else(PoisonError::into_inner);
            let gathered = self.filled.wait_timeout_while(queue, GATHER, |queue| queue.lines.len() < ENOUGH);
            let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut queue.lines, &mut batch);
            queue.writing = true;
            drop(queue);
            write_all(&mut to, &batch);
            batch.clear();
            batch.shrink_to(KEPT);
            if let Some(untold) = self.untold() {
                tracing::warn!(lines = untold, "log.dropped: whatever reads the log was too slow for it");
            }
            self.queue().writing = false;
            self.emptied.notify_all();
        }
    }

    /// How many lines were dropped since this was last asked, if any were.
    fn untold(&self) -> Option<u64> {
        let mut queue = self.queue();
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

/// What cannot be written is lost: there is nowhere left to say so.
fn write_all(to: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::park_timeout(NO_ROOM),
            Err(_) => return,
        }
    }
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
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(|| STDERR.wait().write_to(io::stderr()));
        Outlet::default()
    });
    Lines(outlet)
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
    STDERR.get().map(|outlet| outlet.drain(limit));
}

/// Lines that were dropped since the start, since whatever reads the log was too slow.
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
    fn who_does_not_read_holds_nobody_up_and_what_is_dropped_is_counted() {
        let outlet: &Outlet = Box::leak(Box::default());
        let (go, wait) = mpsc::channel();
        let (write, written) = mpsc::channel();
        std::thread::spawn(move || outlet.write_to(Reader(wait, write)));
        outlet.put(b"first\n");
        assert!(!outlet.drain(Duration::from_millis(10)), "nobody reads");
        let line = [b'x'; 1024];
        for _ in 0..2 * MOST_WAITING / line.len() {
            outlet.put(&line);
        }
        assert!(outlet.queue().dropped as usize >= MOST_WAITING / line.len());
        (0..3).for_each(|_| go.send(()).unwrap_or_default());
        assert!(outlet.drain(Duration::from_secs(60)));
        let read: Vec<u8> = written.try_iter().flatten().collect();
        assert!(read.starts_with(b"first\nxxx") && read.len() <= MOST_WAITING + 16, "{} bytes", read.len());
        let queue = outlet.queue();
        assert_eq!((queue.told, queue.lines.len()), (queue.dropped, 0));
    }
}
