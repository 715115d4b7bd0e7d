//! A collector of traces: OTLP over HTTP, as OpenTelemetry describes it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

use crate::support::wait_for;

pub use opentelemetry_proto::tonic::trace::v1::Span;

/// Takes spans until the test ends.
#[derive(Debug)]
pub struct Collector {
    pub url: String,
    received: Arc<Mutex<Received>>,
}

#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    services: Vec<String>,
    problems: Vec<String>,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::<Mutex<Received>>::default();
        let into = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let into = Arc::clone(&into);
                std::thread::spawn(move || while take(&stream, &into).is_some() {});
            }
        });
        Self { url, received }
    }

    /// Waits until there are spans that `find` is content with.
    pub fn wait<T>(&self, what: &str, find: impl Fn(&[Span]) -> Option<T>) -> T {
        wait_for(what, || {
            let received = self.received.lock().unwrap();
            assert!(received.problems.is_empty(), "{:?}", received.problems);
            find(&received.spans)
        })
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received.lock().unwrap().spans.clone()
    }

    /// The services that sent something.
    pub fn services(&self) -> Vec<String> {
        self.received.lock().unwrap().services.clone()
    }
}

/// Takes one request; none when the connection ends.
fn take(stream: &TcpStream, into: &Mutex<Received>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_ascii_lowercase()),
        }
    }
    let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut received = into.lock().unwrap();
    if head[0] != "post /v1/traces http/1.1" || header("content-type") != Some("application/x-protobuf") {
        received.problems.push(format!("not OTLP over HTTP: {head:?}"));
    }
    match ExportTraceServiceRequest::decode(&body[..]) {
        Ok(request) => received.keep(request),
        Err(error) => received.problems.push(error.to_string()),
    }
    drop(received);
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()
}

impl Received {
    fn keep(&mut self, request: ExportTraceServiceRequest) {
        for resource in request.resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            self.services.extend(text_of(&attributes, "service.name"));
            self.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
}

/// An attribute as text.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    text_of(&span.attributes, name)
}

fn text_of(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
