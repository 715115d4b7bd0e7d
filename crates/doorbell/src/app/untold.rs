//! Follow-ups that could not be sent yet, so that somebody who looks at a run sees that it is being tried, and why in vain.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use doorbell_core::id::RunId;

/// Why the newest try failed, by run. There are as many as are on their way.
#[derive(Debug, Default)]
pub struct Untold(Mutex<HashMap<RunId, String>>);

impl Untold {
    /// A try failed, and there will be another one.
    pub fn note(&self, run: RunId, why: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(run, why.to_owned());
    }

    /// It was sent, or given up.
    pub fn end(&self, run: RunId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// Why the newest try failed; none if none did.
    pub fn why(&self, run: RunId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }
}
