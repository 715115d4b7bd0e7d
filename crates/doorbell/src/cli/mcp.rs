//! `doorbell mcp`: the gateway's MCP server for clients that start a program. What they write is handed to the gateway, and
//! what it answers is printed; nothing else is.

use std::collections::HashMap;
use std::io::{self, BufRead as _, Read as _};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Args;
use doorbell_client::Client;
use doorbell_core::provider::encode_base64;
use futures_util::stream::{self, FuturesUnordered, SelectAll};
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::{failure, output};
use crate::mcp::LARGEST;

/// Speak MCP on standard input and output, for agents that start a program to use Doorbell
///
/// It is the gateway's own server (`/mcp`): the tools, and what the key may. A gateway that is started later, or again, is found.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct McpArgs {}

const EXAMPLES: &str = "\
Examples:
  doorbell mcp --project my-project                        as the owner of the project's gateway
  doorbell mcp --url https://hooks.example.com             with the key in DOORBELL_TOKEN

docs/mcp.md says what to write into Claude Code, Codex, Gemini CLI and Cursor.";

/// Messages that are asked at once; further ones wait.
const AT_ONCE: usize = 16;

/// Where a message of the newest protocol says which one it is.
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// What is answered bit by bit, and how a client ends it.
const STREAM: &str = "events/stream";
const CANCELLED: &str = "notifications/cancelled";

/// What JSON-RPC calls what went wrong.
const NOT_JSON: i64 = -32700;
const NO_REQUEST: i64 = -32600;
const NOT_ANSWERED: i64 = -32000;

pub(super) async fn run(context: &Context, _args: McpArgs) -> anyhow::Result<()> {
    let bridge = Bridge::new(context)?;
    let mut lines = read_lines();
    let mut asked = FuturesUnordered::new();
    let mut streams = SelectAll::new();
    loop {
        tokio::select! {
            Some(answer) = asked.next() => print(answer)?,
            Some(message) = streams.next() => print(Some(message))?,
            line = lines.recv(), if asked.len() < AT_ONCE => match line {
                Some(line) => match bridge.listen(&line) {
                    Some(stream) => streams.push(stream),
                    None => asked.push(bridge.ask(line)),
                },
                None => break,
            },
        }
    }
    while let Some(answer) = asked.next().await {
        print(answer)?;
    }
    Ok(())
}

fn print(answer: Option<String>) -> io::Result<()> {
    answer.map_or(Ok(()), output::line)
}

/// A line of standard input; none if it is longer than a message may be.
type Line = Option<Vec<u8>>;

/// Reads on a thread of its own, which nobody waits for: nothing can end a read of standard input.
fn read_lines() -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel(AT_ONCE);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Ok(Some(line)) = read_line(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn read_line(input: &mut impl io::BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let limit = LARGEST as u64 + 1;
    if input.take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') || (line.len() as u64) < limit {
        return Ok(Some(Some(line)));
    }
    while line.last() != Some(&b'\n') {
        line.clear();
        if input.take(limit).read_until(b'\n', &mut line)? == 0 {
            break;
        }
    }
    Ok(Some(None))
}

/// Between a client that started this program and the gateway.
#[derive(Debug)]
struct Bridge<'a> {
    context: &'a Context,
    /// The gateway that was named. The project's own is looked for each time: it may have been started again elsewhere.
    named: Option<Client>,
    /// The version of the protocol that was agreed on.
    agreed: Mutex<Option<String>>,
    /// What ends the streams that go on, by the requests' ids.
    streams: Mutex<HashMap<String, CancellationToken>>,
}

impl<'a> Bridge<'a> {
    fn new(context: &'a Context) -> anyhow::Result<Self> {
        let named = match context.asks_the_project() {
            true => context.root().map(|_| None)?,
            false => Some(context.client()?),
        };
        Ok(Self { context, named, agreed: Mutex::default(), streams: Mutex::default() })
    }

    /// What the client is answered; nothing to what wants no answer.
    async fn ask(&self, line: Line) -> Option<String> {
        let Some(line) = line else {
            return Some(refusal(
                &Value::Null,
                NO_REQUEST,
                &format!("a message may have {LARGEST} bytes"),
                "too_large",
            ));
        };
        if line.trim_ascii().is_empty() {
            return None;
        }
        let message: Value = match serde_json::from_slice(&line) {
            Ok(message) => message,
            Err(error) => {
                return Some(refusal(&Value::Null, NOT_JSON, &format!("this is no JSON: {error}"), "not_json"));
            }
        };
        if !message.is_object() {
            return Some(refusal(&Value::Null, NO_REQUEST, "a message is one object", "invalid_request"));
        }
        if message["method"] == CANCELLED
            && let Some(stream) = self.streams().remove(&message["params"]["requestId"].to_string())
        {
            stream.cancel();
        }
        // The server keeps nothing that a notification could change, and asks nothing that could be answered.
        let (id, method) = (message.get("id")?, message.get("method")?.as_str()?);
        match self.hand_over(&message, method).await {
            Ok(answer) => answer,
            Err(error) => {
                let (code, told) = failure::tell(&error, self.context);
                Some(refusal(id, NOT_ANSWERED, &told, &code))
            }
        }
    }

