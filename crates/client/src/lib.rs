//! Client of Doorbell's REST API: what the CLI's commands and the integration tests speak with.
//!
//! [`Client`] asks a gateway, with an API key; [`Sender`] plays a webhook sender. Their answers are the types of
//! [`api`]. Single questions end after [`TIMEOUT`]; streams go on until either side ends them.

pub mod api;
mod client;
mod dialing;
mod error;
mod outbound;
mod probe;
mod public;
mod query;
mod sender;
mod sse;

pub use client::{Client, TIMEOUT};
pub use error::Error;
pub use outbound::{Outbound, Posted, Reply, Tls, Unanswered};
pub use probe::{Obstacle, Seen, probe};
pub use public::refuse_private;
pub use query::{AuditQuery, EventQuery, RunQuery};
pub use sender::{Answer, Sender, Sent};
