//! Messages of MCP, handed to the gateway as they are.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, future, stream};
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Response};

use super::{Client, TIMEOUT, events, unreachable};
use crate::error::{Error, refusal};

impl Client {
    /// Hands a JSON-RPC message to the gateway's MCP server, with headers that say the same as the message. Answers the message
    /// that came back; none if there is nothing to say.
    ///
    /// # Errors
    /// If the gateway cannot be reached, or refuses what it does not take for a message.
    pub async fn mcp(&self, message: Vec<u8>, headers: &[(&'static str, String)]) -> Result<Option<Bytes>, Error> {
        let request = self.mcp_request(message, headers)?.timeout(TIMEOUT);
        let response = request.send().await.map_err(|error| unreachable(&self.base, error))?;
        self.mcp_answer(response).await
    }

    /// The same for a message that is answered bit by bit: what comes back, for as long as either side wants.
    ///
    /// # Errors
    /// As [`Client::mcp`]; in the stream, if it breaks off.
    pub async fn mcp_stream(
        &self,
        message: Vec<u8>,
        headers: &[(&'static str, String)],
    ) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>, Error> {
        let response = self.mcp_request(message, headers)?.send().await;
        let response = response.map_err(|error| unreachable(&self.base, error))?;
        if !has_type(&response, "text/event-stream") {
            let answer = self.mcp_answer(response).await?;
            return Ok(Box::pin(stream::iter(answer.map(Ok))));
        }
        let messages = events(response, self.base.clone()).map_ok(|event| Bytes::from(event.data));
        // The first one may only say that the stream has begun.
        Ok(Box::pin(messages.try_filter(|message| future::ready(!message.is_empty()))))
    }

    fn mcp_request(&self, message: Vec<u8>, headers: &[(&'static str, String)]) -> Result<RequestBuilder, Error> {
        let mut all = self.headers("application/json, text/event-stream");
        debug_assert!(all.contains_key(ACCEPT));
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Error::Unexpected(format!("what `{name}` is to have no header can have")))?;
            all.insert(HeaderName::from_static(name), value);
        }
        let request = self.http.post(self.url(&["mcp"])?).headers(all);
        Ok(request.header("content-type", "application/json").body(message))
    }

    async fn mcp_answer(&self, response: Response) -> Result<Option<Bytes>, Error> {
        let (status, is_json) = (response.status(), has_type(&response, "application/json"));
        let body = response.bytes().await.map_err(|error| unreachable(&self.base, error))?;
        match (status.is_success(), is_json) {
            (true, _) if body.is_empty() => Ok(None),
            // JSON-RPC has refusals of its own, which go along with a status.
            (_, true) => Ok(Some(body)),
            _ => Err(refusal(status.as_u16(), &body)),
        }
    }
}

fn has_type(response: &Response, wanted: &str) -> bool {
    let said = response.headers().get("content-type");
    said.is_some_and(|value| value.as_bytes().starts_with(wanted.as_bytes()))
}
