//! The double of the Messages API: real HTTP, real event streams, the real refusals, and answers from a script.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};

use crate::loopback::{ANYWHERE, Loopback, Wire};
use checks::Refusal;
use history::History;
pub use request::{Request, ToolResult};
pub use turn::{Block, Ending, Reply, Turn};

pub mod checks;
mod history;
pub mod models;
mod request;
mod sse;
mod turn;

/// The key that the double takes. Long and odd enough that it is found wherever it leaks.
pub const KEY: &str = "sk-ant-test-0123456789abcdef-plue";

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

struct Inner {
    key: String,
    script: Script,
    history: History,
    requests: Vec<Request>,
    /// Requests that were refused by a check, or found wrong by the script.
    refusals: Vec<String>,
    looked_at: bool,
}

/// The running double. When it is dropped with refusals that nobody looked at, the test fails.
pub struct Claude {
    inner: Arc<Mutex<Inner>>,
    server: Loopback,
}

impl Claude {
    /// A model that gives these answers, one for each request. A request after the last one is refused.
    pub async fn script(replies: impl IntoIterator<Item = impl Into<Reply>>) -> io::Result<Self> {
        let mut replies: VecDeque<Reply> = replies.into_iter().map(Into::into).collect();
        let count = replies.len();
        Self::answering(move |_| {
            replies
                .pop_front()
                .unwrap_or_else(|| Reply::Wrong(format!("the script has {count} answers only")))
        })
        .await
    }

    /// A model whose answers are computed from what it is sent.
    pub async fn answering(script: impl FnMut(&Request) -> Reply + Send + 'static) -> io::Result<Self> {
        Self::with_key(KEY, script).await
    }

    /// A model that takes another key than [`KEY`]: one that nobody but the runner can know.
    pub async fn with_key(key: &str, script: impl FnMut(&Request) -> Reply + Send + 'static) -> io::Result<Self> {
        Self::at(ANYWHERE, key, script).await
    }

    /// For runners whose settings name an address.
    pub async fn at(
        at: SocketAddr,
        key: &str,
        script: impl FnMut(&Request) -> Reply + Send + 'static,
    ) -> io::Result<Self> {
        let inner = Arc::new(Mutex::new(Inner {
            key: key.to_owned(),
            script: Box::new(script),
            history: History::default(),
            requests: Vec::new(),
            refusals: Vec::new(),
            looked_at: false,
        }));
        let router = Router::new()
            .route("/v1/messages", post(messages))
            // The API's own bound on a request.
            .layer(DefaultBodyLimit::max(32 << 20))
            .with_state(Arc::clone(&inner));
        let server = Loopback::serve_at(router, at).await?;
        Ok(Self { inner, server })
    }

    /// The `ANTHROPIC_BASE_URL`.
    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on this key is taken, and the one before no more.
    pub fn change_key(&self, key: &str) {
        lock(&self.inner).key = key.to_owned();
    }

    /// The next request begins a conversation: that of the next task.
    pub fn begin_anew(&self) {
        lock(&self.inner).history = History::default();
    }

    /// The requests that passed the checks, in order.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.inner).requests.clone()
    }

    /// Why requests were refused, in order.
    pub fn refusals(&self) -> Vec<String> {
        let mut inner = lock(&self.inner);
        inner.looked_at = true;
        inner.refusals.clone()
    }
}

impl Drop for Claude {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let inner = lock(&self.inner);
        if !inner.looked_at && !inner.refusals.is_empty() {
            panic!(
                "the Messages API refused what the runner sent:\n  {}",
                inner.refusals.join("\n  ")
            );
        }
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().expect("no script panics")
}

async fn messages(
    State(inner): State<Arc<Mutex<Inner>>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inner = lock(&inner);
    let request_id = format!("req_double_{}", inner.requests.len() + inner.refusals.len() + 1);
    let body = match check(&inner, &headers, &body) {
        Ok(body) => body,
        Err(refusal) => return refuse(&mut inner, refusal, &request_id),
    };
    let request = Request {
        headers,
        body,
        index: inner.requests.len(),
        at: Instant::now(),
    };
    let reply = (inner.script)(&request);
    let model = request.body["model"].as_str().unwrap_or_default().to_owned();
    let turn = match &reply {
        Reply::Turn(turn) => Some(&**turn),
        _ => None,
    };
    let refused = matches!(&reply, Reply::Error { status: 400, .. });
    inner.history.commit(request.body.clone(), turn, refused);
    inner.requests.push(request);
    match reply {
        Reply::Turn(turn) => {
            let message_id = format!("msg_double_{}", inner.requests.len());
            respond(
                200,
                "text/event-stream",
                &request_id,
                sse::body(&turn, &model, &message_id),
            )
        }
        Reply::Error {
            status,
            kind,
            message,
            headers,
        } => {
            let mut response = error(status, kind, &message, &request_id);
            for (name, value) in headers {
                let value = HeaderValue::from_str(&value).expect("a header value");
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
            response
        }
        Reply::Raw {
            status,
            content_type,
            body,
        } => respond(status, content_type, &request_id, body.into()),
        Reply::Stream {
            head,
            piece,
            times,
            tail,
        } => {
            let body = sse::bytes(head, piece, times, tail);
            respond(200, "text/event-stream", &request_id, body)
        }
        Reply::Slow { head, piece, apart } => {
            respond(200, "text/event-stream", &request_id, sse::slow(head, piece, apart))
        }
        Reply::Cut => {
            wire.cut();
            respond(500, "text/plain", &request_id, Body::empty())
        }
        Reply::Wrong(why) => refuse(&mut inner, Refusal::bad(why), &request_id),
    }
}

fn check(inner: &Inner, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    checks::headers(headers, &inner.key)?;
    let body: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("The body is not valid JSON: {error}")))?;
    checks::body(&body, inner.history.is_paused())?;
    checks::beta(headers, &body)?;
    inner.history.check(&body)?;
    Ok(body)
}

fn refuse(inner: &mut Inner, refusal: Refusal, request_id: &str) -> Response {
    inner
        .refusals
        .push(format!("{} {}: {}", refusal.status, refusal.kind, refusal.message));
    error(refusal.status, refusal.kind, &refusal.message, request_id)
}

fn error(status: u16, kind: &str, message: &str, request_id: &str) -> Response {
    let body = json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": request_id });
    respond(status, "application/json", request_id, body.to_string().into())
}

fn respond(status: u16, content_type: &'static str, request_id: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status that HTTP knows");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("request-id", HeaderValue::from_str(request_id).expect("a header value"));
    response
}
