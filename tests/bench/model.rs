//! The model's side: how fast a stream is read, how soon a call is made once the model has written it, and what a task
//! of 500 turns with 200 MB of results takes.
//!
//! The server is a plain thread and sockets: it must not be slower than what it measures.

use std::fs;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use plue_messages::decoder::TurnDecoder;
use serde_json::{Value, json};
use support::processes::memory;

use crate::delivery::{read_request, take};
use crate::process::start;

/// What was measured.
pub struct Figures {
    /// A stream of short deltas, in bytes a second.
    pub decoded_per_second: f64,
    /// From the last byte of a turn to the request that tells of its call with its arguments, p50, in microseconds.
    pub to_the_call: f64,
    pub long: LongTask,
}

/// A task of many turns.
pub struct LongTask {
    pub turns: u64,
    pub results_bytes: u64,
    pub sent_bytes: u64,
    pub summaries: u64,
    /// The most memory that the runner held.
    pub peak_bytes: u64,
    pub took: Duration,
    /// US dollars for prompts: by the marks that the requests had, with the one at the end alone, and without any.
    pub marked: f64,
    pub end_alone: f64,
    pub unmarked: f64,
}

/// How often a call is timed.
const CALLS: u64 = 200;
/// The long task: as many calls in each turn, and so many bytes in each result.
const TURNS: u64 = 500;
const CALLS_A_TURN: usize = 12;
const RESULT: usize = 38_000;

/// US dollars for a million tokens of the prompt: as they are, read from the cache, written into it.
const PRICES: (f64, f64, f64) = (2.0, 0.1, 2.5);
const CACHE_MARK: &[u8] = br#","cache_control":{"type":"ephemeral"}"#;
/// How far back from a mark the API looks for what it has, in blocks.
const LOOKBACK: usize = 20;

pub fn measure() -> Figures {
    Figures {
        decoded_per_second: decode(),
        to_the_call: to_the_call(),
        long: long_task(),
    }
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("a type"))
}

fn begin(usage: &Value) -> String {
    event(
        &json!({ "type": "message_start", "message": { "id": "m", "type": "message", "role": "assistant",
        "model": "claude-sonnet-5-5", "content": [], "stop_reason": null, "usage": usage } }),
    )
}

fn end(stop_reason: &str) -> String {
    let stop = json!({ "type": "message_delta", "delta": { "stop_reason": stop_reason, "stop_sequence": null },
        "usage": { "output_tokens": 100 } });
    event(&stop) + &event(&json!({ "type": "message_stop" }))
}

/// A block that comes in these deltas.
fn block(index: usize, start: &Value, deltas: &[Value]) -> String {
    let mut text = event(&json!({ "type": "content_block_start", "index": index, "content_block": start }));
    for delta in deltas {
        text += &event(&json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    }
    text + &event(&json!({ "type": "content_block_stop", "index": index }))
}

fn call(index: usize, id: &str, name: &str, input: &Value) -> String {
    let start = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
    block(
        index,
        &start,
        &[json!({ "type": "input_json_delta", "partial_json": input.to_string() })],
    )
}

fn decode() -> f64 {
    let deltas = vec![json!({ "type": "text_delta", "text": "word é " }); 200_000];
    let text = block(0, &json!({ "type": "text", "text": "" }), &deltas);
    let stream = begin(&json!({ "input_tokens": 1, "output_tokens": 1 })) + &text + &end("end_turn");
    let stream = bytes::Bytes::from(stream);
    let rounds = (0..7).map(|_| {
        let mut decoder = TurnDecoder::new();
        let started = Instant::now();
        let mut at = 0;
        while at < stream.len() {
            let chunk = stream.slice(at..stream.len().min(at + (16 << 10)));
            at += chunk.len();
            decoder.push(chunk).expect("a good stream");
            while decoder.next_event().expect("a good stream").is_some() {}
        }
        stream.len() as f64 / started.elapsed().as_secs_f64()
    });
    rounds.fold(0.0, f64::max)
}

/// A Messages API that gives what `answer` makes of each request, and a callback whose requests are given with their
/// times.
fn servers(
    answer: impl FnMut(&[u8]) -> String + Send + 'static,
) -> (String, String, Receiver<Instant>, Receiver<Event>) {
    let model = TcpListener::bind("127.0.0.1:0").expect("a port");
    let callback = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("an address"));
    let urls = (url(&model), url(&callback));
    let (said, told) = channel();
    thread::spawn(move || {
        let mut answer = answer;
        for connection in model.incoming().flatten() {
            let _ = speak(connection, &mut answer, &said);
        }
    });
    let (sender, events) = channel();
    thread::spawn(move || {
        for connection in callback.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                let _ = take(connection, &sender, Duration::ZERO);
            });
        }
    });
    (urls.0, urls.1, told, events)
}

