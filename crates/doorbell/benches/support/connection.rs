//! One keep-alive connection, with as little as HTTP takes: what asks must not be what is measured.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to a gateway here.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, answer: Vec::new() }
    }

    /// Posts JSON, with a key or without; the status and the body of the answer.
    pub async fn post(&mut self, path: &str, key: Option<&str>, body: &str) -> (u16, String) {
        self.send(path, key, body).await;
        self.receive().await
    }

    pub async fn get(&mut self, path: &str, key: &str) -> (u16, String) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.unwrap();
        self.receive().await
    }

    pub async fn delete(&mut self, path: &str, key: &str) -> (u16, String) {
        let head = format!("DELETE {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.unwrap();
        self.receive().await
    }

    /// Posts, and leaves the answer for later.
    pub async fn send(&mut self, path: &str, key: Option<&str>, body: &str) {
        let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{key}content-length: {length}\r\n\
             \r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// The next answer, which says its length.
    pub async fn receive(&mut self) -> (u16, String) {
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.unwrap();
            assert!(read > 0, "the gateway hung up");
            let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.answer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if self.answer.len() >= whole {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
                return (status, String::from_utf8_lossy(&self.answer[end + 4..whole]).into_owned());
            }
        }
    }
}

/// The ids of this kind (`run_`) in a text, each where it stands.
pub fn find_ids<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).filter_map(move |(at, _)| text.get(at..at + prefix.len() + 26))
}
