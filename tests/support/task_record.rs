//! What one task has sent to the double, and what of it broke the protocol.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::answer::Answer;
use crate::event_rules::EventRules;
use crate::schema;
use crate::totals::Totals;

/// The `Content-Type` of several events in one request.
pub const BATCH: &str = "application/x-ndjson";

/// One request that reached the callback.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The event; of a batch, the array of its events.
    pub event: Value,
    /// The body, byte for byte: a retry must repeat it.
    pub body: Bytes,
    /// The `Idempotency-Key`.
    pub key: String,
    /// Where it was sent to, with its query.
    pub path: String,
    pub headers: HeaderMap,
    /// Which attempt at this event it is, from 1.
    pub number: u32,
    pub at: Instant,
    /// What was answered; 0 when the connection was cut.
    pub status: u16,
}

/// What is kept of a delivered event when events are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: String,
    pub seq: u64,
    /// Of its JSON, in bytes.
    pub size: usize,
}

/// Decides the answer to each attempt.
pub(crate) type Script = Box<dyn FnMut(&Attempt) -> Answer + Send>;

/// What the record of a task has to know of the settings.
pub(crate) struct Expected<'a> {
    pub(crate) path: &'a str,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) batches: bool,
    pub(crate) conflicts: bool,
    pub(crate) light: bool,
    /// The runner may have been killed before it saw an answer.
    pub(crate) restarts: bool,
    pub(crate) script: Option<&'a mut Script>,
}

/// What came under one key.
struct Sent {
    digest: [u8; 32],
    attempts: u32,
    taken: bool,
    /// The client was told so.
    told: bool,
}

#[derive(Default)]
pub(crate) struct TaskRecord {
    /// The task was handed out at a registration: its events carry this number.
    pub(crate) number: Option<i64>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) delivered: Vec<Value>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) totals: Totals,
    pub(crate) rules: EventRules,
    pub(crate) violations: Vec<String>,
    pub(crate) in_flight: u32,
    pub(crate) subscribers: Vec<mpsc::UnboundedSender<Value>>,
    /// Other runners may have the task too, and this one may have been killed and started again.
    pub(crate) is_one_of_several: bool,
    /// How often the task has begun.
    pub(crate) begun: u32,
    keys: HashMap<String, Sent>,
    /// Keys of bodies that were answered with 413: what comes under them again is smaller.
    pub(crate) too_large: HashSet<String>,
    /// Events that came and were not taken yet.
    pending: u64,
}

impl TaskRecord {
    /// Checks one request, writes it down, and decides the answer.
    pub(crate) fn judge(&mut self, headers: HeaderMap, body: Bytes, expected: Expected<'_>) -> Answer {
        let is_batch = text_of(&headers, "content-type").as_deref() == Some(BATCH);
        if is_batch && !expected.batches {
            self.violations.push("a batch, and this server takes none".to_owned());
            return Answer::Status(415);
        }
        let events = match parse(&body, is_batch) {
            Ok(events) => events,
            Err(wrong) => {
                self.violations.push(wrong);
                return Answer::Status(400);
            }
        };
        let mut wrong: Vec<String> = match expected.light {
            true => Vec::new(),
            false => events.iter().flat_map(schema::event_errors).collect(),
        };
        let malformed = !wrong.is_empty();
        let key = text_of(&headers, "idempotency-key").unwrap_or_default();
        wrong.extend(header_errors(&headers, &key, &events, is_batch, expected.request_id));
        if let Some(number) = self.number
            && let Some(event) = events.iter().find(|event| event["task_id"] != json!(number))
        {
            wrong.push(format!("task_id {} in an event of task {number}", event["task_id"]));
        }

        if self.is_one_of_several && begins_anew(&events, &body, &self.attempts) {
            let violations = std::mem::take(&mut self.violations);
            *self = Self {
                number: self.number,
                violations,
                is_one_of_several: true,
                begun: self.begun,
                ..Self::default()
            };
        }
        self.rules.may_go_on_after_a_kill = self.is_one_of_several;
        let lost = self.pending;
        let digest: [u8; 32] = Sha256::digest(&body).into();
        let sent = self.keys.entry(key.clone()).or_insert(Sent {
            digest,
            attempts: 0,
            taken: false,
            told: false,
        });
        sent.attempts += 1;
        let mut repeats = false;
        if sent.attempts == 1 {
            self.begun += u32::from(events.iter().any(|event| event["seq"] == 1));
            self.pending += events.len() as u64;
            wrong.extend(events.iter().flat_map(|event| self.rules.accept(event, lost)));
        } else if sent.digest != digest && self.too_large.remove(&key) && !sent.taken {
            sent.digest = digest;
        } else if sent.digest != digest {
            wrong.push(format!("attempt {} at {key} differs from the first", sent.attempts));
        } else if sent.told && !self.is_one_of_several && !expected.restarts {
            wrong.push(format!("{key} was sent again after it was delivered"));
        } else {
            repeats = sent.taken;
        }

        let event = match events.as_slice() {
            [event] if !is_batch => event.clone(),
            events => Value::Array(events.to_vec()),
        };
        let shown = if expected.light && wrong.is_empty() {
            String::new()
        } else {
            event.to_string()
        };
        let wrong = wrong.into_iter().map(|wrong| format!("{wrong} [{shown}]"));
        self.violations.extend(wrong);
        let mut attempt = Attempt {
            event,
            body,
            key,
            path: expected.path.to_owned(),
            headers,
            number: sent.attempts,
            at: Instant::now(),
            status: 400,
        };
        let answer = match expected.script {
            _ if malformed => Answer::Status(400),
            _ if repeats && expected.conflicts => Answer::Status(409),
            // It is known already: that is what the key is for.
            _ if repeats && !self.is_one_of_several => Answer::Ok,
            Some(script) => script(&attempt),
            None => Answer::Ok,
        };
        attempt.status = answer.status();
        let taken_now = answer.takes() && !sent.taken;
        sent.taken |= answer.takes();
        sent.told |= answer.tells();
        if taken_now {
            self.pending -= events.len() as u64;
            for event in events {
                self.deliver(event, expected.light);
            }
        }
        if !expected.light {
            self.attempts.push(attempt);
        }
        answer
    }