/// A request of the callback: when it came, and what was in it.
pub type Event = (Instant, Vec<u8>);

/// Answers the requests of one connection, and says when the last byte of each answer was written.
fn speak(
    mut connection: TcpStream,
    answer: &mut impl FnMut(&[u8]) -> String,
    said: &std::sync::mpsc::Sender<Instant>,
) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection.try_clone()?);
    while let Some(body) = read_request(&mut reader)? {
        let body = answer(&body);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: ";
        connection.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())?;
        let _ = said.send(Instant::now());
    }
    Ok(())
}

fn to_the_call() -> f64 {
    let mut turn = 0;
    let usage = json!({ "input_tokens": 1, "output_tokens": 1 });
    let (model, callback, told, events) = servers(move |_| {
        turn += 1;
        match turn <= CALLS {
            true => {
                begin(&usage)
                    + &call(
                        0,
                        &format!("t{turn}"),
                        "read_file",
                        &json!({ "path": format!("f{turn}") }),
                    )
                    + &end("tool_use")
            }
            false => begin(&usage) + &block(0, &json!({ "type": "text", "text": "Done." }), &[]) + &end("end_turn"),
        }
    });
    let workspace = tempfile::tempdir().expect("a folder");
    // Another one each time: the same again and again would be a circle.
    for n in 1..=CALLS {
        fs::write(workspace.path().join(format!("f{n}")), n.to_string()).expect("a file");
    }
    let task = json!({ "messages": [{ "role": "user", "content": "Go." }], "model": "bench-model",
        "tools": ["read_file"], "max_turns": 1000 });
    let mut runner = start(&task.to_string(), &model, &callback, workspace.path());
    assert!(runner.wait().expect("our own child").success(), "the task succeeds");
    let said: Vec<Instant> = told.try_iter().collect();
    let mut told = events.try_iter().filter_map(|(at, body)| {
        let event: Value = serde_json::from_slice(&body).ok()?;
        event.get("args").is_some().then_some(at)
    });
    let mut waits: Vec<f64> = said
        .iter()
        .take(CALLS as usize)
        .filter_map(|said| Some(told.next()?.saturating_duration_since(*said).as_secs_f64() * 1e6))
        .collect();
    waits.sort_by(f64::total_cmp);
    assert_eq!(waits.len(), CALLS as usize);
    waits[waits.len() / 2]
}

/// What the model's side of the long task counts.
#[derive(Default)]
struct Counted {
    sent: u64,
    results: u64,
    summaries: u64,
    turns: u64,
    /// Of the request before: its bytes, and how many blocks it had.
    before: (Vec<u8>, usize),
    /// Tokens of prompts: all, and by each rule those that were read and those that were written.
    all: u64,
    marked: (u64, u64),
    end_alone: (u64, u64),
}

