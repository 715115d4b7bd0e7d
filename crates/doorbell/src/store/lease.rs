//! Leases: who carries a run out, and what proves it.

use std::time::Duration;

use doorbell_core::provider::{decode_hex, encode_hex};
use doorbell_core::secret::Secret;

/// Proof that a run is one's own to carry out: 128 random bits. Whoever is told it may end the run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease(pub [u8; 16]);

/// What a lease begins with where it is written.
const LEASE_PREFIX: &str = "dbl_";

impl Lease {
    /// As it is told to whoever carries the run out.
    pub fn to_token(self) -> Secret {
        Secret::new(format!("{LEASE_PREFIX}{}", encode_hex(&self.0)))
    }

    /// The lease that was written so.
    pub fn from_token(token: &str) -> Option<Self> {
        decode_hex(token.strip_prefix(LEASE_PREFIX)?)?.try_into().ok().map(Self)
    }

    /// Whether it is this one, in time that says nothing of where they differ.
    pub fn is(self, other: Self) -> bool {
        Secret::new(self.0).equals(&other.0)
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease(…)")
    }
}

/// A worker that fetches runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerLease {
    /// What people know it by.
    pub worker: String,
    /// By how much its leases are extended.
    pub lease: Duration,
}

/// Who carries a running run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The gateway that claimed it.
    Gateway,
    /// An agent behind a URL, which took it and tells later how it ended.
    Callback,
    /// A worker, whose lease is extended by so much.
    Worker(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_back_from_its_token_and_is_not_shown() {
        let lease = Lease([7; 16]);
        let token = lease.to_token();
        assert_eq!(token.expose_str().and_then(Lease::from_token), Some(lease));
        assert!(lease.is(Lease([7; 16])) && !lease.is(Lease([8; 16])));
        assert_eq!(format!("{lease:?}"), "Lease(…)");
        for wrong in
            ["", "dbl_", "dbl_07", "dbk_07070707070707070707070707070707", "dbl_zz070707070707070707070707070707"]
        {
            assert_eq!(Lease::from_token(wrong), None, "{wrong}");
        }
    }
}
