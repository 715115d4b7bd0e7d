//! Doorbell: a self-hosted webhook gateway that starts agents.
//!
//! Everything that touches the world; what decides is in `doorbell-core`. ARCHITECTURE.md has the map.

pub mod acme;
pub mod app;
pub mod cli;
pub mod clock;
pub mod conditions;
pub mod config;
pub mod dispatch;
pub mod files;
pub mod gateway;
pub mod http;
pub mod indexer;
pub mod mcp;
pub mod notify;
pub mod ops;
pub mod reload;
pub mod runtime;
pub mod schedules;
pub mod store;
pub mod sweep;
pub mod telemetry;
pub mod users;
pub mod vault;
