//! The built gateway, driven from outside: real processes, real HTTP, real SQLite.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod addresses;
mod agents;
mod answers;
mod api;
mod audit;
mod checkout;
mod cli;
mod collector;
mod conditions;
mod crash;
mod docs;
mod doctor;
mod edges;
mod flow;
mod hostile;
mod http_agents;
mod ingest;
mod judges;
mod kills;
mod limits;
mod metrics;
mod notify;
mod orphans;
mod outside;
mod own_providers;
mod presets;
mod promql;
mod providers;
mod redelivery;
mod reload;
mod replays;
mod retention;
mod schedules;
mod senders;
mod shell;
mod standard;
mod starts;
mod support;
mod tls;
mod traces;
mod workers;
