//! Doorbell: a self-hosted webhook gateway that starts agents.
//!
//! Everything that touches the world; what decides is in `doorbell-core`. ARCHITECTURE.md has the map.

pub mod cli;
pub mod config;
pub mod store;
