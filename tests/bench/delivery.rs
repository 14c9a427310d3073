//! From the model to the callback: how long a token is on its way, and how many a second there may be.
//!
//! Both servers are plain threads and sockets: they must not be slower than what they measure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::start;

const TASK: &str = r#"{"messages":[{"role":"user","content":"hello"}],"model":"bench-model"}"#;

/// What was measured.
pub struct Figures {
    /// From a delta that the model sends to the request that has it, in microseconds.
    pub p50: f64,
    pub p99: f64,
    /// Tokens a second that are read while the callback takes 100 ms for each request.
    pub read_per_second: f64,
    /// Tokens a second from the first delta to the delivery of the last.
    pub delivered_per_second: f64,
}

/// Deltas at a pace that a fast model has.
const PACED: usize = 3000;
const PACE: Duration = Duration::from_millis(1);
/// Deltas as fast as they are read.
const FLOOD: usize = 500_000;

pub fn measure() -> Figures {
    let paced = run(PACED, Some(PACE), Duration::ZERO);
    let mut latencies: Vec<f64> = paced
        .arrived
        .iter()
        .map(|(index, at)| at.duration_since(paced.sent[*index]).as_secs_f64() * 1e6)
        .collect();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let flood = run(FLOOD, None, Duration::from_millis(100));
    let quick = run(FLOOD, None, Duration::ZERO);
    Figures {
        p50: at(0.5),
        p99: at(0.99),
        read_per_second: FLOOD as f64 / flood.read.as_secs_f64(),
        delivered_per_second: FLOOD as f64 / quick.delivered.as_secs_f64(),
    }
}

struct Run {
    /// When each delta was sent, when there is a pace.
    sent: Vec<Instant>,
    /// The index of the first delta of each token event, and when it came.
    arrived: Vec<(usize, Instant)>,
    /// From the first delta to the last that was taken off the model's hands.
    read: Duration,
    /// From the first delta to the end of the task's events.
    delivered: Duration,
}

fn run(count: usize, pace: Option<Duration>, delay: Duration) -> Run {
    let model = TcpListener::bind("127.0.0.1:0").expect("a port");
    let callback = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("an address"));
    let (model_url, callback_url) = (url(&model), url(&callback));
    let speaking = thread::spawn(move || speak(&model, count, pace));
    let (sender, requests) = channel();
    thread::spawn(move || {
        for connection in callback.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                let _ = take(connection, &sender, delay);
            });
        }
    });
    let workspace = tempfile::tempdir().expect("a folder");
    let mut runner = start(TASK, &model_url, &callback_url, workspace.path());
    let (sent, begun, read) = speaking.join().expect("the model");
    assert!(runner.wait().expect("our own child").success(), "the task succeeds");
    let (arrived, tokens, last) = events(&requests);
    assert_eq!(tokens, count, "every token arrived");
    Run {
        sent,
        arrived,
        read,
        delivered: last - begun,
    }
}

/// The model's side of one turn: when each delta was sent, when the first was, and how long all took to be read.
fn speak(listener: &TcpListener, count: usize, pace: Option<Duration>) -> (Vec<Instant>, Instant, Duration) {
    let (mut connection, _) = listener.accept().expect("the runner asks");
    connection.set_nodelay(true).expect("an option");
    let mut reader = BufReader::new(connection.try_clone().expect("a descriptor"));
    read_request(&mut reader).expect("a request");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
        event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\
        \"role\":\"assistant\",\"model\":\"claude-sonnet-5-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
        \"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n\
        event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
        \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let tail = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\
        \"stop_sequence\":null},\"usage\":{\"output_tokens\":9}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
        \"delta\":{\"type\":\"text_delta\",\"text\":\"t\"}}\n\n";
    connection.write_all(head.as_bytes()).expect("the runner reads");
    let begun = Instant::now();
    let mut sent = Vec::new();
    match pace {
        Some(pace) => {
            for _ in 0..count {
                thread::sleep(pace);
                sent.push(Instant::now());
                connection.write_all(delta.as_bytes()).expect("the runner reads");
            }
        }
        None => {
            const AT_ONCE: usize = 500;
            let piece = delta.repeat(AT_ONCE);
            for _ in 0..count / AT_ONCE {
                connection.write_all(piece.as_bytes()).expect("the runner reads");
            }
        }
    }
    connection.write_all(tail.as_bytes()).expect("the runner reads");
    (sent, begun, begun.elapsed())
}

pub(super) fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    while line.trim() != "" {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
        reader.read_line(&mut line)?;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(body))
}

/// The callback's side of one connection.
pub(super) fn take(
    connection: TcpStream,
    requests: &Sender<(Instant, Vec<u8>)>,
    delay: Duration,
) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    while let Some(body) = read_request(&mut reader)? {
        let _ = requests.send((Instant::now(), body));
        thread::sleep(delay);
        writer.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}",
        )?;
    }
    Ok(())
}

/// The token events with their times, how many tokens they had together, and when the last event came.
fn events(requests: &Receiver<(Instant, Vec<u8>)>) -> (Vec<(usize, Instant)>, usize, Instant) {
    let mut arrived = Vec::new();
    let mut tokens = 0;
    let mut last = Instant::now();
    while let Ok((at, body)) = requests.try_recv() {
        last = at;
        let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        if event["type"] == "token" {
            let index = event["token_index"].as_u64().expect("an index");
            arrived.push((usize::try_from(index).expect("small"), at));
            tokens += event["text"].as_str().expect("a text").len();
        }
    }
    (arrived, tokens, last)
}
