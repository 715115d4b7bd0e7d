//! Proofs that a name leads here, for an authority that is about to issue a certificate (RFC 8737).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

/// The protocol that an authority asks for a proof by: what it connects for is the certificate that is shown, nothing else.
pub const PROOF: &[u8] = b"acme-tls/1";

/// What is shown to an authority, by name.
#[derive(Debug, Default)]
pub struct Challenges(RwLock<HashMap<String, Arc<ServerConfig>>>);

impl Challenges {
    /// From now on, this proves the name.
    pub fn put(&self, name: String, proof: Arc<ServerConfig>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, proof);
    }

    /// What proves the name; none, if nobody asks for a proof of it.
    pub fn get(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let proofs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        proofs.get(&name.to_ascii_lowercase()).cloned()
    }

    /// Nothing is to be proved any more.
    pub fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
