//! Messages of MCP, handed to the gateway as they are.

use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};

use super::{Client, TIMEOUT, unreachable};
use crate::error::{Error, refusal};

impl Client {
    /// Hands a JSON-RPC message to the gateway's MCP server, with headers that say the same as the message. Answers the message
    /// that came back; none if there is nothing to say.
    ///
    /// # Errors
    /// If the gateway cannot be reached, or refuses what it does not take for a message.
    pub async fn mcp(&self, message: Vec<u8>, headers: &[(&'static str, String)]) -> Result<Option<Bytes>, Error> {
        let mut all = self.headers("application/json, text/event-stream");
        debug_assert!(all.contains_key(ACCEPT));
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Error::Unexpected(format!("what `{name}` is to have no header can have")))?;
            all.insert(HeaderName::from_static(name), value);
        }
        let request = self.http.post(self.url(&["mcp"])?).headers(all).timeout(TIMEOUT);
        let response = request.header("content-type", "application/json").body(message).send().await;
        let response = response.map_err(|error| unreachable(&self.base, error))?;
        let status = response.status();
        let is_json = response
            .headers()
            .get("content-type")
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let body = response.bytes().await.map_err(|error| unreachable(&self.base, error))?;
        match (status.is_success(), is_json) {
            (true, _) if body.is_empty() => Ok(None),
            // JSON-RPC has refusals of its own, which go along with a status.
            (_, true) => Ok(Some(body)),
            _ => Err(refusal(status.as_u16(), &body)),
        }
    }
}
