//! Doorbell: a self-hosted webhook gateway that starts agents.
