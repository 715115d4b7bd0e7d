//! Client of Doorbell's REST API: what the CLI's commands and the integration tests speak with.

pub mod api;
