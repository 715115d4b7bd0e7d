//! Whether runs wait for something: so that nobody looks for them while none does.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Hints; the store has the truth.
#[derive(Debug, Default)]
pub struct Waits {
    /// Some run may wait for an event.
    for_event: AtomicBool,
    /// Some run may wait for the end of another one.
    for_run: AtomicBool,
    /// There may be a run that waits since somebody looked.
    begun: AtomicBool,
    bell: Notify,
}

impl Waits {
    /// Tells that a run waits, or that there may be some.
    pub fn begin(&self) {
        self.for_event.store(true, Ordering::SeqCst);
        self.for_run.store(true, Ordering::SeqCst);
        self.begun.store(true, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Tells that an event was stored.
    pub fn hear(&self) {
        if self.for_event.load(Ordering::SeqCst) {
            self.bell.notify_one();
        }
    }

    /// Whether the end of a run is of interest to another one.
    pub fn for_run(&self) -> bool {
        self.for_run.load(Ordering::SeqCst)
    }

    /// Whether there may be a run that waits since this was asked last.
    pub fn take_begun(&self) -> bool {
        self.begun.swap(false, Ordering::SeqCst)
    }

    /// Says for what there are runs that wait. Ask [`Waits::take_begun`] after it: one may have begun meanwhile.
    pub fn set(&self, for_event: bool, for_run: bool) {
        self.for_event.store(for_event, Ordering::SeqCst);
        self.for_run.store(for_run, Ordering::SeqCst);
        if self.begun.load(Ordering::SeqCst) {
            self.for_event.store(true, Ordering::SeqCst);
            self.for_run.store(true, Ordering::SeqCst);
        }
    }

    /// Comes back when somebody told something.
    pub async fn told(&self) {
        self.bell.notified().await;
    }
}
