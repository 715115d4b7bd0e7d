//! Copies of the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where to copy the store to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewCopy {
    /// An absolute path on the gateway's machine: a file whose name ends with `.part`, that is there and empty, and that
    /// nobody but the gateway's user may read.
    pub file: String,
}

/// A copy of the store that has been made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// Its bytes.
    pub bytes: u64,
}