    /// What a message is answered bit by bit; none if it is not one of those that are.
    fn listen(&self, line: &Line) -> Option<Pin<Box<dyn Stream<Item = String> + '_>>> {
        let message: Value = serde_json::from_slice(line.as_ref()?).ok()?;
        let id = message.get("id").filter(|_| message["method"] == STREAM)?.clone();
        let ended = CancellationToken::new();
        self.streams().insert(id.to_string(), ended.clone());
        let opened = async move {
            let opened = async {
                Ok(self.client()?.mcp_stream(message.to_string().into_bytes(), &self.headers(&message, STREAM)).await?)
            };
            let opened: anyhow::Result<_> = opened.await;
            let broken = move |error: &anyhow::Error| {
                let (code, told) = failure::tell(error, self.context);
                refusal(&id, NOT_ANSWERED, &told, &code)
            };
            let messages: Pin<Box<dyn Stream<Item = String> + '_>> = match opened {
                Ok(messages) => Box::pin(messages.map(move |message| match message {
                    Ok(message) => String::from_utf8_lossy(&message).into_owned(),
                    Err(error) => broken(&error.into()),
                })),
                Err(error) => Box::pin(stream::iter([broken(&error)])),
            };
            messages
        };
        Some(Box::pin(stream::once(opened).flatten().take_until(ended.cancelled_owned())))
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> anyhow::Result<Client> {
        match &self.named {
            Some(client) => Ok(client.clone()),
            None => self.context.client(),
        }
    }

    async fn hand_over(&self, message: &Value, method: &str) -> anyhow::Result<Option<String>> {
        let client = self.client()?;
        let headers = self.headers(message, method);
        let Some(answer) = client.mcp(message.to_string().into_bytes(), &headers).await? else { return Ok(None) };
        let answer: Value = serde_json::from_slice(&answer)?;
        if let ("initialize", Some(version)) = (method, answer["result"]["protocolVersion"].as_str()) {
            *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(version.to_owned());
        }
        Ok(Some(answer.to_string()))
    }

    /// What the protocol wants said beside a message that is posted.
    fn headers(&self, message: &Value, method: &str) -> Vec<(&'static str, String)> {
        let params = &message["params"];
        let own = params["_meta"][VERSION].as_str().map(str::to_owned);
        let agreed = || self.agreed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let version = own.or_else(agreed).filter(|_| method != "initialize");
        let name = match method {
            "tools/call" | "prompts/get" => params["name"].as_str(),
            "resources/read" => params["uri"].as_str(),
            _ => None,
        };
        let mut headers = vec![("mcp-method", as_header(method))];
        headers.extend(name.map(|name| ("mcp-name", as_header(name))));
        headers.extend(version.map(|version| ("mcp-protocol-version", as_header(&version))));
        headers
    }
}

/// A text as a header has it: in base64, if it could not be one as it is.
fn as_header(text: &str) -> String {
    let plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.trim() == text && !text.starts_with("=?");
    if plain { text.to_owned() } else { format!("=?base64?{}?=", encode_base64(text.as_bytes())) }
}

fn refusal(id: &Value, number: i64, message: &str, code: &str) -> String {
    let error = json!({ "code": number, "message": message, "data": { "code": code } });
    json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_read_and_one_that_is_too_long_is_passed_over() {
        let long = "x".repeat(3 * LARGEST);
        let text = format!("a\n{long}\n\nb");
        let mut input = text.as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [Some(b"a\n".to_vec()), None, Some(b"\n".to_vec()), Some(b"b".to_vec())]);
    }

    #[test]
    fn what_no_header_can_have_is_said_in_base64() {
        assert_eq!(as_header("events_list"), "events_list");
        assert_eq!(as_header("ä"), "=?base64?w6Q=?=");
        assert_eq!(as_header("a\r\nb"), "=?base64?YQ0KYg==?=");
        assert_eq!(as_header(" a"), "=?base64?IGE=?=");
    }
}
