//! What callers of the API send: queries, ids, times and JSON.

use axum::extract::Query;
use doorbell::ops::{events, runs};
use doorbell_client::api::NewKey;
use doorbell_core::id::{EventId, KeyId, RunId};
use doorbell_core::time::Timestamp;
use http::Uri;

/// Any of it is understood or refused, and what is understood reads back.
pub(crate) fn calls(data: &[u8]) {
    if let Ok(key) = serde_json::from_slice::<NewKey>(data) {
        let text = serde_json::to_string(&key).expect("a wish is JSON");
        assert_eq!(serde_json::from_str::<NewKey>(&text).ok(), Some(key));
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(uri) = format!("/v1/x?{text}").parse::<Uri>() {
        let _ = Query::<events::Query>::try_from_uri(&uri);
        let _ = Query::<runs::Query>::try_from_uri(&uri);
    }
    for word in text.split(['\n', '&', '=']) {
        reads_back::<EventId>(word);
        reads_back::<RunId>(word);
        reads_back::<KeyId>(word);
        reads_back::<Timestamp>(word);
    }
}

fn reads_back<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text:?}");
    }
}
