//! Limits: large, slow and unstorable deliveries.

use doorbell_client::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gateway, ONE_SOURCE, PROGRAM, Project, fresh_id, sample, sign, wait_until};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

fn project() -> Project {
    let project = Project::new(&format!("max_body = \"64KiB\"\n{ONE_SOURCE}"));
    project.agent("one", ANY, "true");
    project
}

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// What comes back until the gateway closes the connection.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Receipt(_) => 200,
        Answer::Problem(problem) => problem.status,
        Answer::Other(text) => panic!("{text}"),
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_not() {
    let project = project();
    let gateway = project.serve();
    let fits = format!("{{\"a\":\"{}\"}}", "x".repeat(60 * 1024));
    assert_eq!(status(&gateway.send("/webhooks/github", sign("issues", fits, &fresh_id())).await), 200);
    let mut stream = connect(&gateway).await;
    stream.write_all(b"POST /webhooks/github HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413", "before a byte of it was read");
    let mut stream = connect(&gateway).await;
    stream.write_all(b"POST /webhooks/github HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
    for _ in 0..5 {
        let _ = stream.write_all(&chunk).await;
    }
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains("more than this gateway's `max_body` of 65536 bytes"), "{answer}");
    let deliveries = gateway.client.deliveries("acme", None).await.unwrap().deliveries;
    let told: Vec<_> = deliveries.into_iter().filter_map(|delivery| delivery.detail).collect();
    assert!(told.iter().any(|detail| detail.contains("has 65537 bytes, more than")), "{told:?}");
}

#[tokio::test]
async fn a_compressed_body_is_415() {
    let project = project();
    let gateway = project.serve();
    let signed = crate::support::with_header(sample("issues.opened"), "Content-Encoding", "gzip");
    assert_eq!(status(&gateway.send("/webhooks/github", signed).await), 415);
}

#[tokio::test]
async fn codings_that_change_nothing_are_taken_however_they_are_spelled() {
    let project = project();
    let gateway = project.serve();
    for coding in ["identity", "Identity", ""] {
        let signed = crate::support::with_header(sample("issues.opened"), "Content-Encoding", coding);
        assert_eq!(status(&gateway.send("/webhooks/github", signed).await), 200, "{coding:?}");
    }
    let signed = sample("issues.opened");
    let mut request = "POST /webhooks/github HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n".to_owned();
    signed.headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    let body = String::from_utf8(signed.body.to_vec()).unwrap();
    request.push_str(&format!("connection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let mut stream = connect(&gateway).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn what_is_only_announced_takes_nothing_from_other_senders() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let mut announcing = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&gateway).await;
        stream
            .write_all(b"POST /webhooks/github HTTP/1.1\r\nhost: x\r\ncontent-length: 26000000\r\n\r\n{")
            .await
            .unwrap();
        announcing.push(stream);
    }
    gateway.ring(sample("issues.opened")).await;
}

#[tokio::test]
async fn senders_that_stop_sending_are_let_go() {
    let project = project();
    let gateway = project.serve();
    let (mut silent, mut preface) = (connect(&gateway).await, connect(&gateway).await);
    preface.write_all(b"PRI * HT").await.unwrap();
    let (mut headers, mut body) = (connect(&gateway).await, connect(&gateway).await);
    headers.write_all(b"POST /webhooks/github HTTP/1.1\r\nhost:").await.unwrap();
    body.write_all(b"POST /webhooks/github HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12").await.unwrap();
    let (silent, preface, headers, body) =
        tokio::join!(read_to_end(&mut silent), read_to_end(&mut preface), read_to_end(&mut headers), async {
            let mut head = [0; 12];
            body.read_exact(&mut head).await.unwrap();
            String::from_utf8_lossy(&head).into_owned()
        });
    assert_eq!((silent.as_str(), preface.as_str()), ("", ""));
    assert!(headers.is_empty() || headers.starts_with("HTTP/1.1 408"), "{headers}");
    assert_eq!(body, "HTTP/1.1 408");
}

#[tokio::test]
async fn a_delivery_that_ends_after_the_gateway_closed_its_door_counts_for_its_secret() {
    let project = project();
    let gateway = project.serve();
    let signed = sample("issues.opened");
    let mut head = format!("POST /webhooks/github HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", signed.body.len());
    signed.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    let mut stream = connect(&gateway).await;
    stream.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let mut begun = [0; 25];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 100 Continue\r\n\r\n");
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    let address = gateway.url.strip_prefix("http://").unwrap();
    wait_until("the door to be closed", async || TcpStream::connect(address).await.is_err().then_some(())).await;
    stream.write_all(&signed.body).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(gateway.ended(), Some(0));
    let sources = project.serve().client.sources().await.unwrap().sources;
    assert_eq!(sources[0].credential_uses[0].deliveries, 1);
}

#[tokio::test]
async fn a_locked_database_is_503_and_then_recovered_from() {
    let project = project();
    let gateway = project.serve();
    let other = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = sample("issues.opened");
    let Answer::Problem(problem) = gateway.send("/webhooks/github", refused.clone()).await else { panic!("taken") };
    assert_eq!((problem.status, problem.code.as_str()), (503, "store_unavailable"));
    other.execute_batch("ROLLBACK").unwrap();
    let receipt = gateway.ring(refused).await;
    assert!(!receipt.duplicate, "it was not stored before");
    gateway.finished(&receipt.runs[0]).await;
}

#[tokio::test]
async fn a_full_disk_is_503_and_then_recovered_from() {
    let project = project();
    // A file system of its own would need a mount; a limit of the size of files fails writes the same way, once the
    // signal that comes with it is ignored.
    let gateway = project.serve_by(project.prepare("sh", &["-c", "trap '' XFSZ; exec \"$0\" serve", PROGRAM]));
    gateway.ring(sample("issues.opened")).await;
    let pid = nix::unistd::Pid::from_raw(gateway.pid());
    set_file_size_limit(pid, "1000000:unlimited");
    let body = |n: u32| format!("{{\"action\":\"opened\",\"x\":\"{}\"}}", noise(n));
    let refused = wait_until("the disk to be full", async || {
        let signed = sign("issues", body(u32::from_be_bytes(doorbell::clock::random())), &fresh_id());
        match gateway.send("/webhooks/github", signed.clone()).await {
            Answer::Receipt(_) => None,
            Answer::Problem(problem) => Some((problem, signed)),
            Answer::Other(text) => panic!("{text}"),
        }
    })
    .await;
    assert_eq!((refused.0.status, refused.0.code.as_str()), (503, "store_unavailable"));
    set_file_size_limit(pid, "unlimited:unlimited");
    assert!(!gateway.ring(refused.1).await.duplicate, "the same gateway takes it, and had not stored it");
}

fn set_file_size_limit(pid: nix::unistd::Pid, limit: &str) {
    let output = std::process::Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--fsize={limit}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// 40 KB that do not compress.
fn noise(seed: u32) -> String {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"[(state >> 26) as usize])
    };
    (0..40_000).map(|_| next()).collect()
}
