//! What evaluating may cost.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Failure;

/// Steps that the expressions of one event may take together. A step is a node of an expression, or 64 bytes of a
/// text that it looks at: some tens of nanoseconds.
pub const PER_EVENT: u64 = 4_000_000;

/// Steps that one expression may take, so that one that is slow leaves something for the others.
pub const PER_EXPRESSION: u64 = 1_000_000;

/// Bytes that are looked at in one step.
const BYTES: usize = 64;

/// Bytes that are made in one step.
const NEW_BYTES: usize = 8;

/// Steps between two looks at whether to stop.
const PATIENCE: u64 = 1024;

/// What is left of an event's steps, and whether anybody still waits for the result.
#[derive(Debug)]
pub struct Meter<'a> {
    stop: &'a AtomicBool,
    /// For all expressions.
    left: u64,
    /// Of it for this one.
    own: u64,
    /// Until the next look at `stop`.
    patience: u64,
}

impl<'a> Meter<'a> {
    /// A full one. Evaluation ends soon after `stop` is set.
    pub fn new(stop: &'a AtomicBool) -> Self {
        Self { stop, left: PER_EVENT, own: 0, patience: 0 }
    }

    /// Begins with the next expression.
    pub(super) fn begin(&mut self) {
        self.own = PER_EXPRESSION.min(self.left);
        self.patience = 0;
    }

    /// Pays for steps.
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Failure> {
        self.patience = self.patience.saturating_sub(steps);
        if self.patience == 0 {
            self.patience = PATIENCE;
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::Stopped);
            }
        }
        let own = self.own.checked_sub(steps);
        self.left = self.left.saturating_sub(steps);
        self.own = own.unwrap_or(0);
        own.map(|_| ()).ok_or(Failure::Costly)
    }

    /// Looks whether to stop, however little was paid since.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        self.patience = 0;
        self.spend(0)
    }

    /// Pays for looking at a text of so many bytes.
    pub(super) fn spend_on_text(&mut self, bytes: usize) -> Result<(), Failure> {
        self.spend((bytes / BYTES) as u64)
    }

    /// Pays for making a text of so many bytes: the price bounds what is held in memory, too.
    pub(super) fn spend_on_new_text(&mut self, bytes: usize) -> Result<(), Failure> {
        self.spend((bytes / NEW_BYTES) as u64)
    }
}