    /// The ending that was delivered.
    pub(crate) fn terminal(&self) -> Option<&Value> {
        self.delivered
            .iter()
            .find(|event| event["type"] == "done" || event["type"] == "error")
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.terminal().is_some()
    }

    fn deliver(&mut self, event: Value, light: bool) {
        self.totals.add(&event);
        self.subscribers
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
        if !light {
            self.delivered.push(event);
            return;
        }
        self.seen.push(Seen {
            kind: event["type"].as_str().unwrap_or_default().to_owned(),
            seq: event["seq"].as_u64().unwrap_or_default(),
            size: event.to_string().len(),
        });
        if event["type"] == "done" || event["type"] == "error" {
            self.delivered.push(event);
        }
    }
}

/// Whether a runner begins a task that it had before: its first event again, with other bytes.
fn begins_anew(events: &[Value], body: &Bytes, before: &[Attempt]) -> bool {
    let first = events.first().is_some_and(|event| event["seq"] == 1);
    first && before.first().is_some_and(|before| before.body != *body)
}

/// The events of a body.
fn parse(body: &Bytes, is_batch: bool) -> Result<Vec<Value>, String> {
    let event = |bytes: &[u8]| {
        serde_json::from_slice::<Value>(bytes)
            .map_err(|error| format!("the body is no JSON: {error}: {}", String::from_utf8_lossy(bytes)))
    };
    if !is_batch {
        return Ok(vec![event(body)?]);
    }
    let lines = body.strip_suffix(b"\n").unwrap_or(body);
    lines.split(|&byte| byte == b'\n').map(event).collect()
}

fn header_errors(
    headers: &HeaderMap,
    key: &str,
    events: &[Value],
    is_batch: bool,
    request_id: Option<&str>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let content_type = text_of(headers, "content-type").unwrap_or_default();
    if content_type != "application/json" && !is_batch {
        wrong.push(format!("the Content-Type is {content_type:?}"));
    }
    if let (Some(first), Some(last)) = (events.first(), events.last()) {
        let task_id = first["task_id"]
            .as_str()
            .map_or_else(|| first["task_id"].to_string(), str::to_owned);
        let expected = match is_batch {
            true => format!("{task_id}-{}-{}", first["seq"], last["seq"]),
            false => format!("{task_id}-{}", first["seq"]),
        };
        if key != expected {
            wrong.push(format!("the Idempotency-Key is {key:?}, not {expected:?}"));
        }
    }
    let sent = text_of(headers, "x-request-id");
    if sent.as_deref() != request_id {
        wrong.push(format!("the X-Request-ID is {sent:?}, not {request_id:?}"));
    }
    wrong
}

pub(crate) fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