impl Counted {
    /// Takes a request; gives the usage that the API would tell of it.
    fn take(&mut self, body: &[u8], request: &Value) -> Value {
        self.sent += body.len() as u64;
        let tokens = |bytes: usize| bytes as u64 / 4;
        let messages = request["messages"].as_array().expect("messages");
        let blocks = |message: &Value| message["content"].as_array().map_or(1, Vec::len);
        let count: usize = messages.iter().map(blocks).sum();
        // Where the marks are, as the number of blocks up to each.
        let mut marks = vec![count];
        let mut at = 0;
        for message in messages {
            let content = message["content"]
                .as_array()
                .cloned()
                .unwrap_or_else(|| vec![Value::Null]);
            for block in content {
                at += 1;
                if block.get("cache_control").is_some() {
                    marks.push(at);
                }
            }
        }
        let head = body
            .windows(12)
            .position(|window| window == br#""messages":["#)
            .unwrap_or(0);
        let (before, ended) = &self.before;
        let same = before
            .iter()
            .zip(body)
            .take_while(|(before, now)| before == now)
            .count();
        let goes_on = same > head && same + 200 > before.len();
        let is_near = |mark: &usize| goes_on && mark.checked_sub(*ended).is_some_and(|distance| distance <= LOOKBACK);
        let read = |hit: bool| if hit { before.len() } else { head.min(same) };
        let whole = tokens(body.len());
        let count_in = |sum: &mut (u64, u64), hit: bool| {
            let read = tokens(read(hit));
            sum.0 += read;
            sum.1 += whole.saturating_sub(read);
            read
        };
        let read_now = count_in(&mut self.marked, marks.iter().any(is_near));
        count_in(&mut self.end_alone, is_near(&count));
        self.all += whole;
        self.before = (body.to_vec(), count);
        json!({ "input_tokens": 0, "output_tokens": 1, "cache_read_input_tokens": read_now,
            "cache_creation_input_tokens": whole.saturating_sub(read_now) })
    }

    fn answer(&mut self, body: &[u8]) -> String {
        let request: Value = serde_json::from_slice(body).expect("JSON");
        // A mark is no part of what is cached.
        let mut unmarked = body.to_vec();
        for at in memchr::memmem::find_iter(body, CACHE_MARK) {
            unmarked[at..at + CACHE_MARK.len()].fill(b' ');
        }
        let usage = self.take(&unmarked, &request);
        if request.get("compaction").is_some() {
            self.summaries += 1;
            let summary = json!({ "type": "compaction_delta", "content": "It goes on.", "signature": "c2ln" });
            return begin(&usage)
                + &block(0, &json!({ "type": "compaction", "content": null }), &[summary])
                + &end("compaction");
        }
        let results = request["messages"].as_array().and_then(|messages| messages.last());
        let results = results
            .and_then(|last| last["content"].as_array())
            .into_iter()
            .flatten();
        self.results += results
            .filter_map(|result| result["content"].as_str())
            .map(|text| text.len() as u64)
            .sum::<u64>();
        self.turns += 1;
        if self.turns > TURNS {
            return begin(&usage) + &block(0, &json!({ "type": "text", "text": "Done." }), &[]) + &end("end_turn");
        }
        let turn = self.turns;
        let calls = (0..CALLS_A_TURN).map(|n| {
            call(
                n,
                &format!("t{turn}_{n}"),
                "read_file",
                &json!({ "path": format!("f{}", (turn as usize + n) % 40) }),
            )
        });
        begin(&usage) + &calls.collect::<String>() + &end("tool_use")
    }
}

fn long_task() -> LongTask {
    let counted = std::sync::Arc::new(std::sync::Mutex::new(Counted::default()));
    let counting = std::sync::Arc::clone(&counted);
    let (model, callback, _told, _events) = servers(move |body| counting.lock().expect("nobody panics").answer(body));
    let workspace = tempfile::tempdir().expect("a folder");
    for n in 0..40 {
        let line = format!("{n} a line of a file that is read again and again\n");
        fs::write(workspace.path().join(format!("f{n}")), line.repeat(RESULT / line.len())).expect("a file");
    }
    let task = json!({ "messages": [{ "role": "user", "content": "Go." }], "model": "bench-model",
        "system_prompt": "Be thorough.", "tools": ["read_file"], "max_turns": 1000 });
    let started = Instant::now();
    let mut runner = start(&task.to_string(), &model, &callback, workspace.path());
    let mut peak_bytes = 0;
    let status = loop {
        peak_bytes = memory(runner.id(), "VmHWM").unwrap_or(0).max(peak_bytes);
        if let Some(status) = runner.try_wait().expect("our own child") {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "the task succeeds");
    let counted = counted.lock().expect("nobody panics");
    let (plain, read, written) = PRICES;
    let dollars = |(from_cache, into_cache): (u64, u64)| (from_cache as f64 * read + into_cache as f64 * written) / 1e6;
    LongTask {
        turns: counted.turns,
        results_bytes: counted.results,
        sent_bytes: counted.sent,
        summaries: counted.summaries,
        peak_bytes,
        took: started.elapsed(),
        marked: dollars(counted.marked),
        end_alone: dollars(counted.end_alone),
        unmarked: counted.all as f64 * plain / 1e6,
    }
}
