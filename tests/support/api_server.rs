//! The double of the API server: it takes the runner's events as the real one does, refuses what would crash the real
//! one, and writes down everything that breaks the protocol.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::event_rules::EventRules;
use crate::loopback::{Loopback, Wire};
use crate::schema;

/// How long [`ApiServer::wait_for`] waits. Far more than any test needs, so that a slow machine does not fail one.
const WAIT: Duration = Duration::from_secs(30);

/// One request that reached the callback.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub event: Value,
    /// The body, byte for byte: a retry must repeat it.
    pub body: Bytes,
    /// The `Idempotency-Key`.
    pub key: String,
    pub headers: HeaderMap,
    /// Which attempt at this event it is, from 1.
    pub number: u32,
    pub at: Instant,
    /// What was answered; 0 when the connection was cut.
    pub status: u16,
}

/// What the double answers to an event that is well formed.
#[derive(Clone, Debug)]
pub enum Answer {
    /// `200 {"ok":true}`: the event is delivered.
    Ok,
    /// `200` with this body.
    Say(Value),
    /// This status and an empty body. A 2xx delivers too.
    Status(u16),
    /// This status with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// This status, and another place to send the event to.
    Redirect(u16, String),
    /// The connection ends without an answer.
    Cut,
    /// The answer comes so much later.
    Late(Duration, Box<Answer>),
}

type Script = Box<dyn FnMut(&Attempt) -> Answer + Send>;

/// What is set before the server starts.
#[derive(Default)]
pub struct Settings {
    token: Option<String>,
    request_id: Option<String>,
    script: Option<Script>,
}

impl Settings {
    /// Requires `Authorization: Bearer <token>`, and answers 401 without. When it is not set, the header must not come.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Requires `X-Request-ID` with this value.
    pub fn request_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }

    /// Decides the answer to each attempt. Without it every event is answered with [`Answer::Ok`].
    pub fn answering(mut self, script: impl FnMut(&Attempt) -> Answer + Send + 'static) -> Self {
        self.script = Some(Box::new(script));
        self
    }

    pub async fn start(self) -> io::Result<ApiServer> {
        let shared = Arc::new(Shared {
            record: Mutex::default(),
            settings: Mutex::new(self),
            changed: Notify::new(),
        });
        let router = Router::new()
            .route("/internal/tasks/{id}/stream", post(receive))
            .layer(DefaultBodyLimit::max(256 << 20))
            .with_state(Arc::clone(&shared));
        let server = Loopback::serve(router).await?;
        Ok(ApiServer { shared, server })
    }
}

#[derive(Default)]
struct Record {
    attempts: Vec<Attempt>,
    /// For each key: the bytes, how often it came, and whether it was delivered.
    keys: HashMap<String, (Bytes, u32, bool)>,
    delivered: Vec<Value>,
    rules: EventRules,
    violations: Vec<String>,
    looked_at: bool,
    in_flight: u32,
    subscribers: Vec<mpsc::UnboundedSender<Value>>,
}

struct Shared {
    record: Mutex<Record>,
    settings: Mutex<Settings>,
    changed: Notify,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no handler panics while it holds the record")
    }
}

/// The running double. When it is dropped with violations that nobody looked at, the test fails.
pub struct ApiServer {
    shared: Arc<Shared>,
    server: Loopback,
}

impl ApiServer {
    /// A server that accepts every event.
    pub async fn start() -> io::Result<Self> {
        Settings::default().start().await
    }

    /// For a server with a token, a request id or faults.
    pub fn with() -> Settings {
        Settings::default()
    }

    /// The `CALLBACK_URL`.
    pub fn url(&self) -> String {
        self.server.url("/internal/tasks/7/stream")
    }

    /// From now on, decides the answer to each attempt.
    pub fn answer(&self, script: impl FnMut(&Attempt) -> Answer + Send + 'static) {
        self.shared.settings.lock().expect("no script panics").script = Some(Box::new(script));
    }

    /// The events that were delivered, in order.
    pub fn events(&self) -> Vec<Value> {
        self.shared.record().delivered.clone()
    }

    /// The delivered events of one type.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events()
            .into_iter()
            .filter(|event| event["type"] == kind)
            .collect()
    }

    /// Every request that came, delivered or not.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.shared.record().attempts.clone()
    }

    /// The terminal event, when it was delivered.
    pub fn terminal(&self) -> Option<Value> {
        self.events()
            .into_iter()
            .find(|event| event["type"] == "done" || event["type"] == "error")
    }

    /// The events from now on, as they are delivered. Not bounded: a viewer must not slow the runner down.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.record().subscribers.push(sender);
        receiver
    }

    /// Waits until an event that `wanted` accepts was delivered.
    pub async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(event) = self.shared.record().delivered.iter().find(|event| wanted(event)) {
                    return event.clone();
                }
                changed.await;
            }
        };
        match tokio::time::timeout(WAIT, search).await {
            Ok(event) => event,
            Err(_) => panic!(
                "the event did not come within {WAIT:?}; these did: {:#?}",
                self.events()
            ),
        }
    }

    /// What broke the protocol so far.
    pub fn violations(&self) -> Vec<String> {
        let mut record = self.shared.record();
        record.looked_at = true;
        record.violations.clone()
    }

    /// What broke the protocol, now that the runner has ended: a missing terminal event too.
    pub fn final_violations(&self) -> Vec<String> {
        let mut violations = self.violations();
        violations.extend(self.shared.record().rules.finish());
        violations
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let record = self.shared.record();
        if !record.looked_at && !record.violations.is_empty() {
            panic!("the runner broke the protocol:\n  {}", record.violations.join("\n  "));
        }
    }
}

