//! The built gateway, driven from outside: real processes, real HTTP, real SQLite.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod agents;
mod api;
mod cli;
mod crash;
mod docs;
mod ingest;
mod limits;
mod redelivery;
mod standard;
mod support;
