//! The smallest HTTP client that can talk to the doubles: one request on one connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back; nothing when the connection ended before the head of an answer.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub head: String,
    /// The body, its chunks joined.
    pub body: String,
    /// Whether the body came to its end.
    pub complete: bool,
}

/// Posts `body` to an `http://127.0.0.1:PORT/PATH` address.
pub async fn post(url: &str, headers: &[(&str, &str)], body: &str) -> Option<Answered> {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (host, path) = rest.split_once('/').expect("a URL with a path");
    let mut request = format!("POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let mut stream = TcpStream::connect(host).await.expect("the double listens");
    stream.write_all(request.as_bytes()).await.expect("the double reads");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let (body, complete) = match head.contains("transfer-encoding: chunked") {
        true => dechunk(body),
        false => (body.to_owned(), true),
    };
    Some(Answered {
        status,
        head: head.to_owned(),
        body,
        complete,
    })
}

fn dechunk(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = tail.get(..size) else { break };
        body.push_str(chunk);
        rest = tail.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}
