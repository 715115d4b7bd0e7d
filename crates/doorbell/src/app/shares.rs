//! Places for what is open or under way at once, of which nobody takes more than a share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// So many places.
#[derive(Debug)]
pub struct Shares {
    all: usize,
    each: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    whose: String,
}

impl Shares {
    /// `all` places, of which each one may take `each`.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// A place; none if all are taken, or the share of whoever asks is.
    pub fn take(self: &Arc<Self>, whose: &str) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(whose).copied().unwrap_or(0);
        if own >= self.each || taken.values().sum::<usize>() >= self.all {
            return None;
        }
        taken.insert(whose.to_owned(), own + 1);
        Some(Share { of: Arc::clone(self), whose: whose.to_owned() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.whose) {
            *own -= 1;
        }
        taken.retain(|_, own| *own > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_share_and_all_together_no_more_than_there_is() {
        let shares = Shares::new(3, 2);
        let ours = [shares.take("us"), shares.take("us")];
        assert!(ours.iter().all(Option::is_some) && shares.take("us").is_none());
        let theirs = shares.take("them");
        assert!(theirs.is_some() && shares.take("others").is_none(), "there are three");
        drop(ours);
        assert!(shares.take("us").is_some());
        drop(theirs);
        assert!(shares.taken.lock().is_ok_and(|taken| taken.is_empty()), "who has none is not remembered");
    }
}