/// Counts a request as in flight for as long as it lives: also when the client gives up.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut record = shared.record();
        record.in_flight += 1;
        if record.in_flight > 1 {
            let count = record.in_flight;
            record.violations.push(format!("{count} requests in flight at once"));
        }
        drop(record);
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.record().in_flight -= 1;
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _in_flight = InFlight::new(&shared);
    let mut answer = judge(&shared, headers, body);
    loop {
        match answer {
            Answer::Ok => return reply(200, None, Some(json!({ "ok": true }))),
            Answer::Say(body) => return reply(200, None, Some(body)),
            Answer::Status(status) => return reply(status, None, None),
            Answer::Redirect(status, to) => {
                let mut response = reply(status, None, None);
                let to = header::HeaderValue::try_from(to).expect("a header value");
                response.headers_mut().insert(header::LOCATION, to);
                return response;
            }
            Answer::RetryAfter(status, seconds) => return reply(status, Some(seconds), None),
            Answer::Cut => {
                wire.cut();
                return reply(500, None, None);
            }
            Answer::Late(by, then) => {
                tokio::time::sleep(by).await;
                answer = *then;
            }
        }
    }
}

/// Checks one request, writes it down, and decides the answer.
fn judge(shared: &Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let mut settings = shared.settings.lock().expect("no script panics");
    let mut guard = shared.record();
    let record = &mut *guard;

    let authorization = text_of(&headers, "authorization");
    let expected = settings.token.as_ref().map(|token| format!("Bearer {token}"));
    if authorization != expected {
        if expected.is_none() {
            record
                .violations
                .push("an Authorization header came, and no token was given".to_owned());
        }
        return Answer::Status(401);
    }

    let event: Value = match serde_json::from_slice(&body) {
        Ok(event) => event,
        Err(error) => {
            record.violations.push(format!(
                "the body is no JSON: {error}: {}",
                String::from_utf8_lossy(&body)
            ));
            return Answer::Status(400);
        }
    };
    let mut wrong: Vec<String> = schema::event_errors(&event);
    let malformed = !wrong.is_empty();
    let key = text_of(&headers, "idempotency-key").unwrap_or_default();
    wrong.extend(header_errors(&headers, &key, &event, settings.request_id.as_deref()));

    let lost = record.keys.values().filter(|(_, _, delivered)| !delivered).count() as u64;
    let (bytes, number, delivered) = record
        .keys
        .entry(key.clone())
        .or_insert_with(|| (body.clone(), 0, false));
    *number += 1;
    if *number == 1 {
        wrong.extend(record.rules.accept(&event, lost));
    } else if *bytes != body {
        wrong.push(format!("attempt {number} at {key} differs from the first"));
    } else if *delivered {
        wrong.push(format!("{key} was sent again after it was delivered"));
    }

    record
        .violations
        .extend(wrong.into_iter().map(|wrong| format!("{wrong} [{event}]")));
    let mut attempt = Attempt {
        event,
        body,
        key,
        headers,
        number: *number,
        at: Instant::now(),
        status: 400,
    };
    let answer = match &mut settings.script {
        _ if malformed => Answer::Status(400),
        Some(script) => script(&attempt),
        None => Answer::Ok,
    };
    attempt.status = status_of(&answer);
    if (200..300).contains(&attempt.status) && !*delivered {
        *delivered = true;
        record.delivered.push(attempt.event.clone());
        record
            .subscribers
            .retain(|subscriber| subscriber.send(attempt.event.clone()).is_ok());
    }
    record.attempts.push(attempt);
    drop(guard);
    shared.changed.notify_waiters();
    answer
}

fn header_errors(headers: &HeaderMap, key: &str, event: &Value, request_id: Option<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let content_type = text_of(headers, "content-type").unwrap_or_default();
    if content_type != "application/json" {
        wrong.push(format!("the Content-Type is {content_type:?}"));
    }
    let task_id = event["task_id"]
        .as_str()
        .map_or_else(|| event["task_id"].to_string(), str::to_owned);
    let expected = format!("{task_id}-{}", event["seq"]);
    if key != expected {
        wrong.push(format!("the Idempotency-Key is {key:?}, not {expected:?}"));
    }
    let sent = text_of(headers, "x-request-id");
    if sent.as_deref() != request_id {
        wrong.push(format!("the X-Request-ID is {sent:?}, not {request_id:?}"));
    }
    wrong
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn status_of(answer: &Answer) -> u16 {
    match answer {
        Answer::Ok | Answer::Say(_) => 200,
        Answer::Status(status) | Answer::RetryAfter(status, _) | Answer::Redirect(status, _) => *status,
        Answer::Cut => 0,
        Answer::Late(_, then) => status_of(then),
    }
}

fn reply(status: u16, retry_after: Option<u64>, body: Option<Value>) -> Response {
    let mut response = Response::new(match body {
        Some(body) => Body::from(body.to_string()),
        None => Body::empty(),
    });
    *response.status_mut() = StatusCode::from_u16(status).expect("a status that HTTP knows");
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
