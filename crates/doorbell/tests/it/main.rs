//! The built gateway, driven from outside: real processes, real HTTP, real SQLite.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod addresses;
mod agents;
mod answers;
mod api;
mod checkout;
mod cli;
mod collector;
mod conditions;
mod crash;
mod dead_letters;
mod declared;
mod docs;
mod doctor;
mod flow;
mod hostile;
mod http_agents;
mod ingest;
mod judges;
mod kills;
mod limits;
mod metrics;
mod mtls;
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
mod scale;
mod schedules;
mod senders;
mod shell;
mod sources_paused;
mod standard;
mod starts;
mod support;
mod traces;
mod waits;
mod workers;
